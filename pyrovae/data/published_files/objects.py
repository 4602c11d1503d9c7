"""The datasets of silhouettes, faces and toys: Caltech 101, Frey, small NORB.

Importing this does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrovae.data.datasets import Dataset, Options
from pyrovae.data.published_files.addresses import CALTECH101_SILHOUETTES, FREYFACES, SMALL_NORB
from pyrovae.data.published_files.sources import locate
from pyrovae.data.published_files.stored import hold_out, stored_dataset, transpose_images

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

FRAMES = 1_965
NORB_SIZE, NORB_SIDE = 24_300, 96


def caltech101_silhouettes(options: Options) -> Dataset:
    """Silhouettes of Caltech 101, Marlin's split 1, objects as 1: 4,100 for training, 2,264 for validation, 2,307 for test."""
    from pyrovae.data.published_files.matlab import read_mat
    from pyrovae.data.published_files.readers import check_range

    (path,) = locate(CALTECH101_SILHOUETTES, options.root, options.mirror, options.progress).values()
    parts = {"train": ("train", 4_100), "valid": ("val", 2_264), "test": ("test", 2_307)}
    shapes = {f"{part}_data": (size, 784) for part, size in parts.values()}
    matrices = read_mat(path, shapes | {f"{part}_labels": (size, 1) for part, size in parts.values()})
    levels, labels = {}, {}
    for split, (part, _) in parts.items():
        # The file stores objects as 0, and images column by column.
        background = check_range(path, f"'{part}_data'", matrices[f"{part}_data"], 0, 1).byte()
        levels[split] = 1 - transpose_images(background, 28, 28)
        labels[split] = check_range(path, f"'{part}_labels'", matrices[f"{part}_labels"].flatten(), 1, 101).long() - 1
    return stored_dataset("caltech101-silhouettes", levels, labels, (1, 28, 28), stored="objects as 1", values="bits")


def freyfaces(options: Options) -> Dataset:
    """Frey's face, 28 x 20, drawn from 1,965 frames: 1,900 for training, 65 for test; or 1,565, 200 and 200 with validation."""
    import torch

    from pyrovae.data.published_files.matlab import read_mat

    (path,) = locate(FREYFACES, options.root, options.mirror, options.progress).values()
    frames = read_mat(path, {"ff": (560, FRAMES)})["ff"].T.byte()
    sizes = {"train": 1_565, "valid": 200, "test": 200} if options.validation else {"train": 1_900, "test": 65}
    order = torch.randperm(FRAMES, generator=torch.Generator().manual_seed(options.split_seed))
    levels = {split: frames[rows] for split, rows in zip(sizes, order.split(list(sizes.values())), strict=True)}
    split = f"frames drawn at random (seed {options.split_seed})"
    return stored_dataset("freyfaces", levels, {}, (1, 28, 20), split=split, likelihood="discretized_logistic")


def small_norb(options: Options) -> Dataset:
    """Toys of small NORB, one camera, reduced to 32 x 32 by area means: 24,300 for training, 24,300 for test."""
    import torch

    from pyrovae.data.published_files.readers import check_range, read_norb

    files = locate(SMALL_NORB, options.root, options.mirror, options.progress)
    levels, labels = {}, {}
    for split, instances in (("train", "46789x9x18x6x2x96x96-training"), ("test", "01235x9x18x6x2x96x96-testing")):
        levels[split] = _left_camera(files[f"smallnorb-5x{instances}-dat.mat.gz"])
        path = files[f"smallnorb-5x{instances}-cat.mat.gz"]
        labels[split] = check_range(path, "categories", read_norb(path, (NORB_SIZE,), torch.int32), 0, 4).long()
    split = hold_out(NORB_SIZE // 10, options.split_seed, levels, labels) if options.validation else ""
    remark = "left camera, reduced from 96 x 96 by area means"
    return stored_dataset("small-norb", levels, labels, (1, 32, 32), split=split, remark=remark, likelihood="gaussian")


def _left_camera(path: Path) -> Tensor:
    import torch

    from pyrovae.data.published_files.readers import read_norb
    from pyrovae.data.published_files.resizing import area_mean

    pairs = read_norb(path, (NORB_SIZE, 2, NORB_SIDE, NORB_SIDE), torch.uint8)
    return area_mean(pairs[:, 0], 32).flatten(1)
