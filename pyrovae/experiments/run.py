"""``Run``: a trained model in its folder, and all that can be done with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from pyrovae.data.preparation import Preparation
from pyrovae.errors import InputError, visible
from pyrovae.experiments import files
from pyrovae.experiments.analysing import warn
from pyrovae.experiments.building import build, resolve
from pyrovae.experiments.evaluating import EvaluatedRun
from pyrovae.experiments.evaluations import Evaluation, file_name
from pyrovae.experiments.folder import name_of, new_folder
from pyrovae.experiments.locks import lock_folder
from pyrovae.experiments.methods import refuse_what_cannot_be_trained
from pyrovae.experiments.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pyrovae.data.datasets import Dataset


class Run(EvaluatedRun):
    """A trained model in its folder: ``train`` makes one, ``Run.load`` opens one."""

    def __repr__(self) -> str:
        state = "whole" if self.is_whole else f"{len(self.history)} of {self.recipe.total_epochs} epochs"
        return (
            f"Run({str(self.folder)!r}, {state}; {sum(each.numel() for each in self.vae.parameters()):,} parameters;\n"
            f"  {self.recipe.guide} guide over {self.recipe.latent_sizes}, {self.recipe.prior} prior;\n"
            f"  {self.protocol} [{self.protocol_hash}])"
        )

    @classmethod
    def create(cls, folder: str | Path | None, recipe: Recipe, dataset: Dataset) -> Run:
        """Make a run with fresh programs in a new folder, by default under ``runs``; settings left to the data are filled in.

        Raises:
            InputError: for a recipe that cannot be trained on these data, before anything is written; for a folder that is not
                empty, cannot be made, or is in use by another process.
        """
        recipe = replace(resolve(recipe, dataset), dataset=dataset.name)
        vae = build(recipe, dataset)
        refuse_what_cannot_be_trained(recipe, dataset, vae)
        folder = new_folder("runs", name_of(recipe)) if folder is None else Path(folder)
        protocol, preparation = dataset.protocol, Preparation.of(dataset)
        run = cls(folder, recipe, dataset.shape, dataset.num_classes, str(protocol), protocol.hash, vae, preparation)
        with files.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        _refuse_occupied(folder)
        with lock_folder(folder):
            # Another process may have been here meanwhile.
            _refuse_occupied(folder)
            run.save_recipe()
        return run

    @overload
    def draw(self, kind: str, *, dataset: Dataset | None = None) -> Figure: ...

    @overload
    def draw(self, kind: None = None, *, dataset: Dataset | None = None) -> list[str]: ...

    def draw(self, kind: str | None = None, *, dataset: Dataset | None = None) -> Figure | list[str]:
        """Draw a picture; without a kind, draw the usual ones into ``figures`` and return the names of their files.

        Args:
            kind: one of ``KINDS``.
            dataset: the run's own dataset, loaded before.

        Raises:
            InputError: for a kind that is unknown or makes no sense for this run, data that cannot be found, and a folder that
                cannot be written.
        """
        from pyrovae.experiments.pictures.gallery import draw, drawable, views_of

        views = views_of([self], [dataset])
        if kind is not None:
            return draw(kind, views)
        return [self.save_figure(name, draw(name, views)).name for name in drawable(views, usual=True)]

    def explore(self, *, dataset: Dataset | None = None) -> Any:
        """A widget of notebooks to play with the model: sliders of the latents, a map of encodings, images drawn by hand.

        ``pyrovae explore`` shows the same as a page. Its trait ``latents`` holds those that are decoded just now.

        Args:
            dataset: the run's own, loaded before.

        Raises:
            InputError: for a model of a table, a regressor and a conditional model, data that cannot be found, and where the
                extra ``explore`` is not installed.
        """
        from pyrovae.experiments.exploring.explorer import Explorer
        from pyrovae.experiments.exploring.widget import widget

        return widget(Explorer(self, dataset))

    def draw_evaluation(self, other: str | None = None) -> list[str]:
        """Draw the log-likelihoods of the last evaluation, with those of another dataset; return the file's name in a list.

        The list is empty for a loss that is no density.
        """
        from pyrovae.plots.likelihoods import histogram
        from pyrovae.plots.style import as_text

        values = {}
        for dataset in dict.fromkeys(("", other or "")):
            # An evaluation that was never made is left out.
            with suppress(InputError, KeyError):
                # Only the last name of a path is shown.
                found = Evaluation.load(self.folder, dataset).per_image["log_likelihood"]
                name = as_text(visible(Path(dataset or self.recipe.dataset).name))
                values[name if name not in values else f"{name}, other"] = found
        name = f"log-likelihoods-{file_name(other)}" if other else "log-likelihoods"
        return [self.save_figure(name, histogram(values)).name] if values else []

    def report(self, path: str | Path | None = None, *, dataset: Dataset | None = None) -> Path:
        """Write a page about the run, by default into its folder, and return its path.

        Raises:
            InputError: for data that cannot be found, and for a page that cannot be written.
        """
        from pyrovae.experiments.pictures.gallery import views_of
        from pyrovae.experiments.report import write_report

        return write_report(views_of([self], [dataset]), path or self.folder / "report.html")

    def encode(self, data: Any, *, layer: str = "", draws: int = 0, class_name: str = "", seed: int = 0) -> pandas.DataFrame:
        """Encode new examples: the mean and standard deviation of each latent, or draws, in a row for each example.

        Args:
            data: a path, a DataFrame or an array of examples, in the units of the training data.
            layer: the only layer to encode; all by default.
            draws: the number of draws of the latents in place of their moments.
            class_name: the class of all examples, for a model conditioned on classes and data without them.
            seed: the seed of the random numbers.

        Raises:
            InputError: for examples that it cannot take.
        """
        from pyrovae.experiments.using import encode_blocks

        return _joined(encode_blocks(self, data, layer=layer, draws=draws, class_name=class_name, seed=seed, note=warn))

    def score(
        self,
        data: Any,
        *,
        num_samples: int = 100,
        class_name: str = "",
        seed: int = 0,
        reference: Dataset | None = None,
    ) -> pandas.DataFrame:
        """Score new examples, in nats of the original values: see ``using.score_blocks``.

        Args:
            data: a path, a DataFrame or an array of examples, in the units of the training data.
            num_samples: the number of importance samples for each example.
            class_name: the class of all examples, for a model conditioned on classes and data without them.
            seed: the seed of the samples.
            reference: the run's own data, for percentiles.

        Raises:
            InputError: for examples that it cannot take.
        """
        from pyrovae.experiments.using import score_blocks

        return _joined(
            score_blocks(self, data, reference, num_samples=num_samples, class_name=class_name, seed=seed, note=warn)
        )

    def reconstruct(self, data: Any, *, class_name: str = "", seed: int = 0) -> NDArray[np.floating]:
        """Reconstruct new examples: means of p(x | z), in original units.

        Args:
            data: a path, a DataFrame or an array of examples, in the units of the training data.
            class_name: the class of all examples, for a model conditioned on classes and data without them.
            seed: the seed of the draw of the latents.

        Raises:
            InputError: for examples that it cannot take.
        """
        import numpy as np

        from pyrovae.experiments.using import reconstruct_blocks

        return np.concatenate([each for _, each in reconstruct_blocks(self, data, class_name=class_name, seed=seed, note=warn)])

    def impute(
        self,
        data: Any,
        *,
        mask: Any = None,
        class_name: str = "",
        draws: int = 10,
        num_samples: int = 1000,
        num_steps: int | None = None,
        seed: int = 0,
    ) -> NDArray[np.floating]:
        """Fill the gaps of new examples ``(M, N, ...)``, in original units: see ``imputation.impute``.

        Args:
            data: a path, a DataFrame or an array of examples with gaps, in the units of the training data.
            mask: further entries to fill, for all examples or for each: an array, or the path of an array or an image.
            class_name: the class of all examples, for a model conditioned on classes and data without them.
            draws: the number of fillings M of each example.
            num_samples: the number of importance samples that fillings are chosen from.
            num_steps: the number of steps of each filling's chain; by default 100 if the training had no gaps, else 0.
            seed: the seed of the random numbers.

        Raises:
            InputError: for a model conditioned on pixels, and examples that it cannot take.
        """
        import numpy as np

        from pyrovae.experiments.imputing import impute_blocks

        sizes: dict[str, Any] = {"draws": draws, "num_samples": num_samples, "num_steps": num_steps}
        return np.concatenate(
            [each for _, each in impute_blocks(self, data, mask=mask, class_name=class_name, **sizes, seed=seed, note=warn)], 1
        )

    def sample(
        self,
        number: int,
        *,
        class_name: str = "",
        context: Any = None,
        means: bool = False,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> NDArray[np.floating]:
        """Draw examples from the model, in original units: a table ``(N, D)``, images ``(N, C, H, W)``.

        Args:
            number: the number of examples N; with ``context``, for each of its examples.
            class_name: the class, for a model conditioned on classes.
            context: examples whose contexts a conditional model observes, as a path, a DataFrame or an array.
            means: return means of p(x | z) in place of draws of x.
            temperature: the factor of the latents' standard deviations.
            seed: the seed of the random numbers.

        Raises:
            InputError: for a conditional model without a class or contexts, and for latents without a temperature.
        """
        from pyrovae.experiments.using import draw_samples

        options: dict[str, Any] = {"means": means, "temperature": temperature, "seed": seed}
        return draw_samples(self, number, class_name=class_name, context=context, **options, note=warn)


def _joined(blocks: Iterator[pandas.DataFrame]) -> pandas.DataFrame:
    import pandas

    return pandas.concat(list(blocks))


def _refuse_occupied(folder: Path) -> None:
    # Names with a leading dot are locks, or remains of a process that died before the recipe was written.
    with files.writing(folder):
        occupied = any(not path.name.startswith(".") for path in folder.iterdir())
    if occupied:
        raise InputError(f"{folder}: expected a new or an empty folder; it holds files: choose another --output")
