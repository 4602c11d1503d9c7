"""Conditions: the part of an image, or its class, that a conditional model observes as its context ``(B, size)``.

``CONDITIONS[name](shape, num_classes)`` makes a condition for images of a shape. Calling it with the stored images, what the
model is to explain of them (bits, or the same images) and their classes gives the contexts; where it draws at random, it draws
anew at every call. Pixels that a context contains, see ``observed_mask``, are not scored: log p(x | c) is that of the other
pixels. ``pixels`` shows a context as an image ``(B, D)`` with 1/2 for each pixel that is not observed.

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
    """A condition for images of one shape: the rule by which each gets its context.

    Args:
        shape: channels C, height H and width W.
        num_classes: the number of classes of the data; 0 without labels.
    """

    shape: Shape
    num_classes: int

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of entries of a context."""

    @abstractmethod
    def __call__(self, images: Tensor, x: Tensor, labels: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """The contexts ``(B, size)`` of stored images ``(B, C H W)``, where x is what the model explains of them."""

    def observed_mask(self, context: Tensor) -> Tensor | None:
        """The mask of the pixels of x that the contexts contain ``(B, C H W)``, as booleans; None where they contain none."""
        return None

    @abstractmethod
    def pixels(self, context: Tensor) -> Tensor:
        """The contexts as images ``(B, C H W)``."""


@dataclass(frozen=True)
class MiddleColumn(Condition):
    """The middle column of pixels as bits, drawn apart from the bits that the model explains. Doersch (2016), section 5.

    The whole image is scored, its middle column too. Where the data come as bits, the context is the column of x itself.
    """

    @property
    def size(self) -> int:
        """The number of pixels of the column."""
        return self.shape[0] * self.shape[1]

    def __call__(self, images: Tensor, x: Tensor, labels: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """The bits ``(B, C H)``."""
        from pyrovae.data.batches import binarize

        return binarize(images.reshape(-1, *self.shape)[..., self.shape[2] // 2].flatten(1), generator=generator)

    def pixels(self, context: Tensor) -> Tensor:
        """The column, in its place."""
        image = context.new_full((context.shape[0], *self.shape), 0.5)
        image[..., self.shape[2] // 2] = context.reshape(-1, *self.shape[:2])
        return image.flatten(1)


@dataclass(frozen=True)
class LeftHalf(Condition):
    """The left half of what the model explains."""

    @property
    def size(self) -> int:
        """The number of pixels of the half."""
        return self.shape[0] * self.shape[1] * (self.shape[2] // 2)

    def __call__(self, images: Tensor, x: Tensor, labels: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """The half ``(B, C H (W // 2))``."""
        return x.reshape(-1, *self.shape)[..., : self.shape[2] // 2].flatten(1)

    def observed_mask(self, context: Tensor) -> Tensor:
        """The mask of the left half, the same for all images."""
        import torch

        left = torch.arange(self.shape[2], device=context.device) < self.shape[2] // 2
        return left.expand(self.shape).flatten().expand(*context.shape[:-1], -1)

    def pixels(self, context: Tensor) -> Tensor:
        """The half, in its place."""
        image = context.new_full((context.shape[0], *self.shape), 0.5)
        image[..., : self.shape[2] // 2] = context.reshape(-1, *self.shape[:2], self.shape[2] // 2)
        return image.flatten(1)


@dataclass(frozen=True)
class Mask(Condition):
    """Randomly chosen pixels of what the model explains, zero elsewhere, followed by the mask of these pixels.

    Each pixel is observed with a probability that is drawn for each image between zero and one: a model learns to complete from
    anything between nothing and everything.
    """

    @property
    def size(self) -> int:
        """Twice the number of pixels."""
        return 2 * math.prod(self.shape)

    def __call__(self, images: Tensor, x: Tensor, labels: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """The observed pixels and their mask, side by side ``(B, 2 C H W)``."""
        import torch

        share = torch.rand(len(x), 1, generator=generator, device=x.device, dtype=x.dtype)
        mask = (torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) < share).to(x.dtype)
        return torch.cat([x * mask, mask], -1)

    def observed_mask(self, context: Tensor) -> Tensor:
        """The mask, as booleans."""
        return context.chunk(2, -1)[1] > 0.5

    def pixels(self, context: Tensor) -> Tensor:
        """The observed pixels, and 1/2 elsewhere."""
        pixels, mask = context.chunk(2, -1)
        return pixels + 0.5 * (1 - mask)


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
        """The number of classes."""
        return self.num_classes

    def __call__(self, images: Tensor, x: Tensor, labels: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """The class in one-hot form ``(B, num_classes)``."""
        import torch

        if labels is None:
            raise ValueError("expected the classes of the images beside them for the condition 'label'; got none")
        return (labels[:, None] == torch.arange(self.num_classes, device=labels.device)).to(x.dtype)

    def pixels(self, context: Tensor) -> Tensor:
        """An image of 1/2 throughout: a class shows no pixel."""
        return context.new_full((context.shape[0], math.prod(self.shape)), 0.5)


def unconditional(shape: Shape, num_classes: int) -> None:
    """Return None: there is no context."""


CONDITIONS: dict[str, Callable[[Shape, int], Condition | None]] = {
    "none": unconditional,
    "middle-column": MiddleColumn,
    "label": Label,
    "left-half": LeftHalf,
    "mask": Mask,
}
