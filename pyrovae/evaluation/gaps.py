"""What a guide gives away: by the family of its Gaussians, and by not fitting them to each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import Normal
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyrovae.evaluation.chunks import rows_of
from pyrovae.evaluation.latents import is_gaussian, latent_sites
from pyrovae.evaluation.sampling import WeightSampler
from pyrovae.inference.modules import Program, evaluation_mode
from pyrovae.inference.objectives import ELBO
from pyrovae.inference.weights import log_mean_exp
from pyrovae.programs.conditionals import share_constants

IMAGES_AT_ONCE = 100
REFINING_PARTICLES = 10


@dataclass(frozen=True, eq=False)
class InferenceGaps:
    """Three values of each image ``(N,)``, in nats, the next below the one before.

    Args:
        log_likelihood: importance-sampled from the refined guide: a lower bound in expectation.
        refined_elbo: the bound of the guide's Gaussians, refined for each image.
        elbo: the bound of the guide as it is.
    """

    log_likelihood: Tensor
    refined_elbo: Tensor
    elbo: Tensor

    @property
    def approximation(self) -> float:
        """What the family costs: log p(x) - L[q*], in nats per image."""
        return (self.log_likelihood - self.refined_elbo).mean().item()

    @property
    def amortization(self) -> float:
        """What one network for all images costs: L[q*] - L[q], in nats per image."""
        return (self.refined_elbo - self.elbo).mean().item()


def inference_gaps(
    model: Program,
    guide: Program,
    x: Tensor,
    context: Tensor | None = None,
    *,
    num_samples: int = 1000,
    num_steps: int = 500,
    learning_rate: float = 1e-2,
) -> InferenceGaps:
    r"""Split the gap between log p(x) and the bound into those of approximation and of amortization.

    .. math:: \log p(x) - L[q] = (\log p(x) - L[q^*]) + (L[q^*] - L[q])

    Cremer et al. (2018), equation 3. q* has the Gaussians of the guide, each layer's shifted and rescaled per image and unit
    by gradient ascent on the bound, from the guide as it is. With one layer, and in a mean-field guide, q* ranges over all
    diagonal Gaussians; where layers depend on each other, their dependence stays the guide's. Programs are left as they were.

    Args:
        model: the generative program.
        guide: one whose latents are Gaussians.
        x: some images ``(N, D)``; the time is that of ``num_steps`` steps of training with ten particles on each.
        context: of each image ``(N, C)``.
        num_samples: of each image, for each of the three values.
        num_steps: of Adam.
        learning_rate: of Adam, whose rate falls to zero along a cosine.

    Raises:
        ValueError: for a guide with a latent that is no product of Gaussians over units.
    """
    chunks = []
    for rows in rows_of(x, context, IMAGES_AT_ONCE):
        with evaluation_mode(), share_constants():
            refined = Refined(guide, rows)
            _refine(model, refined, rows, num_steps, learning_rate)
            # A few images are soon sampled: plain Pyro takes any guide, and nothing need be captured.
            samplers = (WeightSampler(model, program, engine="eager") for program in (refined, guide))
            after, before = (sampler(rows, num_samples).double() for sampler in samplers)
            chunks.append((log_mean_exp(after), after.mean(0), before.mean(0)))
    return InferenceGaps(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))


class Refined(nn.Module):
    r"""A guide whose Gaussians are shifted and rescaled per image and unit, at first not at all.

    .. math:: q^*(z_l | \cdot) = N(z_l | \mu + \sigma a_l(x), \sigma^2 e^{2 b_l(x)})

    Args:
        guide: the program.
        rows: the images, and their contexts where there are any, that it will be called with.

    Raises:
        ValueError: for a latent that is no product of Gaussians over units.
    """

    def __init__(self, guide: Program, rows: Sequence[Tensor]) -> None:
        super().__init__()
        # In a tuple, where nn.Module does not look: only what is refined is a parameter.
        self._guide = (guide,)
        for name, site in latent_sites(guide, rows).items():
            if not is_gaussian(site["fn"]):
                raise ValueError(f"expected a guide of Gaussian latents to refine; site {name!r} is drawn from {site['fn']}")
            for part in ("shift", "log_scale"):
                self.register_parameter(f"{part}_{name}", nn.Parameter(torch.zeros_like(site["fn"].mean)))

    def forward(self, *rows: Tensor) -> None:
        """Sample all layers."""
        (guide,) = self._guide
        with _Moved(self._parameters):
            guide(*rows)


class _Moved(Messenger):
    """Moves the Gaussians of latents."""

    def __init__(self, by: Any) -> None:
        super().__init__()
        self.by = by

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or f"shift_{msg['name']}" not in self.by:
            return
        shift, log_scale = (self.by[f"{part}_{msg['name']}"] for part in ("shift", "log_scale"))
        gaussian = msg["fn"].base_dist
        msg["fn"] = Normal(gaussian.loc + gaussian.scale * shift, gaussian.scale * log_scale.exp()).to_event(1)


def _refine(model: Program, refined: Refined, rows: Sequence[Tensor], num_steps: int, learning_rate: float) -> None:
    """Gradient ascent on the bound; without the score, whose noise would remain where the bound is tight."""
    parameters = list(refined.parameters())
    # In units of the guide's own scales the bound's curvature is about one, and so is lr / eps: near the optimum, where
    # gradients vanish, steps do too. The usual eps would blow rounding errors up.
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, eps=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(num_steps, 1))
    objective = ELBO(REFINING_PARTICLES, gradient="sticking_the_landing")
    for _ in range(num_steps):
        with torch.enable_grad():
            loss = objective.differentiable_loss(model, refined, *rows)
            # With respect to these alone: the programs' own gradients are not touched.
            gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        schedule.step()
