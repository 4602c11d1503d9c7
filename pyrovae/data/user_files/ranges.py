"""The range and the kind of the numbers of an array, which is read once, forwards, about 64 MB at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyrovae.data.kinds import LARGEST_COUNT
from pyrovae.data.rows import Rows, blocks
from pyrovae.errors import InputError

# Standardised values stay well within single precision.
LARGEST = 1e30


@dataclass(frozen=True)
class Kind:
    """A kind of numbers.

    Args:
        words: the name of the kind in messages.
        values: the name of the kind in ``Dataset.values``.
        likelihood: the default likelihood.
        unit: the number that values are divided by.
    """

    words: str
    values: str
    likelihood: str
    unit: float = 1.0


BITS = Kind("bits", "bits", "bernoulli")
LEVELS = Kind("8-bit grey", "levels", "discretized_logistic", unit=255.0)
UNIT_INTERVAL = Kind("grey", "grey", "continuous_bernoulli")
REAL = Kind("real", "real", "gaussian")
COUNTS = Kind("counts", "counts", "poisson")
MIXED = Kind("columns of several kinds", "mixed", "mixed")
# Whole numbers above this are taken for real ones, unless the user states that they are counts.
MOST_COUNTED = 1000


@dataclass(frozen=True)
class Range:
    """The range of an array: its smallest and largest number, whether all are whole, and a checksum.

    >>> Range(0, 255, whole=True, stored_as_bytes=False).kind.words, Range(0, 9, whole=True, stored_as_bytes=False).kind.words
    ('8-bit grey', 'counts')
    """

    low: float
    high: float
    whole: bool
    stored_as_bytes: bool
    checksum: str = ""

    @property
    def kind(self) -> Kind:
        """The kind of the numbers: bits, levels (bytes, or whole up to exactly 255), grey in [0, 1], counts, or real."""
        if self.low >= 0 and self.high <= 1:
            return BITS if self.whole else UNIT_INTERVAL
        levels = self.whole and self.low >= 0 and (self.stored_as_bytes or self.high == 255)
        counts = self.whole and self.low >= 0 and self.high <= MOST_COUNTED
        return LEVELS if levels else COUNTS if counts else REAL

    def __str__(self) -> str:
        return f"{self.kind.words} {self.low:g} to {self.high:g}"

    def __or__(self, other: Range) -> Range:
        """The range of both arrays together."""
        return Range(
            min(self.low, other.low),
            max(self.high, other.high),
            self.whole and other.whole,
            self.stored_as_bytes and other.stored_as_bytes,
        )


def survey(path: Path, array: np.ndarray, columns: tuple[str, ...] = (), *, missing: bool = False) -> Range:
    """Find the range of an array ``(N, ...)`` of numbers, with a checksum of its bytes, shape and type.

    Args:
        path: the path of the file, for messages.
        array: the array.
        columns: the names of the columns, for messages.
        missing: whether NaN stands for a missing entry.

    Raises:
        InputError: for a number that is not finite.
    """
    digest = hashlib.sha256(f"{array.shape} {array.dtype.str}".encode())
    low, high, whole = np.inf, -np.inf, True
    for rows in blocks(len(array), array[:1].nbytes):
        block = np.ascontiguousarray(array[rows])
        digest.update(block.data.cast("B"))
        if missing and not np.isinf(block).any():
            block = block[~np.isnan(block)]
            if not block.size:
                continue
        smallest, largest = float(block.min()), float(block.max())
        if not np.isfinite([smallest, largest]).all():
            raise InputError(_not_finite(path, block, rows.start, columns))
        low, high = min(low, smallest), max(high, largest)
        # Checked only while it matters: outside of this range all numbers are real.
        whole = (
            whole
            and low >= 0
            and high <= LARGEST_COUNT
            and (block.dtype.kind in "bui" or bool((block == np.rint(block)).all()))
        )
    return Range(low, high, whole, array.dtype == np.uint8, digest.hexdigest()[:16])


def _not_finite(path: Path, block: np.ndarray, start: int, columns: tuple[str, ...]) -> str:
    flat = block.reshape(len(block), -1)
    row, entry = np.argwhere(~np.isfinite(flat))[0]
    column = repr(columns[entry]) if columns else entry + 1
    return (
        f"{path}: expected finite numbers; got {flat[row, entry]} in row {start + row + 1:,}, column {column}: "
        "leave such rows out or fill them in"
    )


def constant_columns(train: Rows) -> np.ndarray:
    """The mask ``(D,)`` of the columns that hold only one value in the training rows."""
    low, high = np.inf, -np.inf
    for rows in train.blocks():
        x = train.values(rows)
        low, high = np.fmin(low, np.fmin.reduce(x)), np.fmax(high, np.fmax.reduce(x))
    # A column of gaps alone counts as constant.
    return np.asarray(~(low < high))


def standardization_by_kind(
    kinds: Sequence[str], train: Rows, shift: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The shift and scale of columns of several kinds.

    Real columns are standardised, positive ones divided by their geometric mean; the others stay as they are.
    """
    x = train.values(slice(None))
    is_real, is_positive = (np.array([kind == each for each in kinds]) for kind in ("real", "positive"))
    geometric = np.ones(len(kinds))
    geometric[is_positive] = np.exp(np.nanmean(np.log(x[:, is_positive]), 0))
    return np.where(is_real, shift, 0.0), np.where(is_real, scale, geometric)


def standardization(
    path: Path, train: Rows, range_: Range, columns: tuple[str, ...], *, alike: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The mean and standard deviation of each column of the training rows, or of all entries if ``alike``, in double precision.

    Raises:
        InputError: for a column whose values are all the same, and for numbers too large for single precision.
    """
    count, mean, squares = np.zeros(1), np.zeros(1), np.zeros(1)
    low, high = np.full(1, np.inf), np.full(1, -np.inf)
    with np.errstate(all="ignore"):
        for rows in train.blocks():
            x = train.values(rows)
            x = x.reshape(-1, 1) if alike else x
            low, high = np.fmin(low, np.fmin.reduce(x)), np.fmax(high, np.fmax.reduce(x))
            # Chan et al. (1983): combine means and sums of squares of parts, without cancellation. Gaps do not count.
            number = (~np.isnan(x)).sum(0)
            own = np.nansum(x, 0) / np.maximum(number, 1)
            away = (own - mean) * (number > 0)
            total = np.maximum(count + number, 1)
            squares = squares + np.nansum((x - own) ** 2, 0) + away**2 * (count * number / total)
            mean, count = mean + away * (number / total), count + number
        scale = np.sqrt(squares / count)
        furthest = (range_.high - range_.low) / np.where(high > low, scale, 1)
    if (constant := np.flatnonzero(low == high)).size:
        names = ", ".join(repr(columns[each]) if columns else str(each + 1) for each in constant[:10])
        raise InputError(
            f"{path}: expected columns that vary, which standardising divides by; these are constant in the training part: "
            f"{names}{', ...' if len(constant) > 10 else ''}: leave them out"
        )
    if not np.isfinite(scale).all() or not (furthest < LARGEST).all():
        raise InputError(
            f"{path}: expected numbers of moderate size; got some from {range_.low:g} to {range_.high:g}: change their unit"
        )
    return mean, scale
