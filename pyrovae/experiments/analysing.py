"""``AnalysedRun``: what the likelihood of a trained model is good for, beside being measured."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from pyrovae.experiments.folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.model_export import Export


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

    def export(self, path: str | Path, *, seed: int = 0) -> Export:
        """Write encoder, decoder, sampler and log-likelihood into files that run without Pyro and without pyrovae.

        ``model.pt2`` gives ``model.encode.pt2``, ``model.decode.pt2``, ``model.sample.pt2`` and ``model.log_likelihood.pt2``,
        for torch alone; ``model.onnx`` the same for onnxruntime. Each is compared with this run before it is there.

        Args:
            path: the path, ending in ``.pt2`` or ``.onnx``, to which the names of functions are added.
            seed: the seed of the examples of the comparison.

        Raises:
            InputError: for another ending, a format whose packages are not installed, and a function that differs from the
                run's or cannot be traced.
        """
        from pyrovae.experiments.model_export import export_model

        return export_model(self, path, seed=seed)
