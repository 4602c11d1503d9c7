"""Read users' ``.npy`` and ``.npz`` files: never unpickled, never larger in memory than their headers say."""

import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from pyrovae.data.reading import npy_header, reading
from pyrovae.errors import InputError

# The limit for files that have to be read as a whole. Larger data belong into an .npy file, which is memory-mapped.
READ_BYTES = 2**32
SPLITS = ("train", "valid", "test")
# The names that people give to the validation part.
VALIDATION = ("valid", "val", "validation")
LABELS = ("labels", "y", "target")


@dataclass(frozen=True, eq=False)
class Contents:
    """The content of a file.

    Args:
        arrays: examples ``(N, ...)`` by split; all of them under ``all`` where the file has no split.
        labels: the classes ``(N,)`` under the same keys, if there are any.
        columns: the names of the columns, for a table that has them.
        values: the kind of the values, where it is known: real, counts or mixed.
        kinds: the kind of each column, where they are mixed.
        categories: for each column the names of its categories; none where it holds numbers.
        classes: the names of the labels.
        remarks: what was left out, and what may surprise.
        channels_first: whether images are known to have their channels first.
    """

    arrays: dict[str, np.ndarray]
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    values: str = ""
    kinds: tuple[str, ...] = ()
    categories: tuple[tuple[str, ...], ...] = ()
    classes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    channels_first: bool = False


def split_names(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Find the parts of a split among names: a dictionary from each part to its name, empty where there are none.

    >>> split_names(Path("faces"), ["train", "val", "test"])
    {'train': 'train', 'valid': 'val', 'test': 'test'}

    Raises:
        InputError: for a split without training or test part, and for two validation parts.
    """
    found = {name: "valid" if name in VALIDATION else name for name in names if name in {*SPLITS, *VALIDATION}}
    if not found:
        return {}
    if len(set(found.values())) < len(found) or not {"train", "test"} <= set(found.values()):
        raise InputError(
            f"{path}: expected train and test, and perhaps one of {', '.join(VALIDATION)}; got {', '.join(sorted(found))}: "
            "bring the rest of the split, or rename what is no part of one"
        )
    return {part: name for name, part in found.items()}


def refuse_too_large(path: Path, num_bytes: int) -> None:
    """Refuse data that would not fit into memory.

    Raises:
        InputError: for more than ``READ_BYTES``.
    """
    if num_bytes > READ_BYTES:
        raise InputError(
            f"{path}: expected at most {READ_BYTES / 2**30:.3g} GiB once it is unpacked; got {num_bytes / 2**30:.3g} GiB: "
            "save the examples as one .npy file, which is read where it lies"
        )


def read_npy(path: Path) -> Contents:
    """Read the array of an ``.npy`` file, memory-mapped.

    Raises:
        InputError: for a file that is damaged or holds Python objects, and for a large one in Fortran order.
    """
    with reading(path, "a whole .npy file of numbers"):
        array = np.lib.format.open_memmap(path, mode="r")
    if array.nbytes > READ_BYTES and not array.flags.c_contiguous:
        raise InputError(
            f"{path}: expected an array in C order, whose rows are read one by one; got {array.nbytes / 2**30:.3g} GiB in "
            "Fortran order: save numpy.ascontiguousarray(array)"
        )
    return Contents({"all": array})


def read_npz(path: Path) -> Contents:
    """Read the arrays ``train``, ``test`` and perhaps ``valid`` of an ``.npz`` file; or its one array, and the classes.

    Classes are an array of integers named ``labels``, ``y`` or ``target`` beside it, as long as it is.

    Raises:
        InputError: for a file that is damaged or too large once unpacked, or that holds Python objects or other arrays.
    """
    with reading(path, "a whole .npz file of numbers"), zipfile.ZipFile(path) as archive:
        members = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}
        if parts := split_names(path, members):
            refuse_too_large(path, sum(members[name].file_size for name in parts.values()))
            return Contents({part: _member(path, archive, members[name]) for part, name in parts.items()})
        classes = [name for name in members if name in LABELS]
        examples = [name for name in members if name not in LABELS]
        if len(examples) != 1 or len(classes) > 1:
            raise InputError(
                f"{path}: expected one array of examples, with labels, y or target beside it or not; or train, test and "
                f"perhaps valid; got {', '.join(members) or 'none'}: save it with these names"
            )
        refuse_too_large(path, sum(each.file_size for each in members.values()))
        array = _member(path, archive, members[examples[0]])
        labels = _member(path, archive, members[classes[0]]) if classes else None
    return Contents({"all": array}, {} if labels is None else {"all": _checked_labels(path, labels, array.shape[:1])})


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Read an array, after a check that its header states its true size: numpy reserves that much memory beforehand."""
    with archive.open(member) as stream:
        size = _described_bytes(stream) + stream.tell()
    if size != member.file_size:
        raise InputError(
            f"{path}: expected {member.filename} to hold the {size} bytes that its header states; got {member.file_size}: "
            "replace it by a whole copy"
        )
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _described_bytes(stream: IO[bytes]) -> int:
    shape, _, dtype = npy_header(stream)
    if dtype.hasobject:
        raise ValueError("Python objects, which are never loaded")
    return math.prod(shape) * dtype.itemsize


def _checked_labels(path: Path, labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if (
        labels.dtype.kind not in "ui"
        or labels.shape != shape
        or (labels.size and not 0 <= labels.min() <= labels.max() < 2**16)
    ):
        raise InputError(
            f"{path}: expected as classes integers from 0 to 65,535, one for each of {shape} examples; got {labels.dtype} of "
            f"shape {labels.shape}: number the classes from 0, or leave the array out"
        )
    return labels.astype(np.int64)
