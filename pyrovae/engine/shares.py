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
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pyrovae.engine.capture import preserved_state
from pyrovae.errors import CaptureError

collectives = torch.ops._c10d_functional
aten = torch.ops.aten
# Draws whose numbers depend on their place alone: those of other rows can be drawn without knowing these rows.
PLACED = {
    getattr(aten, name)
    for name in (
        *("rand", "rand_like", "randn", "randn_like", "normal", "normal_functional", "normal_", "uniform", "uniform_"),
        *("bernoulli", "bernoulli_", "exponential", "exponential_", "cauchy_", "log_normal_", "geometric_", "native_dropout"),
    )
}
_current: ContextVar[Share | None] = ContextVar("share", default=None)


class Share:
    """The share of this process: every N-th of the rows of a batch, in the order of the processes.

    Args:
        group: the processes; None for this one alone, whose share is the whole batch.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank, self.size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
        self.name = "" if group is None else group.group_name

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
        with preserved_state(), torch.no_grad(), _ShapesOfDraws() as found:
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
            with _WholeStatistics(self), _OwnDraws(self, draws) as own:
                yield
            own.check_all_were_made()
        finally:
            _current.reset(before)

    def total(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sums over all processes, by one operation for each type of numbers."""
        if self.size == 1:
            return list(tensors)
        found: list[Tensor] = list(tensors)
        for dtype in dict.fromkeys(each.dtype for each in tensors):
            places = [place for place, each in enumerate(tensors) if each.dtype == dtype]
            flat = self.sum(torch.cat([tensors[place].reshape(-1) for place in places]))
            for place, part in zip(places, flat.split([tensors[place].numel() for place in places]), strict=True):
                found[place] = part.view(tensors[place].shape)
        return found

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, as an operation that can be captured."""
        return collectives.wait_tensor(collectives.all_reduce(values, "sum", self.name))

    def gather(self, values: Tensor) -> Tensor:
        """The values of all processes ``(N, *)``, as an operation that can be captured."""
        flat = collectives.all_gather_into_tensor(values.reshape(-1), self.size, self.name)
        return collectives.wait_tensor(flat).view(self.size, *values.shape)

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the values that tensors have in the first one, in place."""
        if self.size > 1:
            for each in tensors:
                dist.broadcast(each.detach(), group=self.group, group_src=0)

    def copy_noise(self) -> None:
        """Give all processes the random numbers of the first one."""
        if self.size > 1:
            state = torch.get_rng_state()
            self.copy_from_first([state])
            torch.set_rng_state(state)

    def all_of(self, value: bool) -> bool:
        """Return True where a value is true in all processes."""
        if self.size == 1:
            return value
        values = torch.tensor(float(not value))
        dist.all_reduce(values, group=self.group)
        return not values

    def first(self, value: Any) -> Any:
        """The value that the first process has of a plain object."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, group=self.group, group_src=0)
        return values[0]


@dataclass(frozen=True)
class WholeDraws:
    """The draws of programs on a whole batch.

    Args:
        shapes: the shape of each draw.
        num_examples: the number of examples in the batch.
    """

    shapes: Sequence[torch.Size] = ()
    num_examples: int = 0


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
        return share.sum(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.share.sum(gradient), None


class _ShapesOfDraws(TorchDispatchMode):
    """A mode that records the shape of each draw."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[torch.Size] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if _draws(func):
            self.shapes.append(pytree.tree_leaves(result)[0].shape)
        return result


