"""The refinement of the posteriors of some units alone, for each image, and what each adds to the bound."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyrovae.engine.modules import Program
from pyrovae.evaluation.chunks import draw_seed, noise_of_chunk
from pyrovae.evaluation.gaps import REFINING_PARTICLES, no_moves, refined_guide
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
        moves = no_moves(guide, rows)
        _refine(model, guide, moves, rows, places, num_steps)
        seed = draw_seed(rows[0].device)
        whole = _bound(model, refined_guide(guide, moves), rows, seed)
        return {
            place: Estimates((whole - _bound(model, refined_guide(guide, _without(moves, *place)), rows, seed)).cpu())
            for place in places
        }


def _refine(
    model: Program, guide: Program, moves: dict[str, Tensor], rows: Sequence[Tensor], places: Sequence[Place], num_steps: int
) -> None:
    """Ascend the bound by the Gaussians of the units alone, for each image."""
    free = {name: torch.zeros_like(each) for name, each in moves.items()}
    for layer, unit in places:
        if unit is not None:
            free[layer][..., unit] = 1
    optimizer = torch.optim.Adam([each.requires_grad_() for each in moves.values()], lr=LEARNING_RATE, eps=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    objective, refined = ELBO(REFINING_PARTICLES, gradient="sticking_the_landing"), refined_guide(guide, moves)
    for _ in range(num_steps):
        with torch.enable_grad():
            loss = objective.differentiable_loss(model, refined, *rows)
            gradients = torch.autograd.grad(loss, list(moves.values()))
        for (name, move), gradient in zip(moves.items(), gradients, strict=True):
            move.grad = gradient * free[name]
        optimizer.step()
        schedule.step()


def _bound(model: Program, guide: Program, rows: Sequence[Tensor], seed: int) -> Tensor:
    """The bound of each image ``(B,)``, with the same noise at every call."""
    with noise_of_chunk(seed, 0):
        return log_weights(model, guide, *rows, num_particles=PARTICLES_AT_ONCE).double().mean(0)


def _without(moves: dict[str, Tensor], layer: str, unit: int | None) -> dict[str, Tensor]:
    """The moves but for those of a unit, or of a layer."""
    kept = {name: each.clone() for name, each in moves.items()}
    kept[layer][..., slice(None) if unit is None else unit] = 0
    return kept
