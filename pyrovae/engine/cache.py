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

# Of compiled graphs, in bytes; the variable says another number, zero for none at all.
DEFAULT_LIMIT = 2**30
LIMIT_VARIABLE = "PYROVAE_CACHE_BYTES"
# What begins a whole file, before the digest of its content: another number for another layout.
MAGIC = b"pyrovae-1\n"
DIGEST_BYTES = hashlib.sha256().digest_size
# What a process that died has left half-written is nobody's after an hour.
ABANDONED_SECONDS = 3600
TEMPORARY = ".writing-"
# The lines of /proc/cpuinfo, of one core, that say which instructions there are and how fast each of them is.
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
    """How much may be kept: ``PYROVAE_CACHE_BYTES``, or a gibibyte."""
    told = os.environ.get(LIMIT_VARIABLE, "")
    if told and not told.isdecimal():
        logger.warning("expected a number of bytes in %s; got %r: keeping %d", LIMIT_VARIABLE, told, DEFAULT_LIMIT)
    return int(told) if told.isdecimal() else DEFAULT_LIMIT


@cache
def processor() -> str:
    """The processor's model and instructions: a home may be shared by machines that differ in them."""
    try:
        first_core = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except (OSError, UnicodeDecodeError):
        first_core = []
    known = dict(line.partition(":")[::2] for line in first_core)
    told = {name.strip(): " ".join(sorted(value.split())) for name, value in known.items() if name.strip() in PROCESSOR_LINES}
    return repr(told) if told else f"{platform.machine()} {platform.processor()}"


class SharedFolder:
    """Files by name, each whole or not there, the least recently used of them removed where they grow past a limit.

    Nothing here raises for what disks, other users and dying processes do: a file that cannot be read is not there, one that
    cannot be written is not kept. Names must not begin with a dot.

    Args:
        path: the folder, made when something is first kept.
        limit: bytes of all files together.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit

    def holds(self, name: str) -> bool:
        """Whether there is a file of that name that may be read."""
        try:
            return self.limit > 0 and self._is_ours() and _is_private(os.lstat(self.path / name), stat.S_ISREG)
        except OSError:
            return False

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none, a damaged one, or one that another user could have written."""
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
        # Used now: the one to be removed last. A disk that is read-only cannot be told.
        with suppress(OSError):
            os.utime(self.path / name)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Keep a file, in one move, so that no other process ever reads a part of it."""
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
        # A name of its own on every machine, where process numbers may be the same.
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
        """Until the rest is within the limit; other processes may do the same at this moment."""
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
        """Whether nobody else could put a file here."""
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
    """Of the right kind, the user's own or root's, and written by nobody else; systems without owners have one user."""
    owned = not hasattr(os, "geteuid") or status.st_uid in (os.geteuid(), 0)
    return is_kind(status.st_mode) and owned and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _whole(content: bytes) -> bytes:
    return MAGIC + hashlib.sha256(content).digest() + content
