"""The refusal, by site and row, of data that the likelihood cannot have drawn, before they are measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyrovae.engine.modules import Program
from pyrovae.evaluation.measuring import measuring
from pyrovae.inference.plates import sample_sites
from pyrovae.inference.supports import TRANSPARENT, scored_by

Chunk = TypeVar("Chunk", bound=Sequence[Tensor])


def check_support(model: Program, chunks: Iterable[Chunk], *, observes: bool = True, first: int = 0) -> Iterator[Chunk]:
    """Yield the chunks of rows, each after a check that its data are in the support of their site.

    Args:
        model: the generative program, called with each chunk.
        chunks: data, followed by contexts if any.
        observes: whether to refuse a model that observes nothing.
        first: the number of the first row among the data, for errors.

    Raises:
        ValueError: for data outside the support, and, with ``observes``, for a model that observes nothing.
    """
    check = SupportOfData(model)
    for rows in chunks:
        check(rows, first)
        if observes and not check.observes:
            raise ValueError(
                "expected a model that observes the data; no site of it has obs=: its weights would say nothing of them "
                "(are model and guide in each other's place?)"
            )
        first += len(rows[0])
        yield rows


class SupportOfData:
    """A check that refuses data that a model cannot have drawn, which captured operations would score without an error.

    The model runs once, on the first rows. Where the value of an observed site is a column of the data, and its support is
    fixed, later rows are compared with the support without a run; else the model runs for them too. As in Pyro, distributions
    made with ``validate_args=False`` are not checked, and none while validation is off.

    Args:
        model: the generative program.
    """

    def __init__(self, model: Program) -> None:
        self._model = model
        self._sites: list[_Site] | None = None
        self.observes = False

    def __call__(self, rows: Sequence[Tensor], first: int = 0) -> None:
        """Check some rows, the first of which is the ``first``-th of the data.

        Raises:
            ValueError: for a row outside the support of a site; it names both.
        """
        if self._sites is None or any(site.column is None for site in self._sites):
            self._sites = self._looked_up(rows, first)
            return
        for site in self._sites:
            assert site.column is not None
            column = rows[site.column]
            _refuse(site, column.reshape(len(column), *site.event), len(column), first)

    def _looked_up(self, rows: Sequence[Tensor], first: int) -> list[_Site]:
        """The observed sites of a run of the model, after a check of their values."""
        with measuring(self._model), torch.random.fork_rng():
            trace = prune_subsample_sites(poutine.trace(self._model).get_trace(*rows))
        observed = [each for each in sample_sites(trace) if each["is_observed"] and not each["infer"].get("_deterministic")]
        self.observes = bool(observed)
        sites = []
        for each in observed:
            if (support := _support(each["fn"])) is not None and each["value"].numel():
                sites.append(_Site.of(each, support, rows))
                _refuse(sites[-1], each["value"], len(rows[0]), first)
        return sites


@dataclass(frozen=True)
class _Site:
    """An observed site: the support of its entries, and the number of the column that it observes, or None."""

    name: str
    distribution: str
    support: Any
    column: int | None
    event: tuple[int, ...]

    @classmethod
    def of(cls, site: Any, support: Any, rows: Sequence[Tensor]) -> _Site:
        """Make it from its record in a trace."""
        value = site["value"]
        column = next((number for number, each in enumerate(rows) if _is_column(value, each)), None)
        kind = type(scored_by(site["fn"])).__name__
        return cls(site["name"], kind, support, column if _is_fixed(support) else None, tuple(value.shape[1:]))


def entries_of(support: Any) -> Any:
    """The constraint on each entry of an event, from a constraint on whole events."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def _support(fn: Any) -> Any:
    """The constraint on entries that a site's distribution validates; None where it validates none."""
    layers = [fn]
    while type(layers[-1]) in TRANSPARENT:
        layers.append(layers[-1].base_dist)
    # A distribution that is a product over entries may validate its values itself.
    if not any(layer._validate_args for layer in layers if type(layer) not in TRANSPARENT):
        return None
    try:
        return entries_of(fn.support)
    except NotImplementedError:
        return None


def _is_column(value: Tensor, column: Tensor) -> bool:
    """True where a value is the column itself, perhaps in another shape."""
    if value is column:
        return True
    alike = value.dtype == column.dtype and value.shape[:1] == column.shape[:1] and value.numel() == column.numel()
    return alike and value.is_contiguous() and column.is_contiguous() and value.data_ptr() == column.data_ptr()


def _is_fixed(constraint: Any) -> bool:
    """True for a constraint that holds no tensor, which could differ for other rows."""
    if isinstance(constraint, Tensor):
        return False
    parts = constraint if isinstance(constraint, list | tuple) else vars(constraint).values()
    return all(_is_fixed(part) for part in parts if isinstance(part, list | tuple | Tensor) or hasattr(part, "check"))


def _refuse(site: _Site, value: Tensor, count: int, first: int) -> None:
    inside = site.support.check(value)
    if inside.all():
        return
    outside = (~inside).nonzero()
    row = next((first + int(outside[0, dim]) for dim in range(inside.dim()) if inside.shape[dim] == count), None)
    where = "one" if row is None else f"row {row}"
    held = f" holds {value[~inside][0].item():g}" if inside.shape == value.shape else " is none"
    raise ValueError(
        f"expected data that the likelihood at site {site.name!r} can have drawn, in the support {site.support} of "
        f"{site.distribution}; {where}{held}: bring the data there (bits by binarize), or use a likelihood that covers them"
    )
