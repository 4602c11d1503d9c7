"""``pack`` and ``unpack``: write a run folder into one zip file that can be sent, and read it back.

The file contains only the names below, with a fixed time, so that the same run gives the same bytes, and no path of the
sender's machine. A file may come from a stranger: names, kinds and sizes are checked while it is read, and the sizes that it
claims are not trusted.
"""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from pyrovae.data.reading import reading
from pyrovae.errors import InputError, in_one_line
from pyrovae.experiments import checkpoints, files
from pyrovae.experiments.bounding import BOUNDS
from pyrovae.experiments.checking import DAMAGE, check_tensors, tensors_in
from pyrovae.experiments.evaluations import FOLDER as EVALUATIONS
from pyrovae.experiments.folder import ENVIRONMENT, FIGURES, HISTORY, RECIPE, WEIGHTS
from pyrovae.experiments.recipe import MOST_OF_A_FILE
from pyrovae.experiments.run import Run

# A name that is a plain file on every system: no device of Windows, no hidden file, no separator.
_PART = r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)\.)[^\x00-\x20.~/\\:*?\"<>|\x7f][^\x00-\x1f/\\:*?\"<>|\x7f]{0,99}"
_NUMBERED = rf"{checkpoints.FOLDER}/\d{{8,12}}/(?:{checkpoints.TENSORS}|{checkpoints.STATE}|{checkpoints.CHECKSUMS})"
_TOP = "|".join(map(re.escape, (RECIPE, ENVIRONMENT, HISTORY, WEIGHTS, BOUNDS)))
NAMES = re.compile(rf"{_TOP}|{EVALUATIONS}/{_PART}\.(?:json|safetensors)|{FIGURES}/{_PART}\.png|{_NUMBERED}")
# The limits of a packed run: entries, bytes of their list, of a picture, of an evaluation's values, of all but programs'
# tensors.
MOST_ENTRIES, MOST_LISTED, MOST_PICTURE, MOST_EVALUATION, MOST_BESIDES = 1000, 2**20, 2**25, 2**26, 2**29
CHUNK = 2**20
# The parts of environment.json that are sent: no personal ones.
_SENT = (
    *("python", "platform", "torch", "pyro-ppl", "pyrovae", "capability", "threads", "started"),
    *("device", "asked_engine", "engines", "gone_on_with"),
)
_ABSOLUTE = re.compile(r"(?:^|[\s'\"(\[=:,])(?:[/~]|\\\\|[A-Za-z]:[/\\])[^\s/]|://")
_WHEN, _END = (1980, 1, 1, 0, 0, 0), 22


def pack(run_folder: str | Path, zip_path: str | Path, *, checkpoints: bool = False) -> Path:
    """Write a run folder into one file, without paths of this machine, and return its path.

    Args:
        run_folder: the folder of a training that has saved weights.
        zip_path: the path of the file, which is replaced if it exists.
        checkpoints: include the newest whole checkpoint, so that the training can be resumed.

    Raises:
        InputError: for a folder that is no run, files that are too large to be sent, and a file that cannot be written.
    """
    run, packed = Run.load(run_folder), BytesIO()
    try:
        with zipfile.ZipFile(packed, "w", allowZip64=False) as archive:
            for name, content in _files_of(run, checkpoints=checkpoints):
                archive.writestr(_entry(name), content)
    except (*DAMAGE, zipfile.LargeZipFile) as error:
        raise InputError(f"{run_folder}: expected a run that can be sent; got {in_one_line(error)}") from error
    path = Path(os.path.abspath(zip_path))
    files.write_file(path, packed.getvalue())
    return path


def unpack(zip_path: str | Path, folder: str | Path) -> Path:
    """Make a run folder from a file that ``pack`` wrote, or nothing at all, and return its path.

    Args:
        zip_path: the path of the file, which may be a stranger's.
        folder: a new or an empty folder.

    Raises:
        InputError: for a folder that holds anything, and for a file that is no packed run: one with other names than those of a
            run, links, names listed twice, encrypted entries, or files larger than its recipe allows.
    """
    target = Path(os.path.abspath(folder))
    if not target.name or target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise InputError(f"{folder}: expected a new or an empty folder; it is neither: choose another --output")
    refusals = reading(Path(zip_path), "a packed run, as 'pyrovae pack' writes one", "ask for a whole one")
    with refusals, _opened(Path(zip_path)) as file, zipfile.ZipFile(file) as archive:
        contents = _contents(archive, _listed(archive), target)
        files.write_folder(Path(os.path.realpath(target.parent)) / target.name, contents, suffix=".unpacked")
    return target


def _entry(name: str) -> zipfile.ZipInfo:
    """The entry of a regular file with a fixed time; files that are dense already are stored uncompressed."""
    entry = zipfile.ZipInfo(name, _WHEN)
    entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith((".json", ".jsonl")) else zipfile.ZIP_STORED
    return entry


def _files_of(run: Run, *, checkpoints: bool) -> Iterator[tuple[str, bytes]]:
    """The names and contents of a run's files that are sent."""
    for path in (run.folder / RECIPE, *sorted(_found(run.folder))):
        name = path.relative_to(run.folder).as_posix()
        content = files.read_file(path, _most(name, run))
        if name == HISTORY:
            assert run.history is not None  # which refuses anything but numbers
            # The last line may be torn if the process died.
            content = content[: content.rfind(b"\n") + 1]
        yield name, _without_paths(name, content)
    if checkpoints:
        yield from _checkpoint_of(run)


def _found(folder: Path) -> Iterator[Path]:
    """The paths of the files that are sent, beside the recipe; links are left out."""
    yield from (folder / name for name in (ENVIRONMENT, HISTORY, WEIGHTS, BOUNDS) if os.path.lexists(folder / name))
    for inner in (folder / EVALUATIONS, folder / FIGURES):
        if inner.is_dir() and not inner.is_symlink():
            for path in inner.iterdir():
                if NAMES.fullmatch(f"{inner.name}/{path.name}") and not path.is_symlink():
                    yield path


def _checkpoint_of(run: Run) -> Iterator[tuple[str, bytes]]:
    found = checkpoints.latest(run.folder, run.num_bytes)
    if found is None:
        raise ValueError("no checkpoint")
    clean = checkpoints.Checkpoint(found.steps, found.tensors, _clean("", found.values))
    for name, content in checkpoints.contents_of(clean).items():
        yield f"{checkpoints.FOLDER}/00000001/{name}", content


def _without_paths(name: str, content: bytes) -> bytes:
    """The content of a file of a run without paths and other facts of its machine.

    Raises:
        ValueError: for a .json file that is no JSON.
    """
    if not name.endswith(".json") or name.startswith(checkpoints.FOLDER):
        return content
    value = files.json_in(content)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object in {name}; got another value")
    if name == ENVIRONMENT:
        value = _of_environment(value)
    return (json.dumps(_clean("", value), indent=2) + "\n").encode()


def _of_environment(value: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value[key] for key in _SENT if key in value}
    if "gone_on_with" in kept:
        again = kept["gone_on_with"] if isinstance(kept["gone_on_with"], list) else []
        kept["gone_on_with"] = [_of_environment(each) for each in again if isinstance(each, dict)]
    return kept


def _clean(key: str, value: Any) -> Any:
    """Clean a value of JSON: the path of a dataset becomes its last name, any other text with a path becomes empty."""
    if isinstance(value, dict):
        return {name: _clean(name, each) for name, each in value.items()}
    if isinstance(value, list):
        return [_clean(key, each) for each in value]
    if isinstance(value, str) and key == "dataset":
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return "" if isinstance(value, str) and _ABSOLUTE.search(value) else value


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that ends as ``pack`` ends it, so that the list of entries is short and nothing comes after it.

    Raises:
        ValueError: for any other file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no file")
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END - 20))
        locator, end = file.read(20), file.read(_END)
        listed, start = int.from_bytes(end[12:16], "little"), int.from_bytes(end[16:20], "little")
        if end[:4] != b"PK\x05\x06" or end[20:] != b"\0\0" or locator[:4] == b"PK\x06\x07" or start + listed + _END != size:
            raise ValueError("it does not end as a zip file without a comment does")
        if listed > MOST_LISTED:
            raise ValueError(f"its list of entries has {listed:,} bytes")
        yield file


