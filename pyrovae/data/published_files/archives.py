"""Read the arrays of an .npz file whose shapes are known."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.published_files.readers import REPLACE, check_shape, read_tensor
from pyrovae.data.reading import npy_header, reading


def read_npz(path: Path, arrays: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> dict[str, Tensor]:
    """Read arrays of an .npz file, each of exactly this type and shape; nothing is unpickled or decompressed beyond its shape.

    Raises:
        InputError: where the file is damaged, lacks an array, or holds another type or shape under its name.
    """
    with reading(path, "a whole npz file", REPLACE), zipfile.ZipFile(path) as archive:
        return {name: _read(path, archive, name, dtype, shape) for name, (dtype, shape) in arrays.items()}


def _read(path: Path, archive: zipfile.ZipFile, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if f"{name}.npy" not in archive.namelist():
        raise ValueError(f"it has no array {name!r}")
    # With other methods a file could make the decompressor take any amount of memory.
    if archive.getinfo(f"{name}.npy").compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"the array {name!r} is compressed in a way that numpy does not")
    with archive.open(f"{name}.npy") as file:
        found, stored_shape, fortran_order = _header(file)
        check_shape(path, f"{name!r} as {dtype} of shape {shape}", f"{name!r} as {found} of shape {stored_shape}")
        # Booleans are read as bytes: some files store true as 255, and torch expects 1.
        stored_dtype = torch.uint8 if dtype == torch.bool else dtype
        entries = read_tensor(file, shape[::-1] if fortran_order else shape, stored_dtype)
        if fortran_order:
            entries = entries.permute(*reversed(range(len(shape)))).contiguous()
        return entries if stored_dtype == dtype else entries.ne_(0).view(dtype)


def _header(file: IO[bytes]) -> tuple[str, tuple[int, ...], bool]:
    """The type and shape of an .npy file, and whether its first index runs fastest; leaves the file at its first entry."""
    shape, fortran_order, dtype = npy_header(file)
    plain = dtype.isnative and dtype.kind in "buif"
    return str(torch.from_numpy(np.empty(0, dtype)).dtype) if plain else repr(dtype), shape, fortran_order
