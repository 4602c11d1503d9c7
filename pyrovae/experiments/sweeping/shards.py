"""The shards of a measurement as jobs, which run where the trainings of a sweep do."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.experiments.sharding import (
    Measurement,
    check_shard,
    file_name_of,
    is_measured,
    measure_shard,
    most_bytes,
    refuse_other_shards,
)
from pyrovae.experiments.sweeping.backends import run_all
from pyrovae.experiments.sweeping.jobs import Requeued, reason_of

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.run import Run


@dataclass(frozen=True)
class ShardJob(Requeued):
    """Measure a shard; called again it leaves the file alone.

    Args:
        run_folder: the folder of the run.
        measurement: the measurement.
        shard: the number of the shard, and the number of shards.
        at_most: the most bytes of its file.
        dataset: the name or path of another dataset than the run's own, or its new path.
        threads: of this process.
        device: where it runs: "cpu", "cuda", ...
        root: where to look for data files first.
        mirror: an address to download from.
    """

    run_folder: Path
    measurement: Measurement
    shard: tuple[int, int]
    at_most: int
    dataset: str | None
    threads: int
    device: str
    root: str | None = None
    mirror: str | None = None

    @property
    def is_done(self) -> bool:
        """True where the file of the shard is there, whole, and of this measurement."""
        path = self.measurement.folder(self.run_folder) / file_name_of(self.shard)
        return is_measured(path, self.measurement, self.at_most)

    def __call__(self) -> str:
        """Return why it failed, in one line, or an empty text; the traceback of a bug is printed where it ran."""
        try:
            if not self.is_done:
                self._run()
        except InputError as error:
            return " ".join(str(error).split())
        except Exception as error:
            traceback.print_exc()
            return reason_of(error)
        return ""

    def _run(self) -> None:
        import torch

        from pyrovae.experiments.run import Run

        torch.set_num_threads(self.threads)
        run = Run.load(self.run_folder)
        dataset = run.dataset(self.dataset, root=self.root, mirror=self.mirror).to(self.device)
        run.vae.to(dataset.test.device)
        quiet: Any = iter if self.measurement.kind == "evaluate" else lambda label, unit: iter
        measure_shard(run, self.measurement.kind, self.shard, self.measurement.settings, dataset, quiet)


def measure_shards(
    run: Run,
    kind: str,
    count: int,
    settings: Mapping[str, int],
    dataset: Dataset,
    *,
    other: str | None = None,
    backend: str = "processes",
    workers: int = 1,
    threads: int = 1,
    root: str | None = None,
    mirror: str | None = None,
    ended: Callable[[str, str], Any] = lambda shard, reason: None,
) -> dict[str, str]:
    """Measure the shards that are not there yet, in other processes; return why shards failed, by name.

    Args:
        run: the run.
        kind: ``evaluate`` or ``bounds``.
        count: the number of shards.
        settings: the settings of the measurement, by flag.
        dataset: the data, on the device where shards are measured.
        other: the name or path of the data where they are not found as the run's own.
        backend: one of ``BACKENDS``.
        workers: shards at a time.
        threads: of each shard; the bits are those of a whole that is measured by as many.
        root: where to look for data files first.
        mirror: an address to download from.
        ended: called with the name of each shard that ends, and the reason of its failure, empty where there was none.

    Raises:
        InputError: for a folder with shards of another measurement, and a backend that is not there.
    """
    check_shard((count, count))
    measurement = Measurement.of(run, kind, settings, dataset)
    refuse_other_shards(run.folder, measurement, count, dataset)
    # Where they are measured, the working directory may be another one.
    other = str(Path(other).resolve()) if other and Path(other).exists() else other
    place = (other, threads, str(dataset.test.device), root and str(Path(root).resolve()), mirror)
    folder, at_most = run.folder.resolve(), most_bytes(dataset)
    jobs = [ShardJob(folder, measurement, (number, count), at_most, *place) for number in range(1, count + 1)]
    left: Any = [job for job in jobs if not job.is_done]
    failures: dict[str, str] = {}

    def note(place: int, reason: str) -> None:
        number, _ = left[place].shard
        if reason:
            failures[f"{number}/{count}"] = reason
        ended(f"{number}/{count}", reason)

    if left:
        run_all(left, backend, workers, folder, note)
    return failures
