"""Find the original files of a dataset on disk, or download them into the user's cache and verify them there."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from pyrovae.errors import InputError

DATA_VARIABLE = "PYROVAE_DATA"
STALLED_AFTER_SECONDS = 20.0


@dataclass(frozen=True)
class Source:
    """Where the files of a dataset come from.

    Args:
        name: the dataset's name.
        folders: paths under a data folder where its files are known to lie, the one that we write to first.
        checksums: MD5 of each file as the authors distribute it, by file name.
        address: of the folder with these files.
        licence: under which the authors give them away.
    """

    name: str
    folders: tuple[str, ...]
    checksums: dict[str, str]
    address: str
    licence: str = "none stated"


def locate(source: Source, root: str | Path | None = None) -> dict[str, Path]:
    """The files of a source by name: found under ``root``, ``$PYROVAE_DATA`` or the cache; else downloaded into the cache.

    A file may have been decompressed or compressed: ``NAME.gz`` is also found as ``NAME``, and ``NAME`` as ``NAME.gz``.

    Raises:
        InputError: if they are in none of these places and cannot be downloaded; it names the places and the files.
    """
    folders = list(candidate_folders(source, root))
    for folder in folders:
        found = {name: path for name in source.checksums if (path := _stored(folder / name))}
        if len(found) == len(source.checksums):
            return found
    try:
        return _download(source)
    except (OSError, RuntimeError) as error:
        raise InputError(_not_found(source, folders, error)) from error


def candidate_folders(source: Source, root: str | Path | None = None) -> Iterator[Path]:
    """The folders where the files are looked for, in order.

    A place itself counts only by its name: MNIST and Fashion-MNIST share their file names, and neither must pass for the other.
    """
    for place in _places(root):
        for folder in source.folders:
            if place.resolve().parts[-len(Path(folder).parts) :] == Path(folder).parts:
                yield place
            yield place / folder


def _places(root: str | Path | None) -> Iterator[Path]:
    if root is not None:
        yield Path(root).expanduser()
    if variable := os.environ.get(DATA_VARIABLE):
        yield Path(variable).expanduser()
    yield _cache()


def _cache() -> Path:
    return user_cache_path("pyrovae")


def _stored(path: Path) -> Path | None:
    try:
        other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(f"{path.name}.gz")
        return next((each for each in (path, other) if each.is_file()), None)
    except OSError as error:
        raise InputError(f"{path.parent}: expected a folder that can be read; got {error.strerror}") from error


def _download(source: Source) -> dict[str, Path]:
    """Into a folder of its own beside the destination, then moved file by file: no half-written file bears a final name."""
    from pyrovae.data.readers import import_torchvision

    torchvision = import_torchvision()
    destination = _cache() / source.folders[0]
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination) as unverified, _socket_timeout(STALLED_AFTER_SECONDS):
        for name, checksum in source.checksums.items():
            torchvision.datasets.utils.download_url(f"{source.address}/{name}", unverified, name, checksum)
        for name in source.checksums:
            os.replace(Path(unverified) / name, destination / name)
    return {name: destination / name for name in source.checksums}


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Torchvision opens its connections without one, and would wait for ever on a network that swallows packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _not_found(source: Source, folders: list[Path], error: Exception) -> str:
    return (
        f"dataset {source.name!r}: expected the files {', '.join(source.checksums)}; looked in "
        f"{', '.join(map(str, dict.fromkeys(folders)))}, and the download failed ({error}). Put the files into one of these "
        f"folders, name theirs with --root or ${DATA_VARIABLE}, or use --dataset mnist-5k, which needs no network"
    )
