"""The batches of an epoch, and the arguments that programs get from a batch."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.utils import _pytree as pytree


class Epochs(Protocol):
    """An object with numbered epochs of a known number of batches, as ``Batches``."""

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Iterator[Any]: ...  # noqa: D102


class Loader(Protocol):
    """An object that gives a known number of batches each time that it is iterated over: a ``DataLoader``, a list."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


def arguments(batch: Any) -> tuple[Any, ...]:
    """The arguments that programs get from a batch: a tuple or a list holds several, anything else is one.

    Subclasses of both, such as named tuples or ``PackedSequence``, are one argument: programs take them as they are.
    """
    return tuple(batch) if type(batch) in (tuple, list) else (batch,)


def num_examples(batch: Any) -> int:
    """The number of examples in a batch: the length of its first tensor or array that has one; else 1."""
    sizes = (leaf.shape[0] for leaf in pytree.tree_leaves(batch) if getattr(leaf, "shape", ()))
    return next(sizes, 1)


def num_batches(batches: Epochs | Loader) -> int:
    """The number of batches in an epoch.

    Raises:
        ValueError: for an object that does not give batches, or not a known number of them.
    """
    expected = "expected batches whose number is known: Batches, a DataLoader, or a list of tensors or tuples"
    got = f"got an object of type {type(batches).__name__}"
    if isinstance(batches, Tensor | np.ndarray):
        raise ValueError(f"{expected}; {got}, whose entries are examples: use Batches(x, batch_size)")
    if isinstance(batches, Mapping | str) or not (hasattr(batches, "epoch") or hasattr(batches, "__iter__")):
        raise ValueError(f"{expected}; {got}")
    try:
        return len(batches)
    except TypeError:
        raise ValueError(f"{expected}; {got}, which has no length: make a list of it, if it fits into memory") from None


def batches_of(batches: Epochs | Loader, number: int) -> Iterator[Any]:
    """The batches of an epoch by its number, or those of the next iteration over a loader."""
    epoch = getattr(batches, "epoch", None)
    return iter(batches) if epoch is None else epoch(number)  # type: ignore[arg-type]
