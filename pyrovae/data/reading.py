"""The parts that readers of all formats share: errors in one line that names the file, and the headers of .npy files."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from pyrovae.errors import InputError

LONGEST_REASON = 400
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@contextmanager
def reading(path: Path, what: str, remedy: str = "mend it or replace it by a whole copy") -> Iterator[None]:
    """Turn any error of a parser over damaged or hostile bytes into one line that names the file.

    Decompressors and libraries raise nearly anything over a header that was tampered with, MemoryError included.

    Raises:
        InputError: for any exception within the context.
    """
    try:
        yield
    except InputError:
        raise
    except UnicodeDecodeError as error:
        got = error.object[error.start : error.start + 1]
        raise InputError(f"{path}: expected text in UTF-8; got the byte {got!r}: save it as UTF-8") from error
    except Exception as error:
        raise InputError(f"{path}: expected {what}; reading it failed ({in_one_line(error)}): {remedy}") from error


def in_one_line(error: Exception) -> str:
    """The message of an error in one line, shortened, or its type where it has no message."""
    return textwrap.shorten(str(error), LONGEST_REASON, placeholder=" ...") or type(error).__name__


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The shape of an .npy file, whether its first index runs fastest, and its type; leaves the file at its first entry.

    Raises:
        ValueError: for another version of the format.
    """
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"its version is {version}")
    return HEADERS[version](file)
