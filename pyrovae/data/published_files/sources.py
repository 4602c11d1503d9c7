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
    """Where the files of a dataset come from.

    Args:
        name: the dataset's name.
        folders: paths under a data folder where its files are known to lie, the one that we write to first.
        checksums: of each file as the authors distribute it, by file name: ``sha256:...``, or MD5 with or without ``md5:``;
            None where none is published: such a file is taken as it comes.
        address: of the folder with these files.
        licence: under which the authors give them away.
        mirrors: addresses that are tried after it.
        decompressed: checksums of what is in a ``.gz``, by its name, where they are known.
        packed: a file, and its checksum, that holds all of it in another form: found, never downloaded.
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
    """The files of a source by name: found under ``root``, ``$PYROVAE_DATA`` or the cache; else downloaded into the cache.

    A file may have been decompressed or compressed: ``NAME.gz`` is also found as ``NAME``, and ``NAME`` as ``NAME.gz``.

    Args:
        source: of the files.
        root: where to look first.
        mirror: an address to download from in place of the authors': a folder that holds the files, or the source's folder.
        progress: told of what has arrived of each file.

    Raises:
        InputError: if they are in none of these places and cannot be downloaded; it names the places and the files.
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
    """The files of a source by name, from the first place that holds them all; none where no place does."""
    for folder in candidate_folders(source, root):
        found = files_in(source, folder)
        for whole in (source.packed, source.checksums):
            if whole and set(whole) <= set(found):
                return {name: found[name] for name in whole}
    return {}


def candidate_folders(source: Source, root: str | Path | None = None) -> Iterator[Path]:
    """The folders where the files are looked for, in order.

    A place itself counts only by its name: MNIST and Fashion-MNIST share their file names, and neither must pass for the other.
    """
    for place in _places(root):
        for folder in source.folders:
            if place.resolve().parts[-len(Path(folder).parts) :] == Path(folder).parts:
                yield place
            yield place / folder


def files_in(source: Source, folder: Path) -> dict[str, Path]:
    """Those files of a source that lie in a folder, by name."""
    return {name: path for name in (*source.checksums, *source.packed) if (path := _stored(folder / name))}


def verified(source: Source, name: str, path: Path) -> bool | None:
    """Whether a file that was found is what the authors distribute; None where it has no checksum as it lies there.

    What was compressed since can be checked; of what was decompressed a checksum is seldom published.

    Raises:
        InputError: where it cannot be read.
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
    """One process at a time: the others wait, and find what it left."""
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
