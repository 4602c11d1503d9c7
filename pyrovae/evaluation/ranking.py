"""The area under the ROC curve of scores that should tell odd examples from normal ones, with its interval.

Importing this does not import torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Interval:
    """A figure and an interval for it.

    Args:
        value: the figure.
        standard_error: its standard error.
        lower: the lower end of the interval.
        upper: the upper end of the interval.
        confidence: the probability with which such intervals hold the figure for all examples of these kinds.
    """

    value: float
    standard_error: float
    lower: float
    upper: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


def auroc(odd: ArrayLike, normal: ArrayLike, *, confidence: float = 0.95) -> Interval:
    r"""The probability that an odd example has a larger score than a normal one, with an interval.

    .. math:: A = \frac 1 {M N} \sum_{m=1}^M \sum_{n=1}^N \Big([s_m > t_n] + \tfrac 1 2 [s_m = t_n]\Big)

    It is the area under the ROC curve: one half where the score says nothing. The standard error is that of DeLong et al.
    (1988), over both kinds of examples; the interval is that of :math:`\log A / (1 - A)`, which stays between zero and one.
    Where the score separates all examples, or is the same for all, the error is zero and says nothing: the interval is then
    the exact one of :math:`\min(M, N)` independent pairs, all alike, of Clopper and Pearson (1934).

    Args:
        odd: the scores s of odd examples ``(M,)``, larger for odder.
        normal: the scores t of normal examples ``(N,)``.
        confidence: the confidence of the interval.

    Raises:
        ValueError: for fewer than two examples of a kind, and for scores that are no numbers.

    >>> print(auroc([3.0, 2.0, 5.0, 4.0], [1.0, 2.5, 0.0, 2.0]))
    0.906 [0.426, 0.992]
    """
    odd_places, normal_places = placements(odd, normal)
    area = float(odd_places.mean())
    error = math.sqrt(odd_places.var(ddof=1) / len(odd_places) + normal_places.var(ddof=1) / len(normal_places))
    return Interval(area, error, *_ends(area, error, min(len(odd_places), len(normal_places)), confidence), confidence)


def auroc_difference(
    one: tuple[ArrayLike, ArrayLike], other: tuple[ArrayLike, ArrayLike], *, confidence: float = 0.95
) -> Interval:
    r"""The difference of two areas under the ROC curve of the same examples, :math:`A_1 - A_2`, with its interval.

    What is difficult for both scores cancels: DeLong et al. (1988). The interval is that of a Gaussian; where the error is
    zero, as where both scores separate all examples, it is as wide as that of ``auroc``. A score does not differ from itself.

    Args:
        one: one score of the odd examples ``(M,)`` and of the normal ones ``(N,)``.
        other: another score of the same examples.
        confidence: the confidence of the interval.

    Raises:
        ValueError: for another number of examples, and what ``auroc`` refuses.
    """
    pairs = list(zip(placements(*one), placements(*other), strict=True))
    if any(len(first) != len(second) for first, second in pairs):
        raise ValueError(f"expected two scores of the same examples; got {[(len(a), len(b)) for a, b in pairs]} of them")
    differences = [first - second for first, second in pairs]
    value = float(differences[0].mean())
    error = math.sqrt(sum(each.var(ddof=1) / len(each) for each in differences))
    same = all(np.array_equal(first, second) for first, second in zip(one, other, strict=True))
    reach = _quantile(confidence) * error if error or same else _unseen(min(map(len, pairs[0])), confidence)
    return Interval(value, error, max(-1.0, value - reach), min(1.0, value + reach), confidence)


def placements(odd: ArrayLike, normal: ArrayLike) -> tuple[Array, Array]:
    """The shares of normal examples below each odd one ``(M,)``, and of odd examples above each normal one ``(N,)``.

    Examples with equal scores count one half.

    Raises:
        ValueError: for fewer than two examples of a kind, and for scores that are no numbers.
    """
    from scipy.stats import rankdata

    above, below = np.asarray(odd, np.float64), np.asarray(normal, np.float64)
    if above.ndim != 1 or below.ndim != 1 or min(len(above), len(below)) < 2:
        raise ValueError(f"expected scores of two odd and two normal examples or more; got shapes {above.shape}, {below.shape}")
    if np.isnan(above).any() or np.isnan(below).any():
        raise ValueError("expected scores that can be ordered; some are NaN: leave these examples out")
    ranks = rankdata(np.concatenate([above, below]))
    of_odd = (ranks[: len(above)] - rankdata(above)) / len(below)
    of_normal = 1 - (ranks[len(above) :] - rankdata(below)) / len(above)
    return of_odd, of_normal


def _ends(area: float, error: float, pairs: int, confidence: float) -> tuple[float, float]:
    if not error:
        reach = _unseen(pairs, confidence)
        return max(0.0, area - reach), min(1.0, area + reach)
    middle, reach = math.log(area / (1 - area)), _quantile(confidence) * error / (area * (1 - area))
    lower, upper = (1 / (1 + math.exp(-end)) for end in (middle - reach, middle + reach))
    return lower, upper


def _unseen(pairs: int, confidence: float) -> float:
    """The largest probability of what was not seen in so many independent pairs: Clopper and Pearson (1934)."""
    return 1 - float(((1 - confidence) / 2) ** (1 / pairs))


def _quantile(confidence: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + confidence) / 2)
