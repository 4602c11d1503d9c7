"""The files of a run folder: the recipe, the environment, the history and the results of a training.

    recipe.json         the resolved recipe, the shape of an image and the protocol of the data
    environment.json    versions, device, threads, engine and reason, command line; also for each time that it was resumed
    history.jsonl       one JSON object per epoch
    checkpoints/        whole states of the training: see ``checkpoints.py``
    weights.safetensors the measured weights of model and guide, replaced whenever measured
    evaluations/        see ``measuring.py``, and ``sharding.py`` for shards
    bounds.json         the last bounds from both sides
    figures/            pictures

``files.py`` writes and reads all of these.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.data.conditions import CONDITIONS, Condition
from pyrovae.data.preparation import Preparation
from pyrovae.errors import InputError, in_one_line, visible
from pyrovae.experiments import files
from pyrovae.experiments.building import assemble, columns_of, load_data, resolve
from pyrovae.experiments.checking import DAMAGE, check_numbers, check_tensors, check_value, short_repr, tensors_in
from pyrovae.experiments.environment import describe_environment
from pyrovae.experiments.evaluations import Evaluation
from pyrovae.experiments.recipe import MOST_OF_A_FILE, Recipe
from pyrovae.experiments.sizes import refuse_giants

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import Self

    from pyrovae.data.datasets import Dataset
    from pyrovae.programs.guides import VAE

RECIPE, ENVIRONMENT, WEIGHTS, HISTORY = "recipe.json", "environment.json", "weights.safetensors", "history.jsonl"
FIGURES = "figures"
FORMAT = 2


@dataclass(frozen=True, eq=False, repr=False)
class RunFolder:
    """An open run folder, whose files are read and written.

    Args:
        folder: the path of the folder.
        recipe: the resolved recipe.
        shape: channels, height and width of an image.
        num_classes: the number of classes of the data, for a condition on them.
        protocol: the protocol of the training data.
        protocol_hash: the hash of the protocol.
        vae: the programs; after ``load`` with the saved weights.
        preparation: the preparation of the data; None for a run of version 0.1.0.
    """

    folder: Path
    recipe: Recipe
    shape: tuple[int, int, int]
    num_classes: int
    protocol: str
    protocol_hash: str
    vae: VAE
    preparation: Preparation | None = None

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Open a folder that ``train`` made, with its trained programs.

        Raises:
            InputError: for a folder that is no run, or whose files are damaged.
        """
        run = cls.load_begun(folder)
        try:
            weights = tensors_in(files.read_file(run.folder / WEIGHTS, run.most_bytes))
            check_tensors(weights, run.vae.state_dict())
            run.vae.load_state_dict(weights)
        except DAMAGE as error:
            raise _no_run(run.folder, error) from error
        run.vae.eval()
        return run

    @classmethod
    def load_begun(cls, folder: str | Path) -> Self:
        """Open a folder that ``train`` has begun, with fresh programs.

        Raises:
            InputError: for a folder that is no run, or whose files are damaged.
        """
        folder = Path(folder)
        try:
            return cls.of_settings(folder, files.read_json(folder / RECIPE, MOST_OF_A_FILE))
        except DAMAGE as error:
            raise _no_run(folder, error) from error

    @classmethod
    def of_settings(cls, folder: Path, settings: Any) -> Self:
        """Make a run from the content of its recipe.json, with fresh programs.

        Args:
            folder: the path of the folder, which need not exist.
            settings: the value in recipe.json, which may be anything.

        Raises:
            ValueError: for a value that no run has; any of ``DAMAGE`` for parts that are not checked before.
        """
        check_value("recipe.json", settings, {"recipe": dict, "shape": list, "num_classes": int})
        check_value("recipe.json", settings, {"protocol": str, "protocol_hash": str})
        if settings.get("format", 1) not in range(1, FORMAT + 1):
            raise ValueError(f"format {short_repr(settings['format'])} of another version of pyrovae")
        recipe, shape, num_classes = Recipe.from_dict(settings["recipe"]), tuple(settings["shape"]), settings["num_classes"]
        preparation = None
        if settings.get("preparation") is not None:
            preparation = Preparation.from_dict(settings["preparation"])
            if preparation.shape != shape:
                raise ValueError("a preparation of examples of another shape")
        refuse_giants(recipe, shape, num_classes, preparation)
        vae = assemble(recipe, shape, num_classes, columns=columns_of(preparation) if preparation else None)
        protocol, protocol_hash = visible(settings["protocol"]), visible(settings["protocol_hash"])
        return cls(folder, recipe, shape, num_classes, protocol, protocol_hash, vae, preparation)

    @property
    def required_preparation(self) -> Preparation:
        """The preparation of the data.

        Raises:
            InputError: for a run of an earlier version, which has none.
        """
        if self.preparation is None:
            raise InputError(
                f"{self.folder}: expected a run that says what its data went through; an earlier version made it: train anew"
            )
        return self.preparation

    @property
    def condition(self) -> Condition | None:
        """The condition of the model; None where it has no condition."""
        return CONDITIONS[self.recipe.condition](self.shape, self.num_classes)

    @property
    def num_bytes(self) -> int:
        """The bytes of parameters and buffers."""
        return sum(each.numel() * each.element_size() for each in self.vae.state_dict().values())

    @property
    def most_bytes(self) -> int:
        """The most bytes of a file of its weights, from those of the programs with room for names."""
        return 2 * self.num_bytes + 2**20

    def save_recipe(self) -> None:
        """Write the recipe, and the facts about the data that the programs were built for."""
        described = {name: getattr(self, name) for name in ("shape", "num_classes", "protocol", "protocol_hash")}
        preparation = {} if self.preparation is None else {"preparation": self.preparation.as_dict()}
        files.write_json(self.folder / RECIPE, {"format": FORMAT, "recipe": asdict(self.recipe), **described, **preparation})

    def dataset(
        self,
        other: str | None = None,
        *,
        root: str | None = None,
        mirror: str | None = None,
        progress: Callable[[str, int, int | None], None] | None = None,
    ) -> Dataset:
        """Load the run's own dataset, or another one of the same shape, as its likelihood needs it and under its condition.

        Files are also looked for where they were when it was trained. The data are checked.

        Args:
            other: the name or path of another dataset, or the new path of the run's own.
            root: the folder to look in first.
            mirror: an address to download from.
            progress: called as files are downloaded.

        Raises:
            InputError: for data other than those it was trained on, and for images that it cannot take.
        """
        recipe = self.recipe if other is None else replace(self.recipe, dataset=other)
        dataset = load_data(recipe, root or self.data_root, mirror, progress)
        if other is None:
            self.check_data(dataset)
        # Data with the same protocol under another name are the run's own.
        if dataset.protocol.hash == self.protocol_hash:
            return dataset
        resolve(recipe, dataset)
        if dataset.values in ("real", "mixed"):
            raise InputError(
                f"expected bits, grey values or counts in other data; {other!r} holds real ones, standardised by statistics "
                "of their own: put both into one .npz file, as train and test"
            )
        if dataset.shape != self.shape:
            raise InputError(
                f"expected images of shape {self.shape}, as {self.recipe.dataset!r} has; got {dataset.shape} of {other!r}"
            )
        size = dataset.condition.size if dataset.condition else 0
        if size != self.vae.model.context_size:
            raise InputError(
                f"expected contexts of {self.vae.model.context_size} entries under the condition {recipe.condition!r}; "
                f"got {size} of {other!r}"
            )
        return dataset

    def check_data(self, dataset: Dataset) -> None:
        """Refuse data other than those that the run was trained on.

        Raises:
            InputError: for data of another protocol, in words or in the content of files.
        """
        if dataset.protocol.hash != self.protocol_hash:
            raise InputError(
                f"{self.folder}: expected the data that it was trained on, '{self.protocol}' [{self.protocol_hash}]; "
                f"{dataset.name} is now '{dataset.protocol}' [{dataset.protocol.hash}]: bring the old data back, or train anew"
            )

    @property
    def evaluation(self) -> Evaluation:
        """The last evaluation on the run's own test set.

        Raises:
            InputError: where there is none.
        """
        return Evaluation.load(self.folder)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of the epochs."""
        path = self.folder / HISTORY
        if not path.exists():
            return []
        try:
            lines = files.read_file(path).decode().split("\n")
            return [_row(line) for line in lines if line.endswith("}")]
        except DAMAGE as error:
            raise _no_run(self.folder, error) from error

    @property
    def is_whole(self) -> bool:
        """True where the training ran to the end of its recipe, or stopped early."""
        stages = self.recipe.schedule
        last = [row for row in self.history if row.get("stage", 1) == len(stages)]
        return len(last) == stages[-1].epochs or bool(last and last[-1].get("stopped_early"))

    @property
    def environment(self) -> dict[str, Any]:
        """The environment in which it was trained."""
        with suppress(OSError, ValueError):
            found = files.read_json(self.folder / ENVIRONMENT)
            return found if isinstance(found, dict) else {}
        return {}

    def save_environment(self, **more: Any) -> None:
        """Write the environment, at the start of a training and each time that it is resumed."""
        before = self.environment
        here = describe_environment() | more
        if before:
            earlier = before.get("gone_on_with")
            again = [*(earlier if isinstance(earlier, list) else []), here]
            files.write_json(self.folder / ENVIRONMENT, before | {"gone_on_with": again})
        else:
            files.write_json(self.folder / ENVIRONMENT, here)

    def save_weights(self) -> None:
        """Write the current weights of the programs."""
        files.write_file(self.folder / WEIGHTS, self._weights())

    @property
    def checksum(self) -> str:
        """The checksum of the current weights of the programs."""
        return hashlib.sha256(self._weights()).hexdigest()

    def _weights(self) -> bytes:
        from safetensors.torch import save

        return save({name: value.contiguous() for name, value in self.vae.state_dict().items()})

    def record(self, epoch: Mapping[str, Any]) -> None:
        """Append the record of an epoch to the history."""
        files.append(self.folder / HISTORY, (json.dumps(epoch) + "\n").encode())

    def save_figure(self, name: str, figure: Figure, format: str = "png") -> Path:
        """Write a picture and return its path."""
        from pyrovae.plots.encoding import encode_figure

        files.make_folder(self.folder / FIGURES)
        path = self.folder / FIGURES / f"{name}.{format}"
        files.write_file(path, encode_figure(figure, format))
        return path

    @property
    def data_root(self) -> str | None:
        """The folder of data files when it was trained, if there is such a folder here; it is only a hint."""
        hint = self.environment.get("data_root")
        with suppress(OSError, ValueError):  # for a name that no system has
            return hint if isinstance(hint, str) and Path(hint).is_dir() else None
        return None


def _row(line: str) -> dict[str, Any]:
    """Parse a line of the history.

    Raises:
        ValueError: for anything but numbers by name.
    """
    row = files.json_in(line)
    check_value("a line of the history", row, {"epoch": int, "kl_weight": float, "seconds": float})
    check_value("stage", row.get("stage", 1), int)
    for name, value in row.items():
        check_numbers(visible(name[:100]), value)
    return dict(row)


def _no_run(folder: Path, error: Exception) -> InputError:
    if not folder.is_dir():
        return InputError(f"{folder}: expected a run folder with {RECIPE}; there is no such folder: name another")
    if (folder / RECIPE).is_file() and not (folder / WEIGHTS).exists():
        return InputError(
            f"{folder}: expected a trained run; its training has not ended an epoch: pyrovae fit --resume {folder}"
        )
    return InputError(
        f"{folder}: expected a run folder with {RECIPE} and {WEIGHTS}, as 'pyrovae fit' writes; got {in_one_line(error)}"
    )


def new_folder(parent: str | Path, name: str) -> Path:
    """Make the first folder of ``NAME-1``, ``NAME-2``, ... that does not exist yet, so that no two runs get the same."""
    for number in itertools.count(1):
        folder = Path(parent) / f"{name}-{number}"
        with files.writing(folder), suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("there is always another number")


def name_of(recipe: Recipe) -> str:
    """The name for the folder of a run: its data and guide, and its prior and condition where they are not the defaults."""
    default = Recipe()
    parts = [Path(recipe.dataset).stem.replace(":", "-"), recipe.guide if recipe.latent_sizes else "regressor"]
    parts += [getattr(recipe, name) for name in ("prior", "condition") if getattr(recipe, name) != getattr(default, name)]
    return "-".join(parts)
