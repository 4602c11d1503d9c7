"""Data that the likelihood cannot have drawn, refused by site and row before anything is measured on them."""

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


def supported(model: Program, chunks: Iterable[Chunk], *, observes: bool = True) -> Iterator[Chunk]:
    """The same chunks of rows, each once its data are known to lie in the support of their site.

    Args:
        model: the generative program, called with each chunk.
        chunks: data, and contexts behind them where there are any.
        observes: refuse a model that observes nothing.

    Raises:
        ValueError: for data outside the support, and for a model that observes nothing where it should.
    """
    check, first = SupportOfData(model), 0
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
    """Refuses data that a model cannot have drawn, which captured operations would score in silence.

    The model runs once, on the first rows. Where an observed site has a column of the data as its value, and a support that
    depends on nothing, later rows are compared with that support and nothing runs; else the model runs for them too. Like
    Pyro, it looks at no distribution made with ``validate_args=False``, and at none where validation is turned off.

    Args:
        model: the generative program.
    """

    def __init__(self, model: Program) -> None:
        self._model = model
        self._sites: list[_Site] | None = None
        self.observes = False

    def __call__(self, rows: Sequence[Tensor], first: int = 0) -> None:
        """Look at some rows, the first of them the ``first``-th of the data.

        Raises:
            ValueError: where one lies outside the support of a site, by site and row.
        """
        if self._sites is None or any(site.column is None for site in self._sites):
            self._sites = self._looked_up(rows, first)
            return
        for site in self._sites:
            assert site.column is not None
            column = rows[site.column]
            _refuse(site, column.reshape(len(column), *site.event), len(column), first)

    def _looked_up(self, rows: Sequence[Tensor], first: int) -> list[_Site]:
        """The sites that observe something, from a run of the model, once their values are known to be in order."""
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
    """An observed site: the support of its entries, and the column of the data that it observes, where it is one."""

    name: str
    distribution: str
    support: Any
    column: int | None
    event: tuple[int, ...]

    @classmethod
    def of(cls, site: Any, support: Any, rows: Sequence[Tensor]) -> _Site:
        """From its record in a trace."""
        value = site["value"]
        column = next((number for number, each in enumerate(rows) if _is_column(value, each)), None)
        kind = type(scored_by(site["fn"])).__name__
        return cls(site["name"], kind, support, column if _is_fixed(support) else None, tuple(value.shape[1:]))


def entries_of(support: Any) -> Any:
    """The constraint of each entry of an event, of one on whole events."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def _support(fn: Any) -> Any:
    """The constraint of entries that a site's distribution holds values to; None where it looks at none."""
    layers = [fn]
    while type(layers[-1]) in TRANSPARENT:
        layers.append(layers[-1].base_dist)
    # One that is a product over entries may look at its values itself.
    if not any(layer._validate_args for layer in layers if type(layer) not in TRANSPARENT):
        return None
    try:
        return entries_of(fn.support)
    except NotImplementedError:
        return None


def _is_column(value: Tensor, column: Tensor) -> bool:
    """The column itself, or seen in another shape."""
    if value is column:
        return True
    alike = value.dtype == column.dtype and value.shape[:1] == column.shape[:1] and value.numel() == column.numel()
    return alike and value.is_contiguous() and column.is_contiguous() and value.data_ptr() == column.data_ptr()


def _is_fixed(constraint: Any) -> bool:
    """Whether it holds no tensor, which could be another for other rows."""
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
