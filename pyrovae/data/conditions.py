"""Conditions: what a conditional model is told of an image, its context ``(B, size)``.

``CONDITIONS[name](shape, num_classes)`` makes a condition for images of a shape. Calling it with the stored images, what the
model is to explain of them (bits, or the same images) and their classes gives the contexts; where it draws at random, it draws
anew at every call. Pixels that a context gives away, ``told``, are not scored: log p(x | c) is that of the others.
``pictured`` shows a context as an image ``(B, D)`` with 1/2 for what it does not tell.

Importing this does not import torch: the command line lists the names without waiting for it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyrovae.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Condition(ABC):
    """What is told of images of one shape.

    Args:
        shape: channels C, height H and width W.
        num_classes: of the data; none without labels.
    """

    shape: Shape
    num_classes: int

    @property
    @abstractmethod
    def size(self) -> int:
        """Entries of a context."""

    @abstractmethod
    def __call__(self, images: Tensor, x: Tensor, labels: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """The contexts ``(B, size)`` of stored images ``(B, C H W)``, of which the model explains x."""

    def told(self, context: Tensor) -> Tensor | None:
        """Which pixels of x contexts give away ``(B, C H W)``, as booleans; None where they give away none."""
        return None

    @abstractmethod
    def pictured(self, context: Tensor) -> Tensor:
        """Contexts as images ``(B, C H W)``."""


@dataclass(frozen=True)
class MiddleColumn(Condition):
    """The bits of the middle column of pixels, drawn apart from those that the model explains. Doersch (2016), section 5.

    The whole image is scored, its middle column too. Of data that come as bits the column told is that of x itself.
    """

    @property
    def size(self) -> int:
        """One entry for each pixel of the column."""
        return self.shape[0] * self.shape[1]

    def __call__(self, images: Tensor, x: Tensor, labels: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """The bits ``(B, C H)``."""
        from pyrovae.data.batches import binarized

        return binarized(images.reshape(-1, *self.shape)[..., self.shape[2] // 2].flatten(1), generator=generator)

    def pictured(self, context: Tensor) -> Tensor:
        """The column, in its place."""
        image = context.new_full((len(context), *self.shape), 0.5)
        image[..., self.shape[2] // 2] = context.reshape(-1, *self.shape[:2])
        return image.flatten(1)


@dataclass(frozen=True)
class LeftHalf(Condition):
    """The left half of what the model explains."""

    @property
    def size(self) -> int:
        """One entry for each pixel of the half."""
        return self.shape[0] * self.shape[1] * (self.shape[2] // 2)

    def __call__(self, images: Tensor, x: Tensor, labels: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """The half ``(B, C H (W // 2))``."""
        return x.reshape(-1, *self.shape)[..., : self.shape[2] // 2].flatten(1)

    def told(self, context: Tensor) -> Tensor:
        """The left half, in all rows."""
        import torch

        left = torch.arange(self.shape[2], device=context.device) < self.shape[2] // 2
        return left.expand(self.shape).flatten().expand(*context.shape[:-1], -1)

    def pictured(self, context: Tensor) -> Tensor:
        """The half, in its place."""
        image = context.new_full((len(context), *self.shape), 0.5)
        image[..., : self.shape[2] // 2] = context.reshape(-1, *self.shape[:2], self.shape[2] // 2)
        return image.flatten(1)


@dataclass(frozen=True)
class Mask(Condition):
    """Some pixels of what the model explains, zero elsewhere, and behind them which they are.

    Each pixel is told with a probability that is drawn for each image between zero and one: a model learns to complete from
    anything between nothing and everything.
    """

    @property
    def size(self) -> int:
        """Two entries for each pixel."""
        return 2 * math.prod(self.shape)

    def __call__(self, images: Tensor, x: Tensor, labels: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """The pixels and which they are ``(B, 2 C H W)``."""
        import torch

        share = torch.rand(len(x), 1, generator=generator, device=x.device, dtype=x.dtype)
        told = (torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) < share).to(x.dtype)
        return torch.cat([x * told, told], -1)

    def told(self, context: Tensor) -> Tensor:
        """Those that the mask shows."""
        return context.chunk(2, -1)[1] > 0.5

    def pictured(self, context: Tensor) -> Tensor:
        """The pixels that are told."""
        pixels, told = context.chunk(2, -1)
        return pixels + 0.5 * (1 - told)


@dataclass(frozen=True)
class Label(Condition):
    """The class of the image, one entry for each class.

    Raises:
        InputError: for data without classes.
    """

    def __post_init__(self) -> None:
        if not self.num_classes:
            raise InputError("expected data with labels for the condition 'label'; these have none: use another condition")

    @property
    def size(self) -> int:
        """One entry for each class."""
        return self.num_classes

    def __call__(self, images: Tensor, x: Tensor, labels: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """One for the class, zero for the others ``(B, num_classes)``."""
        import torch

        if labels is None:
            raise ValueError("expected the classes of the images beside them for the condition 'label'; got none")
        return (labels[:, None] == torch.arange(self.num_classes, device=labels.device)).to(x.dtype)

    def pictured(self, context: Tensor) -> Tensor:
        """Nothing: a class says no pixel."""
        return context.new_full((len(context), math.prod(self.shape)), 0.5)


def unconditional(shape: Shape, num_classes: int) -> None:
    """No context."""


CONDITIONS: dict[str, Callable[[Shape, int], Condition | None]] = {
    "none": unconditional,
    "middle-column": MiddleColumn,
    "label": Label,
    "left-half": LeftHalf,
    "mask": Mask,
}
