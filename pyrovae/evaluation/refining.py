"""The refinement of the posteriors of some units alone, for each image, and what each adds to the bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from pyrovae.engine.modules import Program
from pyrovae.evaluation.chunks import draw_seed, noise_of_chunk
from pyrovae.evaluation.gaps import REFINING_PARTICLES, RefinedGuide
from pyrovae.evaluation.likelihood import Estimates
from pyrovae.evaluation.measuring import measuring
from pyrovae.evaluation.sampling import PARTICLES_AT_ONCE
from pyrovae.inference.objectives import ELBO
from pyrovae.inference.weights import log_weights

# A layer and a number of a unit; None for the whole layer.
Place = tuple[str, int | None]

# In units of the guide's scales: a location moves by some of them in a hundred steps.
LEARNING_RATE = 0.05


def unit_gains(
    model: Program, guide: Program, rows: Sequence[Tensor], places: Sequence[Place], num_steps: int
) -> dict[Place, Estimates]:
    r"""The gain of each of some units and layers, in nats: what the posterior refined for each image adds to the bound.

    .. math:: L[q^*] - L[q^*_{\setminus u}]

    The Gaussians of all these units are shifted and rescaled together, by Adam; in :math:`q^*_{\setminus u}` those of the unit,
    or of the layer, are the guide's again. Both bounds have the same noise.

    Args:
        model: the generative program.
        guide: a guide whose latents are Gaussians.
        rows: the images ``(B, D)``, followed by contexts ``(B, C)`` if any.
        places: the layers and units.
        num_steps: the number of steps of Adam.
    """
    with measuring(model, guide):
        refined = RefinedGuide(guide, rows)
        _refine(model, refined, rows, places, num_steps)
        seed = draw_seed(rows[0].device)
        whole = _bound(model, refined, rows, seed)
        gains = {}
        for place in places:
            with _unmoved(refined, *place):
                gains[place] = Estimates((whole - _bound(model, refined, rows, seed)).cpu())
    return gains


def _refine(model: Program, refined: RefinedGuide, rows: Sequence[Tensor], places: Sequence[Place], num_steps: int) -> None:
    """Ascend the bound by the Gaussians of the units alone, for each image."""
    free = {name: torch.zeros_like(each) for name, each in refined.named_parameters()}
    for layer, unit in places:
        for part in ("shift", "log_scale") if unit is not None else ():
            free[f"{part}_{layer}"][..., unit] = 1
    optimizer = torch.optim.Adam(refined.parameters(), lr=LEARNING_RATE, eps=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    objective = ELBO(REFINING_PARTICLES, gradient="sticking_the_landing")
    for _ in range(num_steps):
        with torch.enable_grad():
            loss = objective.differentiable_loss(model, refined, *rows)
            gradients = torch.autograd.grad(loss, list(refined.parameters()))
        for (name, move), gradient in zip(refined.named_parameters(), gradients, strict=True):
            move.grad = gradient * free[name]
        optimizer.step()
        schedule.step()


def _bound(model: Program, guide: Program, rows: Sequence[Tensor], seed: int) -> Tensor:
    """The bound of each image ``(B,)``, with the same noise at every call."""
    with noise_of_chunk(seed, 0):
        return log_weights(model, guide, *rows, num_particles=PARTICLES_AT_ONCE).double().mean(0)


@contextmanager
def _unmoved(refined: RefinedGuide, layer: str, unit: int | None) -> Iterator[None]:
    """Take back what moved the posterior of a unit, or of a layer, while the context lasts."""
    where = slice(None) if unit is None else unit
    moves = [refined.get_parameter(f"{part}_{layer}") for part in ("shift", "log_scale")]
    before = [each.detach().clone() for each in moves]
    for each in moves:
        each[..., where] = 0
    yield
    for each, value in zip(moves, before, strict=True):
        each.copy_(value)
