"""Read the original file formats into tensors.

Every reader takes the shape that the file must have, reads no more than that, and never unpickles.
"""

import gzip
import struct
from pathlib import Path
from typing import IO, cast

import torch
from torch import Tensor

from pyrovae.data.reading import reading
from pyrovae.errors import InputError

CHUNK_BYTES = 2**24
REPLACE = "delete it or replace it by a whole copy"
IDX_TYPES = {8: "bytes", 9: "int8", 11: "int16", 12: "int32", 13: "float32", 14: "float64"}
NORB_TYPES = {0x1E3D4C55: torch.uint8, 0x1E3D4C54: torch.int32, 0x1E3D4C51: torch.float32, 0x1E3D4C53: torch.float64}


def open_file(path: Path) -> IO[bytes]:
    """Open a file to be read as bytes, decompressed on the way where its name ends in .gz."""
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def check_shape(path: Path, expected: str, found: str) -> None:
    """Refuse a file that holds something else than expected.

    Raises:
        InputError: where the two descriptions differ.
    """
    if expected != found:
        raise InputError(f"{path}: expected {expected}; got {found}: it is not this dataset's original file")


def check_range(path: Path, what: str, values: Tensor, low: float, high: float) -> Tensor:
    """Return the values, after a check that all of them are from ``low`` to ``high``.

    Raises:
        InputError: for a value outside of the range, or NaN.
    """
    if not ((values >= low) & (values <= high)).all():
        raise InputError(
            f"{path}: expected {what} from {low} to {high}; got values from {values.min()} to {values.max()}: {REPLACE}"
        )
    return values


def read_tensor(file: IO[bytes], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Read the rest of a file into a tensor, which it must fill exactly.

    Raises:
        ValueError: for fewer or more bytes.
    """
    tensor = torch.empty(shape, dtype=dtype)
    rest = tensor.numpy().data.cast("B")
    while rest:
        # In pieces, since a decompressor returns a copy of what it is asked for.
        piece = file.read(min(len(rest), CHUNK_BYTES))
        if not piece:
            raise ValueError(f"it ends {len(rest):,} bytes early")
        rest[: len(piece)] = piece
        rest = rest[len(piece) :]
    if file.read(1):
        raise ValueError(f"it goes on after {tensor.nbytes:,} bytes of data")
    return tensor


def read_header(file: IO[bytes], layout: str) -> tuple[int, ...]:
    """Read the numbers at the head of a file, in a layout of ``struct``.

    Raises:
        ValueError: for a file that ends within them.
    """
    content = file.read(struct.calcsize(layout))
    if len(content) < struct.calcsize(layout):
        raise ValueError("it ends within its header" if content else "it ends where its header should begin")
    return struct.unpack(layout, content)


def read_idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Read the bytes of an idx file, plain or gzipped, as a uint8 tensor of exactly this shape.

    Raises:
        InputError: for a file that is truncated, of another format, or of another shape.
    """
    with reading(path, "a whole idx file", REPLACE), open_file(path) as file:
        zero, kind, dimensions = read_header(file, ">HBB")
        if zero or kind not in IDX_TYPES:
            raise ValueError("its magic number is another one")
        found = read_header(file, f">{dimensions}I")
        check_shape(path, f"bytes of shape {shape}", f"{IDX_TYPES[kind]} of shape {found}")
        return read_tensor(file, shape, torch.uint8)


def read_norb(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Read a file in the binary matrix format of small NORB, plain or gzipped, as a tensor of exactly this type and shape.

    The format is little-endian: a magic number for the type, the number of dimensions, the dimensions, of which at least three
    are stored, and the entries in C order. It is not MATLAB's format, in spite of the ending .mat.

    Raises:
        InputError: for a file that is truncated, of another format, or of another type or shape.
    """
    with reading(path, "a whole NORB matrix file", REPLACE), open_file(path) as file:
        magic, dimensions = read_header(file, "<II")
        if magic not in NORB_TYPES or not 0 < dimensions <= 8:
            raise ValueError("its magic number is another one")
        found = read_header(file, f"<{max(dimensions, 3)}I")[:dimensions]
        check_shape(path, f"{dtype} of shape {shape}", f"{NORB_TYPES[magic]} of shape {found}")
        return read_tensor(file, shape, dtype)


def read_amat(path: Path, shape: tuple[int, int]) -> Tensor:
    """Read a text file with a row of 0 and 1 on each line, plain or gzipped, as a uint8 tensor of exactly this shape.

    Raises:
        InputError: for a file that is damaged, holds anything but these digits and white space, or is of another shape.
    """
    rows, columns = shape
    limit = 2 * rows * (columns + 1)
    with reading(path, "a whole amat file", REPLACE), open_file(path) as file:
        text = file.read(limit + 1)
    characters = torch.frombuffer(bytearray(text or b" "), dtype=torch.uint8)
    digits = characters[characters > ord(" ")] - ord("0")
    if len(text) > limit or len(digits) != rows * columns or text.count(b"\n") != rows or digits.max() > 1:
        raise InputError(
            f"{path}: expected {rows} lines of {columns} digits, each 0 or 1; got other text or another number of them: "
            "it is not this dataset's original file"
        )
    return digits.reshape(shape)
