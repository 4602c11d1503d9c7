"""The gaps between log p(x) and the bound: of the guide's family of Gaussians, and of its amortization over images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import Normal
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.engine.modules import Program
from pyrovae.engine.repeated import RepeatedFunction
from pyrovae.evaluation.chunks import rows_of
from pyrovae.evaluation.latents import latent_sites
from pyrovae.evaluation.likelihood import Estimates
from pyrovae.evaluation.measuring import measuring
from pyrovae.evaluation.sampling import PARTICLES_AT_ONCE, draw_weights, num_rounds
from pyrovae.evaluation.support import SupportOfData
from pyrovae.evaluation.weighing import error_of_mean
from pyrovae.inference.objectives import ELBO
from pyrovae.inference.weights import log_mean_exp, log_weights
from pyrovae.programs.distributions import gaussian_of

IMAGES_AT_ONCE = 100
REFINING_PARTICLES = 10


@dataclass(frozen=True, eq=False)
class InferenceGaps:
    """Three values for each image ``(N,)``, in nats, in falling order, and an error.

    Args:
        log_likelihood: importance-sampled from the refined guide: a lower bound in expectation.
        refined_elbo: the bound with the guide's Gaussians refined for each image.
        elbo: the bound of the guide as it is.
        sampling_error: the standard error of the amortization gap of each image, from the spread of the samples.
    """

    log_likelihood: Tensor
    refined_elbo: Tensor
    elbo: Tensor
    sampling_error: Tensor

    @property
    def approximation(self) -> Estimates:
        """The approximation gap of each image, the cost of the family: log p(x) - L[q*]."""
        return Estimates(self.log_likelihood - self.refined_elbo)

    @property
    def amortization(self) -> Estimates:
        """The amortization gap of each image, the cost of one network for all images: L[q*] - L[q]."""
        return Estimates(self.refined_elbo - self.elbo)


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

    Cremer et al. (2018), equation 3. q* has the Gaussians of the guide, shifted and rescaled for each image and unit by
    gradient ascent on the bound. With one layer, and in a mean-field guide, q* ranges over all diagonal Gaussians; where layers
    depend on each other, their dependence stays that of the guide. Programs are not changed.

    Args:
        model: the generative program.
        guide: a guide whose latents are Gaussians.
        x: images ``(N, D)``; each takes the time of ``num_steps`` steps of training with ten particles.
        context: the contexts ``(N, C)``.
        num_samples: the number of samples for each image and each of the three values.
        num_steps: the number of steps of Adam.
        learning_rate: the learning rate of Adam, which falls to zero along a cosine.

    Raises:
        ValueError: for a guide without latents, or with a latent that is no product of Gaussians over units, no images, data
            outside the support of the likelihood, no samples, and a negative number of steps.
    """
    if num_samples < 1 or num_steps < 0:
        raise ValueError(f"expected at least one sample, and steps; got num_samples={num_samples}, num_steps={num_steps}")
    chunks = list(rows_of(x, context, IMAGES_AT_ONCE))
    estimator = GapEstimator(
        model, guide, num_samples=num_samples, num_steps=num_steps, learning_rate=learning_rate, times=len(chunks)
    )
    gaps = [vars(estimator(rows, number * IMAGES_AT_ONCE)).values() for number, rows in enumerate(chunks)]
    return InferenceGaps(*(torch.cat(parts) for parts in zip(*gaps, strict=True)))


