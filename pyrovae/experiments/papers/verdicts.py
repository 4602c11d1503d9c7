"""What becomes of a paper's statements: each claim against an interval of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pyrovae.evaluation.comparison import paired_difference
from pyrovae.experiments.papers.experiment import Between, Claim, More, Statement
from pyrovae.experiments.papers.quantities import QUANTITIES, Estimate, combined

ERROR_RATE = 0.05
HOLDS, FAILS, UNDECIDED, UNTESTED = "holds", "does not hold", "not decided", "not tested"

# By training, by quantity, one for each seed.
Found = Mapping[str, Mapping[str, Sequence[Estimate]]]


@dataclass(frozen=True)
class Verdict:
    """What became of a statement.

    Args:
        says: the statement.
        verdict: that it holds, does not hold, is not decided, or was not tested.
        evidence: the intervals, in words, one for each claim.
        reason: why it may not have come out.
    """

    says: str
    verdict: str
    evidence: tuple[str, ...]
    reason: str = ""


def verdict_on(statement: Statement, found: Found) -> Verdict:
    """Test a statement: all its claims together at an error rate of one in twenty.

    Each of m claims has an interval of confidence 1 - 0.05 / m, over test images, and over seeds where there are several. A
    statement holds where all its claims do, and does not where one does not.

    Args:
        statement: of a paper.
        found: what was measured.
    """
    missing = [name for claim in statement.claims for name in claim.names if not found.get(name, {}).get(claim.quantity)]
    if missing:
        return Verdict(statement.says, UNTESTED, (f"without {', '.join(dict.fromkeys(missing))}",))
    confidence = 1 - ERROR_RATE / len(statement.claims)
    tested = [_tested(claim, found, confidence) for claim in statement.claims]
    verdicts = {verdict for verdict, _ in tested}
    verdict = FAILS if FAILS in verdicts else UNDECIDED if UNDECIDED in verdicts else HOLDS
    reason = "" if verdict == HOLDS else statement.otherwise
    return Verdict(statement.says, verdict, tuple(evidence for _, evidence in tested), reason)


def _tested(claim: Claim, found: Found, confidence: float) -> tuple[str, str]:
    ones = found[claim.one][claim.quantity]
    if isinstance(claim, Between):
        estimate = combined(ones)
        lower, upper = _interval(estimate, confidence)
        low, high = claim.low, claim.high
        what, value = claim.one, estimate.value
    else:
        value, lower, upper = difference(ones, found[claim.other][claim.quantity], confidence)
        low, high = (claim.by, np.inf) if isinstance(claim, More) else (-claim.within, claim.within)
        what = f"{claim.one} less {claim.other}"
    title = QUANTITIES[claim.quantity].title
    wanted = f"above {low:g}" if high == np.inf else f"{low:g} to {high:g}"
    verdict = _verdict(lower, upper, low, high, open_below=isinstance(claim, More))
    return verdict, f"{what}: {value:+.2f} [{lower:+.2f}, {upper:+.2f}] in {title}; {wanted} {_becomes(verdict)}"


def _verdict(lower: float, upper: float, low: float, high: float, *, open_below: bool) -> str:
    # Of counts without doubt the difference may be the margin itself: "more" is then not so.
    if (lower > low if open_below else lower >= low) and upper <= high:
        return HOLDS
    if (upper <= low if open_below else upper < low) or lower > high:
        return FAILS
    return UNDECIDED


def _becomes(verdict: str) -> str:
    return {HOLDS: "as claimed", FAILS: "claimed", UNDECIDED: "claimed, which it leaves open"}[verdict]


def difference(ones: Sequence[Estimate], others: Sequence[Estimate], confidence: float) -> tuple[float, float, float]:
    """The difference of two trainings, and an interval: paired by image where both are means over the same images.

    The half-widths over images and over seeds add up in squares.

    Args:
        ones: for each seed.
        others: for each seed.
        confidence: of the interval.
    """
    one, other = combined(ones), combined(others)
    value = one.value - other.value
    paired = one.per_image is not None and other.per_image is not None and one.per_image.shape == other.per_image.shape
    if not paired:
        return value, *_interval(Estimate(value, float(np.hypot(one.standard_error, other.standard_error))), confidence)
    assert one.per_image is not None
    assert other.per_image is not None
    interval = paired_difference(one.per_image, other.per_image, confidence=confidence)
    seeds = float(np.hypot(_over_seeds(ones, confidence), _over_seeds(others, confidence)))
    below, above = interval.mean - interval.lower, interval.upper - interval.mean
    return value, value - float(np.hypot(below, seeds)), value + float(np.hypot(above, seeds))


def _over_seeds(estimates: Sequence[Estimate], confidence: float) -> float:
    """The half-width of an interval for the mean over seeds; none of a single one."""
    from scipy.stats import t

    if len(estimates) < 2:
        return 0.0
    values = np.array([each.value for each in estimates])
    return float(t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def _interval(estimate: Estimate, confidence: float) -> tuple[float, float]:
    from scipy.special import ndtri

    half = float(ndtri((1 + confidence) / 2)) * estimate.standard_error
    return estimate.value - half, estimate.value + half
