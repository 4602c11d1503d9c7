"""Read tables of somebody's own: numbers in columns, in CSV or parquet files."""

import csv
from pathlib import Path

import numpy as np

from pyrovae.data.reading import reading
from pyrovae.data.user_files.arrays import Contents, limit
from pyrovae.errors import InputError

# Bytes in memory for each byte of text: a digit and its comma become a double.
BYTES_OF_TEXT = 4


def read_csv(path: Path) -> Contents:
    """The numbers of a file with commas, with a line of names above them or not.

    Raises:
        InputError: for text, missing values, rows of different lengths, and files above a gigabyte.
    """
    with reading(path, "numbers separated by commas, in rows of one length, with or without a line of names above"):
        limit(path, BYTES_OF_TEXT * path.stat().st_size)
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next(csv.reader(file), [])
            named = not all(_is_number(field) for field in first)
            if not file.read(1):
                raise InputError(f"{path}: expected rows of numbers; got no more than one line: replace it by a whole copy")
        values = np.loadtxt(
            path, delimiter=",", skiprows=int(named), ndmin=2, comments=None, quotechar='"', encoding="utf-8-sig"
        )
    return Contents({"all": values}, columns=tuple(name.strip() for name in first) if named else ())


def read_parquet(path: Path) -> Contents:
    """The numbers of a parquet file.

    Raises:
        InputError: for columns of anything else, missing values, and where pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{path}: expected the package pyarrow to read it; it is not installed: pip install pyarrow"
        ) from error
    with reading(path, "a whole parquet file"), parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        limit(path, 8 * file.metadata.num_rows * max(1, len(schema)))
        kinds = (arrow.types.is_boolean, arrow.types.is_integer, arrow.types.is_floating)
        if other := [f"{column.name} ({column.type})" for column in schema if not any(kind(column.type) for kind in kinds)]:
            raise InputError(f"{path}: expected columns of numbers; got {', '.join(other)}: leave them out or encode them")
        table = file.read()
    if missing := [name for name, column in zip(table.column_names, table.columns, strict=True) if column.null_count]:
        raise InputError(
            f"{path}: expected a number in each row; {', '.join(missing)} misses some: fill them in or leave them out"
        )
    return Contents({"all": np.column_stack([each.to_numpy() for each in table.columns])}, columns=tuple(table.column_names))


def _is_number(field: str) -> bool:
    try:
        float(field or "nan")
    except ValueError:
        return False
    return True
