"""The statistics of an example's log-weights, which show how far to trust the estimate of its log-likelihood."""

import math

import torch
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

# With fewer exceedances a tail cannot be distinguished from chance.
FEWEST_IN_TAIL = 10
# Largest weights that differ by less than this cannot mislead by more.
ALIKE = 1e-3


def effective_sample_size(weights: Tensor) -> Tensor:
    r"""The effective sample size of log-weights ``(K, B)``: :math:`(\sum_k w_k)^2 / \sum_k w_k^2`, from 1 to K. Kong (1992)."""
    return (2 * weights.logsumexp(0) - (2 * weights).logsumexp(0)).exp()


def standard_error(weights: Tensor) -> Tensor:
    r"""The standard error of the log-mean weight, from log-weights ``(K, B)``, in nats.

    .. math:: \operatorname{sd}(w) / (\sqrt K \, \bar w) = \sqrt{\frac{K / \operatorname{ESS} - 1}{K - 1}}

    It is correct to first order, as for any smooth function of a mean, and infinite for one sample.
    """
    count = len(weights)
    if count == 1:
        return torch.full_like(weights[0], math.inf)
    return ((count / effective_sample_size(weights) - 1).clamp(min=0) / (count - 1)).sqrt()


def error_of_mean(weights: Tensor) -> Tensor:
    """The standard error of the mean log-weight, from log-weights ``(K, B)``; infinite for one sample."""
    if len(weights) == 1:
        return torch.full_like(weights[0], math.inf)
    return weights.std(0) / math.sqrt(len(weights))


def pareto_k(weights: Tensor) -> Tensor:
    r"""The tail index of the weights, from log-weights ``(K, B)``: below one half the estimate has a finite variance.

    It belongs to the generalized Pareto distribution fitted to the largest :math:`\min(K / 5, 3 \sqrt K)` weights, minus the
    next one. Above ``heavy_tail`` the estimate and its standard error are not reliable. Vehtari et al. (2024), section 3. It is
    minus infinity where all weights are the same, and NaN where fewer than ten are in the tail.
    """
    count = math.ceil(min(0.2 * len(weights), 3 * math.sqrt(len(weights))))
    if count < FEWEST_IN_TAIL:
        return torch.full_like(weights[0], math.nan)
    largest = weights.topk(count + 1, dim=0).values
    exceedances = (largest[:-1] - largest[0]).exp() - (largest[-1] - largest[0]).exp()
    return torch.tensor([_tail_index(each) for each in exceedances.T.cpu()], dtype=weights.dtype, device=weights.device)


def heavy_tail(num_samples: int) -> float:
    r"""The tail index above which K weights are too few: :math:`\min(1 - 1 / \log_{10} K, 0.7)`, Vehtari et al. (2024).

    >>> round(heavy_tail(500), 2), heavy_tail(5000)
    (0.63, 0.7)
    """
    return min(1 - 1 / math.log10(num_samples), 0.7) if num_samples > 1 else 0.0


def _tail_index(exceedances: Tensor) -> float:
    # Differences of equal weights are rounding errors, whose tail is meaningless.
    if exceedances.max() < ALIKE:
        return -math.inf
    # The fit divides by the first quartile.
    positive = exceedances[exceedances > 0]
    return float(fit_generalized_pareto(positive)[0]) if len(positive) >= FEWEST_IN_TAIL else math.inf


def resampled_places(weights: Tensor, number: int) -> Tensor:
    """Draw the places of ``number`` of the weights, with replacement, in proportion to them: ``(K, B)`` to ``(M, B)``."""
    return torch.multinomial(weights.T.softmax(1), number, replacement=True).T


def sizes_of_curve(num_samples: int) -> list[int]:
    """The sizes 1, 10, 100, ... and the number of samples itself.

    >>> sizes_of_curve(5000)
    [1, 10, 100, 1000, 5000]
    """
    return [*(10**power for power in range(math.ceil(math.log10(num_samples)))), num_samples]


def bound(weights: Tensor, num_particles: int) -> Tensor:
    r"""The importance-weighted bound with fewer particles than there are log-weights ``(K, B)``: ``(B,)``, in nats.

    .. math:: \frac 1 G \sum_{g=1}^G \log \frac 1 k \sum_{i=1}^k w_{(g - 1) k + i}, \quad G = \lfloor K / k \rfloor

    Each weight is used once; the last weights, which do not fill a group, are left out.
    """
    groups = len(weights) // num_particles
    grouped = weights[: groups * num_particles].reshape(groups, num_particles, -1)
    return (grouped.logsumexp(1) - math.log(num_particles)).mean(0)
