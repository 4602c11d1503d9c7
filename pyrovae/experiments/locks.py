"""Locks, which let one process at a time into a folder."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyrovae.errors import InputError
from pyrovae.experiments.files import open_descriptor, read_json, write_json, writing

try:
    import fcntl
except ImportError:  # a system without it has no locks
    fcntl = None  # type: ignore[assignment]

LOCK, HOLDER = ".lock", ".lock.json"


class OccupiedError(InputError):
    """A refusal because another process is in the folder."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder. The lock of a dead process is free.

    Raises:
        OccupiedError: for a folder with another process in it.
        InputError: for a folder that cannot be written.
    """
    if fcntl is None:
        yield
        return
    with writing(folder), open_descriptor(folder / LOCK, os.O_RDWR | os.O_CREAT) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            holder = _holder(folder)
            raise OccupiedError(f"{folder}: expected a folder that nobody writes to; {holder} trains in it") from None
        write_json(folder / HOLDER, {"process": os.getpid(), "host": socket.gethostname()})
        yield


def wait_for(folder: Path) -> None:
    """Return once no process is in a folder that was occupied."""
    with writing(folder), open_descriptor(folder / LOCK, os.O_RDWR) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _holder(folder: Path) -> str:
    try:
        holder = read_json(folder / HOLDER)
        return f"process {int(holder['process'])} on {str(holder['host'])[:100]!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
