"""New examples as the programs of a run take them, and what a conditional model is told of each.

What the data of the training went through is part of the run, and is applied to whatever comes later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyrovae.data.user_files.streaming import Block, blocks_of
from pyrovae.errors import InputError, nearest
from pyrovae.seeds import seed_of

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.experiments.folder import RunFolder

Note = Callable[[str], Any]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A block of examples as programs take them ``(N, D)``, and what a conditional model is told of each ``(N, C)``."""

    block: Block
    x: Tensor
    context: Tensor | None


def prepared(
    run: RunFolder, source: Any, seed: int, note: Note, given: str = "", *, missing: bool = False
) -> Iterator[Prepared]:
    """Blocks of examples as programs take them; random numbers are those of the seed, block by block."""
    preparation, count = replace(run.prepared, missing=missing or run.prepared.missing), 0
    device = next(iter(run.vae.parameters())).device
    one_class = _class_number(run, given) if given else None
    with torch.random.fork_rng():
        for number, block in enumerate(blocks_of(source, preparation, note, label=run.recipe.label)):
            if not len(block.values):
                continue
            scaled = preparation.rescale(block.values)
            # No bit is drawn of a gap.
            gaps = scaled.isnan()
            x = preparation.with_bits(scaled.nan_to_num(), seed=seed_of(seed, number, 0)).masked_fill(gaps, torch.nan)
            labels = np.full(len(x), one_class) if given else None
            if run.recipe.condition == "label" and not given and block.classes is not None:
                labels = block.classes().astype(np.int64)
            generator = torch.Generator().manual_seed(seed_of(seed, number, 2))
            context = _contexts(run, scaled, x, labels, generator)
            torch.manual_seed(seed_of(seed, number, 1))
            count += len(x)
            yield Prepared(block, x.to(device), None if context is None else context.to(device))
    if not count:
        raise InputError("expected at least one example; got none")


def _contexts(
    run: RunFolder, scaled: Tensor, x: Tensor, labels: np.ndarray | None, generator: torch.Generator
) -> Tensor | None:
    """What a conditional model is told of examples.

    Raises:
        InputError: where it is told classes and the data have none.
    """
    condition = run.condition
    if condition is None:
        return None
    if run.recipe.condition == "label" and labels is None:
        names = ", ".join(_class_names(run)[:20])
        raise InputError(
            f"{run.folder}: expected the class of each example, which this model is told: bring data with labels, or say one "
            f"for all of them with --given, out of {names}"
        )
    return condition(scaled, x, None if labels is None else torch.from_numpy(labels), generator)


def _class_names(run: RunFolder) -> Sequence[str]:
    return run.prepared.classes or [str(number) for number in range(run.num_classes)]


def _class_number(run: RunFolder, given: str) -> int:
    names = list(_class_names(run))
    if run.recipe.condition != "label":
        raise InputError(f"{run.folder}: expected a model that is told classes for {given!r}; this one is not: leave it out")
    if given not in names:
        raise InputError(f"{run.folder}: expected a class out of {', '.join(names[:20])}; got {given!r}{nearest(given, names)}")
    return names.index(given)


def told_of(run: RunFolder, number: int, given: str, told: Any, seed: int, note: Note) -> Tensor | None:
    """The contexts of what is to be drawn ``(N, C)``.

    Raises:
        InputError: for a model that must be told, and is not; and for one that cannot be.
    """
    condition = run.condition
    if condition is None or (given and told is not None):
        if given or told is not None:
            which = "one of a class and examples" if condition else "no class and no examples to draw given"
            raise InputError(f"{run.folder}: expected {which}, under its condition {run.recipe.condition!r}; leave one out")
        return None
    if told is not None:
        parts = [each.context for each in prepared(run, told, seed, note)]
        return torch.cat([each for each in parts if each is not None]).repeat_interleave(number, 0)
    if run.recipe.condition != "label":
        raise InputError(
            f"{run.folder}: expected examples to draw given, for it is told {run.recipe.condition!r} of each: "
            "name some, --told DATA"
        )
    if not given:
        raise InputError(
            f"{run.folder}: expected a class to draw given, --given NAME, out of {', '.join(_class_names(run)[:20])}"
        )
    like = next(iter(run.vae.parameters()))
    labels = torch.full((number,), _class_number(run, given), device=like.device)
    empty = like.new_zeros(number, run.prepared.size)
    return condition(empty, empty, labels, None)
