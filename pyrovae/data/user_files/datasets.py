"""Users' own data, by the path of a file or folder: their kind follows from their values, and is reported."""

from __future__ import annotations

import hashlib
import math
import mmap
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyrovae.data.datasets import Dataset, Options
from pyrovae.data.protocol import Protocol
from pyrovae.data.rows import Rows
from pyrovae.data.user_files.arrays import SPLITS, Contents, read_npy, read_npz
from pyrovae.data.user_files.images import read_folder
from pyrovae.data.user_files.ranges import (
    COUNTS,
    LEVELS,
    MIXED,
    REAL,
    Kind,
    Range,
    constant_columns,
    standardization,
    standardization_by_kind,
    survey,
)
from pyrovae.data.user_files.tables import read_csv, read_parquet
from pyrovae.errors import InputError

TABLES: dict[str, Callable[[Path, Options], Contents]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".csv.gz": read_csv,
    ".tsv.gz": read_csv,
    ".parquet": read_parquet,
}
ARRAYS: dict[str, Callable[[Path], Contents]] = {".npy": read_npy, ".npz": read_npz}
CHANNELS = (1, 3, 4)
# A tenth of them are two, the fewest that a standard error can be computed from.
FEWEST = 20
MOST_SHOWN = 30
# As float32. Larger data stay on disk, and each batch is read when it is needed.
LOADED_BYTES = 2**30

Shape = tuple[int, int, int]


def own_dataset(name: str, options: Options) -> Dataset:
    """Load the examples of an ``.npz``, ``.npy``, CSV or parquet file, or of a folder of images.

    Arrays are ``(N, D)``, a table; ``(N, H, W)``; ``(N, H, W, C)`` or ``(N, C, H, W)`` with C of 1, 3 or 4. Zeros and ones are
    bits. Bytes, and whole numbers up to exactly 255, are grey levels; other numbers in [0, 1] are grey as well; other whole
    numbers up to 1,000 are counts. All others are real and standardised by the training part: each column of a table, and
    images by one mean and deviation. The named columns of a table may be of several kinds: see ``kind_of_numbers``. Four fifths
    of the examples are for training and a tenth each for validation and test, unless the file has a split.

    Raises:
        InputError: for a path that cannot be read, and for data that are not numbers of one of these shapes.
    """
    path = Path(name).expanduser().absolute()
    contents = _read(path, options)
    shape = _common_shape(path, contents)
    arrays = {key: _channels_first(array, shape) for key, array in contents.arrays.items()}
    ranges = {key: survey(path, array, contents.columns, missing=options.missing) for key, array in arrays.items()}
    found = _common_range(path, ranges)
    kind = _kind(path, contents, options, found)
    rows = _split(arrays, options, kind)
    in_memory = sum(each.nbytes for each in arrays.values()) <= LOADED_BYTES
    droppable = kind in (REAL, MIXED, COUNTS) and bool(contents.columns) and in_memory
    if droppable and (constant := constant_columns(rows["train"])).any():
        contents = _without(path, contents, constant)
        shape = _common_shape(path, contents)
        rows = _split(contents.arrays, options, kind)
    shift, scale = np.zeros(1), np.ones(1)
    if kind in (REAL, MIXED):
        shift, scale = standardization(path, rows["train"], found, contents.columns, alike=shape[1] > 1)
        if kind is MIXED:
            shift, scale = standardization_by_kind(contents.kinds, rows["train"], shift, scale)
        rows = {split: Rows(each.stored, each.chosen, shift, scale) for split, each in rows.items()}
    parts = _in_memory_or_not(rows)
    where = "" if isinstance(parts["train"], torch.Tensor) else ", read batch by batch"
    num_rows = sum(len(each) for each in rows.values())
    return Dataset(
        str(path),
        **parts,
        labels=_labels(contents.labels, rows),
        shape=shape,
        protocol=_protocol(path, rows, ranges, options, kind, contents),
        binarize=False,
        values=kind.values,
        likelihood=kind.likelihood,
        columns=contents.columns,
        kinds=contents.kinds,
        categories=contents.categories,
        classes=contents.classes,
        shift=tuple(shift.tolist()),
        scale=tuple(scale.tolist()),
        missing=options.missing,
        description="; ".join(
            [
                f"{path.name}: {num_rows:,} rows of {_sizes(shape)}, {_described(kind, found, contents)}{where}",
                *contents.remarks,
            ]
        ),
    )


