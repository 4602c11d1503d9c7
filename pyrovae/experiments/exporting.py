"""Write the results of a model block by block: tables and images, in the format of the file's ending."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas

from pyrovae.data.preparation import Preparation
from pyrovae.errors import InputError
from pyrovae.experiments import files

TABLES = (".csv", ".parquet", ".npz", ".npy")
ARRAYS = (".npz", ".npy")


def check_ending(path: Path, endings: Sequence[str], source: str | Path = "") -> None:
    """Refuse an output file of another ending, one that is the input, or one in a missing folder, before any work is done.

    Raises:
        InputError: for such a file.
    """
    if path.suffix.lower() not in endings:
        raise InputError(f"{path}: expected a file of {', '.join(endings)}; got {path.suffix or 'no ending'}: name another")
    if source and path.exists() and Path(source).exists() and path.samefile(source):
        raise InputError(f"{path}: expected another file than the one that is read: name another")
    if not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{path}: expected a folder that can be written to; {path.absolute().parent} is none")


def write_table(path: Path, blocks: Iterable[pandas.DataFrame]) -> int:
    """Write a table as its blocks come and return the number of its rows. Until it is whole it has a temporary name.

    ``.csv`` and ``.parquet`` hold the names of the rows in the column ``row``; ``.npz`` holds an array for each column and for
    ``row``; ``.npy`` holds only numbers.

    Args:
        path: the path of the file.
        blocks: blocks with the same columns.

    Raises:
        InputError: for a file that cannot be written.
    """
    with _beside(path) as file:
        return {".csv": _csv, ".parquet": _parquet}.get(path.suffix.lower(), _arrays)(file, path.suffix.lower(), blocks)


@contextmanager
def _beside(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file beside ``path``, which takes that name once all is written, and is removed after an error."""
    temporary = path.with_name(f".{path.name}.new")
    with files.writing(path.parent):
        temporary.unlink(missing_ok=True)
        # Links that somebody put there are not followed.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | files.ONLY_HERE, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
            files.calls.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def as_table(preparation: Preparation, x: np.ndarray, rows: Iterable[Any]) -> pandas.DataFrame:
    """Make a table of examples in original units ``(N, D)``, with the names of columns and categories.

    Where a binary column holds means, the likelier name is taken.
    """
    names = preparation.columns or tuple(str(each + 1) for each in range(preparation.size))
    columns = {name: preparation.column_values(place, x[:, place]) for place, name in enumerate(names)}
    return pandas.DataFrame(columns, index=pandas.Index(list(rows), name="row"))


def summary_of(preparation: Preparation, filled: np.ndarray, rows: Iterable[Any]) -> pandas.DataFrame:
    """Summarise fillings ``(M, N, D)`` in one table: means, with NAME_low and NAME_high, between which 19 in 20 lie.

    A column with names has the most frequent name, with NAME_share, the share of fillings that have it.
    """
    kinds = preparation.kinds or ("real",) * preparation.size
    is_named = np.array([kind in ("binary", "category") for kind in kinds])
    low, high = np.quantile(filled, (0.025, 0.975), 0)
    # The mean of a value with itself is another by a rounding.
    typical = np.where((filled == filled[0]).all(0), filled[0], filled.mean(0))
    for place in np.flatnonzero(is_named).tolist():
        known = np.unique(filled[:, :, place])
        shares = np.stack([(filled[:, :, place] == each).mean(0) for each in known])
        typical[:, place], high[:, place] = known[shares.argmax(0)], shares.max(0)
    table = as_table(preparation, typical, rows)
    added = [f"{name}_{each}" for name in table.columns for each in ("low", "high", "share")]
    if taken := sorted(set(added) & set(table.columns)):
        raise InputError(
            f"expected a table without {', '.join(map(repr, taken))}, which intervals are named: write all fillings as .npz"
        )
    for place, name in enumerate(list(table.columns)):
        if is_named[place]:
            table[f"{name}_share"] = high[:, place]
        else:
            table[f"{name}_low"], table[f"{name}_high"] = low[:, place], high[:, place]
    return table


def _csv(file: IO[bytes], _: str, blocks: Iterable[pandas.DataFrame]) -> int:
    count = 0
    for block in blocks:
        block.to_csv(file, header=not count, lineterminator="\n")
        count += len(block)
    return count


def _parquet(file: IO[bytes], _: str, blocks: Iterable[pandas.DataFrame]) -> int:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError("expected the package pyarrow for .parquet; it is not installed: pip install pyarrow") from error
    count, writer = 0, None
    for block in blocks:
        table = arrow.Table.from_pandas(_with_rows(block), preserve_index=False)
        writer = writer or parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)
        count += len(block)
    if writer is not None:
        writer.close()
    return count


def _with_rows(block: pandas.DataFrame) -> pandas.DataFrame:
    """Put the names of the rows into the first column, as text unless all are numbers."""
    names = block.index.to_series().reset_index(drop=True)
    names = names if pandas.api.types.is_numeric_dtype(names.dtype) else names.astype(str)
    found = block.reset_index(drop=True)
    found.insert(0, "row", names, allow_duplicates=True)
    return found


def _arrays(file: IO[bytes], suffix: str, blocks: Iterable[pandas.DataFrame]) -> int:
    whole = pandas.concat(list(blocks))
    if suffix == ".npy":
        np.save(file, whole.select_dtypes("number").to_numpy())
    else:
        columns = _with_rows(whole)
        arrays: dict[str, Any] = {str(name): _plain(columns[name]) for name in columns}
        np.savez_compressed(file, **arrays)
    return len(whole)


def _plain(column: pandas.Series[Any]) -> np.ndarray:
    return column.to_numpy() if pandas.api.types.is_numeric_dtype(column.dtype) else column.astype(str).to_numpy(dtype=str)


def write_images(path: Path, names: Sequence[Any], images: np.ndarray) -> None:
    """Write images ``(N, C, H, W)`` or rows ``(N, D)`` as an array; ``.npz`` also holds the names of the examples.

    Raises:
        InputError: for a file that cannot be written.
    """
    with _beside(path) as file:
        if path.suffix.lower() == ".npy":
            np.save(file, images)
        else:
            np.savez_compressed(file, x=images, row=np.array([str(each) for each in names]))


def write_pictures(folder: Path, images: np.ndarray, levels: float) -> None:
    """Write each image ``(N, C, H, W)`` as a PNG of its own, numbered.

    Args:
        folder: the folder of the files; it is made if missing.
        images: the images in original units.
        levels: the value of white.

    Raises:
        InputError: for a file that cannot be written.
    """
    from PIL import Image

    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(np.rint(images / levels * 255), 0, 255).astype(np.uint8)
        for number, each in enumerate(pixels):
            picture = each[0] if len(each) == 1 else each.transpose(1, 2, 0)
            Image.fromarray(picture).save(folder / f"{number:06d}.png")
