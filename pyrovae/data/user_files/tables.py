"""Read users' tables: numbers in columns, in CSV or parquet files, as spreadsheets, pandas and R write them."""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas

from pyrovae.data.datasets import Options
from pyrovae.data.reading import reading
from pyrovae.data.user_files.arrays import Contents, refuse_too_large
from pyrovae.data.user_files.columns import codes_and_names, column_of, frame_numbers, is_number, join_columns, parse_kinds
from pyrovae.errors import InputError, nearest

# Bytes in memory for each byte of text, since a digit and its comma become a double; and ten times that for compressed text.
BYTES_OF_TEXT, COMPRESSION = 4, 10
SEPARATORS = ("\t", ";", "|", ",", " ")
LOOKED_AT = 20
# The names of the column in which pandas and R write the numbers or names of rows.
INDICES = ("", "Unnamed: 0", "__index_level_0__")
LIKE_LABELS = ("label", "labels", "class", "target")


def read_csv(path: Path, options: Options) -> Contents:
    """Read the numbers of a text file of columns, with or without a line of names above them.

    The separator is the comma, semicolon, tab, bar or space that all lines have equally often; with a separator other than the
    comma, a comma may be the decimal sign. A first line of exactly 0, 1, 2, ... holds names. The index that pandas or R wrote
    is left out.

    Raises:
        InputError: for text in a column that is neither a category, nor the label, nor left out; missing values where they are
            not allowed; rows of different lengths; and files above a gigabyte.
    """
    refuse_too_large(path, BYTES_OF_TEXT * path.stat().st_size * (COMPRESSION if _is_packed(path) else 1))
    (frame,) = csv_frames(path)
    return _contents(path, frame, options)


def csv_frames(path: Path, rows_at_once: int | None = None) -> Iterator[pandas.DataFrame]:
    """Read a text file of columns as one DataFrame or several; their ``attrs`` say whether there are names, and the dialect.

    Raises:
        InputError: for rows of different lengths, and files without rows.
    """
    with reading(path, "numbers in columns, in rows of one length, with or without a line of names above"):
        encoding = _encoding(path)
        with _text(path, encoding) as file:
            lines = [line.rstrip("\r\n") for _, line in zip(range(LOOKED_AT), file, strict=False)]
        separator, decimal = _dialect(path, lines)
        rows = [row for row in csv.reader(lines, delimiter=separator) if row]
        named = bool(rows) and _are_names(rows[0], decimal) and not _is_row_of(rows[0], rows[1:], decimal)
        if len(rows) < 1 + named:
            raise InputError(f"{path}: expected rows of numbers; got no more than one line: replace it by a whole copy")
        # R leaves out the name of the column of row names.
        shorter = named and {len(row) for row in rows[1:]} == {len(rows[0]) + 1} and all(row[-1].strip() for row in rows[1:])
        if shorter and separator == "," and len(rows[0]) == 1 and not lines[1].startswith('"'):
            raise InputError(
                f"{path}: expected a name for each column, or one column without decimal commas; got one name, "
                f"{rows[0][0]!r}, above {lines[1]!r}: name the first column too, or write decimal points"
            )
        with warnings.catch_warnings():
            # Pandas warns of lines that are longer than the first, and drops the rest of them.
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            found = pandas.read_csv(
                path,
                sep=separator,
                decimal=decimal,
                header=0 if named else None,
                index_col=0 if shorter else False,
                encoding=encoding,
                compression="gzip" if _is_packed(path) else None,
                skipinitialspace=True,
                low_memory=False,
                chunksize=rows_at_once,
                **_exact(pandas.__version__, decimal),
            )
            # A file that is read in parts stays open until it is closed.
            opened = nullcontext([found]) if isinstance(found, pandas.DataFrame) else found
            has_gaps = False
            with opened as frames:
                for frame in frames:
                    # The check is done once for the whole file, however many parts have gaps.
                    if not has_gaps and frame.iloc[:, -1].isna().any():
                        _refuse_shorter_lines(path, encoding, separator, len(rows[0]) + shorter)
                        has_gaps = True
                    yield _described(frame, named, shorter, decimal)