class GapEstimator:
    """An estimator of ``inference_gaps`` for a few images, which is captured once and called as the programs are trained.

    Its arguments are those of ``inference_gaps``, the number of ``times`` that it will be called, which decides whether
    capturing is worth its time, and the ``engine`` of ``RepeatedFunction``; this choice decides the last bits.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        *,
        num_samples: int,
        num_steps: int,
        learning_rate: float,
        times: int,
        engine: str = "auto",
    ) -> None:
        self.model, self.guide, self.times = model, guide, times
        self._support = SupportOfData(model)
        self.num_samples, self.num_steps, self.learning_rate = num_samples, num_steps, learning_rate
        self._gradients, self._weights = (
            RepeatedFunction(each, [model, guide], engine) for each in (self._gradients_of, self._weights_of)
        )

    def __call__(self, rows: Sequence[Tensor], first: int = 0) -> InferenceGaps:
        """The gaps of images ``(B, D)``, followed by contexts ``(B, C)`` if any, under the current parameters.

        The first image is the ``first``-th of the data, for errors about data outside the support of the likelihood.
        """
        self._support(rows, first)
        for captured in (self._gradients, self._weights):
            captured.refresh_parameters()
        with measuring(self.model, self.guide):
            moves = no_moves(self.guide, rows)
            self._names, unmoved = list(moves), list(moves.values())
            after, before = (self._draw(moves, rows).double() for moves in (self._ascended(unmoved, rows), unmoved))
        error = torch.hypot(error_of_mean(after), error_of_mean(before))
        return InferenceGaps(log_mean_exp(after), after.mean(0), before.mean(0), error)

    def _ascended(self, unmoved: list[Tensor], rows: Sequence[Tensor]) -> list[Tensor]:
        """The shifts and scales after gradient ascent on the bound."""
        gradients_of = self._gradients.bind(unmoved, rows, self.times * self.num_steps)
        moves = [each.clone() for each in unmoved]
        # In units of the guide's scales the curvature of the bound is about one, and so is lr / eps: near the optimum, where
        # gradients vanish, steps vanish too. With the usual eps, rounding errors would be enlarged.
        optimizer = torch.optim.Adam(moves, lr=self.learning_rate, eps=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(self.num_steps, 1))
        for _ in range(self.num_steps):
            for move, gradient in zip(moves, gradients_of(*moves), strict=True):
                move.grad = gradient
            optimizer.step()
            schedule.step()
        return moves

    def _gradients_of(self, *inputs: Tensor) -> list[Tensor]:
        """The gradients of the negative bound by the moves, without the score, whose noise remains where the bound is tight."""
        moves, rows = self._split(inputs)
        objective = ELBO(REFINING_PARTICLES, gradient="sticking_the_landing")
        with torch.enable_grad():
            moves = [move.detach().requires_grad_() for move in moves]
            loss = objective.differentiable_loss(self.model, self._with(moves), *rows)
            # Only by the moves, so that gradients of the programs' parameters stay as they are.
            return list(torch.autograd.grad(loss, moves))

    def _draw(self, moves: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
        """Draw log-weights ``(num_samples, B)``."""
        draw = self._weights.bind(moves, rows, self.times * 2 * num_rounds(self.num_samples, PARTICLES_AT_ONCE))
        return draw_weights(lambda: draw(*moves), self.num_samples, PARTICLES_AT_ONCE)

    def _weights_of(self, *inputs: Tensor) -> list[Tensor]:
        moves, rows = self._split(inputs)
        return [log_weights(self.model, self._with(moves), *rows, num_particles=PARTICLES_AT_ONCE)]

    def _split(self, inputs: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        return inputs[: len(self._names)], inputs[len(self._names) :]

    def _with(self, moves: Iterable[Tensor]) -> Program:
        return refined_guide(self.guide, dict(zip(self._names, moves, strict=True)))


def no_moves(guide: Program, rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """The moves that leave a guide's Gaussians as they are: zeros ``(2, B, *event)``, shifts and log-scales, by site.

    Args:
        guide: the guide.
        rows: the images, followed by contexts if any.

    Raises:
        ValueError: for no latent, and for a latent that is no product of Gaussians over units.
    """
    sites = latent_sites(guide, rows)
    if not sites:
        raise ValueError(
            "expected a guide with latents to refine; got none: without them the bound is log p(x), and has no gap"
        )
    for name, site in sites.items():
        if gaussian_of(site["fn"]) is None:
            raise ValueError(f"expected a guide of Gaussian latents to refine; site {name!r} is drawn from {site['fn']}")
    return {name: site["fn"].mean.new_zeros(2, *site["fn"].mean.shape) for name, site in sites.items()}


def refined_guide(guide: Program, moves: Mapping[str, Tensor]) -> Program:
    r"""A guide whose Gaussians are shifted and rescaled for each image and unit.

    .. math:: q^*(z_l | \cdot) = N(z_l | \mu + \sigma a_l(x), \sigma^2 e^{2 b_l(x)})

    Args:
        guide: the original guide.
        moves: the shifts a and the logarithms b of scales, ``(2, B, *event)`` by site, as those of ``no_moves``.
    """

    def refined(*rows: Tensor) -> None:
        with _Moved(moves):
            guide(*rows)

    return refined


class _Moved(Messenger):
    """A handler that shifts and rescales the Gaussians of latents."""

    def __init__(self, moves: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.moves = moves

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["name"] not in self.moves:
            return
        shift, log_scale = self.moves[msg["name"]]
        gaussian = gaussian_of(msg["fn"])
        assert gaussian is not None
        moved = Normal(gaussian.loc + gaussian.scale * shift, gaussian.scale * log_scale.exp())
        msg["fn"] = moved.to_event(msg["fn"].event_dim)
