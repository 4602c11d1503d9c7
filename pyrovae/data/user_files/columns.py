"""The kind of each column of a table: as somebody says, or found out from its values.

Real columns are numbers of any size; positive ones lie above zero and are log-normal rather than Gaussian; counts are whole
numbers from 0 on; binary columns hold two values; categories are words, or numbers that stand for such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from pyrovae.data.kinds import KINDS, LARGEST_COUNT, misfits
from pyrovae.data.user_files.ranges import BITS, LEVELS, UNIT_INTERVAL, Range
from pyrovae.errors import InputError, nearest

ALL_COLUMNS = "*"
# More different words are names or sentences rather than categories.
MOST_CATEGORIES = 100
# Of what pandas reads as a gap.
GAPS = ("", "NA", "N/A", "NAN", "NULL", "NONE", "-NAN", "#N/A", "<NA>")
# In nats for each row: a log-normal column is told from a Gaussian one by a clear margin.
MARGIN = 0.1


@dataclass(frozen=True, eq=False)
class Column:
    """A column as numbers.

    Args:
        kind: one of ``KINDS``.
        values: numbers ``(N,)``, of a binary column or a category the place of each among the names; gaps are not a number.
        names: of what a binary column or a category holds, sorted.
    """

    kind: str
    values: np.ndarray
    names: tuple[str, ...] = ()


def asked_kinds(where: str, settings: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """From columns to the kinds that somebody says they are, given as ``age=count``; ``*`` stands for all others.

    >>> asked_kinds("a.csv", ["*=real", "age=count"], ["age", "size"])
    {'age': 'count', 'size': 'real'}

    Raises:
        InputError: for what is no such setting, and columns that there are none.
    """
    asked: dict[str, str] = {}
    for setting in settings:
        name, sign, kind = setting.rpartition("=")
        if not sign or kind not in KINDS:
            raise InputError(
                f"expected NAME=KIND for a column, of a kind out of {', '.join(KINDS)}; got {setting!r}{nearest(kind, KINDS)}"
            )
        if name not in (ALL_COLUMNS, *columns):
            near = nearest(name, columns) or f", out of {', '.join(map(repr, columns[:20]))}"
            raise InputError(f"{where}: expected a column of the table; got {name!r}{near}")
        asked[name] = kind
    return {name: asked.get(name, asked.get(ALL_COLUMNS, "")) for name in columns if name in asked or ALL_COLUMNS in asked}


def kind_of_numbers(values: np.ndarray) -> str:
    """The kind of a column of numbers ``(N,)``, gaps left out.

    Two different numbers are binary; whole ones from 0 on are counts unless they vary much less than counts of that size would;
    numbers above zero are positive where a log-normal distribution fits them clearly better than a Gaussian.

    >>> kind_of_numbers(np.array([3.0, 0.0, 2.0, 1.0])), kind_of_numbers(np.array([1998.0, 2004.0, 2001.0]))
    ('count', 'real')
    """
    different = np.unique(values)
    if len(different) == 2:
        return "binary"
    if len(different) < 2:
        return "real"
    if different[0] >= 0 and different[-1] <= LARGEST_COUNT and (values == np.rint(values)).all():
        return "count" if values.var() >= values.mean() / 2 else "real"
    if different[0] > 0:
        logarithms = np.log(values)
        gain = np.log(values.std()) - np.log(logarithms.std()) - logarithms.mean()
        return "positive" if gain > MARGIN else "real"
    return "real"


def named_values(column: pandas.Series[Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The place of each value among the different ones, sorted, gaps not a number; and the names of these."""
    codes, different = pandas.factorize(column, sort=True)
    return np.where(codes < 0, np.nan, codes), tuple(map(plain, different))


def plain(value: Any) -> str:
    """A value as people write it, to its last digit.

    >>> plain(2.0), plain(0.1 + 0.2), plain("Rome")
    ('2', '0.30000000000000004', 'Rome')
    """
    return repr(float(value)).removesuffix(".0") if isinstance(value, float) else str(value)


def column_of(where: str, column: pandas.Series[Any], asked: str, first_line: int, *, missing: bool) -> Column:
    """A column as numbers, of the kind that is asked for, or else of that which its values have.

    Raises:
        InputError: for values that are not of that kind, too many different words, and gaps where there may be none.
    """
    known = column.dropna()
    is_words = not pandas.api.types.is_numeric_dtype(column.dtype) and not all(is_number(str(each)) for each in known.tolist())
    is_words = is_words or pandas.api.types.is_bool_dtype(known.infer_objects().dtype)
    if asked not in ("binary", "category") and (asked or not is_words or known.nunique() > _most_categories(len(known))):
        values = frame_numbers(where, column, first_line, missing=missing)
        kind = asked or kind_of_numbers(values[~np.isnan(values)])
        _check_kind(where, str(column.name), kind, values, first_line)
        return Column(kind, values)
    values, names = named_values(column)
    _refuse_gaps(where, column, first_line, missing=missing)
    if asked == "binary" and len(names) != 2:
        raise InputError(
            f"{where}: expected two different values in the binary column {column.name!r}; got {len(names)}: say =category"
        )
    return Column(asked or ("binary" if len(names) == 2 else "category"), values, names)


