"""Read the numbers of a MATLAB file whose shapes are known."""

import math
import struct
import warnings
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import scipy.io
import torch
from torch import Tensor

from pyrovae.data.published_files.readers import REPLACE, check_shape
from pyrovae.data.reading import reading

HEADER_BYTES = 128
BYTE_ORDERS = {b"IM": "<", b"MI": ">"}
COMPRESSED = 15
# Room for names, and for the small variables that are not read.
SPARE_BYTES = 2**22
NUMBERS = ("double", "single", "logical", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def read_mat(path: Path, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """Read matrices of real numbers from a MATLAB 5 file, each of exactly this shape, in the type that the file stores.

    Raises:
        InputError: where the file is damaged, lacks a matrix, holds another shape or no numbers under its name, or is far
            larger than these matrices.
    """
    limit = 8 * sum(map(math.prod, shapes.values())) + SPARE_BYTES
    # Every shape and type is checked below: a warning of scipy would add nothing.
    with reading(path, "a whole MATLAB 5 file", REPLACE), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = _decompressed(path, limit)
        _check_headers(path, plain, shapes)
        matrices = scipy.io.loadmat(plain, variable_names=list(shapes))
        return {name: _tensor(path, name, matrices[name], shape) for name, shape in shapes.items()}


def _decompressed(path: Path, limit: int) -> BytesIO:
    """The file with its elements decompressed, up to a limit; scipy alone would decompress as much as the file tells it to."""
    if path.stat().st_size > limit:
        raise ValueError(f"it is larger than {limit:,} bytes")
    content = memoryview(path.read_bytes())
    order = BYTE_ORDERS[bytes(content[HEADER_BYTES - 2 : HEADER_BYTES])]
    plain = BytesIO()
    plain.write(content[:HEADER_BYTES])
    content = content[HEADER_BYTES:]
    while content:
        kind, size = struct.unpack(f"{order}II", content[:8])
        if size > len(content) - 8:
            raise ValueError(f"it ends {size + 8 - len(content):,} bytes early")
        plain.write(_element(content[: 8 + size], limit - plain.tell()) if kind == COMPRESSED else content[: 8 + size])
        content = content[8 + size :]
    plain.seek(0)
    return plain


def _element(compressed: memoryview, limit: int) -> bytes:
    stream = zlib.decompressobj()
    element = stream.decompress(compressed[8:], max(limit, 1))
    if not stream.eof:
        raise ValueError("an element of it is cut short, or holds more than it should")
    return element


def _check_headers(path: Path, plain: BytesIO, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Refuse other shapes and types before anything is read: other variables could take any amount of memory."""
    headers = scipy.io.whosmat(plain)
    plain.seek(0)
    if missing := set(shapes) - {name for name, _, _ in headers}:
        raise ValueError(f"it has no variable {', '.join(sorted(missing))}")
    for name, shape, kind in headers:
        if name in shapes:
            numbers = "numbers" if kind in NUMBERS else str(kind)
            check_shape(path, f"{name!r} as numbers of shape {shapes[name]}", f"{name!r} as {numbers} of shape {shape}")


def _tensor(path: Path, name: str, matrix: np.ndarray, shape: tuple[int, int]) -> Tensor:
    numbers = "numbers" if isinstance(matrix, np.ndarray) and matrix.dtype.kind in "buif" else "something else"
    check_shape(path, f"{name!r} as numbers of shape {shape}", f"{name!r} as {numbers} of shape {matrix.shape}")
    return torch.from_numpy(np.ascontiguousarray(matrix, matrix.dtype.newbyteorder("=")))
