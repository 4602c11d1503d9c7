"""A run folder: what was trained, how it went, and what came out.

    recipe.json         the resolved recipe, the shape of an image and the protocol of the data
    weights.safetensors model and guide, replaced after every epoch
    history.jsonl       one JSON object per epoch
    evaluation.json     the evaluation of most samples; evaluation.safetensors: its values for each test image
    evaluation-*.json   that of another dataset, and its safetensors beside it
    bounds.json         the last bounds from both sides
    *.png               pictures

Every file is replaced in one move, but for the history, which grows line by line: an interrupted run leaves whole files behind.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.recipes import assemble
from pyrovae.settings import Recipe

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pyrovae.data.datasets import Dataset
    from pyrovae.programs.guides import VAE

RECIPE, WEIGHTS, HISTORY, BOUNDS = "recipe.json", "weights.safetensors", "history.jsonl", "bounds.json"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a run's programs were measured on a test set.

    Args:
        results: plain values, in nats per image.
        per_image: ``log_likelihood`` and ``elbo`` of each image ``(N,)``; a loss that is no density has the bound alone.
    """

    results: dict[str, Any]
    per_image: dict[str, NDArray[np.floating]]

    @classmethod
    def load(cls, folder: str | Path, dataset: str = "") -> Evaluation:
        """The one that a run folder holds, of its own test set or that of another dataset; without loading programs.

        Raises:
            InputError: where there is none, one without values for each image, or files that do not belong together.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        values, tensors = _evaluation_files(Path(folder), dataset)
        if not Path(folder).is_dir():
            raise InputError(f"{folder}: expected a run folder, as 'pyrovae fit' makes one; there is no such folder")
        again = f"run 'pyrovae evaluate {folder}{f' --dataset {dataset}' if dataset else ''}'"
        try:
            results = json.loads(values.read_text(encoding="utf-8"))
            per_image = load_file(tensors)
            whole = {len(each) for each in per_image.values()} == {results["num_images"]}
            if not whole or not math.isclose(per_image["elbo"].mean(), results["elbo"], rel_tol=1e-4, abs_tol=1e-2):
                raise ValueError(f"{values.name} and {tensors.name} of two evaluations")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(
                f"{folder}: expected an evaluation with values for each image: {again}; got {_summary(error)}"
            ) from error
        return cls(results, per_image)


def _evaluation_files(folder: Path, dataset: str) -> tuple[Path, Path]:
    """Plain values, and those of each image."""
    name = f"evaluation-{Path(dataset).stem}" if dataset else "evaluation"
    return folder / f"{name}.json", folder / f"{name}.safetensors"


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder, open.

    Args:
        folder: where it is.
        recipe: the resolved recipe.
        shape: channels, height and width of an image.
        protocol: of the data that it was trained on.
        protocol_hash: of the same.
        vae: the programs; ``Run.load`` gives those that were saved.
    """

    folder: Path
    recipe: Recipe
    shape: tuple[int, int, int]
    protocol: str
    protocol_hash: str
    vae: VAE

    @classmethod
    def create(cls, folder: str | Path, recipe: Recipe, dataset: Dataset, vae: VAE) -> Run:
        """Make a new folder and write the recipe into it.

        Raises:
            InputError: if the folder holds anything, or cannot be made.
        """
        folder = Path(folder)
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            occupied = any(folder.iterdir())
        if occupied:
            raise InputError(f"{folder}: expected a new or an empty folder; it holds files: choose another --output")
        run = cls(folder, recipe, dataset.shape, str(dataset.protocol), dataset.protocol.hash, vae)
        sizes = {"shape": dataset.shape, "num_classes": dataset.num_classes}
        run._write_json(
            RECIPE,
            {"recipe": asdict(recipe), **sizes, "protocol": run.protocol, "protocol_hash": run.protocol_hash},
        )
        return run

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Open a folder that ``pyrovae fit`` left behind, with its trained programs.

        Raises:
            InputError: if it is not one, or its files are damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        try:
            settings = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
            recipe, shape = Recipe.from_dict(settings["recipe"]), tuple(settings["shape"])
            vae = assemble(recipe, shape, settings["num_classes"])
            vae.load_state_dict(load_file(folder / WEIGHTS))
            return cls(folder, recipe, shape, settings["protocol"], settings["protocol_hash"], vae.eval())
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"{folder}: expected a run folder with {RECIPE} and {WEIGHTS}, as 'pyrovae fit' leaves behind; "
                f"got {_summary(error)}"
            ) from error

    def check_data(self, dataset: Dataset) -> None:
        """Refuse other data than those that the run was trained on.

        Raises:
            InputError: where the protocol is another, in words or in the content of files.
        """
        if dataset.protocol.hash != self.protocol_hash:
            raise InputError(
                f"{self.folder}: expected the data that it was trained on, '{self.protocol}' [{self.protocol_hash}]; "
                f"{dataset.name} is now '{dataset.protocol}' [{dataset.protocol.hash}]: bring the old data back, or train anew"
            )

    @property
    def history(self) -> list[dict[str, Any]]:
        """One record per epoch."""
        path = self.folder / HISTORY
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    @property
    def is_whole(self) -> bool:
        """Whether the training ran to the end of its recipe, or ended itself."""
        stages = self.recipe.schedule
        last = [row for row in self.history if row.get("stage", 1) == len(stages)]
        return len(last) == stages[-1].epochs or bool(last and last[-1].get("stopped_early"))

    def record(self, epoch: Mapping[str, Any]) -> None:
        """Append a record to the history."""
        with _writing(self.folder), (self.folder / HISTORY).open("a", encoding="utf-8") as file:
            file.write(json.dumps(epoch) + "\n")

    def save_weights(self) -> None:
        """Write the weights of the programs."""
        from safetensors.torch import save

        with _replacing(self.folder / WEIGHTS) as path:
            path.write_bytes(save({name: value.contiguous() for name, value in self.vae.state_dict().items()}))

    def save_evaluation(self, evaluation: Evaluation, dataset: str = "") -> None:
        """Write an evaluation: of the run's own test set, or beside it that of another dataset."""
        from safetensors.numpy import save

        values, tensors = _evaluation_files(self.folder, dataset)
        with _replacing(tensors) as path:
            path.write_bytes(save(evaluation.per_image))
        self._write_json(values.name, evaluation.results)

    def save_bounds(self, results: Mapping[str, Any]) -> None:
        """Write what ``pyrovae bounds`` has found."""
        self._write_json(BOUNDS, results)

    def save_figure(self, name: str, figure: Figure) -> Path:
        """Write a picture; return where it is."""
        path = self.folder / f"{name}.png"
        with _replacing(path) as temporary:
            figure.savefig(temporary, format="png")
        return path

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        with _replacing(self.folder / name) as path:
            path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def new_folder(parent: str | Path, name: str) -> Path:
    """Make the first of ``NAME-1``, ``NAME-2``, ... under a folder that does not exist yet: no two runs get the same."""
    for number in itertools.count(1):
        folder = Path(parent) / f"{name}-{number}"
        with _writing(folder), suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("there is always another number")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with _writing(path.parent):
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder}: expected a folder to write the run into; got {error.strerror}") from error


def _summary(error: Exception) -> str:
    """An error of whichever library, in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
