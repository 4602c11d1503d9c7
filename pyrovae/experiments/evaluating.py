"""``EvaluatedRun``: a trained model and the measures of its log-likelihood, whole or in shards."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.experiments.analysing import AnalysedRun
from pyrovae.experiments.bounding import Bounds, bounds_of, refuse_what_has_no_bounds, sample_bounds
from pyrovae.experiments.evaluations import Evaluation, file_name
from pyrovae.experiments.measuring import Track, evaluation_of, sample_evaluation
from pyrovae.experiments.memory import memory_for
from pyrovae.experiments.sharding import WHOLE, measure_shard, merged_estimates, remove_shards

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset


class EvaluatedRun(AnalysedRun):
    """A run whose log-likelihood is measured by importance sampling, and bounded from both sides by annealing."""

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
        settings = _annealing_settings(num_images, num_temperatures, num_chains, num_samples, seed)
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
        settings = _annealing_settings(num_images, num_temperatures, num_chains, num_samples, seed)
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


def _annealing_settings(images: int, temperatures: int, chains: int, samples: int, seed: int) -> dict[str, int]:
    """The settings of ``bounds`` by flag, which shards of one measurement share."""
    return {"images": images, "temperatures": temperatures, "chains": chains, "samples": samples, "seed": seed}
