"""OMNIGLOT in two forms: reduced to 28 x 28 by Burda, and Lake's own images reduced by us.

Importing this does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrovae.data.datasets import Dataset, Options
from pyrovae.data.published_files.addresses import OMNIGLOT, OMNIGLOT_ORIGINAL
from pyrovae.data.published_files.sources import locate
from pyrovae.data.published_files.stored import hold_out, stored_dataset, transpose_images

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

BURDA_SIZES = {"train": 24_345, "test": 8_070}
BURDA_PREFIXES = {"train": "", "test": "test"}
HELD_OUT = 1_345
ALPHABETS = 50
DRAWERS, SIDE = 20, 105


def omniglot(options: Options) -> Dataset:
    """OMNIGLOT as Burda et al. (2016) reduced it: 24,345 for training, 8,070 for test; 1,345 held out if asked for."""
    from pyrovae.data.published_files.matlab import read_mat
    from pyrovae.data.published_files.readers import check_range

    path = locate(OMNIGLOT, options.root, options.mirror, options.progress)["chardata.mat"]
    shapes = {
        f"{BURDA_PREFIXES[split]}{name}": (rows, size)
        for name, rows in (("data", 784), ("target", ALPHABETS))
        for split, size in BURDA_SIZES.items()
    }
    columns = {name: check_range(path, f"{name!r}", each, 0, 1) for name, each in read_mat(path, shapes).items()}
    levels = {split: transpose_images(columns[f"{prefix}data"].T.float(), 28, 28) for split, prefix in BURDA_PREFIXES.items()}
    # The rows stand for alphabets; the file's number of a character within its alphabet is no class by itself.
    labels = {split: columns[f"{prefix}target"].float().argmax(0) for split, prefix in BURDA_PREFIXES.items()}
    split = hold_out(HELD_OUT, options.split_seed, levels, labels) if options.validation else ""
    return stored_dataset("omniglot", levels, labels, (1, 28, 28), split=split)


def omniglot_28(options: Options) -> Dataset:
    """OMNIGLOT, Lake's images reduced to 28 x 28 by area means: 19,280 (background set) for training, 13,180 for test."""
    files = locate(OMNIGLOT_ORIGINAL, options.root, options.mirror, options.progress)
    parts = {"train": ("background", 964, 0), "test": ("evaluation", 659, 964)}
    levels, labels = {}, {}
    for split, (part, characters, first) in parts.items():
        levels[split], labels[split] = _reduced(files[f"images_{part}.npz"], characters, first)
    split = hold_out(len(levels["train"]) // 10, options.split_seed, levels, labels) if options.validation else ""
    remark = "reduced from 105 x 105 by area means: not comparable with published figures, which are of Burda's 28 x 28"
    return stored_dataset("omniglot-28", levels, labels, (1, 28, 28), split=split, remark=remark)


def _reduced(path: Path, characters: int, first: int) -> tuple[Tensor, Tensor]:
    """Images ``(20 characters, 784)``, ink as 255, and the characters that they show, numbered from ``first``."""
    import torch

    from pyrovae.data.published_files.archives import read_npz
    from pyrovae.data.published_files.readers import check_range
    from pyrovae.data.published_files.resizing import area_mean

    shapes = {"images": (torch.bool, (characters, DRAWERS, SIDE, SIDE)), "labels": (torch.int64, (characters, DRAWERS))}
    arrays = read_npz(path, shapes)
    ink = (~arrays["images"]).view(torch.uint8).flatten(0, 1)
    labels = check_range(path, "labels", arrays["labels"].flatten(), 0, characters - 1)
    return area_mean(255 * ink, 28).flatten(1), labels + first
