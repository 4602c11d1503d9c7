"""Compressed examples in a file, which the run that compressed them decompresses: ``pyrovae compress`` and ``decompress``.

    8 bytes     the mark and version of the format
    4 bytes     the length of the header
    header      JSON, deflated: the checksum of the model, the kind and shape of the data, the batches, and what computed them
    words       the bits, in unsigned 32-bit words, least byte first
    16 bytes    the BLAKE2 checksum of all before

A file is data: nothing in it is executed, and of a damaged, truncated or foreign file no example is given out.
"""

from __future__ import annotations

import hashlib
import json
import platform
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyrovae.data.preparation import RANGES
from pyrovae.errors import InputError, first_line
from pyrovae.evaluation.bits_back import Batch, Compressed, DecodingError, compress, decompress, most_at_once
from pyrovae.experiments import files
from pyrovae.experiments.checking import DAMAGE, check_value
from pyrovae.experiments.measuring import Track
from pyrovae.experiments.new_examples import Note, new_examples
from pyrovae.programs.likelihoods import LIKELIHOODS

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.experiments.folder import RunFolder

MARK, DIGEST_BYTES = b"pyrovae\x01", 16
MOST_BYTES, MOST_HEADER_BYTES = 2**34, 2**28
# Each count has a probability for each entry.
MOST_COUNTS = 2**16
HEADER = {"model": str, "data": str, "shape": list, "letters": int, "batches": list, "arithmetic": dict}


@dataclass(frozen=True)
class Compression:
    """The result of a compression.

    Args:
        path: the path of the file.
        examples: the number of examples.
        bytes: the size of the file.
        bits_per_example: the bits of the file for each example.
        negative_elbo_bits: the bits for each example by the bound, at the latents that were coded; None for so few examples
            that no bits came back.
    """

    path: str
    examples: int
    bytes: int
    bits_per_example: float
    negative_elbo_bits: float | None

    def as_dict(self) -> dict[str, Any]:
        """The fields as a dictionary, to be printed as JSON."""
        return asdict(self)


def compress_file(
    run: RunFolder, source: Any, path: Path, *, seed: int = 0, note: Note = print, track: Track = iter
) -> Compression:
    """Compress examples without loss into a file.

    Args:
        run: the trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``.
        path: the path of the file.
        seed: the seed of the bits that are drawn from grey values, for a model of bits.
        note: called with each remark for the user.
        track: function that wraps the examples, to show progress.

    Raises:
        InputError: for a model whose data cannot be compressed, examples that it cannot take, and a file that cannot be
            written.
    """
    import torch

    _refuse_what_cannot_be_coded(run)
    preparation, blocks, is_grey = run.required_preparation, [], False
    for each in new_examples(run, source, seed, note):
        blocks.append(each.x)
        stored = each.block.values
        ends = (False, True) if stored.dtype == bool else RANGES[preparation.values]
        is_grey |= preparation.binarize != "no" and not np.isin(stored, ends).all()
    if is_grey:
        note(f"the file holds bits that grey values became, drawn with seed {seed} as for training, not the grey values")
    x = torch.cat(blocks)
    alphabet = _alphabet(run, max(2, int(x.max().item()) + 1) if preparation.values == "counts" else 0)
    try:
        with _progress(track, len(x)) as advance:
            found = compress(run.vae.model, run.vae.guide, x, alphabet=alphabet, track=advance)
        # What cannot be read again is not written.
        deque(decompress(run.vae.model, run.vae.guide, found), maxlen=0)
    except DecodingError as error:
        raise InputError(
            f"{run.folder}: expected arithmetic that repeats itself to the last bit; this device's does not: name another "
            "one by --device"
        ) from error
    except ValueError as error:
        raise InputError(f"{run.folder}: {first_line(error)}") from error
    content = _content(run, found)
    files.write_file(path, content)
    bound = None if np.isnan(found.negative_elbo) else found.negative_elbo
    return Compression(str(path), len(x), len(content), 8 * len(content) / len(x), bound)


def decompress_file(run: RunFolder, path: Path, *, track: Track = iter) -> np.ndarray:
    """Decompress a file: a table ``(N, D)``, images ``(N, C, H, W)``, as whole numbers in original units.

    Args:
        run: the model that compressed it.
        path: the path of the file.
        track: function that wraps the examples, to show progress.

    Raises:
        InputError: for a file that is none, is damaged, or was compressed by another model or another arithmetic.
    """
    import torch

    header, words = _parts(path)
    if header["model"] != run.checksum:
        raise InputError(
            f"{path}: expected the run that compressed it, of the model {header['model'][:8]}; {run.folder} is "
            f"{run.checksum[:8]}: name that run, and do not train it further"
        )
    batches = [Batch(*each) for each in header["batches"]]
    alphabet = _alphabet(run, header["letters"])
    _refuse_other_data(path, run, header, alphabet)
    found = Compressed(words, batches, alphabet)
    try:
        with _progress(track, sum(each.size for each in batches)) as advance:
            x = torch.cat(list(decompress(run.vae.model, run.vae.guide, found, track=advance)))
    except DecodingError as error:
        written, here = header["arithmetic"], arithmetic(run)
        what = ", ".join(f"{name} {written.get(name)} (here {here[name]})" for name in here if here[name] != written.get(name))
        raise InputError(
            f"{path}: expected the arithmetic that it was compressed by, to the last bit; this machine computes other numbers: "
            f"use {what or 'the machine that compressed it'}"
        ) from error
    whole = np.rint(run.required_preparation.restore(x))
    return whole.astype(np.int64 if run.required_preparation.values == "counts" else np.uint8)


