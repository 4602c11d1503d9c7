"""Hamiltonian Monte Carlo on a geometric path: the transitions of annealing, one for all chains and images at once."""

from collections.abc import Iterable

import torch
from torch import Tensor

from pyrovae.evaluation.paths import Density, Point

# As in Wu et al. (2017).
TARGET_ACCEPTANCE = 0.65
FIRST_SIZE, ADAPTATION_RATE = 0.3, 0.3
# Steps of one size resonate with the periods of a Gaussian, and chains come back to where they were: Neal (2011).
SHORTEST, LONGEST = 0.8, 1.2


def transition(density: Density, point: Point, temperature: float, step: Tensor, num_leapfrog: int) -> tuple[Point, Tensor]:
    r"""A Hamiltonian trajectory of fresh momentum, accepted or refused: it leaves :math:`f_b` invariant and is reversible.

    .. math:: a = \min(1, \exp(H(z, v) - H(z', v'))), \quad H(z, v) = - \log f_b(z) + \tfrac 1 2 v^\top v, \quad v \sim N(0, I)

    Each chain takes its steps at a length of 0.8 to 1.2 times ``step``, drawn apart from its state. A trajectory whose density
    is not a number is refused. Neal (2011), section 3.

    Args:
        density: of the path.
        point: where the chains are.
        temperature: b.
        step: the length of a leapfrog step ``(B,)``, the same in all directions of an image.
        num_leapfrog: steps of a trajectory.

    Returns:
        Where the chains are next, and the probability ``(K, B)`` with which each end was accepted.
    """
    lengths = torch.empty_like(point.log_start).uniform_(SHORTEST, LONGEST)
    momentum = torch.randn_like(point.state)
    end, last = leapfrog(density, point, momentum, temperature, (lengths * step)[..., None], num_leapfrog)
    kinetic = 0.5 * (momentum**2 - last**2).sum(-1)
    log_ratio = end.log_density(temperature) - point.log_density(temperature) + kinetic
    accepted = torch.rand_like(log_ratio).log() < log_ratio
    # Not a number is below nothing: such an end is refused, and counts as refused.
    return where(accepted, end, point), log_ratio.clamp(max=0.0).exp().nan_to_num(0.0)


def leapfrog(
    density: Density, point: Point, momentum: Tensor, temperature: float, step: Tensor, num_steps: int
) -> tuple[Point, Tensor]:
    r"""Follow the dynamics for some steps.

    .. math::
        v \leftarrow v + \tfrac \epsilon 2 \nabla \log f_b(z), \quad z \leftarrow z + \epsilon v, \quad
        v \leftarrow v + \tfrac \epsilon 2 \nabla \log f_b(z)

    It keeps volume, and from the end with the momentum turned round it comes back: what makes ``transition`` right. With a
    step of another length in each direction, the momentum is that of a diagonal mass. Neal (2011), equations 2.28 to 2.30.

    Args:
        density: of the path.
        point: where to begin.
        momentum: v ``(K, B, D)``.
        temperature: b.
        step: epsilon, of a shape that broadcasts with the momentum.
        num_steps: how many.

    Returns:
        The last point and momentum.
    """
    for _ in range(num_steps):
        momentum = momentum + 0.5 * step * point.gradient(temperature)
        point = density(point.state + step * momentum)
        momentum = momentum + 0.5 * step * point.gradient(temperature)
    return point, momentum


def where(accepted: Tensor, one: Point, other: Point) -> Point:
    """One point in the chains that accepted ``(K, B)``, the other elsewhere."""
    pairs = zip(one, other, strict=True)
    return Point(*(torch.where(accepted[..., None] if new.dim() == 3 else accepted, new, old) for new, old in pairs))


def tuned_sizes(density: Density, point: Point, temperatures: Iterable[float], num_leapfrog: int) -> Tensor:
    r"""The size of steps at which about 65 % of the ends are accepted, as chains pass through some temperatures.

    .. math:: \log \epsilon \leftarrow \log \epsilon + 0.3 (\bar a - 0.65)

    The chains move once at each temperature; the acceptance :math:`\bar a` of an image is the mean over its chains. These
    chains follow their own acceptance: they are no sample of anything, and only their sizes are of use.

    Args:
        density: of the path.
        point: where the chains begin.
        temperatures: T of them, in the order in which they are met.
        num_leapfrog: steps of a trajectory.

    Returns:
        Sizes ``(T, B)``.
    """
    log_size = torch.full_like(point.log_start[0], FIRST_SIZE).log()
    sizes = []
    for temperature in temperatures:
        point, acceptance = transition(density, point, temperature, log_size.exp(), num_leapfrog)
        log_size = log_size + ADAPTATION_RATE * (acceptance.mean(0) - TARGET_ACCEPTANCE)
        sizes.append(log_size.exp())
    return torch.stack(sizes)
