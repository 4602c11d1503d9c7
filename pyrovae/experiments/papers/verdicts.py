"""The verdicts on a paper's statements: each claim is tested by an interval of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pyrovae.evaluation.comparison import paired_difference
from pyrovae.experiments.papers.experiment import Alike, Claim, InRange, More, Statement, Times
from pyrovae.experiments.papers.quantities import QUANTITIES, Estimate, combine_seeds, over_images

ERROR_RATE = 0.05
HOLDS, FAILS, UNDECIDED, UNTESTED = "holds", "does not hold", "not decided", "not tested"

# Estimates by training and quantity, one for each seed.
Found = Mapping[str, Mapping[str, Sequence[Estimate]]]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a statement.

    Args:
        says: the statement.
        verdict: whether it holds, does not hold, is not decided, or was not tested.
        evidence: the intervals in words, one for each claim.
        reason: a possible reason where it does not hold.
    """

    says: str
    verdict: str
    evidence: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class Interval:
    """A value and an interval for it."""

    value: float
    lower: float
    upper: float

    def said(self, *, signed: bool) -> str:
        """The interval in words; a difference has its sign."""
        form = "{:+.2f} [{:+.2f}, {:+.2f}]" if signed else "{:.2f} [{:.2f}, {:.2f}]"
        # Adding zero removes the sign of a rounded minus zero.
        return form.format(*(round(each, 2) + 0.0 for each in (self.value, self.lower, self.upper)))


def verdict_on(statement: Statement, found: Found) -> Verdict:
    """Test a statement: all its claims together at an error rate of one in twenty.

    Each of m claims has an interval of confidence 1 - 0.05 / m, over test images, and over seeds where there are several. A
    statement holds where all its claims do, and does not where one does not, whatever trainings of others are missing.

    Args:
        statement: the statement.
        found: the measured estimates.
    """

    def lacking(claim: Claim) -> list[str]:
        return [name for name in claim.names if not found.get(name, {}).get(claim.quantity)]

    confidence = 1 - ERROR_RATE / len(statement.claims)
    tested = [_tested(claim, found, confidence) for claim in statement.claims if not lacking(claim)]
    missing = dict.fromkeys(name for claim in statement.claims for name in lacking(claim))
    verdicts = {verdict for verdict, _ in tested} | ({UNTESTED} if missing else set())
    verdict = next((each for each in (FAILS, UNTESTED, UNDECIDED) if each in verdicts), HOLDS)
    reason = statement.otherwise if verdict in (FAILS, UNDECIDED) else ""
    without = (f"without {', '.join(missing)}",) if missing else ()
    return Verdict(statement.says, verdict, (*(evidence for _, evidence in tested), *without), reason)


def _tested(claim: Claim, found: Found, confidence: float) -> tuple[str, str]:
    ones = found[claim.one][claim.quantity]
    if isinstance(claim, InRange):
        low, high, what = claim.low, claim.high, claim.one
        interval = _around(combine_seeds(ones).value, half_width(ones, confidence))
    elif isinstance(claim, Times):
        low, high, what = claim.low, claim.high, f"{claim.one} by {claim.other}"
        interval = ratio(ones, found[claim.other][claim.quantity], confidence)
    else:
        low, high = (claim.by, np.inf) if isinstance(claim, More) else (-claim.within, claim.within)
        what = f"{claim.one} less {claim.other}"
        interval = difference(ones, found[claim.other][claim.quantity], confidence)
    verdict = _verdict(interval, low, high, strict=isinstance(claim, More))
    said = {HOLDS: "as claimed", FAILS: "was claimed", UNDECIDED: "was claimed, and may be"}[verdict]
    numbers = interval.said(signed=isinstance(claim, More | Alike))
    return verdict, f"{what}: {numbers}, {QUANTITIES[claim.quantity].title}; {_range(low, high)} {said}"


def _range(low: float, high: float) -> str:
    if high == np.inf:
        return f"above {low:g}"
    return f"below {high:g}" if low == -np.inf else f"{low:g} to {high:g}"


def _verdict(interval: Interval, low: float, high: float, *, strict: bool) -> str:
    """The verdict on an interval: within a range, outside of it, or neither; where strict, the low end is outside."""
    if (interval.lower > low if strict else interval.lower >= low) and interval.upper <= high:
        return HOLDS
    if (interval.upper <= low if strict else interval.upper < low) or interval.lower > high:
        return FAILS
    return UNDECIDED


def difference(ones: Sequence[Estimate], others: Sequence[Estimate], confidence: float) -> Interval:
    """The difference of two trainings with an interval, paired by image where both are means over the same images.

    The half-widths over images and over seeds add up in squares. Where the estimates are bounds that still rise with the
    number of samples, the interval also contains the difference that results if each rises by as much again.

    Args:
        ones: the estimates of one training, for each seed.
        others: the estimates of the other training, for each seed.
        confidence: the confidence of the interval.
    """
    one, other = over_images(ones), over_images(others)
    value = one.value - other.value
    seeds = _half_over_seeds(confidence, ones, others)
    if one.per_image is None or other.per_image is None or one.per_image.shape != other.per_image.shape:
        return _around(value, math.hypot(seeds, _half_over_images(one, confidence), _half_over_images(other, confidence)))
    paired = paired_difference(one.per_image, other.per_image, confidence=confidence)
    below, above = float(np.hypot(paired.mean - paired.lower, seeds)), float(np.hypot(paired.upper - paired.mean, seeds))
    rise = one.rise - other.rise
    return Interval(value, value - below + min(rise, 0.0), value + above + max(rise, 0.0))


def ratio(ones: Sequence[Estimate], others: Sequence[Estimate], confidence: float) -> Interval:
    """The ratio of two quantities with an interval from their relative half-widths."""
    one, other = combine_seeds(ones).value, combine_seeds(others).value
    relative = np.hypot(half_width(ones, confidence) / one, half_width(others, confidence) / other)
    return _around(one / other, float(one / other * relative))


def half_width(estimates: Sequence[Estimate], confidence: float) -> float:
    """The half-width of an interval for the mean over seeds: over images, and over seeds where there are several."""
    return math.hypot(_half_over_images(over_images(estimates), confidence), _half_over_seeds(confidence, estimates))


def _half_over_images(estimate: Estimate, confidence: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, estimate.degrees) * estimate.standard_error)


def _half_over_seeds(confidence: float, *trainings: Sequence[Estimate]) -> float:
    """The half-width over seeds of an interval for a mean, or for a difference of means; zero for single seeds.

    It is that of Welch, for means whose seeds differ by unlike amounts: the variances v of the means add up, with
    ``(sum v)^2 / sum (v^2 / (seeds - 1))`` degrees of freedom.
    """
    from scipy.stats import t

    several = [[one.value for one in each] for each in trainings if len(each) > 1]
    seeds = np.array([len(values) for values in several])
    variances = np.array([np.var(values, ddof=1) for values in several]) / seeds
    if not variances.any():
        return 0.0
    degrees = variances.sum() ** 2 / (variances**2 / (seeds - 1)).sum()
    return float(t.ppf((1 + confidence) / 2, degrees) * variances.sum() ** 0.5)


def _around(value: float, half: float) -> Interval:
    return Interval(value, value - half, value + half)