def _kind(path: Path, contents: Contents, options: Options, found: Range) -> Kind:
    """The kind of the data: as the table's columns have it, as the user states it, or by the range of the numbers.

    Raises:
        InputError: for kinds of columns where columns have no names.
    """
    if contents.values:
        return {"real": REAL, "counts": COUNTS, "mixed": MIXED}[contents.values]
    if not options.columns or contents.columns:
        return found.kind
    asked = {"*=real": REAL, "*=count": COUNTS}.get(",".join(options.columns))
    if asked is None or (asked is COUNTS and not (found.low >= 0 and found.whole)):
        fits = (
            "'*=real', or '*=count' for whole numbers from 0 on" if asked is None else "whole numbers from 0 on for '*=count'"
        )
        raise InputError(
            f"{path}: expected {fits} where columns have no names; got {', '.join(options.columns)} for {found}: change it"
        )
    return asked


def _described(kind: Kind, found: Range, contents: Contents) -> str:
    """The description of the values in words: their range, or the kind of each column."""
    if kind is not MIXED:
        return f"{kind.words} {found.low:g} to {found.high:g}"
    each = [
        f"{name} {of}{f' of {len(names)}' if of == 'category' else ''}"
        for name, of, names in zip(contents.columns, contents.kinds, contents.categories, strict=True)
    ]
    return f"{', '.join(each[:MOST_SHOWN])}{', ...' if len(each) > MOST_SHOWN else ''} (--columns NAME=KIND to change one)"


