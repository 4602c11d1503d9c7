"""What readers of any file share: damaged bytes become one line that names the file, and headers are read before arrays."""

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
    """Whatever a parser makes of damaged or hostile bytes, in one line that names the file.

    Decompressors and libraries raise nearly anything over a header that was tampered with, MemoryError included.

    Raises:
        InputError: in place of any other exception.
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
    """What an error says, in one line that is not too long, or else its name."""
    return textwrap.shorten(str(error), LONGEST_REASON, placeholder=" ...") or type(error).__name__


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first index runs fastest, and type of an .npy file, which is left at its first entry.

    Raises:
        ValueError: for another version of the format.
    """
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"its version is {version}")
    return HEADERS[version](file)
