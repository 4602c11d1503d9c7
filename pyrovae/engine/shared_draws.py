"""The draws of a batch that processes share: each makes those of the whole batch, and keeps its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pyrovae.errors import CaptureError

aten = torch.ops.aten
# Draws whose numbers depend on their place alone: those of other rows can be drawn without knowing these rows.
PLACED = {
    getattr(aten, name)
    for name in (
        *("rand", "rand_like", "randn", "randn_like", "normal", "normal_functional", "normal_", "uniform", "uniform_"),
        *("bernoulli", "bernoulli_", "exponential", "exponential_", "cauchy_", "log_normal_", "geometric_", "native_dropout"),
    )
}


@dataclass(frozen=True)
class WholeDraws:
    """The draws of programs on a whole batch.

    Args:
        shapes: the shape of each draw.
        num_examples: the number of examples in the batch.
    """

    shapes: Sequence[torch.Size] = ()
    num_examples: int = 0


class ShapesOfDraws(TorchDispatchMode):
    """A mode that records the shape of each draw."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[torch.Size] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if _draws(func):
            self.shapes.append(pytree.tree_leaves(result)[0].shape)
        return result


class OwnDraws(TorchDispatchMode):
    """A mode in which each draw is made for the whole batch, and the rows of this process are kept."""

    def __init__(self, rank: int, size: int, draws: WholeDraws) -> None:
        super().__init__()
        self._rank, self._size, self._draws, self._number = rank, size, draws, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _draws(func):
            return func(*args, **kwargs)
        if self._number == len(self._draws.shapes):
            raise _other_draws("more draws")
        whole, self._number = self._draws.shapes[self._number], self._number + 1
        shaped = next((each for each in args if isinstance(each, Tensor | list | tuple)), whole)
        own = shaped.shape if isinstance(shaped, Tensor) else torch.Size(shaped)
        return func(*args, **kwargs) if own == whole else self._rows_of_whole(func, args, kwargs, own, whole)

    def check_all_were_made(self) -> None:
        """Raise an error where the whole batch takes more draws."""
        if self._number < len(self._draws.shapes):
            raise _other_draws("fewer draws")

    def _rows_of_whole(self, func: Any, args: Any, kwargs: Any, own: torch.Size, whole: torch.Size) -> Any:
        if func.overloadpacket not in PLACED:
            raise CaptureError(
                f"expected noise that does not depend on the examples; the program draws by {func.overloadpacket.__name__}, "
                "whose numbers for one example depend on the others': use one process, or engine='eager'"
            )
        dim = self._dimension(own, whole)

        def enlarge(value: Any) -> Any:
            if isinstance(value, Tensor) and value.shape == own:
                # The inverse of the choice of rows; what stands for the rows of others is left aside.
                rows = value.unflatten(dim, (-1, 1, self._draws.num_examples // self._size))
                return torch.cat([rows] * self._size, dim + 1).flatten(dim, dim + 2)
            return list(whole) if isinstance(value, list | tuple) and tuple(value) == tuple(own) else value

        if not func._schema.is_mutable:
            drawn = func(*map(enlarge, args), **{name: enlarge(each) for name, each in kwargs.items()})
            return pytree.tree_map(lambda each: self._rows(each, dim), drawn)
        drawn = func(args[0].new_empty(whole), *map(enlarge, args[1:]), **kwargs)
        return args[0].copy_(self._rows(drawn, dim))

    def _dimension(self, own: torch.Size, whole: torch.Size) -> int:
        """The dimension of the examples in a draw."""
        dims = [dim for dim, lengths in enumerate(zip(own, whole, strict=False)) if len(set(lengths)) > 1]
        if len(own) == len(whole) and len(dims) == 1 and whole[dims[0]] == self._size * own[dims[0]]:
            return dims[0]
        raise _other_draws(f"a draw of shape {tuple(own)} in place of {tuple(whole)}")

    def _rows(self, whole: Tensor, dim: int) -> Tensor:
        examples, size = self._draws.num_examples, self._size
        if whole.shape[dim] % examples:
            raise _other_draws(f"a draw with {whole.shape[dim]} rows for {examples} examples")
        # Particles that are more examples come one after the other, each with all of its examples.
        rows = whole.unflatten(dim, (-1, size, examples // size)).select(dim + 1, self._rank)
        return rows.flatten(dim, dim + 1)


def _draws(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(func, "tags", ())


def _other_draws(what: str) -> CaptureError:
    return CaptureError(
        f"expected the draws of the whole batch; for the rows of one process the program takes {what}: use one process, or "
        "engine='eager'"
    )
