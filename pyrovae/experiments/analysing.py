"""``AnalysedRun``: what the likelihood of a trained model is good for, beside being measured."""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.experiments.folder import RunFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.compressing import Compression
    from pyrovae.experiments.measuring import Track


class AnalysedRun(RunFolder):
    """A run folder whose model compresses, is calibrated, detects, is diagnosed and exported."""

    def compress(self, data: Any, path: str | Path, *, seed: int = 0, track: Track = iter) -> Compression:
        """Compress examples without loss into a file, of about minus their ELBO in bits.

        Args:
            data: a path, a DataFrame or an array of examples, in the units of the training data.
            path: the path of the file.
            seed: the seed of the bits that are drawn from grey values, for a model of bits.
            track: function that wraps the examples, to show progress.

        Raises:
            InputError: for a model of densities, under a condition or with flows, examples that it cannot take, and a file that
                cannot be written.
        """
        from pyrovae.experiments.compressing import compress_file

        return compress_file(self, data, Path(path), seed=seed, note=warn, track=track)

    def decompress(self, path: str | Path, *, track: Track = iter) -> NDArray[np.integer]:
        """Decompress a file of this run: a table ``(N, D)``, images ``(N, C, H, W)``, as whole numbers in original units.

        Args:
            path: the path of the file.
            track: function that wraps the examples, to show progress.

        Raises:
            InputError: for a file that is none, is damaged, or was compressed by another model or another arithmetic.
        """
        from pyrovae.experiments.compressing import decompress_file

        return decompress_file(self, Path(path), track=track)

    def _at_hand(self, dataset: Dataset | None) -> Dataset:
        """The dataset, or the run's own, with the programs on its device."""
        dataset = dataset or self._own
        self.vae.to(dataset.test.device)
        return dataset

    @cached_property
    def _own(self) -> Dataset:
        return self.dataset()


def warn(remark: str) -> None:
    """Warn of something where a method of a run was called."""
    warnings.warn(remark, stacklevel=4)
