"""New examples for a trained model, from files, arrays and DataFrames: in blocks, so that a file may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyrovae.data.preparation import Preparation
from pyrovae.data.reading import reading
from pyrovae.data.user_files.arrays import read_npy, read_npz
from pyrovae.data.user_files.images import image_paths, stacked
from pyrovae.data.user_files.tables import INDICES, csv_frames, frame_numbers
from pyrovae.errors import InputError

if TYPE_CHECKING:
    import pandas

ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, eq=False)
class Block:
    """Some examples, in the order of their source.

    Args:
        names: of the examples: of files, of an index, or numbers from 0.
        values: as they are stored ``(N, ...)``, images with channels first.
    """

    names: Sequence[Any]
    values: np.ndarray


def blocks_of(source: Any, preparation: Preparation, note: Callable[[str], Any] = lambda remark: None) -> Iterator[Block]:
    """The examples of a file, a folder, an array or a DataFrame.

    Columns of a table are matched by their names where both have any; others are told of and left out.

    Args:
        source: a path, a DataFrame, an array or a tensor ``(N, ...)``.
        preparation: of the training.
        note: called with what a reader must know.

    Raises:
        InputError: for what cannot be read, a column that is missing, and text where numbers are expected.
    """
    if isinstance(source, str | Path):
        yield from _of_path(Path(source).expanduser(), preparation, note)
    elif hasattr(source, "columns"):
        for start in range(0, len(source), ROWS_AT_ONCE):
            yield _of_frame("the table", source.iloc[start : start + ROWS_AT_ONCE], preparation, note, first=start)
    else:
        yield from _of_array(np.asarray(source), preparation)


def _of_path(path: Path, preparation: Preparation, note: Callable[[str], Any]) -> Iterator[Block]:
    if path.is_dir():
        yield from _of_folder(path)
    elif path.suffix.lower() in (".npy", ".npz"):
        contents = (read_npy if path.suffix.lower() == ".npy" else read_npz)(path)
        if "all" not in contents.arrays:
            raise InputError(f"{path}: expected one array of examples; got parts of a split: save the part that is meant alone")
        yield from _of_array(contents.arrays["all"], preparation)
    elif path.suffix.lower() == ".parquet":
        yield from _of_parquet(path, preparation, note)
    elif path.suffixes and path.suffixes[-1].lower() in (".csv", ".tsv", ".gz"):
        first = 0
        for frame in csv_frames(path, ROWS_AT_ONCE):
            yield _of_frame(str(path), frame, preparation, note, first=first)
            first += len(frame)
    else:
        raise InputError(f"{path}: expected a table, an array or a folder of images that can be read: name one")


def _of_parquet(path: Path, preparation: Preparation, note: Callable[[str], Any]) -> Iterator[Block]:
    from pyarrow import parquet

    with reading(path, "a whole parquet file"), parquet.ParquetFile(path) as file:
        first = 0
        for batch in file.iter_batches(ROWS_AT_ONCE):
            yield _of_frame(str(path), batch.to_pandas(), preparation, note, first=first)
            first += len(batch)


def _of_folder(folder: Path) -> Iterator[Block]:
    paths = sorted(image_paths(folder))
    if not paths:
        raise InputError(f"{folder}: expected images; got none: name the folder that holds them")
    for start in range(0, len(paths), ROWS_AT_ONCE):
        some = paths[start : start + ROWS_AT_ONCE]
        yield Block([str(path.relative_to(folder)) for path in some], stacked(folder, some))


def _of_array(array: np.ndarray, preparation: Preparation) -> Iterator[Block]:
    if array.dtype.kind not in "buif" or array.ndim < 2:
        raise InputError(f"expected examples (N, ...) as numbers; got {array.dtype} of shape {array.shape}: reshape them")
    channels, height, width = preparation.shape
    if array.ndim == 4 and array.shape[1:] == (height, width, channels) and array.shape[1:] != preparation.shape:
        array = np.moveaxis(array, -1, 1)
    for start in range(0, len(array), ROWS_AT_ONCE):
        yield Block(range(start, min(start + ROWS_AT_ONCE, len(array))), np.asarray(array[start : start + ROWS_AT_ONCE]))


def _of_frame(
    where: str, frame: pandas.DataFrame, preparation: Preparation, note: Callable[[str], Any], *, first: int
) -> Block:
    import pandas

    frame = frame.rename(columns=str)
    names: Sequence[Any] = range(first, first + len(frame))
    if not isinstance(frame.index, pandas.RangeIndex):
        names = list(frame.index)
    elif len(frame.columns) and frame.columns[0] in INDICES:
        names, frame = frame.iloc[:, 0].tolist(), frame.iloc[:, 1:]
    if preparation.columns:
        places, others = preparation.matched(list(frame.columns))
        if others and not first:
            note(f"{where}: columns that the model does not know are left out: {', '.join(map(repr, others))}")
        frame = frame.iloc[:, places]
    return Block(
        names,
        np.column_stack([frame_numbers(where, frame[name], first, missing=preparation.missing) for name in frame.columns]),
    )
