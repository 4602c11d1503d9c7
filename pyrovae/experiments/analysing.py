"""``AnalysedRun``: what the likelihood of a trained model is good for, beside being measured."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.experiments.folder import RunFolder

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from numpy.typing import NDArray

    from pyrovae.data.datasets import Dataset
    from pyrovae.evaluation.calibration import Calibration
    from pyrovae.experiments.compressing import Compression
    from pyrovae.experiments.diagnosing import RunDiagnosis
    from pyrovae.experiments.measuring import Track
    from pyrovae.experiments.model_export import Export


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

        from pyrovae.experiments.detecting import detect_blocks, reference_likelihoods

        typical = None if reference is None else reference_likelihoods(self, reference, num_samples, seed)
        how: dict[str, Any] = {"also": also, "num_samples": num_samples, "num_steps": num_steps, "class_name": class_name}
        return pandas.concat(list(detect_blocks(self, data, typical, **how, seed=seed, note=warn)))

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

    def calibrate(
        self,
        num_examples: int = 1000,
        *,
        num_draws: int = 99,
        num_samples: int = 1000,
        seed: int = 0,
        dataset: Dataset | None = None,
        track: Callable[[str, str], Track] = lambda label, unit: iter,
    ) -> Calibration:
        """Calibrate the guide on examples that the model draws: ranks, coverage and the gap of the ELBO, by layer and unit.

        Args:
            num_examples: the number of examples to simulate.
            num_draws: the number of draws of the guide for each example.
            num_samples: the number of importance samples for each example.
            seed: the seed of the random numbers.
            dataset: the run's own dataset, loaded before; only the test contexts of a conditional model are read.
            track: function from a label and a unit to one that wraps a sequence, to show progress.

        Raises:
            InputError: for a regressor, a loss that is no density, too few examples or draws, and contexts that cannot
                be found.
        """
        from pyrovae.experiments.calibrating import calibrate_run
        from pyrovae.experiments.memory import memory_for

        contexts = self._at_hand(dataset) if self.condition else None
        sizes: dict[str, Any] = {"num_draws": num_draws, "num_samples": num_samples, "seed": seed}
        with memory_for("calibrating", "--examples", "--samples"):
            return calibrate_run(self, num_examples, contexts, track=track, **sizes)

    def draw_calibration(self, calibration: Calibration, folder: str | Path | None = None) -> list[Path]:
        """Draw the ranks and the coverage of a calibration into ``figures``, or another folder, and return the paths.

        Args:
            calibration: what ``calibrate`` found.
            folder: the folder of the pictures; by default ``figures`` in that of the run.

        Raises:
            InputError: for a folder that cannot be written.
        """
        from pyrovae.experiments.calibrating import save_calibration_figures

        return save_calibration_figures(self, calibration, folder)

    def posterior(
        self,
        data: Any,
        num_samples: int = 1000,
        *,
        method: str = "resampling",
        class_name: str = "",
        seed: int = 0,
    ) -> Any:
        """Draw the latents of new examples from p(z | x), correcting the guide, as ``arviz.InferenceData``.

        Its groups are ``posterior``, of dimensions chain, draw, example and unit; ``sample_stats``, with log-weights or
        acceptance, the effective sample size and the Pareto k or R-hat of each example; and ``observed_data``, as the model
        sees them. ``resample_posterior`` and ``hamiltonian_posterior`` return tensors and need no extra.

        Args:
            data: a path, a DataFrame or an array of examples, in the units of the training data.
            num_samples: the number of draws of each example, with chains that of each chain.
            method: ``resampling`` of draws of the guide, or ``hmc``: Hamiltonian chains that start at the guide.
            class_name: the class of all examples, for a model conditioned on classes and data without them.
            seed: the seed of the random numbers.

        Raises:
            InputError: where the extra ``arviz`` is not installed, for a regressor, a loss that is no density, an unknown
                method, and examples that it cannot take.
        """
        from pyrovae.experiments.inferring import posterior_of

        sizes: dict[str, Any] = {"method": method, "class_name": class_name, "seed": seed}
        return posterior_of(self, data, num_samples, **sizes, note=warn)

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
