"""The share of one process in a batch that the processes of a group compute together: rows, draws, and sums over all of them.

One process with the whole batch is the definition; N processes take the same steps within rounding. A process computes the same
rows of every batch, with the noise that these rows have in the whole batch: it draws for all rows and keeps its own, so that
noise depends on the seed, the step and the place of an example in the whole batch, and not on the number of processes. Draws
without a dimension of examples are the same in all processes. Batch norm normalises with the statistics of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree

from pyrovae.engine.capture import preserved_state
from pyrovae.engine.collectives import Collective, prepare
from pyrovae.engine.shared_draws import OwnDraws, ShapesOfDraws, WholeDraws
from pyrovae.engine.shared_statistics import WholeStatistics

_current: ContextVar[Share | None] = ContextVar("share", default=None)


class Share:
    """The share of this process: one of N equal parts of the rows of a batch, in the order of the processes.

    Args:
        group: the processes; None for this one alone, whose share is the whole batch.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank, self.size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
        self.together = Collective("" if group is None else group.group_name, self.size)
        if group is not None and self.size > 1:
            prepare(group)

    def rows(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments of a step for this process: of each tensor or array as long as the first, its own rows.

        Raises:
            ValueError: for a batch that cannot be shared evenly.
        """
        if self.size == 1:
            return args, kwargs
        length = num_rows(args, kwargs)
        if length % self.size:
            raise ValueError(
                f"expected a batch that {self.size} processes can share evenly; got {length} examples: use a batch size that "
                f"is a multiple of {self.size}"
            )
        part = slice(self.rank * length // self.size, (self.rank + 1) * length // self.size)
        return pytree.tree_map(lambda each: each[part] if _has_rows(each) and len(each) == length else each, (args, kwargs))

    def draws_of(self, run: Callable[[Any, Any], Any], args: Any, kwargs: Any) -> WholeDraws:
        """The draws of ``run``, which runs programs on the whole batch of these arguments."""
        if self.size == 1:
            return WholeDraws()
        with preserved_state(), torch.no_grad(), ShapesOfDraws() as found:
            run(args, kwargs)
        return WholeDraws(found.shapes, num_rows(args, kwargs))

    @contextmanager
    def split(self, draws: WholeDraws) -> Iterator[None]:
        """Run programs on this process's rows within the context as they run on the whole batch."""
        if self.size == 1:
            yield
            return
        before = _current.set(self)
        try:
            with WholeStatistics(self.together), OwnDraws(self.rank, self.size, draws) as own:
                yield
            own.check_all_were_made()
        finally:
            _current.reset(before)

    def total(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sums over all processes, by one operation for each type of numbers."""
        found: list[Tensor] = list(tensors)
        for dtype in dict.fromkeys(each.dtype for each in tensors):
            places = [place for place, each in enumerate(tensors) if each.dtype == dtype]
            flat = self.together.sum(torch.cat([tensors[place].reshape(-1) for place in places]))
            for place, part in zip(places, flat.split([tensors[place].numel() for place in places]), strict=True):
                found[place] = part.view(tensors[place].shape)
        return found

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the values that tensors have in the first one, in place."""
        if self.size > 1:
            for each in tensors:
                dist.broadcast(each.detach(), group=self.group, group_src=0)

    def copy_noise(self) -> None:
        """Give all processes the random numbers of the first one."""
        if self.size > 1:
            cpu, gpu = self.first((torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None))
            torch.set_rng_state(cpu)
            if gpu is not None:
                torch.cuda.set_rng_state(gpu)

    def all_of(self, value: bool) -> bool:
        """Return True where a value is true in all processes."""
        if self.size == 1:
            return value
        values = [value] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return all(values)

    def first(self, value: Any) -> Any:
        """The value that the first process has of a plain object."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, group=self.group, group_src=0)
        return values[0]


def num_rows(args: Any, kwargs: Any) -> int:
    """The number of examples in a batch: the length of its first tensor or array."""
    return next((len(each) for each in pytree.tree_leaves((args, kwargs)) if _has_rows(each)), 0)


def _has_rows(value: Any) -> bool:
    return bool(getattr(value, "shape", ())) and hasattr(value, "__getitem__")


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum over all processes that share the batch, with gradients; the values themselves outside of ``Share.split``."""
    share = _current.get()
    return values if share is None else _Sum.apply(values, share)


def num_processes() -> int:
    """The number of processes that share the batch: one outside of ``Share.split``."""
    share = _current.get()
    return 1 if share is None else share.size


class _Sum(torch.autograd.Function):
    """The sum over processes, whose total loss is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, share: Share) -> Tensor:
        ctx.share = share
        return share.together.sum(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.share.together.sum(gradient), None
