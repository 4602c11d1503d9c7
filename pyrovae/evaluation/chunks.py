"""Examples, and their contexts where there are any, as programs are called with them: a few at a time."""

from collections.abc import Iterator
from typing import TypeVar

from torch import Tensor

from pyrovae.data.rows import Rows

Examples = TypeVar("Examples", bound=Tensor | Rows)


def columns_of(x: Examples, context: Tensor | None) -> list[Examples | Tensor]:
    """Data ``(N, D)``, and behind them contexts ``(N, C)`` where there are any.

    Raises:
        ValueError: for no images, and for as many contexts as there are not images.
    """
    if not len(x):
        raise ValueError("expected at least one image; got none")
    if context is None:
        return [x]
    if len(context) != len(x):
        raise ValueError(f"expected a context for each image; got {len(context)} of them for {len(x)} images")
    return [x, context]


def rows_of(x: Tensor | Rows, context: Tensor | None, at_once: int) -> Iterator[tuple[Tensor, ...]]:
    """The rows of all columns, ``at_once`` of them; those that stay on disk are read when their turn comes."""
    columns = columns_of(x, context)
    return (tuple(column[start : start + at_once] for column in columns) for start in range(0, len(x), at_once))
