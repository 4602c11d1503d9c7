"""Chunks of examples and their contexts, with which programs are called, and their noise."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from pyrovae.data.rows import Rows
from pyrovae.seeds import seed_of

# The shard that is the whole: number one of one.
WHOLE = (1, 1)
Examples = TypeVar("Examples", bound=Tensor | Rows)


def columns_of(x: Examples, context: Tensor | None) -> list[Examples | Tensor]:
    """The data ``(N, D)``, followed by contexts ``(N, C)`` if there are any.

    Raises:
        ValueError: for an object that is no tensor of rows, for no images, and for another number of contexts than of images.
    """
    for name, each in {"x": x, "context": context}.items():
        if each is not None and not (isinstance(each, Tensor | Rows) and each.shape):
            got = f"a tensor of shape {tuple(each.shape)}" if isinstance(each, Tensor) else f"a {type(each).__name__}"
            raise ValueError(
                f"expected a tensor {name} with an example in each row; got {got}: torch.as_tensor makes one of an array, "
                "torch.cat one of the batches of a loader"
            )
    if not len(x):
        raise ValueError("expected at least one image; got none")
    if context is None:
        return [x]
    if len(context) != len(x):
        raise ValueError(f"expected a context for each image; got {len(context)} of them for {len(x)} images")
    return [x, context]


def rows_of(x: Tensor | Rows, context: Tensor | None, at_once: int) -> Iterator[tuple[Tensor, ...]]:
    """The rows of all columns, ``at_once`` of them at a time; rows on disk are read when their turn comes."""
    columns = columns_of(x, context)
    return (tuple(column[start : start + at_once] for column in columns) for start in range(0, len(x), at_once))


def chunks_of_shard(shard: tuple[int, int], num_chunks: int) -> range:
    """The numbers of the chunks of a shard, the i-th of n, where all shards are nearly of one size.

    >>> [list(chunks_of_shard((number, 3), 5)) for number in (1, 2, 3)]
    [[0], [1, 2], [3, 4]]

    Raises:
        ValueError: for a shard that is not among the first to the n-th.
    """
    number, count = shard
    if not 1 <= number <= count:
        raise ValueError(f"expected a shard from 1/{max(count, 1)} to {max(count, 1)}/{max(count, 1)}; got {number}/{count}")
    return range((number - 1) * num_chunks // count, number * num_chunks // count)


def draw_seed(device: torch.device) -> int:
    """Draw a seed from torch's generator of a device: the only number that chunks take from it, however many there are."""
    return int(torch.randint(2**62, (), device=device))


@contextmanager
def noise_of_chunk(seed: int, number: int) -> Iterator[None]:
    """Draw random numbers that depend on a seed and the number of a chunk alone; afterwards generators are as before."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, number))
        yield
