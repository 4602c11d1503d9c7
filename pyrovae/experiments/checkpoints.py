"""Checkpoints: whole states of a training, written so that a whole one is left whenever the process dies.

    checkpoints/00000007/tensors.safetensors
    checkpoints/00000007/state.json
    checkpoints/00000007/checksums.json

Each has a numbered folder; the last two are kept. They contain no code, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError, visible
from pyrovae.experiments import files
from pyrovae.experiments.checking import DAMAGE, check_value, tensors_in

if TYPE_CHECKING:
    from torch import Tensor

FOLDER, TENSORS, STATE, CHECKSUMS = "checkpoints", "tensors.safetensors", "state.json", "checksums.json"
KEPT = 2
NUMBERED = re.compile(r"\d{8,12}", re.ASCII)
# The limits of tensors, in parameters: the parameters, two moments, averages, the best weights, and as much again; and in
# bytes.
TIMES_OF_PARAMETERS, MOST_BESIDES = 12, 64 * 2**20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A state of a training.

    Args:
        steps: the number of steps taken so far.
        tensors: the tensors by name.
        values: the plain values.
    """

    steps: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix`` and a dot, by the rest of their names."""
        start = f"{prefix}."
        return {name.removeprefix(start): each for name, each in self.tensors.items() if name.startswith(start)}


def save(run: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint and return its folder. Checkpoints older than the last two are removed.

    Raises:
        InputError: where the folder cannot be written.
    """
    before = _all(run)
    path = run / FOLDER / f"{int(before[-1].name) + 1 if before else 1:08d}"
    files.write_folder(path, contents_of(checkpoint).items())
    for old in _all(run)[:-KEPT]:
        files.remove_folder(old)
    files.remove_remains(run / FOLDER)
    return path


def contents_of(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The files of a checkpoint, by name."""
    from safetensors.torch import save as packed

    contents = {
        TENSORS: packed({name: each.detach().contiguous().clone() for name, each in checkpoint.tensors.items()}),
        STATE: json.dumps({"steps": checkpoint.steps, "values": checkpoint.values}).encode(),
    }
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return contents | {CHECKSUMS: json.dumps(checksums).encode()}


def latest(run: Path, num_bytes: int) -> Checkpoint | None:
    """Read the newest whole checkpoint of a run; None where there is none.

    Args:
        run: the folder of the run.
        num_bytes: the bytes of its parameters and buffers: far larger files are not read.

    Raises:
        InputError: where all checkpoints are damaged.
    """
    found = _all(run)
    for path in reversed(found):
        try:
            return _read(path, most_bytes(num_bytes))
        except DAMAGE as error:
            logger.warning("%s is damaged (%s): an older one is looked for", path, visible(str(error)[:200]))
    if found:
        raise InputError(f"{run}: expected a whole checkpoint; all {len(found)} are damaged: train anew in another folder")
    return None


def most_bytes(num_bytes: int) -> int:
    """The most bytes of a checkpoint's tensors, by the bytes of parameters and buffers."""
    return TIMES_OF_PARAMETERS * num_bytes + MOST_BESIDES


def newest_folder(run: Path) -> Path | None:
    """The folder of the newest checkpoint; None where there is none."""
    return next(reversed(_all(run)), None)


def _all(run: Path) -> list[Path]:
    """The folders of all checkpoints, the oldest first, without those that were being written or removed."""
    folder = run / FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return []
    numbered = (each for each in folder.iterdir() if NUMBERED.fullmatch(each.name) and not each.is_symlink())
    return sorted(numbered, key=lambda each: int(each.name))


def _read(path: Path, most: int) -> Checkpoint:
    checksums = files.read_json(path / CHECKSUMS)
    contents = {TENSORS: files.read_file(path / TENSORS, most), STATE: files.read_file(path / STATE, files.MOST_JSON)}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != checksums[name]:
            raise ValueError(f"{name} is not what was written")
    state = files.json_in(contents[STATE])
    check_value("state", state, {"steps": int, "values": dict})
    return Checkpoint(state["steps"], tensors_in(contents[TENSORS]), state["values"])
