"""``Run``: a trained model in its folder, and all that can be done with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from pyrovae.data.preparation import Preparation
from pyrovae.errors import InputError, visible
from pyrovae.experiments import files
from pyrovae.experiments.analysing import AnalysedRun, warn
from pyrovae.experiments.bounding import Bounds, bounds_of, refuse_what_has_no_bounds, sample_bounds
from pyrovae.experiments.building import build, resolve
from pyrovae.experiments.folder import name_of, new_folder
from pyrovae.experiments.locks import lock_folder
from pyrovae.experiments.measuring import Evaluation, Track, evaluation_of, file_name, sample_evaluation
from pyrovae.experiments.memory import memory_for
from pyrovae.experiments.methods import refuse_what_cannot_be_trained
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.sharding import WHOLE, measure_shard, merged_estimates, remove_shards

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pyrovae.data.datasets import Dataset


class Run(AnalysedRun):
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

    def evaluate(
        self, num_samples: int = 5000, *, seed: int = 0, dataset: Dataset | None = None, track: Track = iter
    ) -> Evaluation:
        """Measure the programs by ``measure``, and save the evaluation unless one with more samples is saved.

        Raises:
            InputError: as ``measure``, and for a folder that cannot be written.
        """
        evaluation = self.measure(num_samples, seed=seed, dataset=dataset, track=track)
        if not self.keeps(evaluation):
            self.save_evaluation(evaluation)
        return evaluation

    def measure(
        self, num_samples: int = 5000, *, seed: int = 0, dataset: Dataset | None = None, track: Track = iter
    ) -> Evaluation:
        """Measure the programs on the test images, by importance sampling.

        Args:
            num_samples: the number of importance samples for each image.
            seed: the seed of the samples.
            dataset: the run's own dataset, loaded before, or another one.
            track: function that wraps the chunks of images, to show progress.

        Raises:
            InputError: for data that cannot be found.
        """
        dataset, settings = self._at_hand(dataset), {"samples": num_samples, "seed": seed}
        start = time.perf_counter()
        with memory_for("measuring", "--samples"):
            sampled = sample_evaluation(self.vae, dataset, settings, WHOLE, track)["sampled"]
        return self._evaluation(dataset, sampled, seed, time.perf_counter() - start)

    def measure_shard(
        self,
        shard: tuple[int, int],
        num_samples: int = 5000,
        *,
        seed: int = 0,
        dataset: Dataset | None = None,
        track: Track = iter,
    ) -> Path:
        """Measure a part of the test images, and return the path of the file that keeps it in the folder.

        From all shards ``merge_evaluation`` makes the same as ``evaluate``, to the last bit. One that is there is left alone.

        Args:
            shard: the pair (3, 16) is the third of sixteen parts.
            num_samples: the number of importance samples for each image.
            seed: the seed of the samples.
            dataset: the run's own dataset, loaded before, or another one.
            track: function that wraps the chunks of images, to show progress.

        Raises:
            InputError: for a shard out of range, data that cannot be found, and a folder with shards of another measurement.
        """
        settings = {"samples": num_samples, "seed": seed}
        with memory_for("measuring", "--samples"):
            return measure_shard(self, "evaluate", shard, settings, self._at_hand(dataset), track)

    def merge_evaluation(self, *, dataset: Dataset | None = None) -> Evaluation:
        """Make the evaluation of all shards, save it as ``evaluate`` does, and remove the shards.

        Raises:
            InputError: where shards are missing, damaged, or of other weights or settings; the message says how to get them.
        """
        evaluation = self.merged_evaluation(dataset=dataset)
        if not self.keeps(evaluation):
            self.save_evaluation(evaluation)
        self.remove_shards("evaluate", dataset=dataset)
        return evaluation

    def merged_evaluation(self, *, dataset: Dataset | None = None, settings: Mapping[str, int] | None = None) -> Evaluation:
        """Make the evaluation of all shards, and leave the folder as it is.

        Args:
            dataset: the run's own dataset, loaded before, or another one.
            settings: ``samples`` and ``seed`` that the shards must have.

        Raises:
            InputError: as ``merge_evaluation``.
        """
        dataset = self._at_hand(dataset)
        found, estimates, seconds = merged_estimates(self, "evaluate", dataset, settings or {})
        return self._evaluation(dataset, estimates["sampled"], found["seed"], seconds)

    def remove_shards(self, kind: str, *, dataset: Dataset | None = None) -> None:
        """Remove the shards of an evaluation (``evaluate``), or of ``bounds``.

        Raises:
            InputError: where they cannot be removed.
        """
        own = dataset is None or dataset.protocol.hash == self.protocol_hash
        remove_shards(self.folder, kind, "" if own or dataset is None else dataset.name)

    def _evaluation(self, dataset: Dataset, sampled: Any, seed: int, seconds: float) -> Evaluation:
        with memory_for("measuring", "--samples"):
            return evaluation_of(
                self.vae,
                self.recipe,
                dataset,
                sampled,
                seed=seed,
                epochs=len(self.history),
                kl_weight=next((row["kl_weight"] for row in reversed(self.history)), self.recipe.kl_weight),
                seconds=seconds,
            )

    def save_evaluation(self, evaluation: Evaluation) -> None:
        """Save an evaluation on the run's own test set, or, beside it, on another dataset."""
        evaluation.save(self.folder, file_name("" if evaluation.protocol_hash == self.protocol_hash else evaluation.dataset))

    def keeps(self, evaluation: Evaluation) -> int:
        """The number of samples of a saved evaluation of the same kind, if it is larger; else zero."""
        try:
            earlier = Evaluation.load(self.folder, "" if evaluation.protocol_hash == self.protocol_hash else evaluation.dataset)
        except InputError:
            return 0
        same = all(getattr(earlier, name) == getattr(evaluation, name) for name in ("protocol_hash", "epochs", "model"))
        return earlier.num_samples if same and earlier.num_samples > evaluation.num_samples else 0

    def bounds(
        self,
        num_images: int = 100,
        *,
        num_temperatures: int = 300,
        num_chains: int = 5,
        num_samples: int = 5000,
        seed: int = 0,
        dataset: Dataset | None = None,
        track: Callable[[str, str], Track] = lambda label, unit: iter,
        show: Callable[[Bounds], Any] = lambda results: None,
    ) -> Bounds:
        """Bound the log-likelihood from both sides, by annealed importance sampling, in nats per image.

        Args:
            num_images: the number of test images, and of images drawn from the model.
            num_temperatures: the number of temperatures from guide to posterior.
            num_chains: the number of annealed chains for each image.
            num_samples: the number of importance samples for each image.
            seed: the seed of samples and chains.
            dataset: the run's own dataset, loaded before.
            track: function from a label and a unit to one that wraps a sequence, to show progress.
            show: called with the bounds before they are written.

        Raises:
            InputError: for programs without bounds, data that cannot be found, and a folder that cannot be written.
        """
        refuse_what_has_no_bounds(self.folder, self.vae, self.recipe)
        dataset, start = self._at_hand(dataset), time.perf_counter()
        settings = {"images": num_images, "temperatures": num_temperatures, "chains": num_chains}
        settings |= {"samples": num_samples, "seed": seed}
        with memory_for("annealing", "--images", "--chains", "--samples"):
            estimates = sample_bounds(self.vae, dataset, settings, WHOLE, track)
        return self._save_bounds(dataset, estimates, settings, time.perf_counter() - start, show)

    def bound_shard(
        self,
        shard: tuple[int, int],
        num_images: int = 100,
        *,
        num_temperatures: int = 300,
        num_chains: int = 5,
        num_samples: int = 5000,
        seed: int = 0,
        dataset: Dataset | None = None,
        track: Callable[[str, str], Track] = lambda label, unit: iter,
    ) -> Path:
        """Bound the log-likelihood on a part of the images, and return the path of the file that keeps it in the folder.

        From all shards ``merge_bounds`` makes the same as ``bounds``, to the last bit. One that is there is left alone.

        Args:
            shard: the pair (3, 16) is the third of sixteen parts.
            num_images: the number of test images, and of images drawn from the model, of all shards together.
            num_temperatures: the number of temperatures from guide to posterior.
            num_chains: the number of annealed chains for each image.
            num_samples: the number of importance samples for each image.
            seed: the seed of samples and chains.
            dataset: the run's own dataset, loaded before.
            track: function from a label and a unit to one that wraps a sequence, to show progress.

        Raises:
            InputError: as ``bounds``, for a shard out of range, and a folder with shards of another measurement.
        """
        refuse_what_has_no_bounds(self.folder, self.vae, self.recipe)
        settings = {"images": num_images, "temperatures": num_temperatures, "chains": num_chains}
        settings |= {"samples": num_samples, "seed": seed}
        with memory_for("annealing", "--images", "--chains", "--samples"):
            return measure_shard(self, "bounds", shard, settings, self._at_hand(dataset), track)

    def merge_bounds(
        self,
        *,
        dataset: Dataset | None = None,
        settings: Mapping[str, int] | None = None,
        show: Callable[[Bounds], Any] = lambda results: None,
    ) -> Bounds:
        """Make the bounds of all shards, save them, and remove the shards.

        Args:
            dataset: the run's own dataset, loaded before.
            settings: numbers by flag, such as ``images``, that the shards must have.
            show: called with the bounds before they are written.

        Raises:
            InputError: where shards are missing, damaged, or of other weights or settings; the message says how to get them.
        """
        dataset = self._at_hand(dataset)
        found, estimates, seconds = merged_estimates(self, "bounds", dataset, settings or {})
        results = self._save_bounds(dataset, estimates, found, seconds, show)
        self.remove_shards("bounds")
        return results

    def _save_bounds(
        self,
        dataset: Dataset,
        estimates: Mapping[str, Any],
        settings: Mapping[str, int],
        seconds: float,
        show: Callable[[Bounds], Any],
    ) -> Bounds:
        results = bounds_of(self.recipe, dataset, estimates, settings, epochs=len(self.history), seconds=seconds)
        show(results)
        results.save(self.folder)
        return results

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
