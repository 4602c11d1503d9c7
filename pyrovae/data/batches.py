"""Shuffled batches, binarized afresh."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pyrovae.errors import InputError


class Batches:
    """The examples of an epoch in shuffled batches, the last incomplete one dropped.

    Order and binarization depend on the seed and the number of the epoch alone: a resumed training sees what an
    uninterrupted one would have seen.

    Args:
        images: examples ``(N, D)``, with values in [0, 1] if they are to be binarized.
        batch_size: examples in a batch.
        seed: of the generator that shuffles and binarizes.
        binarize: draw each pixel as a bit whose probability is its grey value, anew each time that an image is served.

    Raises:
        InputError: where a batch holds fewer than one example or more than there are.

    >>> batches = Batches(torch.full((10, 4), 0.5), batch_size=4, seed=0)
    >>> [batch.shape for batch in batches.epoch(1)]
    [torch.Size([4, 4]), torch.Size([4, 4])]
    """

    def __init__(self, images: Tensor, batch_size: int, *, seed: int = 0, binarize: bool = True) -> None:
        if not 1 <= batch_size <= len(images):
            raise InputError(f"expected a batch size from 1 to the {len(images)} examples at hand; got {batch_size}")
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.binarize = binarize

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return len(self.images) // self.batch_size

    def epoch(self, number: int) -> Iterator[Tensor]:
        """The batches ``(batch_size, D)`` of one epoch."""
        seed = int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0])
        generator = torch.Generator(self.images.device).manual_seed(seed)
        order = torch.randperm(len(self.images), generator=generator, device=self.images.device)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            batch = self.images[order[start : start + self.batch_size]]
            yield torch.bernoulli(batch, generator=generator) if self.binarize else batch