def _read(path: Path, options: Options) -> Contents:
    """Read a file by its suffix, or a folder of images."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        raise InputError(f"{path}: expected a file or folder that can be read; got {error.strerror}: name another") from error
    suffix = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]).lower()
    if not is_folder and suffix in TABLES:
        return TABLES[suffix](path, options)
    if options.label or options.drop:
        what = " and ".join(filter(None, ["label" if options.label else "", "drop" if options.drop else ""]))
        raise InputError(f"{path}: expected a table with named columns for {what}; it is none: leave the setting out")
    if is_folder:
        return read_folder(path)
    if suffix not in ARRAYS:
        known = ", ".join((*ARRAYS, *TABLES))
        raise InputError(f"{path}: expected a file of {known} or a folder of images; got {suffix or 'no suffix'}: convert it")
    return ARRAYS[suffix](path)


def _common_shape(path: Path, contents: Contents) -> Shape:
    """The channels, height and width of all examples.

    Raises:
        InputError: for examples of different shapes, values that are not numbers, and too few examples.
    """
    for array in contents.arrays.values():
        if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
            raise InputError(f"{path}: expected numbers; got {array.dtype}: convert them to bytes, integers or floats")
    for key, array in contents.arrays.items():
        if len(shape := array.shape) not in (2, 3, 4) or 0 in shape:
            raise InputError(
                f"{path}: expected examples (N, D), (N, H, W), (N, H, W, C) or (N, C, H, W); got {shape}: reshape them"
            )
        if len(array) < (fewest := FEWEST if key == "all" else 2):
            raise InputError(f"{path}: expected at least {fewest} examples; got {len(array)}: use more of them")
    each = {array.shape[1:] for array in contents.arrays.values()}
    if len(each) > 1:
        raise InputError(f"{path}: expected examples of one shape in all parts; got {', '.join(map(str, each))}: reshape them")
    (example,) = each
    return (example[0], example[1], example[2]) if contents.channels_first else _image_shape(path, example)


def _common_range(path: Path, ranges: dict[str, Range]) -> Range:
    """The range of all parts together.

    Raises:
        InputError: for some parts in [0, 1] and others in 0 to 255.
    """
    grey = [key for key, each in ranges.items() if each.high <= 1 and not each.stored_as_bytes]
    levels = [key for key, each in ranges.items() if each.kind is LEVELS]
    if grey and levels:
        raise InputError(
            f"{path}: expected all parts on one scale; got {', '.join(levels)} in 0 to 255 and {', '.join(grey)} in 0 to 1: "
            "divide the former by 255"
        )
    return reduce(or_, ranges.values())


def _without(path: Path, contents: Contents, constant: np.ndarray) -> Contents:
    """Leave out the columns that are constant in the training part, with a remark on them.

    Raises:
        InputError: where all columns are constant.
    """
    left_out = [repr(name) for name, each in zip(contents.columns, constant, strict=True) if each]
    said = f"{', '.join(left_out[:10])}{', ...' if len(left_out) > 10 else ''}"
    if constant.all():
        raise InputError(f"{path}: expected columns that vary; these are constant in the training part: {said}: add others")
    return replace(
        contents,
        arrays={key: array[:, ~constant] for key, array in contents.arrays.items()},
        columns=_kept(contents.columns, constant),
        kinds=_kept(contents.kinds, constant),
        categories=_kept(contents.categories, constant),
        remarks=(*contents.remarks, f"left out, since constant in the training part: {said}"),
    )


def _kept(each: tuple[Any, ...], constant: np.ndarray) -> tuple[Any, ...]:
    """The entries of a tuple that belong to columns that vary; the tuple has one for each column, or is empty."""
    return tuple(one for one, is_constant in zip(each, constant, strict=False) if not is_constant)


def _labels(labels: dict[str, np.ndarray], rows: dict[str, Rows]) -> dict[str, torch.Tensor]:
    """The classes of each part; those of a part that was drawn from another one are taken from there."""
    if not labels:
        return {}
    sources = {split: next(key for key in ("all", split, "train") if key in labels) for split in rows}
    return {split: torch.from_numpy(labels[sources[split]][each.chosen]) for split, each in rows.items()}


def _image_shape(path: Path, example: tuple[int, ...]) -> Shape:
    if len(example) < 3:
        height, width = (1, *example)[-2:]
        return 1, height, width
    first, last = example[0] in CHANNELS, example[-1] in CHANNELS
    if first == last:
        raise InputError(
            f"{path}: expected 1, 3 or 4 channels either first or last; got examples of shape {example}, where "
            f"{'both' if first else 'neither'} could be: reshape them to (N, C, H, W) with one such C"
        )
    channels, height, width = example if first else (example[2], example[0], example[1])
    return channels, height, width


def _channels_first(array: np.ndarray, shape: Shape) -> np.ndarray:
    return np.moveaxis(array, -1, 1) if array.ndim == 4 and array.shape[1:] != shape else array


def _split(arrays: dict[str, np.ndarray], options: Options, kind: Kind) -> dict[str, Rows]:
    """Split the examples as the file does, or at random into four fifths, a tenth and a tenth."""
    chosen = {split: (array, np.arange(len(array))) for split, array in arrays.items()}
    if "all" in arrays:
        array, order = arrays["all"], _permutation(len(arrays["all"]), options.split_seed)
        tenth = len(order) // 10
        parts = {"train": order[2 * tenth :], "valid": order[:tenth], "test": order[tenth : 2 * tenth]}
        chosen = {split: (array, part) for split, part in parts.items()}
    elif options.validation and "valid" not in arrays:
        array, order = arrays["train"], _permutation(len(arrays["train"]), options.split_seed)
        tenth = len(order) // 10
        chosen |= {"train": (array, order[tenth:]), "valid": (array, order[:tenth])}
    precision = np.float64 if kind in (REAL, MIXED) else np.float32
    return {split: Rows(*each, shift=precision(0), scale=precision(kind.unit)) for split, each in chosen.items()}


def _protocol(
    path: Path, rows: dict[str, Rows], ranges: dict[str, Range], options: Options, kind: Kind, contents: Contents
) -> Protocol:
    train, valid, test = (len(rows.get(split, ())) for split in SPLITS)
    split = f"split at random (seed {options.split_seed})"
    if "all" not in ranges:
        drawn = "valid" in rows and "valid" not in ranges
        split = "split as in the file" + (f", validation at random (seed {options.split_seed})" if drawn else "")
    return Protocol(
        dataset=path.name,
        sizes=(train, valid, test),
        split=split,
        values=_values(kind, contents),
        remark="gaps are missing entries" if options.missing else "",
        checksums={key: each.checksum for key, each in ranges.items()},
    )


def _values(kind: Kind, contents: Contents) -> str:
    if kind is not MIXED:
        return {REAL: "standardised; density of the original values", COUNTS: "counts"}.get(kind, "")
    numbers = Counter(contents.kinds)
    columns = ", ".join(f"{number} {name}" for name, number in numbers.items())
    # A density depends on the kind of each column and on the names of its categories: they are part of the protocol.
    digest = hashlib.sha256(repr((contents.columns, contents.kinds, contents.categories)).encode()).hexdigest()[:8]
    return f"columns: {columns} [{digest}]; density of the original values"


def _permutation(length: int, seed: int) -> np.ndarray:
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed)).numpy()


def _in_memory_or_not(rows: dict[str, Rows]) -> dict[str, Any]:
    """Read the parts into memory where they fit; else leave them on disk."""
    if 4 * sum(math.prod(each.shape) for each in rows.values()) <= LOADED_BYTES:
        return {split: rows[split].load() if split in rows else None for split in SPLITS}
    for each in rows.values():
        # Rows are read in random places: the system should not read ahead.
        if isinstance(each.stored, np.memmap) and hasattr(mmap, "MADV_RANDOM"):
            each.stored._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
    return {split: rows.get(split) for split in SPLITS}


def _sizes(shape: Shape) -> str:
    """The size of an example in words.

    >>> _sizes((1, 28, 28)), _sizes((1, 1, 5))
    ('1 x 28 x 28', '5 columns')
    """
    return " x ".join(map(str, shape)) if shape[1] > 1 else f"{shape[2]:,} columns"
