"""``AnalysedRun``: what the likelihood of a trained model is good for, beside being measured."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from pyrovae.experiments.folder import RunFolder

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset


class AnalysedRun(RunFolder):
    """A run folder whose model compresses, is calibrated, detects, is diagnosed and exported."""

    def _at_hand(self, dataset: Dataset | None) -> Dataset:
        """The dataset, or the run's own, with the programs on its device."""
        dataset = dataset or self._own
        self.vae.to(dataset.test.device)
        return dataset

    @cached_property
    def _own(self) -> Dataset:
        return self.dataset()
