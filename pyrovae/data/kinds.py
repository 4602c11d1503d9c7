"""The kinds of columns of a table, and the numbers that each may hold."""

from __future__ import annotations

import numpy as np

KINDS = ("real", "positive", "count", "binary", "category")
# Larger whole numbers are not exact in single precision.
LARGEST_COUNT = 2.0**24


def misfits(kind: str, x: np.ndarray, num_categories: int = 0) -> tuple[np.ndarray, str]:
    """The mask ``(N,)`` of numbers that a column of a kind may not hold, and what it may hold, in words; gaps are allowed.

    >>> wrong, expected = misfits("binary", np.array([0.0, 2.0, np.nan]))
    >>> wrong.tolist(), expected
    ([False, True, False], 'whole numbers from 0 to 1')
    """
    if kind == "real":
        return np.zeros(len(x), bool), "numbers"
    if kind == "positive":
        return ~((x > 0) | np.isnan(x)), "numbers above zero"
    last = {"binary": 1.0, "category": num_categories - 1.0}.get(kind, LARGEST_COUNT)
    return ~((x >= 0) & (x <= last) & (x == np.rint(x)) | np.isnan(x)), f"whole numbers from 0 to {last:,.0f}"
