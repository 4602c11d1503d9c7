"""Shuffled batches of examples, as they are stored or drawn afresh."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from pyrovae.data.rows import Rows
from pyrovae.errors import InputError
from pyrovae.seeds import seed_of

Batch = Tensor | tuple[Tensor, ...]
# A function from stored images, and labels where there are any, to what the programs take. It draws from its ``generator``.
Draw = Callable[..., Batch]


def binarize(x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw bits with the probabilities x in [0, 1], anew at every call; entries that are 0 or 1 stay what they are."""
    return (torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) < x).to(x.dtype)


class Batches:
    """The examples of an epoch in shuffled batches, the last incomplete one dropped.

    Order and draws depend on the seed and the number of the epoch alone: a resumed training sees what an
    uninterrupted one would have seen.

    Args:
        images: examples ``(N, D)``, in memory or not.
        batch_size: examples in a batch.
        seed: the seed of the generator that shuffles and draws.
        labels: classes ``(N,)``; batches hold them after the images.
        draw: the function that is applied to each batch: ``binarize``, or the ``draw`` of a ``Dataset``; none by default.

    Raises:
        InputError: for a batch size below one or above the number of examples.

    >>> batches = Batches(torch.full((10, 4), 0.5), batch_size=4, seed=0)
    >>> [batch.shape for batch in batches.epoch(1)]
    [torch.Size([4, 4]), torch.Size([4, 4])]
    """

    def __init__(
        self,
        images: Tensor | Rows,
        batch_size: int,
        *,
        seed: int = 0,
        labels: Tensor | None = None,
        draw: Draw | None = None,
    ) -> None:
        if not 1 <= batch_size <= len(images):
            raise InputError(f"expected a batch size from 1 to the {len(images)} examples at hand; got {batch_size}")
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.labels = labels
        self.draw = draw

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return len(self.images) // self.batch_size

    def epoch(self, number: int) -> Iterator[Any]:
        """The batches of one epoch: a tensor ``(batch_size, D)``, or a tuple of what the programs take."""
        generator = torch.Generator(self.images.device).manual_seed(seed_of(self.seed, number))
        order = torch.randperm(len(self.images), generator=generator, device=self.images.device)
        stored: list[Any] = [self.images] if self.labels is None else [self.images, self.labels]
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            # Twice as fast as indexing by a tensor.
            batch = tuple(column.index_select(0, order[start : start + self.batch_size]) for column in stored)
            if self.draw is not None:
                yield self.draw(*batch, generator=generator)
            else:
                yield batch if len(batch) > 1 else batch[0]