def _refuse_other_data(path: Path, run: RunFolder, header: Mapping[str, Any], alphabet: Tensor) -> None:
    """Refuse a header that does not fit the data of the run, or batches that would fill memory."""
    preparation = run.required_preparation
    fits = (header["data"], tuple(header["shape"]), header["letters"]) == (preparation.values, preparation.shape, len(alphabet))
    numbers = preparation.size * len(alphabet)
    if not fits or len(alphabet) < 2 or any(size > most_at_once(numbers) for size, *_ in header["batches"]):
        raise InputError(
            f"{path}: expected a file that 'pyrovae compress' wrote; got one of other data than those of {run.folder}"
        )


def arithmetic(run: RunFolder) -> dict[str, str]:
    """The settings of this machine that decide the last bits of what a model computes."""
    import torch

    device = next(iter(run.vae.parameters())).device
    processor = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else torch.cuda.get_device_name(device)
    return {
        "torch": torch.__version__,
        "device": device.type,
        "processor": f"{platform.machine()} {processor}",
        "threads": str(torch.get_num_threads()),
    }


def _refuse_what_cannot_be_coded(run: RunFolder) -> None:
    recipe, kind = run.recipe, LIKELIHOODS[run.recipe.likelihood]
    if run.condition is not None:
        raise InputError(
            f"{run.folder}: expected a model of the examples alone; this one is conditioned on {recipe.condition!r}"
        )
    if not kind.discrete or not kind.normalized or run.required_preparation.values == "mixed":
        raise InputError(
            f"{run.folder}: expected a model of bits, grey levels or counts, which have probabilities; {recipe.likelihood!r} "
            "gives densities, or mixes both: train one with --likelihood bernoulli, discretized_logistic or poisson"
        )
    if run.required_preparation.missing:
        raise InputError(f"{run.folder}: expected a model of whole examples; this one was trained with gaps")


def _alphabet(run: RunFolder, letters: int) -> Tensor:
    """The values that an entry of the data can take, as programs take them; of counts, those below a number.

    Raises:
        InputError: for too many counts.
    """
    import torch

    preparation, device = run.required_preparation, next(iter(run.vae.parameters())).device
    if preparation.values == "bits" or preparation.binarize != "no":
        return torch.tensor([0.0, 1.0], device=device)
    if preparation.values == "levels":
        return torch.arange(256, device=device) / 255
    if letters > MOST_COUNTS:
        raise InputError(f"{run.folder}: expected counts below {MOST_COUNTS:,}, to compress them; got {letters - 1:,}")
    return torch.arange(letters, device=device).float()


def _content(run: RunFolder, found: Compressed) -> bytes:
    """The bytes of the file."""
    batches = [[each.size, each.has_bits_back, each.checksum] for each in found.batches]
    preparation = run.required_preparation
    header = {"model": run.checksum, "data": preparation.values, "shape": preparation.shape, "letters": len(found.alphabet)}
    header |= {"batches": batches, "arithmetic": arithmetic(run)}
    deflated = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    content = MARK + struct.pack("<I", len(deflated)) + deflated + found.words.astype("<u4").tobytes()
    return content + _digest(content)


def _parts(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """The header and the words of a file.

    Raises:
        InputError: for a file that is none, or is damaged.
    """
    try:
        content = files.read_file(path, MOST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: expected a file that 'pyrovae compress' wrote; got {error.strerror}") from error
    if not content.startswith(MARK):
        raise InputError(f"{path}: expected a file that 'pyrovae compress' wrote; got another")
    content, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if digest != _digest(content):
        raise InputError(f"{path}: expected the file as it was written; it is damaged or truncated: copy it again")
    try:
        (length,) = struct.unpack_from("<I", content, len(MARK))
        start = len(MARK) + 4
        inflate = zlib.decompressobj()
        header = json.loads(inflate.decompress(content[start : start + length], MOST_HEADER_BYTES))
        check_value("header", header, HEADER)
        for each in header["batches"]:
            size, has_bits_back, checksum = each
            check_value(
                "batch", {"size": size, "back": has_bits_back, "sum": checksum}, {"size": int, "back": bool, "sum": int}
            )
            if not size:
                raise ValueError("expected batches of one example or more; got none")
        return header, np.frombuffer(content[start + length :], "<u4")
    except (*DAMAGE, zlib.error, struct.error) as error:
        raise InputError(f"{path}: expected a file that 'pyrovae compress' wrote; got {error}") from error


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


class _progress:  # noqa: N801 - used as a context
    """A context in which examples that are done are counted by a ``Track``."""

    def __init__(self, track: Track, number: int) -> None:
        self.examples: Iterator[int] = iter(track(range(number)))

    def __enter__(self) -> Callable[[int], Any]:
        return lambda number: deque(islice(self.examples, number), maxlen=0)

    def __exit__(self, *error: Any) -> None:
        # What shows progress ends after the last example.
        next(self.examples, None)
