"""Read the original file formats into tensors."""

import gzip
import importlib
import shutil
import sys
import tempfile
import zlib
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from pyrovae.errors import InputError


def import_torchvision() -> ModuleType:
    """torchvision, also beside a torch build that it was not compiled for.

    A torchvision built for CUDA fails on import beside a CPU build of torch, because two of its compiled operators are not
    registered there. Its datasets and readers need neither: declaring their schemas is enough. Only after a failure, though:
    a torchvision that fits registers them itself, and a second registration would abort the process.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


def read_idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The bytes of an idx file, plain or gzipped, as a uint8 tensor of exactly this shape.

    Raises:
        InputError: where the file is truncated, of another format, or of another shape.
    """
    torchvision = import_torchvision()
    try:
        with tempfile.TemporaryDirectory() as folder:
            array = torchvision.datasets.mnist.read_sn3_pascalvincent_tensor(str(_decompressed(path, Path(folder))))
    except (EOFError, OSError, zlib.error, AssertionError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        raise InputError(
            f"{path}: expected a whole idx file; reading it failed ({reason}): delete it or replace it by a whole copy"
        ) from error
    if tuple(array.shape) != shape or array.dtype != torch.uint8:
        raise InputError(
            f"{path}: expected bytes of shape {shape}; got {array.dtype} of shape {tuple(array.shape)}: "
            "it is not this dataset's original file"
        )
    return array


def read_amat(path: Path, shape: tuple[int, int]) -> Tensor:
    """The bits of a text file with a row of 0 and 1 on each line, plain or gzipped, as a uint8 tensor of exactly this shape.

    Raises:
        InputError: where the file is damaged, holds anything but these digits and white space, or is of another shape.
    """
    rows, columns = shape
    limit = 2 * rows * (columns + 1)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            text = file.read(limit + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"{path}: expected a whole amat file; reading it failed ({error}): delete it or replace it by a whole copy"
        ) from error
    characters = torch.frombuffer(bytearray(text or b" "), dtype=torch.uint8)
    digits = characters[characters > ord(" ")] - ord("0")
    if len(text) > limit or len(digits) != rows * columns or text.count(b"\n") != rows or digits.max() > 1:
        raise InputError(
            f"{path}: expected {rows} lines of {columns} digits, each 0 or 1; got other text or another number of them: "
            "it is not this dataset's original file"
        )
    return digits.reshape(shape)


def _decompressed(path: Path, folder: Path) -> Path:
    """The file itself, or its decompressed copy in ``folder``: nothing is ever written beside a user's files."""
    if path.suffix != ".gz":
        return path
    plain = folder / path.stem
    with gzip.open(path) as compressed, plain.open("wb") as output:
        shutil.copyfileobj(compressed, output)
    return plain
