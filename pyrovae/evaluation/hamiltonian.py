"""Hamiltonian Monte Carlo on a geometric path: the transitions of annealing, for all chains and images at once."""

from collections.abc import Iterable

import torch
from torch import Tensor

from pyrovae.evaluation.paths import Density, Point

# As in Wu et al. (2017).
TARGET_ACCEPTANCE = 0.65
FIRST_SIZE, ADAPTATION_RATE = 0.3, 0.3
# The range of random factors of steps: with a fixed size, chains may return to where they started: Neal (2011).
SHORTEST, LONGEST = 0.8, 1.2


def transition(density: Density, point: Point, temperature: float, step: Tensor, num_leapfrog: int) -> tuple[Point, Tensor]:
    r"""Run a Hamiltonian trajectory with new momentum, and accept or reject it: this is reversible, :math:`f_b` invariant.

    .. math:: a = \min(1, \exp(H(z, v) - H(z', v'))), \quad H(z, v) = - \log f_b(z) + \tfrac 1 2 v^\top v, \quad v \sim N(0, I)

    Each chain's steps are 0.8 to 1.2 times ``step`` long, drawn independently of its state. A trajectory whose density is NaN
    is rejected. Neal (2011), section 3.

    Args:
        density: the density of the path.
        point: the point of the chains.
        temperature: the temperature b.
        step: the length of a leapfrog step ``(B,)``, the same in all directions of an image.
        num_leapfrog: the number of steps of a trajectory.

    Returns:
        The next point of the chains, and the probability ``(K, B)`` with which each end was accepted.
    """
    lengths = torch.empty_like(point.log_start).uniform_(SHORTEST, LONGEST)
    momentum = torch.randn_like(point.state)
    end, last = leapfrog(density, point, momentum, temperature, (lengths * step)[..., None], num_leapfrog)
    kinetic = 0.5 * (momentum**2 - last**2).sum(-1)
    log_ratio = end.log_density(temperature) - point.log_density(temperature) + kinetic
    accepted = torch.rand_like(log_ratio).log() < log_ratio
    # Comparisons with NaN are false: such an end is rejected, and counts as rejected.
    return select_points(accepted, end, point), log_ratio.clamp(max=0.0).exp().nan_to_num(0.0)


def leapfrog(
    density: Density, point: Point, momentum: Tensor, temperature: float, step: Tensor, num_steps: int
) -> tuple[Point, Tensor]:
    r"""Follow the Hamiltonian dynamics for some leapfrog steps.

    .. math::
        v \leftarrow v + \tfrac \epsilon 2 \nabla \log f_b(z), \quad z \leftarrow z + \epsilon v, \quad
        v \leftarrow v + \tfrac \epsilon 2 \nabla \log f_b(z)

    It keeps volume and is reversible, which makes ``transition`` correct. Steps of another length in each direction correspond
    to a diagonal mass. Neal (2011), equations 2.28 to 2.30.

    Args:
        density: the density of the path.
        point: the first point.
        momentum: the momentum v ``(K, B, D)``.
        temperature: the temperature b.
        step: the length epsilon, of a shape that broadcasts with the momentum.
        num_steps: the number of steps.

    Returns:
        The last point and momentum.
    """
    for _ in range(num_steps):
        momentum = momentum + 0.5 * step * point.gradient(temperature)
        point = density(point.state + step * momentum)
        momentum = momentum + 0.5 * step * point.gradient(temperature)
    return point, momentum


def select_points(accepted: Tensor, one: Point, other: Point) -> Point:
    """Take one point in the chains that accepted ``(K, B)``, and the other elsewhere."""
    pairs = zip(one, other, strict=True)
    return Point(*(torch.where(accepted[..., None] if new.dim() == 3 else accepted, new, old) for new, old in pairs))


def tune_sizes(density: Density, point: Point, temperatures: Iterable[float], num_leapfrog: int) -> Tensor:
    r"""Find the sizes of steps at which about 65 % of trajectories are accepted, while chains pass through temperatures.

    .. math:: \log \epsilon \leftarrow \log \epsilon + 0.3 (\bar a - 0.65)

    The chains move once at each temperature; the acceptance :math:`\bar a` of an image is the mean over its chains. Since steps
    adapt to acceptance, these chains are no samples, and only their sizes are used.

    Args:
        density: the density of the path.
        point: the first point of the chains.
        temperatures: the T temperatures, in order.
        num_leapfrog: the number of steps of a trajectory.

    Returns:
        The sizes ``(T, B)``.
    """
    log_size = torch.full_like(point.log_start[0], FIRST_SIZE).log()
    sizes = []
    for temperature in temperatures:
        point, acceptance = transition(density, point, temperature, log_size.exp(), num_leapfrog)
        log_size = log_size + ADAPTATION_RATE * (acceptance.mean(0) - TARGET_ACCEPTANCE)
        sizes.append(log_size.exp())
    return torch.stack(sizes)
