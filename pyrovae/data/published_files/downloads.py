"""Download files from the first address that has them; continue broken downloads; verify files before they get their names."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from pyrovae.errors import InputError

if TYPE_CHECKING:
    import requests

STALLED_AFTER_SECONDS = 20.0
# The pauses before each further try of a server that was busy or broke off.
PAUSES_SECONDS = (0.5, 1.0, 2.0)
BUSY = {429, 500, 502, 503, 504}
CHUNK_BYTES = 1 << 16

# A function that is called with a file's name, the bytes so far, and the size of the file where the server says it.
Progress = Callable[[str, int, int | None], None]


class TransientError(OSError):
    """A failure that is worth another try, which may succeed or continue what has arrived."""


def check_address(address: str) -> None:
    """Refuse an address that no file can be downloaded from.

    Raises:
        InputError: for an address that is not one of http, https or file.

    >>> check_address("file:///media/disk/data")
    >>> check_address("disk/data")
    Traceback (most recent call last):
    pyrovae.errors.InputError: expected a mirror as http://..., https://... or file:///FOLDER; got 'disk/data'
    """
    parts = urlsplit(address)
    # With two slashes, file://FOLDER names a machine.
    if not (parts.netloc if parts.scheme in ("http", "https") else parts.scheme == "file" and not parts.netloc):
        raise InputError(f"expected a mirror as http://..., https://... or file:///FOLDER; got {address!r}")


def download(target: Path, checksum: str | None, addresses: Iterable[str], progress: Progress | None = None) -> None:
    """Download a file from the first of these addresses that has it whole, unless it is there and whole already.

    The file gets its name in one step, once it is whole and verified. What arrived before a failure stays in ``NAME.part``,
    and the next download continues there. Only one process at a time may download to a target.

    Args:
        target: the path of the file, under the name that it has at the addresses.
        checksum: ``md5:...`` or ``sha256:...``; None where none is known: such a file is not verified and never continued.
        addresses: the addresses of folders that hold the file.
        progress: called as the file arrives.

    Raises:
        OSError: where no address has the file whole; it names each address and what happened there.
    """
    failures = []
    for address in addresses:
        url = f"{address.rstrip('/')}/{quote(target.name)}"
        try:
            return _persistently(url, target, checksum, progress or (lambda *_: None))
        except OSError as error:
            failures.append(f"{url}: {error}")
    raise OSError("; ".join(failures))


def _persistently(url: str, target: Path, checksum: str | None, progress: Progress) -> None:
    for pause in PAUSES_SECONDS:
        try:
            return _verified(url, target, checksum, progress)
        except TransientError:
            time.sleep(pause)
    return _verified(url, target, checksum, progress)


def _verified(url: str, target: Path, checksum: str | None, progress: Progress) -> None:
    import pooch

    partial = target.with_name(f"{target.name}.part")
    if checksum is None:
        # Without a checksum nobody could tell whether both halves belong to the same file.
        partial.unlink(missing_ok=True)
    continued = partial.exists()

    def receive(url: str, output: str, _: object) -> None:
        (_from_disk if urlsplit(url).scheme == "file" else _from_server)(url, partial, progress)
        os.replace(partial, output)

    try:
        with _silenced(pooch.get_logger()):
            pooch.retrieve(url, checksum, target.name, target.parent, downloader=receive)
    except ValueError as error:
        kind = TransientError if continued else OSError
        raise kind(f"what came is damaged or another file: its checksum is not {checksum}") from error


def _from_disk(url: str, partial: Path, progress: Progress) -> None:
    original = Path(url2pathname(urlsplit(url).path))
    try:
        shutil.copyfile(original, partial)
    except FileNotFoundError as error:
        raise OSError("no such file") from error
    progress(partial.stem, partial.stat().st_size, partial.stat().st_size)


def _from_server(url: str, partial: Path, progress: Progress) -> None:
    """Fetch the rest of a file after the bytes that are there; the whole file where the server honours no ranges."""
    import requests
    import urllib3

    done = partial.stat().st_size if partial.exists() else 0
    # The file as it is stored: a .gz must not be decompressed on the way.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=STALLED_AFTER_SECONDS) as response:
            continued = _continues(response, done, partial)
            done = done if continued else 0
            length = response.headers.get("Content-Length", "")
            total = done + int(length) if length.isdigit() else None
            with partial.open("ab" if continued else "wb") as file:
                for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
                    file.write(chunk)
                    done += len(chunk)
                    progress(partial.stem, done, total)
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise OSError(f"no answer for {STALLED_AFTER_SECONDS:g} s") from error
    except urllib3.exceptions.HTTPError as error:
        raise TransientError(f"the connection broke off after {done:,} bytes") from error
    except requests.ConnectionError as error:
        # Its own message repeats the address and wraps the reason twice.
        raise OSError(str(getattr(error.args[0], "reason", error))) from error


def _continues(response: requests.Response, done: int, partial: Path) -> bool:
    """True where an answer holds the rest of a file after the bytes that are there; False where it holds all of the file.

    Raises:
        OSError: for any other answer.
    """
    status = response.status_code
    if status == 200:
        return False
    if status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
        return True
    if status in (206, 416):
        partial.unlink(missing_ok=True)
        raise TransientError("the file there does not continue what had arrived")
    raise (TransientError if status in BUSY else OSError)(f"{status} {response.reason}")


@contextmanager
def _silenced(logger: logging.Logger) -> Iterator[None]:
    """Silence the messages of pooch on standard error while the context lasts."""
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)
