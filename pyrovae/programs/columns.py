"""Columns of several kinds side by side: their kinds, their features for networks, and their distribution.

A row ``(D,)`` holds one number for each column: real ones as they are, positive ones above zero, counts as whole numbers from 0
on, bits, and the number of a category from 0 on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.distributions.constraints import Constraint

KINDS = ("real", "positive", "count", "binary", "category")


@dataclass(frozen=True)
class Columns:
    """The kinds of some columns.

    Args:
        kinds: one of ``KINDS`` for each.
        num_categories: the number of categories of each; 0 for other kinds.

    >>> columns = Columns(("category", "real", "category"), (3, 0, 2))
    >>> columns.places, columns.order
    ({'real': (1,), 'category': (0, 2)}, (1, 0, 2))
    """

    kinds: tuple[str, ...]
    num_categories: tuple[int, ...]

    @property
    def places(self) -> dict[str, tuple[int, ...]]:
        """The numbers of the columns of each kind, for kinds that occur."""
        found = {kind: tuple(place for place, each in enumerate(self.kinds) if each == kind) for kind in KINDS}
        return {kind: places for kind, places in found.items() if places}

    @property
    def order(self) -> tuple[int, ...]:
        """The numbers of all columns, sorted by kind."""
        return tuple(place for places in self.places.values() for place in places)


class InputFeatures(nn.Module):
    """The features of data for networks: logarithms of positive columns and counts, one-hot categories, all others unchanged.

    Args:
        data_size: the number of entries D of a row of data; entries after them are context.
        columns: the kinds of the columns; None where networks see all of them as they are.
        incomplete: whether NaN stands for a missing entry, which networks see as zero; Mattei and Frellsen (2019), section 2.3.

    >>> features = InputFeatures(2, Columns(("category", "count"), (3, 0)))
    >>> features(torch.tensor([[2.0, 0.0]]))
    tensor([[0., 0., 0., 1.]])
    """

    def __init__(self, data_size: int, columns: Columns | None = None, *, incomplete: bool = False) -> None:
        super().__init__()
        self.data_size, self.incomplete = data_size, incomplete
        self.places = {} if columns is None else columns.places
        for kind, places in self.places.items():
            # Buffers, so that they follow the module to its device; they are no state to be saved.
            self.register_buffer(kind, torch.tensor(places), persistent=False)
        self.num_categories = () if columns is None else columns.num_categories
        self.size = data_size + sum(number - 1 for number in self.num_categories if number)

    def forward(self, rows: Tensor) -> Tensor:
        """Data and contexts ``(*, D + C)`` to features ``(*, size + C)``."""
        if self.places:
            x = rows[..., : self.data_size]
            seen = [self._seen(kind, x.index_select(-1, self.get_buffer(kind))) for kind in self.places]
            rows = torch.cat([*seen, rows[..., self.data_size :]], -1)
        return rows.nan_to_num() if self.incomplete else rows

    def _seen(self, kind: str, x: Tensor) -> Tensor:
        if kind == "category":
            numbers = [self.num_categories[place] for place in self.places[kind]]
            each = [x[..., place, None] == torch.arange(number, device=x.device) for place, number in enumerate(numbers)]
            return torch.cat(each, -1).to(x.dtype)
        return {"positive": torch.log, "count": torch.log1p}.get(kind, torch.clone)(x)


class _SupportByColumn(Constraint):
    is_discrete = False

    def __init__(self, check: Callable[[Tensor], Tensor]) -> None:
        self.check = check  # type: ignore[method-assign]


class ByColumn(TorchDistribution):
    """The joint distribution of independent entries whose distributions are of several kinds, in the order of the entries.

    Args:
        parts: distributions of batch shapes ``(*, n_1)``, ``(*, n_2)``, ... and no event shape.
        order: the places of the parts' entries among all entries ``(n_1 + n_2 + ...,)``.

    >>> import pyro.distributions as dist
    >>> parts = [dist.Normal(torch.zeros(1), 1.0), dist.Bernoulli(torch.full((2,), 0.5))]
    >>> ByColumn(parts, torch.tensor([1, 0, 2])).log_prob(torch.tensor([0.0, 0.0, 1.0]))
    tensor([-0.6931, -0.9189, -0.6931])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, parts: Sequence[Any], order: Tensor, *, validate_args: bool | None = None) -> None:
        self.parts, self.order = tuple(parts), order
        batch_shape = torch.Size((*self.parts[0].batch_shape[:-1], len(order)))
        super().__init__(batch_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ByColumn:
        """The same distribution, drawn from independently for each entry of the batch."""
        parts = [part.expand((*batch_shape[:-1], part.batch_shape[-1])) for part in self.parts]
        expanded = ByColumn(parts, self.order, validate_args=False)
        expanded._validate_args = self._validate_args
        return expanded

    @property
    def support(self) -> Constraint:
        """The support: that of each part for its entries."""
        return _SupportByColumn(lambda value: self._together([part.support.check(own) for part, own in self._split(value)]))

    @property
    def mean(self) -> Tensor:
        """The mean of each entry; for a category, which has no mean, the most probable one."""
        return self._together([_typical(part) for part in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        """Entries ``(*, D)`` to the log-density or log-probability of each ``(*, D)`` in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return self.apply(lambda part, own: part.log_prob(own), value)

    def apply(self, function: Callable[[Any, Tensor], Tensor], value: Tensor) -> Tensor:
        """The results ``(*, D)`` of a function of each part and its entries of a value ``(*, D)``."""
        return self._together([function(part, own) for part, own in self._split(value)])

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw entries ``(*sample_shape, *batch_shape)``."""
        return self._together([part.sample(torch.Size(sample_shape)) for part in self.parts])

    def _split(self, value: Tensor) -> list[tuple[Any, Tensor]]:
        """Return each part with its entries."""
        places = self.order.split([part.batch_shape[-1] for part in self.parts])
        return [(part, value.index_select(-1, own)) for part, own in zip(self.parts, places, strict=True)]

    def _together(self, entries: Sequence[Tensor]) -> Tensor:
        """Put results for the entries of each part in the order of all entries."""
        dtype = next((each.dtype for each in entries if each.dtype.is_floating_point), entries[0].dtype)
        return torch.cat([each.to(dtype) for each in entries], -1).index_select(-1, self.order.argsort())


def _typical(part: Any) -> Tensor:
    return part.logits.argmax(-1).to(part.logits.dtype) if isinstance(part, Categorical) else part.mean
