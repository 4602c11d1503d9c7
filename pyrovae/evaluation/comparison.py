"""The comparison of programs, image by image.

Importing this does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]

NUM_RESAMPLES = 2000
# The number of indices of resamples at once, some megabytes.
INDICES_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Difference:
    """A mean difference over images and an interval for it, in nats per image.

    Args:
        mean: the mean over the given images.
        lower: the lower end of the interval.
        upper: the upper end of the interval.
        confidence: the probability with which such intervals hold the mean over all images of this kind.
    """

    mean: float
    lower: float
    upper: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.lower:+.2f}, {self.upper:+.2f}]"

    @property
    def is_clear(self) -> bool:
        """True where the interval does not contain zero."""
        return not self.lower <= 0 <= self.upper


def paired_difference(one: ArrayLike, other: ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> Difference:
    r"""The mean of ``one - other`` over the same images, both ``(N,)``, with a bootstrap interval.

    .. math:: \bar d = \frac 1 N \sum_n (\log p_1(x_n) - \log p_2(x_n))

    Most variation between images is the same in both and cancels, so that the interval is far narrower than the standard errors
    of either suggest. Its ends are percentiles of the means of 2,000 resamples of the N differences; Efron and Tibshirani
    (1993), chapter 13. It covers the spread over images, but not the spread over trainings with other seeds.

    Raises:
        ValueError: for unequal numbers of values, or fewer than two.

    >>> print(paired_difference(np.array([-90.0, -80.0, -99.0, -85.0]), np.array([-91.0, -82.0, -100.0, -88.0])))
    +1.75 [+1.00, +2.50]
    """
    from scipy.stats import bootstrap

    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape or one.ndim != 1 or len(one) < 2:
        raise ValueError(f"expected values of the same images, at least two; got shapes {one.shape} and {other.shape}")
    differences = one.astype(np.float64) - other
    interval = bootstrap(
        (differences,),
        np.mean,
        n_resamples=NUM_RESAMPLES,
        batch=max(1, INDICES_AT_ONCE // len(differences)),
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Difference(float(differences.mean()), float(interval.low), float(interval.high), confidence)
