"""A folder of files that processes and machines share: bounded in size, and trusted only where nobody else can write.

Compiled graphs are code, and loading one runs it. Importing this does not import torch.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

# The limit for compiled graphs, in bytes, and the variable that sets another one; zero keeps nothing.
DEFAULT_LIMIT = 2**30
LIMIT_VARIABLE = "PYROVAE_CACHE_BYTES"
# The first bytes of a file, before the digest of its content; another layout gets another number.
MAGIC = b"pyrovae-1\n"
DIGEST_BYTES = hashlib.sha256().digest_size
# Half-written files of processes that died are removed after an hour.
ABANDONED_SECONDS = 3600
TEMPORARY = ".writing-"
# The lines of /proc/cpuinfo, for one core, that determine its instructions and their speed.
PROCESSOR_LINES = (
    "vendor_id",
    "model name",
    "flags",
    "Features",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
)

logger = logging.getLogger(__name__)


def limit_in_bytes() -> int:
    """The most bytes that may be kept: ``PYROVAE_CACHE_BYTES``, or a gibibyte."""
    text = os.environ.get(LIMIT_VARIABLE, "")
    if text and not text.isdecimal():
        logger.warning("expected a number of bytes in %s; got %r: keeping %d", LIMIT_VARIABLE, text, DEFAULT_LIMIT)
    return int(text) if text.isdecimal() else DEFAULT_LIMIT


@cache
def processor() -> str:
    """The model and instructions of the processor: machines that share a home folder may differ in them."""
    try:
        first_core = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except (OSError, UnicodeDecodeError):
        first_core = []
    known = dict(line.partition(":")[::2] for line in first_core)
    lines = {name.strip(): " ".join(sorted(value.split())) for name, value in known.items() if name.strip() in PROCESSOR_LINES}
    return repr(lines) if lines else f"{platform.machine()} {platform.processor()}"


class SharedFolder:
    """A folder of whole files by name; the least recently used are removed where all together exceed a limit.

    Nothing here raises because of disks, other users or dying processes: a file that cannot be read counts as missing, and one
    that cannot be written is not kept. Names must not begin with a dot.

    Args:
        path: the folder, made when something is first kept.
        limit: the most bytes of all files together.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit

    def holds(self, name: str) -> bool:
        """True where there is a file of this name that may be read."""
        try:
            return self.limit > 0 and self._is_ours() and _is_private(os.lstat(self.path / name), stat.S_ISREG)
        except OSError:
            return False

    def read(self, name: str) -> bytes | None:
        """Read the content of a file; None for one that is missing, damaged, or could have been written by another user."""
        try:
            if self.limit <= 0 or not self._is_ours():
                return None
            with open(os.open(self.path / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
                if not _is_private(os.fstat(file.fileno()), stat.S_ISREG):
                    logger.warning("not read: another user could have written %s: delete it", self.path / name)
                    return None
                whole = file.read()
        except OSError:
            return None
        content = whole[len(MAGIC) + DIGEST_BYTES :]
        if whole != _whole(content):
            logger.info("not read: %s is damaged", self.path / name)
            return None
        # The time of last use decides which file is removed first. On a read-only disk it cannot be set.
        with suppress(OSError):
            os.utime(self.path / name)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file and move it to its name in one step, so that no other process ever reads a part of it."""
        whole = _whole(content)
        if len(whole) > self.limit:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._is_ours():
                return
            self._replace(name, whole)
            self._remove_oldest(keep=name)
        except OSError as error:
            logger.warning("%s is not kept for the next process: %s", self.path / name, error)

    def _replace(self, name: str, whole: bytes) -> None:
        # A random name, since processes of several machines may have the same number.
        descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=self.path)
        try:
            with open(descriptor, "wb") as file:
                file.write(whole)
            os.replace(temporary, self.path / name)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def _remove_oldest(self, keep: str) -> None:
        """Remove the oldest files until the rest is within the limit; other processes may do the same at this moment."""
        files = []
        for entry in os.scandir(self.path):
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                abandoned = entry.name.startswith(TEMPORARY) and time.time() - status.st_mtime > ABANDONED_SECONDS
                if abandoned:
                    os.unlink(entry.path)
                elif stat.S_ISREG(status.st_mode):
                    files.append((status.st_mtime, status.st_size, entry.name))
        total = sum(size for _, size, _ in files)
        for _, size, name in sorted(files):
            if total <= self.limit:
                return
            if name != keep and not name.startswith(TEMPORARY):
                with suppress(OSError):
                    os.unlink(self.path / name)
                total -= size

    def _is_ours(self) -> bool:
        """True where no other user can put a file into the folder."""
        try:
            ours = _is_private(os.lstat(self.path), stat.S_ISDIR)
        except OSError:
            return False
        if not ours:
            _warn_once(self.path)
        return ours


@cache
def _warn_once(path: Path) -> None:
    logger.warning("nothing is kept in %s, to which other users could write: 'chmod 700' it, or delete it", path)


def _is_private(status: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    """True for a file of the right kind that only the user or root can write; systems without owners have one user."""
    owned = not hasattr(os, "geteuid") or status.st_uid in (os.geteuid(), 0)
    return is_kind(status.st_mode) and owned and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _whole(content: bytes) -> bytes:
    return MAGIC + hashlib.sha256(content).digest() + content
