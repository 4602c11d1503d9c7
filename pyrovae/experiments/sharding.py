"""Shards of a measurement: parts of the test images, measured apart on any machine, and joined to the same bits as the whole.

In a run folder ``evaluations/NAME.evaluate-shards`` and ``evaluations/test.bounds-shards`` hold one file for each shard that
was measured, such as ``3-of-16.safetensors``: the estimates of its images, and in the header what it is a shard of.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError, in_one_line, visible
from pyrovae.experiments import files
from pyrovae.experiments.bounding import bounded_images, sample_bounds
from pyrovae.experiments.checking import DAMAGE, check_finite, check_value, tensors_in
from pyrovae.experiments.evaluations import FOLDER as EVALUATIONS
from pyrovae.experiments.evaluations import file_name
from pyrovae.experiments.measuring import sample_evaluation

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.evaluation.likelihood import Estimates
    from pyrovae.experiments.folder import RunFolder

MOST_SHARDS = 10_000
# The shard that is all of a measurement.
WHOLE = (1, 1)
# The most bytes of a file for each image.
MOST_OF_AN_IMAGE = 1024
# The settings of a kind, by the flags of its command.
SETTINGS = {"evaluate": ("samples", "seed"), "bounds": ("images", "temperatures", "chains", "samples", "seed")}
NAMES = re.compile(r"[1-9]\d{0,4}-of-[1-9]\d{0,4}\.safetensors")
# What is measured, by the command that does so.
SAMPLERS: Mapping[str, Any] = {"evaluate": sample_evaluation, "bounds": sample_bounds}


def check_shard(shard: tuple[int, int]) -> None:
    """Refuse a shard that is out of range.

    Raises:
        InputError: for such a shard.
    """
    number, count = shard
    if not 1 <= number <= count <= MOST_SHARDS:
        most = min(max(count, 1), MOST_SHARDS)
        raise InputError(f"expected a shard from 1/{most} to {most}/{most}; got {number}/{count}")


@dataclass(frozen=True)
class Measurement:
    """A measurement that shards are parts of: all that decides its figures.

    Args:
        kind: the command, one of ``SAMPLERS``.
        settings: its numbers, by flag.
        dataset: the name of another dataset than the run's own; else empty.
        protocol_hash: the hash of the protocol of the data.
        epochs: the number of epochs that the programs were trained for.
        weights: the checksum of the weights.
        device: the kind of the device, by which the size of a chunk differs.
    """

    kind: str
    settings: Mapping[str, int]
    dataset: str
    protocol_hash: str
    epochs: int
    weights: str
    device: str

    @classmethod
    def of(cls, run: RunFolder, kind: str, settings: Mapping[str, int], dataset: Dataset) -> Measurement:
        """The measurement of the current weights of a run on a dataset."""
        own = dataset.protocol.hash == run.protocol_hash
        facts = (dataset.protocol.hash, len(run.history), run.checksum, dataset.test.device.type)
        return cls(kind, dict(settings), "" if own else dataset.name, *facts)

    def folder(self, run_folder: Path) -> Path:
        """The folder of its shards within a run folder."""
        return folder_of(run_folder, self.kind, self.dataset)

    def command(self, run_folder: Path, shard: tuple[int, int]) -> str:
        """The command that measures a shard."""
        flags = [f"--dataset {self.dataset}"] if self.dataset else []
        flags += [f"--{name} {value}" for name, value in self.settings.items()]
        return f"pyrovae {self.kind} {run_folder} --shard {shard[0]}/{shard[1]} {' '.join(flags)}"

    def differences(self, other: Measurement) -> list[str]:
        """The words for what differs in another measurement."""
        names = [*self.settings, *(name for name in other.settings if name not in self.settings)]
        values = [(name, self.settings.get(name), other.settings.get(name)) for name in names]
        found = [f"{name} {theirs} and not {ours}" for name, ours, theirs in values if ours != theirs]
        words = {
            "kind": "another command",
            "protocol_hash": "other data",
            "weights": "other weights",
            "device": "another kind of device",
        }
        return found + [words[name] for name in words if getattr(self, name) != getattr(other, name)]


def folder_of(run_folder: Path, kind: str, dataset: str) -> Path:
    """The folder of the shards of a kind of measurement within a run folder."""
    return run_folder / EVALUATIONS / f"{file_name(dataset)}.{kind}-shards"


@dataclass(frozen=True, eq=False)
class Part:
    """A shard that was measured, as its file holds it.

    Args:
        measurement: the measurement.
        shard: its number and the number of shards.
        seconds: the time of measuring it.
        estimates: the estimates of its images, by name.
    """

    measurement: Measurement
    shard: tuple[int, int]
    seconds: float
    estimates: Mapping[str, Estimates]

    def save(self, path: Path) -> None:
        """Write it whole.

        Raises:
            InputError: where it cannot be written.
        """
        from safetensors.torch import save
        from torch import Tensor

        values = {f"{name}.{field}": value for name, each in self.estimates.items() for field, value in vars(each).items()}
        tensors = {name: value.cpu().contiguous() for name, value in values.items() if isinstance(value, Tensor)}
        numbers = {name: value for name, value in values.items() if name not in tensors}
        about = {"measurement": asdict(self.measurement), "shard": self.shard, "seconds": self.seconds, "numbers": numbers}
        files.make_folder(path.parent.parent)
        files.make_folder(path.parent)
        files.write_file(path, save(tensors, {"about": json.dumps(about)}))

    @classmethod
    def load(cls, path: Path, at_most: int) -> Part:
        """Read it.

        Raises:
            InputError: for a file that is no shard.
        """
        try:
            for folder in (path.parent, path.parent.parent):
                files.refuse_link(folder)
            content = files.read_file(path, at_most)
            tensors = tensors_in(content)
            header = files.json_in(content[8 : 8 + int.from_bytes(content[:8], "little")])
            return cls._of(path.name, tensors, files.json_in(header["__metadata__"]["about"]))
        except DAMAGE as error:
            raise InputError(
                f"{path}: expected a measured shard; got {in_one_line(error)}: remove it, and measure it again"
            ) from error

    @classmethod
    def _of(cls, name: str, tensors: Mapping[str, Tensor], about: Any) -> Part:
        check_value("shard", about, {"measurement": dict, "shard": list, "seconds": float, "numbers": dict})
        known = {
            "kind": str,
            "settings": dict,
            "dataset": str,
            "protocol_hash": str,
            "epochs": int,
            "weights": str,
            "device": str,
        }
        check_value("measurement", about["measurement"], known)
        measurement = Measurement(**about["measurement"])
        if set(measurement.settings) != set(SETTINGS[measurement.kind]):
            raise ValueError(f"expected the settings {', '.join(SETTINGS[measurement.kind])}")
        if not all(type(each) is int and abs(each) < 2**64 for each in measurement.settings.values()):
            raise ValueError("expected whole numbers as settings")
        check_finite("seconds", about["seconds"])
        number, count = about["shard"]
        check_value("number of the shard", number, int)
        check_value("number of shards", count, int)
        check_shard((number, count))
        if name != file_name_of((number, count)):
            raise ValueError(f"shard {number}/{count} under the name of another")
        return cls(
            measurement, (number, count), about["seconds"], _estimates(measurement.kind, {**about["numbers"], **tensors})
        )


def file_name_of(shard: tuple[int, int]) -> str:
    """The name of the file of a shard."""
    return f"{shard[0]}-of-{shard[1]}.safetensors"


def _estimates(kind: str, values: Mapping[str, Any]) -> dict[str, Estimates]:
    """The estimates of a kind of measurement from their fields, which a file holds.

    Raises:
        Exception: one of ``DAMAGE``, for other fields, and tensors whose shapes do not fit each other.
    """
    from pyrovae.evaluation.annealing import AnnealedLikelihood
    from pyrovae.evaluation.likelihood import Estimates, LogLikelihood

    kinds: dict[str, type[Estimates]] = {"sampled": LogLikelihood}
    if kind == "bounds":
        kinds |= {"annealed": AnnealedLikelihood, "simulated": LogLikelihood}
        kinds |= {"simulated_annealed": AnnealedLikelihood, "simulated_upper": Estimates}
    named: dict[str, dict[str, Any]] = {name: {} for name in kinds}
    for key, value in values.items():
        name, _, field = key.partition(".")
        named[name][field] = value
    found = {name: kinds[name](**fields) for name, fields in named.items()}
    for name, each in found.items():
        for field, value in vars(each).items():
            _check_field(f"{visible(name)}.{field}", value, each.per_image)
    return found


def _check_field(name: str, value: Any, per_image: Tensor) -> None:
    if name.rpartition(".")[2].startswith("num_"):
        check_value(name, value, int)
    elif (
        value.shape[-1:] != per_image.shape
        or value.dim() > 1 + name.endswith("curve_per_image")
        or not value.is_floating_point()
    ):
        raise ValueError(f"expected {name} as a number for each of {len(per_image)} images")


def measure_shard(
    run: RunFolder, kind: str, shard: tuple[int, int], settings: Mapping[str, int], dataset: Dataset, track: Any
) -> Path:
    """Measure a shard and write its file, whose path is returned; one that is there already is left alone.

    Args:
        run: the run, whose programs are on the device of the data.
        kind: one of ``SAMPLERS``.
        shard: the number of the shard, from one, and the number of shards.
        settings: the settings of the measurement, by flag.
        dataset: the data.
        track: the ``track`` of the kind's sampler.

    Raises:
        InputError: for a shard out of range, and a folder with shards of another measurement.
    """
    check_shard(shard)
    measurement = Measurement.of(run, kind, settings, dataset)
    path = measurement.folder(run.folder) / file_name_of(shard)
    if not is_measured(path, measurement, most_bytes(dataset)):
        refuse_other_shards(run.folder, measurement, shard[1], dataset)
        start = time.perf_counter()
        estimates = SAMPLERS[kind](run.vae, dataset, settings, shard, track)
        Part(measurement, shard, time.perf_counter() - start, estimates).save(path)
    return path


def is_measured(path: Path, measurement: Measurement, at_most: int) -> bool:
    """True where a file of at most so many bytes holds a whole shard of a measurement."""
    try:
        return Part.load(path, at_most).measurement == measurement
    except InputError:
        return False


def most_bytes(dataset: Dataset) -> int:
    """The most bytes of the file of a shard."""
    return MOST_OF_AN_IMAGE * len(dataset.test) + 2**20


def refuse_other_shards(run_folder: Path, measurement: Measurement, count: int, dataset: Dataset) -> None:
    """Refuse a folder that holds shards of another measurement, before anything is measured in vain.

    Raises:
        InputError: for the first of them.
    """
    for path in _paths(measurement.folder(run_folder)):
        try:
            part = Part.load(path, most_bytes(dataset))
        except InputError:  # measured again, or refused when they are merged
            continue
        _refuse_other(path, part, measurement, count)


def merged_estimates(
    run: RunFolder, kind: str, dataset: Dataset, asked: Mapping[str, int]
) -> tuple[Mapping[str, int], dict[str, Estimates], float]:
    """The settings of a measurement, the estimates of all images from its shards, and the seconds of all together.

    Args:
        run: the run.
        kind: one of ``SAMPLERS``.
        dataset: the data.
        asked: settings that the shards must have.

    Raises:
        InputError: where shards are missing, damaged, or of other weights, data or settings.
    """
    from pyrovae.evaluation.likelihood import join_shards

    own = dataset.protocol.hash == run.protocol_hash
    folder = folder_of(run.folder, kind, "" if own else dataset.name)
    parts = {path: Part.load(path, most_bytes(dataset)) for path in _paths(folder)}
    if not parts:
        raise InputError(
            f"{run.folder}: expected shards of 'pyrovae {kind}' to merge; there are none: measure them by --shard 1/N, 2/N, ..."
        )
    # They are in the order of their numbers.
    in_order = list(parts.values())
    count = in_order[0].shard[1]
    measurement = Measurement.of(run, kind, {**in_order[0].measurement.settings, **asked}, dataset)
    for path, part in parts.items():
        _refuse_other(path, part, measurement, count)
    _refuse_missing(run.folder, measurement, [part.shard[0] for part in in_order], count)
    try:
        found = {name: join_shards([part.estimates[name] for part in in_order]) for name in in_order[0].estimates}
        _check_number_of_images(found, kind, measurement.settings, dataset)
    except DAMAGE as error:
        raise InputError(
            f"{folder}: expected shards of one measurement; got {in_one_line(error)}: measure them again"
        ) from error
    on_device = {name: _moved(each, dataset.test.device) for name, each in found.items()}
    return measurement.settings, on_device, sum(part.seconds for part in in_order)


def remove_shards(run_folder: Path, kind: str, dataset: str) -> None:
    """Remove the shards of a measurement, once it is written.

    Raises:
        InputError: where they cannot be removed.
    """
    files.remove_folder(folder_of(run_folder, kind, dataset))


def _paths(folder: Path) -> Iterator[Path]:
    """The files of shards, by number."""
    if folder.is_dir() and not folder.is_symlink():
        found = [path for path in folder.iterdir() if NAMES.fullmatch(path.name)]
        yield from sorted(found, key=lambda path: [int(each) for each in re.findall(r"\d+", path.name)])


def _refuse_other(path: Path, part: Part, measurement: Measurement, count: int) -> None:
    differing = measurement.differences(part.measurement)
    if part.shard[1] != count:
        differing.append(f"{part.shard[1]} shards and not {count}")
    if differing:
        raise InputError(
            f"{path}: expected a shard of this measurement; it is one of {', '.join(differing)}: remove {path.parent}"
        )


def _refuse_missing(run_folder: Path, measurement: Measurement, numbers: Sequence[int], count: int) -> None:
    if missing := sorted(set(range(1, count + 1)) - set(numbers)):
        names, command = ", ".join(map(str, missing)), measurement.command(run_folder, (missing[0], count))
        raise InputError(f"{run_folder}: expected all {count} shards; missing are {names}: {command}")


def _check_number_of_images(
    estimates: Mapping[str, Estimates], kind: str, settings: Mapping[str, int], dataset: Dataset
) -> None:
    expected = len(dataset.test) if kind == "evaluate" else len(bounded_images(dataset, settings["images"])[0])
    for each in estimates.values():
        if len(each.per_image) != expected:
            raise ValueError(f"expected {expected} images; got {len(each.per_image)}")


def _moved(estimates: Estimates, device: Any) -> Estimates:
    """The estimates on a device: means are taken where those of a measurement at once are."""
    return replace(estimates, **{name: each.to(device) for name, each in vars(estimates).items() if not isinstance(each, int)})
