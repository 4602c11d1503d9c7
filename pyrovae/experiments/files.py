"""The files of a run, written so that any death leaves whole ones, and read so that nothing outside the folder is.

Everything that a run keeps goes through here, and every call of the system through ``calls``: so faults can be put into each.
What is written takes a temporary name, reaches the disk, and takes its own name in one move. What is read is a regular file
within the folder, of no more than an expected size: no link is followed.
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

# Larger than any text that a run writes, history included; and than any but the history. As objects JSON takes many times more.
MOST_TEXT, MOST_JSON = 256 * 2**20, 16 * 2**20
ONLY_HERE, NO_WAITING = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)


class SystemCalls:
    """The calls of the system that change a folder."""

    def open(self, path: Path, flags: int) -> int:
        """Open a file, no link; do not wait for the other end of a pipe."""
        return os.open(path, flags | ONLY_HERE | NO_WAITING, 0o666)

    def write(self, descriptor: int, content: bytes | memoryview) -> int:
        """Write what fits; return how much."""
        return os.write(descriptor, content)

    def fsync(self, descriptor: int) -> None:
        """Wait for the disk."""
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(descriptor, size)

    def replace(self, source: Path, target: Path) -> None:
        """Move to another name."""
        os.replace(source, target)

    def mkdir(self, path: Path) -> None:
        """Make a folder, unless it is there."""
        path.mkdir(exist_ok=True)

    def rmtree(self, path: Path) -> None:
        """Remove a folder."""
        shutil.rmtree(path)


calls = SystemCalls()


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole, or leave what was there.

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
    """``write_file`` of a value as JSON."""
    write_file(path, (json.dumps(value, indent=2) + "\n").encode())


def make_folder(path: Path) -> None:
    """Make a folder within a run, unless it is there.

    Raises:
        InputError: where it cannot be made, and for a link.
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
        path: its name.
        contents: by names of files, and of files in folders of it.
        suffix: of the temporary name beside it; what has this name is removed.

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
    """Add to the end of a file; a line that was torn by a death before ends where it was torn.

    Raises:
        InputError: where it cannot be written.
    """
    with writing(path.parent), opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as descriptor:
        _write(descriptor, content)


def truncate(path: Path, size: int) -> None:
    """Cut a file to a size, and see to it that this reaches the disk.

    Raises:
        InputError: where it cannot be written.
    """
    with writing(path.parent), opened(path, os.O_WRONLY | os.O_CREAT) as descriptor:
        calls.truncate(descriptor, size)
        calls.fsync(descriptor)


def synced_size(path: Path) -> int:
    """The size of a file, all of which is on the disk by then; 0 where there is none.

    Raises:
        InputError: where it cannot be written.
    """
    if not path.exists():
        return 0
    with writing(path.parent), opened(path, os.O_RDWR) as descriptor:
        calls.fsync(descriptor)
        return os.fstat(descriptor).st_size


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it; a death on the way leaves one that nobody takes for whole.

    Raises:
        InputError: where it cannot be removed.
    """
    aside = path.with_name(f".{path.name}")
    with writing(path.parent):
        calls.replace(path, aside)
        calls.rmtree(aside)


def remove_remains(folder: Path) -> None:
    """Remove the folders that deaths left unfinished in a folder that is ``locked``."""
    with writing(folder):
        for path in folder.iterdir():
            if path.name.startswith(".") and path.is_dir() and not path.is_symlink():
                calls.rmtree(path)


def read_file(path: Path, at_most: int = MOST_TEXT) -> bytes:
    """The content of a regular file, no link.

    Raises:
        OSError: where it is something else, or larger than ``at_most`` bytes.
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
    """The value in a file of JSON, of no more than ``at_most`` bytes.

    Raises:
        OSError: where there is no such file.
        ValueError: where it is no JSON.
    """
    return json_in(read_file(path, at_most))


def json_in(content: bytes | str) -> Any:
    """The value that JSON stands for.

    Raises:
        ValueError: where it is none.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn failures of the system into words.

    Raises:
        InputError: for each.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder}: expected a folder to write the run into; got {error.strerror}") from error


def _fill(path: Path, content: bytes) -> None:
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
        _write(descriptor, content)
        calls.fsync(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[calls.write(descriptor, rest) :]


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A file or a folder, open; nothing else.

    Raises:
        OSError: where it cannot be opened, and for a pipe or a device.
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
    # The folder itself may be reached by a link: it is what is in it that must not be one.
    with opened(path.resolve(), os.O_RDONLY) as descriptor:
        calls.fsync(descriptor)
