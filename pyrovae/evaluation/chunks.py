"""Chunks of examples and their contexts, with which programs are called."""

from collections.abc import Iterator
from typing import TypeVar

from torch import Tensor

from pyrovae.data.rows import Rows

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
