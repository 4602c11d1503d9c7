"""The units of people's data as a module of torch, so that they can be part of an exported function."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from pyrovae.data.datasets import log_jacobians
from pyrovae.data.preparation import Preparation
from pyrovae.evaluation.functions import AsModelled


class OriginalUnits(nn.Module):
    """The units of a table's file: real columns are standardised within, in double precision, as ``Preparation`` does.

    A column of two numbers, or of categories that are numbers, holds these numbers; one of words holds the place of each word.
    Unlike ``Preparation`` it checks nothing, since a graph has no errors to raise.

    Args:
        preparation: the preparation of the training data, of real values or mixed columns.
    """

    dtype: ClassVar[torch.dtype] = torch.float64
    shift: Tensor
    scale: Tensor

    def __init__(self, preparation: Preparation) -> None:
        super().__init__()
        for name in ("shift", "scale"):
            values = torch.tensor(getattr(preparation, name), dtype=torch.float64)
            self.register_buffer(name, values.expand(preparation.size).clone())
        self.scales = preparation.scale
        self.numbered = {place: torch.from_numpy(numbers) for place, numbers in preparation.numbered.items()}

    def prepare(self, x: Tensor) -> Tensor:
        """Examples ``(B, D)`` as programs take them."""
        for place, numbers in self.numbered.items():
            column = x[:, place]
            nearest = (column[:, None] - numbers).abs().argmin(-1).to(x.dtype)
            x = self._with_column(x, place, torch.where(column.isnan(), column, nearest))
        return ((x - self.shift) / self.scale).to(torch.float32)

    def restore(self, x: Tensor) -> Tensor:
        """Examples ``(B, D)`` from programs in the units of the file."""
        x = x.to(self.dtype) * self.scale + self.shift
        for place, numbers in self.numbered.items():
            # Between two places, the number lies as far between their numbers.
            steps = (x[:, place, None] - torch.arange(len(numbers) - 1)).clamp(0, 1)
            x = self._with_column(x, place, numbers[0] + steps @ numbers.diff())
        return x

    def log_jacobian(self, x: Tensor) -> Tensor:
        """The nats ``(B,)`` that turn log-densities of prepared examples into those of x, over observed entries."""
        return log_jacobians(x, self.scales)

    def _with_column(self, x: Tensor, place: int, column: Tensor) -> Tensor:
        return torch.where(torch.arange(len(self.shift)) == place, column[:, None], x)


def units_of(preparation: Preparation) -> nn.Module:
    """The units in which exported functions take examples: those of the file where values are real, else those of the model."""
    return OriginalUnits(preparation) if preparation.values in ("real", "mixed") else AsModelled()
