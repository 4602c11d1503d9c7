"""Read new examples for a trained model from files, arrays and DataFrames, in blocks: a file may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyrovae.data.preparation import Preparation
from pyrovae.data.user_files.arrays import read_npy, read_npz
from pyrovae.data.user_files.columns import category_codes, frame_numbers
from pyrovae.data.user_files.images import image_paths, stack_images
from pyrovae.data.user_files.tables import INDICES, csv_frames, parquet_file
from pyrovae.errors import InputError

if TYPE_CHECKING:
    import pandas

# The limits of a block: its rows, and its bytes in double precision.
MOST_ROWS, MOST_BYTES = 50_000, 2**26


@dataclass(frozen=True, eq=False)
class Block:
    """A block of examples, in the order of their source.

    Args:
        names: the names of the examples: names of files, entries of an index, or numbers from 0.
        values: the examples as stored ``(N, ...)``, images with channels first.
        classes: a function that returns the number of each example's class ``(N,)``, where the source has classes.
    """

    names: Sequence[Any]
    values: np.ndarray
    classes: Callable[[], np.ndarray] | None = None


def blocks_of(
    source: Any, preparation: Preparation, note: Callable[[str], Any] = lambda remark: None, *, label: str = ""
) -> Iterator[Block]:
    """Read the examples of a file, a folder, an array or a DataFrame in blocks.

    Columns of a table are matched by their names where both tables have names; other columns are noted and left out.

    Args:
        source: a path, a DataFrame, an array or a tensor ``(N, ...)``.
        preparation: the preparation of the training data.
        note: called with each remark for the user.
        label: the column of a table that holds the names of classes, if classes are needed.

    Raises:
        InputError: for a source that cannot be read, a column that is missing, and text where numbers are expected.
    """
    at_once = max(1, min(MOST_ROWS, MOST_BYTES // (8 * preparation.size)))
    if isinstance(source, str | Path):
        yield from _of_path(Path(source).expanduser(), preparation, note, at_once, label)
    elif hasattr(source, "columns"):
        for start in range(0, len(source), at_once):
            part = source.iloc[start : start + at_once]
            yield _of_frame("the table", part, preparation, note, first=start, names_first=0, label=label)
    else:
        array = source.detach().cpu().float().numpy() if hasattr(source, "detach") else source
        try:
            array = np.asarray(array)
        except ValueError as error:
            raise InputError(f"expected examples (N, ...) of one length; got {error}") from error
        yield from _of_array(array, preparation, at_once)


def _of_path(path: Path, preparation: Preparation, note: Callable[[str], Any], at_once: int, label: str) -> Iterator[Block]:
    if not path.exists():
        raise InputError(f"{path}: expected a file or a folder; there is none: name another")
    if path.is_dir():
        yield from _of_folder(path, preparation, at_once)
    elif path.suffix.lower() in (".npy", ".npz"):
        contents = (read_npy if path.suffix.lower() == ".npy" else read_npz)(path)
        if "all" not in contents.arrays:
            raise InputError(f"{path}: expected one array of examples; got parts of a split: save the part that is meant alone")
        yield from _of_array(contents.arrays["all"], preparation, at_once, contents.labels.get("all"))
    elif path.suffix.lower() == ".parquet":
        yield from _of_parquet(path, preparation, note, at_once, label)
    elif path.suffixes and path.suffix.lower() in (".csv", ".tsv", ".gz"):
        first = 0
        for frame in csv_frames(path, at_once):
            named = int(bool(frame.attrs["named"]))
            yield _of_frame(str(path), frame, preparation, note, first=first, names_first=1 + named, label=label)
            first += len(frame)
    else:
        raise InputError(
            f"{path}: expected .csv, .tsv, .csv.gz, .parquet, .npy, .npz or a folder of images; got "
            f"{path.suffix or 'no ending'}: convert it"
        )


def _of_parquet(path: Path, preparation: Preparation, note: Callable[[str], Any], at_once: int, label: str) -> Iterator[Block]:
    with parquet_file(path) as file:
        first = 0
        for batch in file.iter_batches(at_once):
            yield _of_frame(str(path), batch.to_pandas(), preparation, note, first=first, names_first=1, label=label)
            first += len(batch)


def _of_folder(folder: Path, preparation: Preparation, at_once: int) -> Iterator[Block]:
    paths = sorted(image_paths(folder))
    if not paths:
        raise InputError(f"{folder}: expected images; got none: name the folder that holds them")
    for start in range(0, len(paths), at_once):
        some = paths[start : start + at_once]
        known = [preparation.classes.index(path.parent.name) for path in some if path.parent.name in preparation.classes]
        classes = partial(np.array, known) if len(known) == len(some) else None
        yield Block([str(path.relative_to(folder)) for path in some], stack_images(folder, some), classes)


def _of_array(array: np.ndarray, preparation: Preparation, at_once: int, classes: np.ndarray | None = None) -> Iterator[Block]:
    if array.dtype.kind not in "buif" or array.ndim < 2:
        raise InputError(f"expected examples (N, ...) as numbers; got {array.dtype} of shape {array.shape}: reshape them")
    channels, height, width = preparation.shape
    if array.ndim == 4 and array.shape[1:] == (height, width, channels) and array.shape[1:] != preparation.shape:
        array = np.moveaxis(array, -1, 1)
    for start in range(0, len(array), at_once):
        some = slice(start, start + at_once)
        known = None if classes is None else partial(np.asarray, classes[some])
        yield Block(range(start, min(start + at_once, len(array))), np.asarray(array[some]), known)


def _of_frame(
    where: str,
    frame: pandas.DataFrame,
    preparation: Preparation,
    note: Callable[[str], Any],
    *,
    first: int,
    names_first: int,
    label: str,
) -> Block:
    """Make a block of a table; its rows are named by its index, or by the column that pandas or R wrote for the index."""
    named = bool(frame.attrs.get("named", True))
    frame = frame.set_axis([str(each) for each in frame.columns], axis=1)
    if frame.columns.has_duplicates:
        raise InputError(f"{where}: expected columns of different names; got {', '.join(frame.columns[:20])}: rename some")
    names: Sequence[Any] = [str(each) if isinstance(each, tuple) else each for each in frame.index]
    if len(frame.columns) and frame.columns[0] in INDICES:
        names, frame = frame.iloc[:, 0].tolist(), frame.iloc[:, 1:]
    line, classes = first + names_first, None
    if label and label in frame.columns:
        classes = partial(category_codes, where, frame[label], preparation.classes, line, missing=False)
        frame = frame.drop(columns=label)
    if preparation.columns and named:
        places, others = preparation.match_columns(list(frame.columns))
        if others and not first:
            note(f"{where}: columns that the model does not know are left out: {', '.join(map(repr, others))}")
        frame = frame.iloc[:, places]
    words = [() if preparation.has_numeric_names(place) else names for place, names in enumerate(preparation.categories)]
    columns = [
        category_codes(where, frame[name], known, line, missing=preparation.missing)
        if known
        else frame_numbers(where, frame[name], line, missing=preparation.missing)
        for name, known in zip_longest(frame.columns, words if len(words) == len(frame.columns) else ())
    ]
    return Block(names, np.column_stack(columns) if columns else np.zeros((len(frame), 0)), classes)