def _refuse_shorter_lines(path: Path, encoding: str, separator: str, number: int) -> None:
    """Refuse a line of too few fields, at the end of which pandas would see gaps.

    Raises:
        InputError: for the first such line.
    """
    with _text(path, encoding) as file:
        lines = csv.reader(file, delimiter=separator)
        for row in lines:
            if row and lines.line_num > 1 and len(row) < number:
                raise InputError(f"{path}: expected lines of {number} fields; line {lines.line_num} has {len(row)}: mend it")


def _described(frame: pandas.DataFrame, named: bool, shorter: bool, decimal: str) -> pandas.DataFrame:
    """Add the facts about a file to a part of its table, as ``attrs``."""
    if not named:
        frame.columns = pandas.Index([str(number + 1) for number in range(len(frame.columns))])
    frame.attrs = {"named": named, "names of rows": shorter, "decimal": decimal}
    return frame


def _text(path: Path, encoding: str) -> IO[str]:
    if _is_packed(path):
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


def _encoding(path: Path) -> str:
    """The encoding of a file: UTF-16 where its first bytes say so, as in the "Unicode text" of spreadsheets; else UTF-8."""
    with gzip.open(path) if _is_packed(path) else path.open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def read_parquet(path: Path, options: Options) -> Contents:
    """Read the numbers of a parquet file.

    Raises:
        InputError: for columns of anything but numbers or categories, missing values where they are not allowed, and where
            pyarrow is not installed.
    """
    with parquet_file(path) as file:
        refuse_too_large(path, 8 * file.metadata.num_rows * max(1, len(file.schema_arrow)))
        frame = file.read().to_pandas(ignore_metadata=True)
    frame.attrs = {"named": True}
    return _contents(path, frame, options)


