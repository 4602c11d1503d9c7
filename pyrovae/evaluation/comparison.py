"""Programs compared image by image: what differs between them, and whether they may be compared at all.

Importing this does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]

NUM_RESAMPLES = 2000
# Above it a figure is not to be trusted without a word.
SHARE_OF_HEAVY_TAILS = 0.1
# So many resamples at once that their indices take some megabytes.
INDICES_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Difference:
    """A mean difference over images and an interval for it, in nats per image.

    Args:
        mean: of the images given.
        lower: end of the interval.
        upper: end of the interval.
        confidence: how often such intervals hold the mean of all images of their kind.
    """

    mean: float
    lower: float
    upper: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.lower:+.2f}, {self.upper:+.2f}]"

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return not self.lower <= 0 <= self.upper


def paired_difference(one: ArrayLike, other: ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> Difference:
    r"""The mean of ``one - other`` over the same images, both ``(N,)``, with a bootstrap interval.

    .. math:: \bar d = \frac 1 N \sum_n (\log p_1(x_n) - \log p_2(x_n))

    Most of what varies between images varies alike in both and cancels, so that the interval is far narrower than the standard
    errors of either suggest. Percentiles of the means of 2,000 resamples of the N differences; Efron and Tibshirani (1993),
    chapter 13. It covers the spread over images alone: not that of training, which another seed would show.

    Raises:
        ValueError: for values of other images: of unequal number, or fewer than two.

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


def incomparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Why two evaluations, as ``evaluation.json`` has them, are no figures of one thing; empty where they are."""
    for results in (one, other):
        if results["log_likelihood"] is None:
            return f"{results['model']}: a loss that is no density of the data has no log-likelihood"
    if one["num_images"] != other["num_images"]:
        return f"{one['num_images']:,} test images and {other['num_images']:,}"
    if one["protocol_hash"] != other["protocol_hash"]:
        protocols = (f"'{results['protocol']}' [{results['protocol_hash']}]" for results in (one, other))
        return f"two protocols, {' and '.join(protocols)}"
    if one["discrete"] != other["discrete"]:
        kinds = (
            f"{results['likelihood']}, {'probabilities' if results['discrete'] else 'densities'}" for results in (one, other)
        )
        return f"probabilities and densities have no common unit: {' and '.join(kinds)}"
    return ""


def remark_on_tails(results: Mapping[str, Any]) -> str:
    """What a reader must know of one evaluation; empty where nothing."""
    share = results["share_of_heavy_tails"]
    if not share or share < SHARE_OF_HEAVY_TAILS:
        return ""
    return (
        f"weights of {share:.0%} of its images have heavy tails: its figure may be too low, 'pyrovae bounds' says by how much"
    )


def remark(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What a reader must know of two evaluations that may be compared; empty where nothing."""
    if one["num_samples"] == other["num_samples"]:
        return ""
    return (
        f"{one['num_samples']:,} importance samples and {other['num_samples']:,}: fewer make a looser bound, "
        "which is part of the difference"
    )
