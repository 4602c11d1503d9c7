"""``AnalysedRun``: what the likelihood of a trained model is good for, beside being measured."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pyrovae.experiments.folder import RunFolder

if TYPE_CHECKING:
    import pandas

    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.diagnosing import RunDiagnosis


class AnalysedRun(RunFolder):
    """A run folder whose model compresses, is calibrated, detects, is diagnosed and exported."""

    def detect(
        self,
        data: Any,
        *,
        reference: Dataset | None = None,
        also: Sequence[RunFolder] = (),
        num_samples: int = 100,
        num_steps: int = 100,
        class_name: str = "",
        seed: int = 0,
    ) -> pandas.DataFrame:
        """Score how odd new examples are, each score in nats and larger for what is odder: see ``detecting.detect_blocks``.

        Args:
            data: a path, a DataFrame or an array of examples, in the units of the training data.
            reference: the run's own data, for typicality.
            also: trainings on the same data with other seeds, for WAIC.
            num_samples: the number of samples for each example and score.
            num_steps: the number of steps of the regret; with 0 it is left out.
            class_name: the class of all examples, for a model conditioned on classes and data without them.
            seed: the seed of the random numbers.

        Raises:
            InputError: for a loss that is no density, other runs on other data, and examples that it cannot take.
        """
        import pandas

        from pyrovae.experiments.detecting import detect_blocks

        how: dict[str, Any] = {"also": also, "num_samples": num_samples, "num_steps": num_steps, "class_name": class_name}
        return pandas.concat(list(detect_blocks(self, data, reference, **how, seed=seed, note=_warn)))

    def diagnose(
        self, *, num_images: int = 500, num_steps: int = 100, seed: int = 0, dataset: Dataset | None = None
    ) -> RunDiagnosis:
        """Diagnose which latents are unused, and whether by the prior, the guide or the decoder: see ``diagnosing``.

        Args:
            num_images: the number of test images.
            num_steps: the number of steps by which posteriors of unused units are refined.
            seed: the seed of the choice of images and of the samples.
            dataset: the run's own data, if they are at hand already.

        Raises:
            InputError: for a regressor, fewer than two images, and data that cannot be found.
        """
        from pyrovae.experiments.diagnosing import diagnose_run

        return diagnose_run(self, self._at_hand(dataset), num_images=num_images, num_steps=num_steps, seed=seed)

    def _at_hand(self, dataset: Dataset | None) -> Dataset:
        """The dataset, or the run's own, with the programs on its device."""
        dataset = dataset or self._own
        self.vae.to(dataset.test.device)
        return dataset

    @cached_property
    def _own(self) -> Dataset:
        return self.dataset()


def _warn(remark: str) -> None:
    warnings.warn(remark, stacklevel=4)
