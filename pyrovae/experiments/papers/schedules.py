"""How long a paper's trainings are: whole, or a share of their epochs that is done within some minutes on this machine."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pyrovae.experiments.building import build, resolved
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.trials import expected_seconds

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.programs.guides import VAE

T = TypeVar("T")
# Of test images, that measuring is timed on.
TIMED_CHUNKS = 3


def shortened(recipe: Recipe, share: float) -> Recipe:
    """The recipe with a share of its epochs, of its warm-up and of each stage; one epoch at least.

    Where that is fewer epochs than it has stages, so many of these, spread evenly, have one each.

    >>> short = shortened(Recipe(epochs=300, warmup_epochs=100.0), 0.05)
    >>> short.epochs, short.warmup_epochs
    (15, 5.0)
    """
    if share >= 1:
        return recipe
    if not recipe.stages:
        return _with_epochs(recipe, max(1, round(recipe.epochs * share)))
    total = max(1, round(recipe.total_epochs * share))
    places = range(len(recipe.stages))
    if total <= len(recipe.stages):
        places = np.unique(np.linspace(0, len(recipe.stages) - 1, total).round().astype(int)).tolist()
    left = total
    stages = []
    for position, place in enumerate(places):
        stage, whole = recipe.stages[place], recipe.schedule[place]
        most = left - (len(places) - position - 1)
        epochs = most if position == len(places) - 1 else min(most, max(1, round(whole.epochs * share)))
        left -= epochs
        stages.append({**stage, "epochs": epochs, "warmup_epochs": whole.warmup_epochs * epochs / whole.epochs})
    return replace(recipe, stages=tuple(stages))


def _with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    warmup = round(recipe.warmup_epochs * epochs / recipe.epochs, 2)
    return replace(recipe, epochs=epochs, warmup_epochs=warmup)


def affordable_share(recipes: Iterable[tuple[Recipe, Dataset]], seconds: float, num_samples: int) -> tuple[float, float]:
    """The share of their epochs that trainings can have within a time, and how long their measuring takes of it.

    A few steps of each are taken, and a few images measured, on programs that are thrown away.

    Args:
        recipes: the trainings and their data.
        seconds: for all of them, one after the other.
        num_samples: importance samples for each test image.
    """
    training = measuring = 0.0
    for recipe, dataset in recipes:
        one, other = _timed(recipe, dataset, num_samples)
        training, measuring = training + one, measuring + other
    return min(1.0, max(seconds - measuring, 0.1 * seconds) / max(training, 1e-9)), measuring


def _timed(recipe: Recipe, dataset: Dataset, num_samples: int) -> tuple[float, float]:
    """The seconds of a whole training, and of measuring it."""
    recipe = resolved(recipe, dataset)
    vae = build(recipe, dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        training = expected_seconds(vae, recipe, dataset)
    vae.eval()
    return training, _measuring(vae, dataset, num_samples if vae.model.depth else 1)


def _measuring(vae: VAE, dataset: Dataset, num_samples: int) -> float:
    """The seconds of measuring all test images, from the fastest of a few chunks: the first one captures."""
    from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE, log_likelihood

    contexts, x = dataset.contexts.get("test"), dataset.test[: TIMED_CHUNKS * IMAGES_AT_ONCE]
    seconds = []

    def track(chunks: Sequence[T]) -> Iterator[T]:
        for chunk in chunks:
            start = time.perf_counter()
            yield chunk
            seconds.append(time.perf_counter() - start)

    context = None if contexts is None else contexts[: len(x)]
    log_likelihood(vae.model, vae.guide, x, num_samples, context=context, track=track)
    return min(seconds) * len(dataset.test) / min(IMAGES_AT_ONCE, len(x))