@contextmanager
def parquet_file(path: Path) -> Iterator[Any]:
    """Open a parquet file.

    Raises:
        InputError: for a damaged file, and where pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{path}: expected the package pyarrow to read it; it is not installed: pip install pyarrow"
        ) from error
    with reading(path, "a whole parquet file"), parquet.ParquetFile(path) as file:
        yield file


def _exact(version: str, decimal: str) -> dict[str, Any]:
    """The options with which pandas reads decimal numbers to the last bit: none from 3.1 on, nor with decimal commas."""
    major, minor = (int(each) for each in version.split(".")[:2])
    return {} if (major, minor) >= (3, 1) or decimal == "," else {"float_precision": "round_trip"}


def _dialect(path: Path, lines: Sequence[str]) -> tuple[str, str]:
    """The separator that all lines have equally often, the first line perhaps once less, and the decimal sign."""
    unquoted = [re.sub(r'"[^"]*"', "", line) for line in lines if line]
    separator = "\t" if ".tsv" in path.suffixes else _separator(unquoted)
    fields = [field.strip() for line in unquoted for field in line.split(separator)]
    has_commas = any(re.fullmatch(r"-?\d+,\d+", field) for field in fields)
    # Where there are decimal points a comma is part of a note.
    return separator, "," if has_commas and not any(re.fullmatch(r"-?\d+\.\d+", field) for field in fields) else "."


def _separator(lines: Sequence[str]) -> str:
    """The separator of lines without quoted parts: first one that the first line has as often as the others, then once less."""
    counts = {each: {line.count(each) for line in lines[1:] or lines} for each in SEPARATORS}
    alike = {each: max(found) for each, found in counts.items() if len(found) == 1 and max(found)}
    for fewer in (0, 1):
        for each, count in alike.items():
            if lines[0].count(each) == count - fewer:
                return each
    return next(iter(alike), ",")


def _are_names(fields: Sequence[str], decimal: str) -> bool:
    """True where a line holds the names of columns: some field is no number, or the fields count the columns."""
    numbers = [field.strip().replace(decimal, ".") for field in fields]
    counted = [str(each) for each in range(len(fields))]
    return not all(map(is_number, numbers)) or (len(fields) > 1 and numbers in (counted, ["", *counted[:-1]]))


def _is_row_of(first: Sequence[str], others: Sequence[Sequence[str]], decimal: str) -> bool:
    """True where a line of numbers and words is a row like the rows below: they have its words in the same columns."""
    words = [place for place, field in enumerate(first) if not is_number(field.strip().replace(decimal, "."))]
    below = [{row[place] for row in others if place < len(row)} for place in words]
    return 0 < len(words) < len(first) and all(first[place] in each for place, each in zip(words, below, strict=True))


def _contents(path: Path, frame: pandas.DataFrame, options: Options) -> Contents:
    """Make the contents of a table: the columns that are modelled, the labels, and remarks on what is left out."""
    named = bool(frame.attrs.get("named", True))
    first_line = 1 + (named and path.suffix.lower() != ".parquet")
    frame = frame.set_axis([str(each) for each in frame.columns], axis=1)
    if repeated := sorted({name for name in frame.columns if list(frame.columns).count(name) > 1}):
        raise InputError(f"{path}: expected columns of different names; got {', '.join(map(repr, repeated))} twice: rename one")
    remarks = [] if named else ["no line of names above"]
    if frame.attrs.get("decimal") == ",":
        remarks.append("decimal commas")
    if frame.attrs.get("names of rows"):
        remarks.append("the names of the rows are left out")
    frame = frame.reset_index(drop=True)
    for name in _asked_for(path, frame, (*options.drop, *filter(None, [options.label]))):
        remarks += [f"{name!r} is left out, as asked"] if name != options.label else []
    index = [each for place, each in enumerate(frame.columns) if _is_index(each) and (not place or each.startswith("__"))]
    remarks += [f"the index {each!r} is left out" for each in index if each not in options.drop]
    labels: dict[str, np.ndarray] = {}
    classes: tuple[str, ...] = ()
    if options.label:
        labels["all"], classes = _classes(path, frame[options.label], first_line)
        remarks.append(f"{options.label!r} is the label, of {len(classes)} classes")
    kept = frame.drop(columns=list(dict.fromkeys([*options.drop, *index, *filter(None, [options.label])])))
    remarks += [
        f"{name!r} is modelled as the other columns are: --label {name} makes it the label"
        for name in kept.columns
        if name.lower() in LIKE_LABELS
    ]
    if kept.columns.empty:
        raise InputError(f"{path}: expected columns of numbers; got none beside those that are left out: leave fewer out")
    found: dict[str, Any] = {"labels": labels, "classes": classes, "remarks": tuple(remarks)}
    if not named:
        columns = [frame_numbers(str(path), kept[name], first_line, missing=options.missing) for name in kept.columns]
        return Contents({"all": np.column_stack(columns)}, **found)
    asked = parse_kinds(str(path), options.columns, list(kept.columns))
    typed = [
        column_of(str(path), kept[name], asked.get(name, ""), first_line, missing=options.missing) for name in kept.columns
    ]
    return Contents(columns=tuple(kept.columns), **found, **join_columns(typed, is_asked=bool(asked)))


def _is_index(name: str) -> bool:
    return name in INDICES or name.startswith("__index_level_")


def _asked_for(path: Path, frame: pandas.DataFrame, names: Iterable[str]) -> Iterable[str]:
    """The given names, each after a check that a column has it.

    Raises:
        InputError: for a name that no column has.
    """
    for name in names:
        if name not in frame.columns:
            near = nearest(name, frame.columns) or f", out of {', '.join(map(repr, frame.columns[:20]))}"
            raise InputError(f"{path}: expected a column of the table; got {name!r}{near}")
        yield name


def _classes(path: Path, column: pandas.Series[Any], first_line: int) -> tuple[np.ndarray, tuple[str, ...]]:
    if column.isna().any():
        raise InputError(
            f"{path}: expected a label in each row; column {column.name!r} has none in line "
            f"{int(column.isna().to_numpy().argmax()) + first_line}: fill it in or leave the row out"
        )
    codes, names = codes_and_names(column)
    return codes.astype(np.int64), names
