"""Examples that stay on disk and are read when they are indexed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK_BYTES = 2**26


class Rows:
    """Chosen rows of an array, in memory or memory-mapped, as a float32 tensor ``(N, D)`` that is made when it is indexed.

    It is indexed as a tensor is, by a slice or a tensor of row numbers. Rows are read in the order of the file, whatever the
    order of the index, since disks are faster forwards.

    Args:
        stored: examples ``(M, ...)`` of any kind of number.
        chosen: the numbers of the chosen rows, in their order ``(N,)``.
        shift: the number subtracted from each value, a scalar or ``(D,)``; the computation has its precision.
        scale: the number that the difference is divided by.
        device: the device of the tensors.

    >>> rows = Rows(np.arange(12, dtype=np.uint8).reshape(4, 3), np.array([3, 0, 1]), np.float32(0), np.float32(2))
    >>> rows[torch.tensor([0, 2])]
    tensor([[4.5000, 5.0000, 5.5000],
            [1.5000, 2.0000, 2.5000]])
    """

    def __init__(
        self, stored: np.ndarray, chosen: np.ndarray, shift: Any, scale: Any, device: str | torch.device = "cpu"
    ) -> None:
        self.stored, self.chosen = stored, chosen
        self.shift, self.scale = shift, scale
        self.device = torch.device(device)

    @property
    def shape(self) -> torch.Size:
        """The shape ``(N, D)``, as of a tensor."""
        return torch.Size((len(self.chosen), int(np.prod(self.stored.shape[1:]))))

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        chosen = rows if isinstance(rows, slice) else rows.cpu().numpy()
        return torch.from_numpy(self.values(chosen).astype(np.float32, copy=False)).to(self.device)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return rows by their numbers, as ``tensor.index_select(0, index)`` does."""
        if dim != 0:
            raise ValueError(f"expected dimension 0, the rows; got {dim}")
        return self[index]

    def values(self, rows: slice | np.ndarray) -> np.ndarray:
        """The scaled values of some rows, in the precision of ``shift``."""
        chosen = self.chosen[rows]
        forwards = np.argsort(chosen)
        values = np.empty((len(chosen), self.shape[1]), self.shift.dtype)
        values[forwards] = self.stored[chosen[forwards]].reshape(values.shape)
        values -= self.shift
        values /= self.scale
        return values

    def blocks(self) -> Iterator[slice]:
        """Slices that cover all rows, about 64 MB each."""
        return blocks(len(self), self.shape[1] * self.shift.itemsize)

    def load(self) -> Tensor:
        """Read all rows into one tensor."""
        whole = torch.empty(self.shape, device=self.device)
        for block in self.blocks():
            whole[block] = self[block]
        return whole

    def mean(self, dim: int) -> Tensor:
        """The mean over the rows, as ``tensor.mean(0)``."""
        if dim != 0:
            raise ValueError(f"expected dimension 0, the rows; got {dim}")
        return sum((self[block].double().sum(0) for block in self.blocks()), torch.zeros(())).div(len(self)).float()

    def to(self, device: str | torch.device) -> Rows:
        """The same rows, as tensors on a device."""
        return Rows(self.stored, self.chosen, self.shift, self.scale, device)


def blocks(length: int, bytes_each: int) -> Iterator[slice]:
    """Slices that cover ``length`` rows, about 64 MB each."""
    size = max(1, BLOCK_BYTES // max(1, bytes_each))
    return (slice(start, start + size) for start in range(0, length, size))