class _OwnDraws(TorchDispatchMode):
    """A mode in which each draw is made for the whole batch, and the rows of this process are kept."""

    def __init__(self, share: Share, draws: WholeDraws) -> None:
        super().__init__()
        self._share, self._draws, self._number = share, draws, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _draws(func):
            return func(*args, **kwargs)
        if self._number == len(self._draws.shapes):
            raise _other_draws("more draws")
        whole, self._number = self._draws.shapes[self._number], self._number + 1
        own = args[0].shape if isinstance(args[0], Tensor) else torch.Size(args[0])
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
                return torch.cat([value] * self._share.size, dim)
            return list(whole) if isinstance(value, list | tuple) and tuple(value) == tuple(own) else value

        if not func._schema.is_mutable:
            drawn = func(*map(enlarge, args), **{name: enlarge(each) for name, each in kwargs.items()})
            return pytree.tree_map(lambda each: self._rows(each, dim), drawn)
        drawn = func(args[0].new_empty(whole), *map(enlarge, args[1:]), **kwargs)
        return args[0].copy_(self._rows(drawn, dim))

    def _dimension(self, own: torch.Size, whole: torch.Size) -> int:
        """The dimension of the examples in a draw."""
        dims = [dim for dim, lengths in enumerate(zip(own, whole, strict=False)) if len(set(lengths)) > 1]
        if len(own) == len(whole) and len(dims) == 1 and whole[dims[0]] == self._share.size * own[dims[0]]:
            return dims[0]
        raise _other_draws(f"a draw of shape {tuple(own)} in place of {tuple(whole)}")

    def _rows(self, whole: Tensor, dim: int) -> Tensor:
        examples, size = self._draws.num_examples, self._share.size
        if whole.shape[dim] % examples:
            raise _other_draws(f"a draw with {whole.shape[dim]} rows for {examples} examples")
        # Particles that are more examples come one after the other, each with all of its examples.
        rows = whole.unflatten(dim, (-1, size, examples // size)).select(dim + 1, self._share.rank)
        return rows.flatten(dim, dim + 1)


def _draws(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(func, "tags", ())


def _other_draws(what: str) -> CaptureError:
    return CaptureError(
        f"expected the draws of the whole batch; for the rows of one process the program takes {what}: use one process, or "
        "engine='eager'"
    )


class _WholeStatistics(TorchFunctionMode):
    """A mode in which batch norm normalises with the statistics of the whole batch."""

    def __init__(self, share: Share) -> None:
        super().__init__()
        self._share = share

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            return _batch_norm(self._share, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    share: Share,
    values: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute what ``F.batch_norm`` does, with the statistics of all processes' rows."""
    if not training:
        return F.batch_norm(values, running_mean, running_var, weight, bias, False, momentum, eps)
    normalized, mean, variance = _Normalize.apply(values, eps, share)
    if running_mean is not None and running_var is not None:
        count = share.size * values.numel() / values.shape[1]
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * (count / (count - 1)), momentum)
    shape = (1, -1) + (1,) * (values.dim() - 2)
    normalized = normalized if weight is None else normalized * weight.view(shape)
    return normalized if bias is None else normalized + bias.view(shape)


class _Normalize(torch.autograd.Function):
    r"""Normalisation over all processes, by one operation between them forward and one backward.

    .. math:: y = (x - m) / \sqrt{v + \epsilon}, \quad
        dx = (dy - \overline{dy} - y \, \overline{y \, dy}) / \sqrt{v + \epsilon}
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, eps: float, share: Share) -> tuple[Tensor, Tensor, Tensor]:
        ctx.dims, ctx.share = [0, *range(2, values.dim())], share
        variance, mean = torch.var_mean(values, ctx.dims, correction=0, keepdim=True)
        means, variances = share.gather(torch.stack([mean, variance])).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        scale = (variance + eps).rsqrt()
        normalized = (values - mean) * scale
        ctx.save_for_backward(normalized, scale)
        statistics = mean.flatten(), variance.flatten()
        ctx.mark_non_differentiable(*statistics)
        return normalized, *statistics

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        normalized, scale = ctx.saved_tensors
        own = torch.stack([gradient, gradient * normalized]).mean([1 + dim for dim in ctx.dims], keepdim=True)
        mean, along = (ctx.share.sum(own) / ctx.share.size).unbind(0)
        return (gradient - mean - normalized * along) * scale, None, None
