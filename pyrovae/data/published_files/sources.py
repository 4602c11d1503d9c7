"""Find the original files of a dataset on disk, or download them into the user's cache and verify them there."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path

from pyrovae.data.published_files.downloads import CHUNK_BYTES, Progress, check_address, download
from pyrovae.errors import InputError

DATA_VARIABLE = "PYROVAE_DATA"


@dataclass(frozen=True)
class Source:
    """The source of the files of a dataset.

    Args:
        name: the name of the dataset.
        folders: paths under a data folder where its files are known to lie, the one that we write to first.
        checksums: the checksum of each file as the authors distribute it, by file name: ``sha256:...``, or MD5 with or without
            ``md5:``; None where none is published: such a file is taken as it comes.
        address: the address of the folder with these files.
        licence: the licence that the authors state.
        mirrors: addresses that are tried after the first.
        decompressed: checksums of the content of ``.gz`` files, by the file's name, where they are known.
        packed: the name and checksum of a file that holds all data in another form; it is used if found, never downloaded.
    """

    name: str
    folders: tuple[str, ...]
    checksums: dict[str, str | None]
    address: str
    licence: str = "none stated"
    mirrors: tuple[str, ...] = ()
    decompressed: dict[str, str] = field(default_factory=dict)
    packed: dict[str, str] = field(default_factory=dict)


def locate(
    source: Source, root: str | Path | None = None, mirror: str | None = None, progress: Progress | None = None
) -> dict[str, Path]:
    """Find the files of a source under ``root``, ``$PYROVAE_DATA`` or the cache, else download them into the cache.

    A file may have been decompressed or compressed: ``NAME.gz`` is also found as ``NAME``, and ``NAME`` as ``NAME.gz``.

    Args:
        source: the source of the files.
        root: the folder to look in first.
        mirror: an address to download from in place of the authors': a folder that holds the files, or the source's folder.
        progress: called as files arrive.

    Raises:
        InputError: for files that are in none of these places and cannot be downloaded; it names the places and the files.
    """
    if mirror is not None:
        check_address(mirror)
    if found := find(source, root):
        return found
    try:
        return _download(source, mirror, progress)
    except (OSError, RuntimeError) as error:
        raise InputError(_not_found(source, root, error)) from error


def find(source: Source, root: str | Path | None = None) -> dict[str, Path]:
    """Find the files of a source, by name, in the first place that holds them all; an empty dictionary where no place does."""
    for folder in candidate_folders(source, root):
        found = files_in(source, folder)
        for whole in (source.packed, source.checksums):
            if whole and set(whole) <= set(found):
                return {name: found[name] for name in whole}
    return {}


def candidate_folders(source: Source, root: str | Path | None = None) -> Iterator[Path]:
    """The folders in which the files are looked for, in order.

    A place itself is one of them only if it has the right name: MNIST and Fashion-MNIST share the names of their files, and
    neither must pass for the other.
    """
    for place in _places(root):
        for folder in source.folders:
            if place.resolve().parts[-len(Path(folder).parts) :] == Path(folder).parts:
                yield place
            yield place / folder


def files_in(source: Source, folder: Path) -> dict[str, Path]:
    """The files of a source that lie in a folder, by name."""
    return {name: path for name in (*source.checksums, *source.packed) if (path := _stored(folder / name))}


def is_original(source: Source, name: str, path: Path) -> bool | None:
    """True where a file is what the authors distribute; None where no checksum is known for the form in which it lies there.

    A file that was compressed since can be checked; for one that was decompressed, a checksum is seldom published.

    Raises:
        InputError: for a file that cannot be read.
    """
    known = source.decompressed.get(name) if f"{path.name}.gz" == name else (source.checksums | source.packed)[name]
    if not known:
        return None
    algorithm, _, expected = _prefixed(known).partition(":")
    try:
        return _digest(path, algorithm, unpack=path.name != name and path.suffix == ".gz") == expected.lower()
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be read; got {error.strerror}: mend its permissions") from error


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


def _prefixed(checksum: str) -> str:
    return checksum if ":" in checksum else f"md5:{checksum}"


def _digest(path: Path, algorithm: str, *, unpack: bool) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with gzip.open(path) if unpack else path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _download(source: Source, mirror: str | None, progress: Progress | None) -> dict[str, Path]:
    """Download the files, one process at a time: the others wait, and then find them."""
    from filelock import FileLock

    folder = _cache() / source.folders[0]
    addresses = (source.address, *source.mirrors) if mirror is None else (f"{mirror.rstrip('/')}/{source.folders[0]}", mirror)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        for name, checksum in source.checksums.items():
            download(folder / name, _prefixed(checksum) if checksum else None, addresses, progress)
    return {name: folder / name for name in source.checksums}


def _not_found(source: Source, root: str | Path | None, error: Exception) -> str:
    folders = dict.fromkeys(map(str, candidate_folders(source, root)))
    return (
        f"dataset {source.name!r}: expected the files {', '.join(source.checksums)}; looked in {', '.join(folders)}, and the "
        f"download failed ({error}). Put the files into one of these folders, name theirs with --root or ${DATA_VARIABLE}, "
        "download them from elsewhere with --mirror, or use --dataset mnist-5k, which needs no network"
    )
