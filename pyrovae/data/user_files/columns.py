"""The kind of each column of a table, as the user states it or as its values show.

Real columns are numbers of any size; positive ones lie above zero and are log-normal rather than Gaussian; counts are whole
numbers from 0 on; binary columns hold two values; categories are words, or numbers that stand for categories.
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
# A column of more different words holds names or sentences rather than categories.
MOST_CATEGORIES = 100
# The fields that count as gaps, out of those that pandas reads as gaps.
GAPS = ("", "NA", "N/A", "NAN", "NULL", "NONE", "-NAN", "#N/A", "<NA>")
# In nats per row: how much better a log-normal distribution must fit than a Gaussian for a column to be positive.
MARGIN = 0.1


@dataclass(frozen=True, eq=False)
class Column:
    """A column as numbers.

    Args:
        kind: one of ``KINDS``.
        values: numbers ``(N,)``; in a binary column or a category the place of each value among the names; NaN for gaps.
        names: the values of a binary column or a category, sorted.
    """

    kind: str
    values: np.ndarray
    names: tuple[str, ...] = ()


def parse_kinds(where: str, settings: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Parse the user's kinds of columns, each as ``age=count``, into a dictionary; ``*`` stands for all other columns.

    >>> parse_kinds("a.csv", ["*=real", "age=count"], ["age", "size"])
    {'age': 'count', 'size': 'real'}

    Raises:
        InputError: for a setting of another form, and for a column that is not in the table.
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
    """The kind of a column of numbers ``(N,)`` without gaps.

    Two different numbers are binary; whole numbers from 0 on are counts unless they vary much less than counts of that size;
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


def codes_and_names(column: pandas.Series[Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The place of each value among the sorted different values, NaN for gaps; and the names of the different values."""
    codes, different = pandas.factorize(column, sort=True)
    return np.where(codes < 0, np.nan, codes), tuple(map(value_as_text, different))


def value_as_text(value: Any) -> str:
    """The text of a value as people write it, to its last digit.

    >>> value_as_text(2.0), value_as_text(0.1 + 0.2), value_as_text("Rome")
    ('2', '0.30000000000000004', 'Rome')
    """
    return repr(float(value)).removesuffix(".0") if isinstance(value, float) else str(value)


def column_of(where: str, column: pandas.Series[Any], asked: str, first_line: int, *, missing: bool) -> Column:
    """Turn a column into numbers, of the kind that the user asks for or, without one, of the kind that fits its values.

    Raises:
        InputError: for values that do not fit the kind, too many different words, and gaps where there may be none.
    """
    known = column.dropna()
    is_words = not pandas.api.types.is_numeric_dtype(column.dtype) and not all(is_number(str(each)) for each in known.tolist())
    is_words = is_words or pandas.api.types.is_bool_dtype(known.infer_objects().dtype)
    if asked not in ("binary", "category") and (asked or not is_words or known.nunique() > _most_categories(len(known))):
        values = frame_numbers(where, column, first_line, missing=missing)
        kind = asked or kind_of_numbers(values[~np.isnan(values)])
        _check_kind(where, str(column.name), kind, values, first_line)
        return Column(kind, values)
    values, names = codes_and_names(column)
    _refuse_gaps(where, column, first_line, missing=missing)
    if asked == "binary" and len(names) != 2:
        raise InputError(
            f"{where}: expected two different values in the binary column {column.name!r}; got {len(names)}: say =category"
        )
    return Column(asked or ("binary" if len(names) == 2 else "category"), values, names)


def _most_categories(length: int) -> int:
    return min(MOST_CATEGORIES, max(2, length // 4))


def join_columns(columns: Sequence[Column], *, is_asked: bool) -> dict[str, Any]:
    """Join columns into one array, with their kinds where these are not all real, all counts, bits or grey."""
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
    """Replace the numbers of a binary column by their places 0 and 1; return other columns as they are."""
    if column.kind != "binary" or column.names:
        return column
    values, names = codes_and_names(pandas.Series(column.values))
    return Column("binary", values, names)


def frame_numbers(path: str, column: pandas.Series[Any], first_line: int, *, missing: bool = False) -> np.ndarray:
    """Turn a column into numbers, with NaN for gaps where they are allowed.

    Args:
        path: the path of the table, for messages.
        column: the column, of numbers or text.
        first_line: the number of the line of its first row, for messages.
        missing: whether gaps are allowed.

    Raises:
        InputError: for text, and for gaps that are not allowed.
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
    """True where a field is a number, or a word for a missing number."""
    try:
        float(field)
    except ValueError:
        return field.upper() in GAPS
    return True


def _check_kind(where: str, name: str, kind: str, values: np.ndarray, first_line: int) -> None:
    """Refuse numbers that do not fit the kind of their column.

    Raises:
        InputError: for the first such number; it names the line.
    """
    wrong, words = misfits(kind, values)
    if kind in ("positive", "count") and wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{where}: expected {words} in column {name!r}, a {kind} column; got {values[row]:g} in line "
            f"{row + first_line}: mend it, or train with --columns '{name}=real'"
        )


def category_codes(
    where: str, column: pandas.Series[Any], names: Sequence[str], first_line: int, *, missing: bool
) -> np.ndarray:
    """The place of each value of a column among known names, with NaN for gaps where they are allowed.

    Raises:
        InputError: for an unknown name, and for gaps that are not allowed.
    """
    known = {name: float(place) for place, name in enumerate(names)}
    found = [None if pandas.isna(each) else value_as_text(each) for each in column.tolist()]
    _refuse_gaps(where, column, first_line, missing=missing)
    for row, each in enumerate(found):
        if each is not None and each not in known:
            shown = ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
            raise InputError(
                f"{where}: expected one of {shown} in column {column.name!r}, as in the training; got {each!r} in line "
                f"{row + first_line}{nearest(each, names)}"
            )
    return np.array([np.nan if each is None else known[each] for each in found], np.float64)