def _listed(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The entries, the recipe first.

    Raises:
        ValueError: for entries that ``pack`` never writes.
    """
    entries, names = archive.infolist(), set()
    if len(entries) > MOST_ENTRIES:
        raise ValueError(f"it has {len(entries):,} entries")
    for entry in entries:
        _check_entry(entry)
        # Some systems take names that differ in case, or in how an accent is written, for one.
        names.add(unicodedata.normalize("NFKC", entry.filename).casefold())
    if len(names) < len(entries):
        raise ValueError("it lists a name twice")
    if {RECIPE, WEIGHTS} - {entry.filename for entry in entries}:
        raise ValueError(f"it is without {RECIPE} or {WEIGHTS}")
    return sorted(entries, key=lambda entry: entry.filename != RECIPE)


def _check_entry(entry: zipfile.ZipInfo) -> None:
    shown = repr(entry.orig_filename[:100])
    if entry.filename != entry.orig_filename or not NAMES.fullmatch(entry.filename) or not _is_plain(entry.filename):
        raise ValueError(f"it lists {shown}, which is no file of a run")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    # The directory and the link of Windows.
    if kind not in (0, stat.S_IFREG) or entry.external_attr & 0x410:
        raise ValueError(f"{shown} in it is a link, or no file")
    if entry.flag_bits & 0x1:
        raise ValueError(f"{shown} in it is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{shown} in it is compressed in another way than by deflate")


def _is_plain(name: str) -> bool:
    return name.isprintable() and name == name.strip()


def _contents(archive: zipfile.ZipFile, entries: Iterable[zipfile.ZipInfo], target: Path) -> Iterator[tuple[str, bytes]]:
    """Read the files of a run, the recipe first, by which the sizes of the others are bounded.

    Raises:
        ValueError: for content that no run of this recipe has.
    """
    first, *others = entries
    content = _without_paths(RECIPE, _read(archive, first, MOST_OF_A_FILE))
    run = Run.of_settings(target, files.json_in(content))
    yield RECIPE, content
    left = run.most_bytes + checkpoints.most_bytes(run.num_bytes) + MOST_BESIDES
    for entry in others:
        content = _read(archive, entry, min(left, _most(entry.filename, run)))
        left -= len(content)
        if entry.filename == WEIGHTS:
            check_tensors(tensors_in(content), run.vae.state_dict())
        yield entry.filename, _without_paths(entry.filename, content)


def _most(name: str, run: Run) -> int:
    """The most bytes that a file of a run may have."""
    if name.startswith(checkpoints.FOLDER):
        return checkpoints.most_bytes(run.num_bytes) if name.endswith(checkpoints.TENSORS) else files.MOST_JSON
    known = {WEIGHTS: run.most_bytes, HISTORY: files.MOST_TEXT, RECIPE: MOST_OF_A_FILE}
    suffixes = {".png": MOST_PICTURE, ".safetensors": MOST_EVALUATION, ".json": files.MOST_JSON}
    return known[name] if name in known else suffixes[Path(name).suffix]


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    """Read an entry of at most ``most`` bytes, whatever size it claims."""
    content = bytearray()
    with archive.open(entry) as file:
        while chunk := file.read(min(CHUNK, most + 1 - len(content))):
            content += chunk
            if len(content) > most:
                raise ValueError(f"{entry.filename} in it has more than the {most:,} bytes that its recipe allows")
    return bytes(content)
