"""New examples as the programs of a run take them, with their contexts for conditional models.

The preparation of the training data is part of the run, and is applied to new examples.
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
class NewExamples:
    """A block of examples as programs take them ``(N, D)``, with their contexts ``(N, C)`` for a conditional model."""

    block: Block
    x: Tensor
    context: Tensor | None


def new_examples(
    run: RunFolder, source: Any, seed: int, note: Note, class_name: str = "", *, missing: bool = False
) -> Iterator[NewExamples]:
    """Prepare examples as programs take them, block by block; random numbers depend on the seed and the block alone."""
    preparation, count = replace(run.required_preparation, missing=missing or run.required_preparation.missing), 0
    device = next(iter(run.vae.parameters())).device
    one_class = _class_number(run, class_name) if class_name else None
    with torch.random.fork_rng():
        for number, block in enumerate(blocks_of(source, preparation, note, label=run.recipe.label)):
            if not len(block.values):
                continue
            scaled = preparation.rescale(block.values)
            # No bit is drawn for a gap.
            gaps = scaled.isnan()
            x = preparation.with_bits(scaled.nan_to_num(), seed=seed_of(seed, number, 0)).masked_fill(gaps, torch.nan)
            labels = np.full(len(x), one_class) if class_name else None
            if run.recipe.condition == "label" and not class_name and block.classes is not None:
                labels = block.classes().astype(np.int64)
            generator = torch.Generator().manual_seed(seed_of(seed, number, 2))
            context = _contexts(run, scaled, x, labels, generator)
            torch.manual_seed(seed_of(seed, number, 1))
            count += len(x)
            yield NewExamples(block, x.to(device), None if context is None else context.to(device))
    if not count:
        raise InputError("expected at least one example; got none")


def _contexts(
    run: RunFolder, scaled: Tensor, x: Tensor, labels: np.ndarray | None, generator: torch.Generator
) -> Tensor | None:
    """The contexts of examples for a conditional model.

    Raises:
        InputError: for a model conditioned on classes and data without classes.
    """
    condition = run.condition
    if condition is None:
        return None
    if run.recipe.condition == "label" and labels is None:
        names = ", ".join(_class_names(run)[:20])
        raise InputError(
            f"{run.folder}: expected the class of each example, on which this model is conditioned: bring data with labels, or "
            f"give one class for all of them with --class, out of {names}"
        )
    return condition(scaled, x, None if labels is None else torch.from_numpy(labels), generator)


def _class_names(run: RunFolder) -> Sequence[str]:
    return run.required_preparation.classes or [str(number) for number in range(run.num_classes)]


def _class_number(run: RunFolder, class_name: str) -> int:
    names = list(_class_names(run))
    if run.recipe.condition != "label":
        raise InputError(
            f"{run.folder}: expected a model conditioned on classes for --class {class_name}; this one is not: leave it out"
        )
    if class_name not in names:
        raise InputError(
            f"{run.folder}: expected a class out of {', '.join(names[:20])}; got {class_name!r}{nearest(class_name, names)}"
        )
    return names.index(class_name)


def contexts_for_sampling(run: RunFolder, number: int, class_name: str, context: Any, seed: int, note: Note) -> Tensor | None:
    """The contexts of the samples to draw ``(N, C)``; None for a model without a condition.

    Raises:
        InputError: for a conditional model without a class or contexts, and for any other model with one.
    """
    condition = run.condition
    if condition is None or (class_name and context is not None):
        if class_name or context is not None:
            which = "one of --class and --context" if condition else "neither --class nor --context"
            raise InputError(f"{run.folder}: expected {which}, under its condition {run.recipe.condition!r}; leave one out")
        return None
    if context is not None:
        parts = [each.context for each in new_examples(run, context, seed, note)]
        return torch.cat([each for each in parts if each is not None]).repeat_interleave(number, 0)
    if run.recipe.condition != "label":
        raise InputError(
            f"{run.folder}: expected examples as contexts, since the model is conditioned on {run.recipe.condition!r}: "
            "name them with --context DATA"
        )
    if not class_name:
        raise InputError(f"{run.folder}: expected the class to draw, --class NAME, out of {', '.join(_class_names(run)[:20])}")
    like = next(iter(run.vae.parameters()))
    labels = torch.full((number,), _class_number(run, class_name), device=like.device)
    empty = like.new_zeros(number, run.required_preparation.size)
    return condition(empty, empty, labels, None)
