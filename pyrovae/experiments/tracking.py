"""What is followed over training, on images that are never those of the test and the same at every epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pyrovae.experiments.measuring import measured_latents

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.evaluation.gaps import GapEstimator
    from pyrovae.programs.guides import VAE

# Of the images the first: what bound and aggregate posterior are followed on, what layers are, what the guide is refined for.
BOUND_IMAGES, LATENT_IMAGES, REFINED_IMAGES = 1000, 500, 20
NUM_SAMPLES, NUM_STEPS, LEARNING_RATE = 100, 20, 0.2
# Refining takes as long as training on a few thousand examples: once for so many, at the end of an epoch.
EXAMPLES_PER_REFINEMENT = 50_000


@dataclass(frozen=True, eq=False)
class Tracked:
    """Images, and what the bound on them is called in the history."""

    vae: VAE
    key: str
    images: Tensor
    context: Tensor | None
    epochs_per_refinement: int
    epochs: int

    @classmethod
    def of(cls, vae: VAE, dataset: Dataset, epochs: int) -> Tracked:
        """Of the validation data where there are any, else of the training data, for so many epochs."""
        import torch

        # Rows may be sorted: the first of them are no sample.
        rows = dataset.train if dataset.valid is None else dataset.valid
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:BOUND_IMAGES].to(rows.device)
        if dataset.valid is not None:
            contexts = dataset.contexts.get("valid")
            key, images, context = "valid_elbo", dataset.valid[chosen], None if contexts is None else contexts[chosen]
        else:
            drawn = dataset.draw_train(chosen, generator=torch.Generator(rows.device).manual_seed(0))
            key, (images, context) = "train_elbo", drawn if isinstance(drawn, tuple) else (drawn, None)
        return cls(vae, key, images, context, -(-EXAMPLES_PER_REFINEMENT // len(dataset.train)), epochs)

    def elbo(self) -> float:
        """The true bound."""
        from pyrovae.evaluation.likelihood import log_likelihood

        return log_likelihood(self.vae.model, self.vae.guide, self.images, num_samples=1, context=self.context).elbo

    def latents(self, epoch: int) -> dict[str, Any]:
        """What the layers do, and what the bound loses by prior and guide."""
        measured = measured_latents(self.vae, *self._first(LATENT_IMAGES)) | self._surgery()
        return measured | (self._gaps() if self._refines(epoch) else {})

    def _refines(self, epoch: int) -> bool:
        """After enough examples, and after the last epoch of so many."""
        if not self.vae.model.depth or self.epochs < self.epochs_per_refinement:
            return False
        return epoch % self.epochs_per_refinement == 0 or epoch == self.epochs

    def _surgery(self) -> dict[str, Any]:
        from pyrovae.evaluation.surgery import elbo_surgery, obstacle

        if obstacle(self.vae.model, self.vae.guide, self.context):
            return {}
        surgery = elbo_surgery(self.vae.model, self.vae.guide, self.images, self.context)
        measured = {"mutual_information": surgery.mutual_information, "marginal_kl": surgery.marginal_kl}
        # Near the limit the first is too small, and the second too large by as much.
        return {"surgery": measured | {"limit_of_information": math.log(len(self.images)), "num_images": len(self.images)}}

    def _gaps(self) -> dict[str, Any]:
        from pyrovae.evaluation.chunks import columns_of

        gaps = self._gap_estimator(columns_of(*self._first(REFINED_IMAGES)))
        both = {"approximation": gaps.approximation, "amortization": gaps.amortization}
        measured = {name: gap.mean for name, gap in both.items()}
        errors = {f"{name}_standard_error": gap.standard_error for name, gap in both.items()}
        settings = {"num_images": len(gaps.elbo), "num_samples": NUM_SAMPLES, "num_steps": NUM_STEPS}
        return {"inference_gaps": measured | errors | settings}

    @cached_property
    def _gap_estimator(self) -> GapEstimator:
        """One for all epochs: what it captures is captured once."""
        from pyrovae.evaluation.gaps import GapEstimator

        return GapEstimator(
            self.vae.model,
            self.vae.guide,
            num_samples=NUM_SAMPLES,
            num_steps=NUM_STEPS,
            learning_rate=LEARNING_RATE,
            times=self.epochs // self.epochs_per_refinement + 1,
            # Not chosen by the clock: a training that goes on measures the same bits.
            engine="graph",
        )

    def _first(self, number: int) -> tuple[Tensor, Tensor | None]:
        return self.images[:number], None if self.context is None else self.context[:number]
