"""An epoch of training as batches, and a batch as the arguments of programs."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.utils import _pytree as pytree


class Epochs(Protocol):
    """Anything that serves numbered epochs of batches whose number is known, as ``Batches`` does."""

    def __len__(self) -> int: ...

    def epoch(self, number: int) -> Iterator[Any]: ...  # noqa: D102


class Loader(Protocol):
    """Anything that serves batches whose number is known each time that it is iterated over: a ``DataLoader``, a list."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


def arguments(batch: Any) -> tuple[Any, ...]:
    """A batch as the arguments of the programs: a tuple or a list is several, anything else is one.

    Subclasses of either, a named tuple or a ``PackedSequence``, are one: things of their own, that programs take as they are.
    """
    return tuple(batch) if type(batch) in (tuple, list) else (batch,)


def num_examples(batch: Any) -> int:
    """The length of the first tensor or array in a batch that has one; one where there is none."""
    sizes = (leaf.shape[0] for leaf in pytree.tree_leaves(batch) if getattr(leaf, "shape", ()))
    return next(sizes, 1)


def num_batches(batches: Epochs | Loader) -> int:
    """How many batches make an epoch.

    Raises:
        ValueError: for what does not serve batches, or not a known number of them.
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
    """The batches of an epoch by its number, or the next that a loader serves."""
    epoch = getattr(batches, "epoch", None)
    return iter(batches) if epoch is None else epoch(number)  # type: ignore[arg-type]