def _most_categories(length: int) -> int:
    return min(MOST_CATEGORIES, max(2, length // 4))


def together(columns: Sequence[Column], *, is_asked: bool) -> dict[str, Any]:
    """Columns side by side, and their kinds where these are not all real, all counts, bits or grey."""
    array = np.column_stack([each.values for each in columns])
    known = array[~np.isnan(array)]
    if not is_asked and not any(each.names for each in columns):
        range_ = Range(known.min(initial=0), known.max(initial=0), bool((known == np.rint(known)).all()), stored_as_bytes=False)
        if range_.kind in (BITS, LEVELS, UNIT_INTERVAL):
            return {"arrays": {"all": array}}
    kinds = {each.kind for each in columns}
    if kinds in ({"real"}, {"count"}):
        return {"arrays": {"all": array}, "values": "real" if kinds == {"real"} else "counts"}
    coded_columns = [_coded_binary(each) for each in columns]
    return {
        "arrays": {"all": np.column_stack([each.values for each in coded_columns])},
        "values": "mixed",
        "kinds": tuple(each.kind for each in coded_columns),
        "categories": tuple(each.names for each in coded_columns),
    }


def _coded_binary(column: Column) -> Column:
    """The places of its two numbers in place of these."""
    if column.kind != "binary" or column.names:
        return column
    values, names = named_values(pandas.Series(column.values))
    return Column("binary", values, names)


def frame_numbers(path: str, column: pandas.Series[Any], first_line: int, *, missing: bool = False) -> np.ndarray:
    """A column as numbers; gaps are not a number where they may be.

    Args:
        path: where it is from, for people.
        column: with numbers, or with text.
        first_line: the number of its first row, for people.
        missing: whether it may have gaps.

    Raises:
        InputError: for text, and where a number is missing.
    """
    if not pandas.api.types.is_numeric_dtype(column.dtype):
        wrong = [not (each is None or each != each or is_number(str(each))) for each in column.tolist()]
        row = wrong.index(True) if True in wrong else 0
        came = f"{str(column.iloc[row])[:40]!r} in line {row + first_line}"
        if True not in wrong:
            raise InputError(
                f"{path}: expected numbers; column {column.name!r} holds them as {column.dtype}: convert it to float"
            )
        raise InputError(
            f"{path}: expected numbers; column {column.name!r} holds {came}: "
            f"--drop {column.name} leaves it out, --label {column.name} makes it the label"
        )
    _refuse_gaps(path, column, first_line, missing=missing)
    gaps = column.isna().to_numpy()
    values = column.to_numpy(dtype=np.float64, na_value=np.nan) if gaps.any() else column.to_numpy()
    if values.dtype.kind not in "buif":
        raise InputError(f"{path}: expected numbers; column {column.name!r} holds {values.dtype}: convert it, or --drop it")
    return values.astype(np.float64)


def _refuse_gaps(where: str, column: pandas.Series[Any], first_line: int, *, missing: bool) -> None:
    gaps = column.isna().to_numpy()
    if gaps.any() and not missing:
        raise InputError(
            f"{where}: expected a number in each row; column {column.name!r} has none in line "
            f"{int(gaps.argmax()) + first_line}: fill it in, leave the row out, or train with --missing"
        )


def is_number(field: str) -> bool:
    """Whether a field is a number, or one of the words for a missing one."""
    try:
        float(field)
    except ValueError:
        return field.upper() in GAPS
    return True


def _check_kind(where: str, name: str, kind: str, values: np.ndarray, first_line: int) -> None:
    """Refuse numbers that a kind does not have.

    Raises:
        InputError: for them, by their line.
    """
    wrong, words = misfits(kind, values)
    if kind in ("positive", "count") and wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{where}: expected {words} in column {name!r}, a {kind} column; got {values[row]:g} in line "
            f"{row + first_line}: mend it, or train with --columns '{name}=real'"
        )


def coded(where: str, column: pandas.Series[Any], names: Sequence[str], first_line: int, *, missing: bool) -> np.ndarray:
    """The place of each value of a column among known names; gaps are not a number where they may be.

    Raises:
        InputError: for a name that is not known, and for gaps where there may be none.
    """
    known = {name: float(place) for place, name in enumerate(names)}
    found = [None if pandas.isna(each) else plain(each) for each in column.tolist()]
    _refuse_gaps(where, column, first_line, missing=missing)
    for row, each in enumerate(found):
        if each is not None and each not in known:
            shown = ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
            raise InputError(
                f"{where}: expected one of {shown} in column {column.name!r}, as in the training; got {each!r} in line "
                f"{row + first_line}{nearest(each, names)}"
            )
    return np.array([np.nan if each is None else known[each] for each in found], np.float64)
