"""The tracking of a training: bounds and latents on fixed images, the same whenever measured and never test images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pyrovae.experiments.measuring import measure_latents
from pyrovae.seeds import seed_of

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.evaluation.gaps import GapEstimator
    from pyrovae.experiments.recipe import Recipe
    from pyrovae.programs.guides import VAE

# The numbers of images for bounds and the aggregate posterior, for layers, and for refining the guide.
BOUND_IMAGES, LATENT_IMAGES, REFINED_IMAGES = 1000, 500, 20
NUM_SAMPLES, NUM_STEPS, LEARNING_RATE = 100, 20, 0.2
# Measuring takes as long as training on thousands of examples, and refining on more: of long trainings some epochs are enough.
MEASURED_EPOCHS, REFINED_EPOCHS = 100, 20
EXAMPLES_PER_REFINEMENT = 50_000
TRACKING_SEED = 1


@dataclass(frozen=True, eq=False)
class Images:
    """The tracked images, their contexts if any, and their mean change of variables to the values in the file."""

    x: Tensor
    context: Tensor | None
    log_jacobian: float

    def first(self, number: int) -> tuple[Tensor, Tensor | None]:
        """The first images, and their contexts."""
        return self.x[:number], None if self.context is None else self.context[:number]

    @classmethod
    def of(cls, dataset: Dataset) -> dict[str, Images]:
        """Choose the tracked images, of the validation data if there are any, and of the training data."""
        import torch

        def chosen(rows: Any) -> Tensor:
            # A random choice, since rows may be sorted, and another one than that of pseudo-inputs.
            generator = torch.Generator().manual_seed(seed_of(0, TRACKING_SEED))
            return torch.randperm(len(rows), generator=generator)[:BOUND_IMAGES].to(rows.device)

        def images(x: Tensor, context: Tensor | None) -> Images:
            return cls(x, context, dataset.log_jacobians(x).mean().item())

        found = {}
        if dataset.valid is not None:
            rows, contexts = chosen(dataset.valid), dataset.contexts.get("valid")
            found["valid"] = images(dataset.valid[rows], None if contexts is None else contexts[rows])
        generator = torch.Generator(dataset.train.device).manual_seed(0)
        drawn = dataset.draw_train(chosen(dataset.train), generator=generator)
        found["train"] = images(*drawn) if isinstance(drawn, tuple) else images(drawn, None)
        return found


@dataclass(frozen=True, eq=False)
class TrainingTracker:
    """A tracker of bounds and latents over the training of programs.

    Args:
        vae: the programs.
        images: the images by the name of their split; the first split decides when training stops early.
        epochs_per_measurement: the number of epochs between two measurements.
        epochs_per_refinement: the number of epochs between two refinements of the guide.
        epochs: the number of epochs of the whole training.
    """

    vae: VAE
    images: Mapping[str, Images]
    epochs_per_measurement: int
    epochs_per_refinement: int
    epochs: int

    @classmethod
    def of(cls, vae: VAE, dataset: Dataset, epochs: int) -> TrainingTracker:
        """Make a tracker on images of the validation data if there are any, and of the training data."""
        measurement = math.ceil(epochs / MEASURED_EPOCHS)
        refinement = max(math.ceil(EXAMPLES_PER_REFINEMENT / len(dataset.train)), math.ceil(epochs / REFINED_EPOCHS))
        # The guide is refined where the rest is measured.
        return cls(vae, Images.of(dataset), measurement, measurement * math.ceil(refinement / measurement), epochs)

    def measures(self, epoch: int) -> bool:
        """True for an epoch at whose end the programs are measured, as for the first and the last one."""
        return epoch in (1, self.epochs) or epoch % self.epochs_per_measurement == 0

    def bounds(self, stage: Recipe) -> dict[str, float]:
        """The true bound on each split, in nats per image, followed by the trained one where it has more samples."""
        from pyrovae.evaluation.likelihood import log_likelihood

        samples = stage.num_particles if stage.objective == "iwelbo" else 1
        found = {}
        for split, images in self.images.items():
            result = log_likelihood(self.vae.model, self.vae.guide, images.x, samples, context=images.context, engine="eager")
            found[f"{split}_elbo_nats"] = result.elbo + images.log_jacobian
            if samples > 1:
                found[f"{split}_iwelbo_{samples}_nats"] = result.mean + images.log_jacobian
        return found

    def latents(self, epoch: int) -> dict[str, Any]:
        """Measure the layers, and the losses of the bound by prior and guide."""
        measured = measure_latents(self.vae, *self._first.first(LATENT_IMAGES)) | self._surgery()
        return measured | (self._gaps() if self._refines(epoch) else {})

    def _refines(self, epoch: int) -> bool:
        """True for an epoch at whose end the guide is refined, as for the last one."""
        # Of a flow, moves of its Gaussian alone would not tell the cost of the family from that of amortization.
        if not self.vae.model.depth or not self.vae.guide.is_gaussian or self.epochs < self.epochs_per_refinement:
            return False
        return epoch % self.epochs_per_refinement == 0 or epoch == self.epochs

    def _surgery(self) -> dict[str, Any]:
        from pyrovae.evaluation.surgery import elbo_surgery, obstacle

        if obstacle(self.vae.model, self.vae.guide, self._first.context):
            return {}
        surgery = elbo_surgery(self.vae.model, self.vae.guide, self._first.x, self._first.context)
        measured = {"mutual_information": surgery.mutual_information, "marginal_kl": surgery.marginal_kl}
        # Near the limit the information is too small, and the marginal divergence too large by as much.
        return {"surgery": measured | {"limit_of_information": math.log(len(self._first.x)), "num_images": len(self._first.x)}}

    def _gaps(self) -> dict[str, Any]:
        from pyrovae.evaluation.chunks import columns_of

        gaps = self._gap_estimator(columns_of(*self._first.first(REFINED_IMAGES)))
        both = {"approximation": gaps.approximation, "amortization": gaps.amortization}
        measured = {name: gap.mean for name, gap in both.items()}
        errors = {f"{name}_standard_error": gap.standard_error for name, gap in both.items()}
        settings = {"num_images": len(gaps.elbo), "num_samples": NUM_SAMPLES, "num_steps": NUM_STEPS}
        return {"inference_gaps": measured | errors | settings}

    @cached_property
    def _gap_estimator(self) -> GapEstimator:
        """The estimator of gaps for all epochs, so that graphs are captured once."""
        from pyrovae.evaluation.gaps import GapEstimator

        return GapEstimator(
            self.vae.model,
            self.vae.guide,
            num_samples=NUM_SAMPLES,
            num_steps=NUM_STEPS,
            learning_rate=LEARNING_RATE,
            times=self.epochs // self.epochs_per_refinement + 1,
            # Fixed rather than chosen by time, so that a resumed training measures the same bits.
            engine="graph",
        )

    @property
    def _first(self) -> Images:
        return next(iter(self.images.values()))
