"""Reduce the size of images."""

import torch
from torch import Tensor

CHUNK = 100


def area_mean(levels: Tensor, side: int) -> Tensor:
    """Reduce square images ``(N, S, S)`` of levels 0 to 255 to ``(N, side, side)``, by means over the areas of new pixels.

    An old pixel on the border of two new ones counts in each by its share of area there, which is the antialiasing. The sums
    are whole numbers, exact in float32, and the means are rounded to whole levels: the result is the same on every machine.

    >>> area_mean(torch.tensor([[[0, 0, 90], [0, 90, 90], [90, 90, 90]]], dtype=torch.uint8), 2)
    tensor([[[10, 70],
             [70, 90]]], dtype=torch.uint8)
    """
    weights = _overlaps(levels.shape[-1], side)
    # In pieces that fit into the processor's cache.
    means = [(weights @ piece.float() @ weights.T / levels.shape[-1] ** 2).round().byte() for piece in levels.split(CHUNK)]
    return torch.cat(means)


def _overlaps(old: int, new: int) -> Tensor:
    """The share of each old pixel in each new one ``(new, old)``, in units of 1 / new of an old pixel; rows sum to old."""
    left, start = torch.arange(new)[:, None] * old, torch.arange(old) * new
    return (torch.minimum(left + old, start + new) - torch.maximum(left, start)).clamp(min=0).float()
