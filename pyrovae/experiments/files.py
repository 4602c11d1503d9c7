"""The files of a run, written so that they are whole whenever the process dies, and read only within the folder.

All files of a run are read and written here, and all system calls go through ``calls``, so that tests can make each of them
fail. A file is written under a temporary name, reaches the disk, and takes its own name in one move. Only regular files within
the folder are read, up to an expected size, and no link is followed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError

# The largest text that a run writes, history included, and the largest JSON, which takes many times more as objects.
MOST_TEXT, MOST_JSON = 256 * 2**20, 16 * 2**20
ONLY_HERE, NO_WAITING = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)


class SystemCalls:
    """The system calls that change a folder."""

    def open(self, path: Path, flags: int) -> int:
        """Open a file, but no link, without waiting for the other end of a pipe."""
        return os.open(path, flags | ONLY_HERE | NO_WAITING, 0o666)

    def write(self, descriptor: int, content: bytes | memoryview) -> int:
        """Write as many bytes as possible and return their number."""
        return os.write(descriptor, content)

    def fsync(self, descriptor: int) -> None:
        """Wait for the disk."""
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file to a size."""
        os.ftruncate(descriptor, size)

    def replace(self, source: Path, target: Path) -> None:
        """Move a file or folder to another name."""
        os.replace(source, target)

    def mkdir(self, path: Path) -> None:
        """Make a folder, unless it is there."""
        path.mkdir(exist_ok=True)

    def rmtree(self, path: Path) -> None:
        """Remove a folder."""
        shutil.rmtree(path)


calls = SystemCalls()


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole, or leave the old one.

    Raises:
        InputError: where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    with writing(path.parent):
        try:
            _fill(temporary, content)
            calls.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON by ``write_file``."""
    write_file(path, (json.dumps(value, indent=2) + "\n").encode())


def make_folder(path: Path) -> None:
    """Make a folder within a run, unless it is there.

    Raises:
        InputError: for a folder that cannot be made, and for a link.
    """
    with writing(path.parent):
        refuse_link(path)
        calls.mkdir(path)


def refuse_link(path: Path) -> None:
    """Refuse a folder within a run that is a link to elsewhere.

    Raises:
        OSError: for a link.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, f"expected the folder {path.name}; it is a link", str(path))


def write_folder(path: Path, contents: Iterable[tuple[str, bytes]], suffix: str = "") -> None:
    """Write a folder of files whole, or nothing, under a name that does not exist yet or is an empty folder.

    Args:
        path: the name of the folder.
        contents: names of files, with or without folders, and their contents.
        suffix: the suffix of the temporary name; a folder that has this name is removed.

    Raises:
        InputError: where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}{suffix}")
    make_folder(path.parent)
    with writing(path.parent):
        if temporary.exists():
            calls.rmtree(temporary)
        calls.mkdir(temporary)
        try:
            _fill_folder(temporary, contents)
            calls.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                shutil.rmtree(temporary)
            raise
        _sync_folder(path.parent)


def _fill_folder(folder: Path, contents: Iterable[tuple[str, bytes]]) -> None:
    folders = {folder: None}
    for name, content in contents:
        path = folder / name
        for each in reversed(path.relative_to(folder).parents[:-1]):
            calls.mkdir(folder / each)
            folders[folder / each] = None
        _fill(path, content)
    for each in reversed(folders):
        _sync_folder(each)


def append(path: Path, content: bytes) -> None:
    """Append to a file.

    Raises:
        InputError: where it cannot be written.
    """
    with writing(path.parent), open_descriptor(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as descriptor:
        _write(descriptor, content)


def truncate(path: Path, size: int) -> None:
    """Cut a file to a size, and wait until this has reached the disk.

    Raises:
        InputError: where it cannot be written.
    """
    with writing(path.parent), open_descriptor(path, os.O_WRONLY | os.O_CREAT) as descriptor:
        calls.truncate(descriptor, size)
        calls.fsync(descriptor)


def synced_size(path: Path) -> int:
    """Wait until a file is on the disk and return its size; 0 where there is none.

    Raises:
        InputError: where it cannot be written.
    """
    if not path.exists():
        return 0
    with writing(path.parent), open_descriptor(path, os.O_RDWR) as descriptor:
        calls.fsync(descriptor)
        return os.fstat(descriptor).st_size


def remove_folder(path: Path) -> None:
    """Remove a folder with its contents; if the process dies on the way, the rest has a name that marks it as incomplete.

    Raises:
        InputError: for a folder that cannot be removed.
    """
    aside = path.with_name(f".{path.name}")
    with writing(path.parent):
        if aside.is_dir() and not aside.is_symlink():
            # Of a process that died on the way.
            calls.rmtree(aside)
        calls.replace(path, aside)
        calls.rmtree(aside)


def remove_remains(folder: Path) -> None:
    """Remove the incomplete folders that dead processes left in a folder, which must be locked."""
    with writing(folder):
        for path in folder.iterdir():
            if path.name.startswith(".") and path.is_dir() and not path.is_symlink():
                calls.rmtree(path)


def read_file(path: Path, at_most: int = MOST_TEXT) -> bytes:
    """Read the content of a regular file, but not of a link.

    Raises:
        OSError: for anything else, and for a file larger than ``at_most`` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | ONLY_HERE | NO_WAITING)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "expected a file; it is something else", str(path))
        if status.st_size > at_most:
            raise OSError(errno.EFBIG, f"expected at most {at_most:,} bytes; it has {status.st_size:,}", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(at_most)
    finally:
        os.close(descriptor)


def read_json(path: Path, at_most: int = MOST_JSON) -> Any:
    """Read the value in a file of JSON of at most ``at_most`` bytes.

    Raises:
        OSError: for a file that is missing or too large.
        ValueError: for content that is no JSON.
    """
    return json_in(read_file(path, at_most))


def json_in(content: bytes | str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: for content that is no JSON.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn errors of the system into refusals.

    Raises:
        InputError: for any OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder}: expected a folder to write the run into; got {error.strerror}") from error


def _fill(path: Path, content: bytes) -> None:
    with open_descriptor(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
        _write(descriptor, content)
        calls.fsync(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[calls.write(descriptor, rest) :]


@contextmanager
def open_descriptor(path: Path, flags: int) -> Iterator[int]:
    """Open a file or a folder.

    Raises:
        OSError: for a path that cannot be opened, and for a pipe or a device.
    """
    descriptor = calls.open(path, flags)
    try:
        kind = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise OSError(errno.EINVAL, f"{path.name}, which is no file", str(path))
        yield descriptor
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    # The folder itself may be a link; its contents may not.
    with open_descriptor(path.resolve(), os.O_RDONLY) as descriptor:
        calls.fsync(descriptor)
