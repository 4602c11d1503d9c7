"""The schedules of a paper's trainings: whole, or a share of the epochs that takes some minutes on this machine."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from pyrovae.experiments.building import build, resolve
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.trials import expected_seconds

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.programs.guides import VAE

T = TypeVar("T")
# The number of chunks of test images on which measuring is timed.
TIMED_CHUNKS = 3
# The least share of the time for training, where measuring alone would take all of it.
LEAST_FOR_TRAINING = 0.1


def shorten_recipe(recipe: Recipe, share: float) -> Recipe:
    """Shorten a recipe to a share of its epochs, of its warm-up and of each stage; at least one epoch.

    The epochs up to the end of each stage are rounded; a stage without epochs is left out.

    >>> short = shorten_recipe(Recipe(epochs=300, warmup_epochs=100.0), 0.05)
    >>> short.epochs, short.warmup_epochs
    (15, 5.0)
    """
    if share >= 1:
        return recipe
    if not recipe.stages:
        epochs = max(1, round(recipe.epochs * share))
        return replace(recipe, epochs=epochs, **_shorten_warmups(recipe, epochs))
    whole = recipe.schedule
    ends = [round(end * share) for end in accumulate(each.epochs for each in whole)]
    lengths = [end - begin for begin, end in pairwise([0, *ends])]
    if not any(lengths):
        lengths[0] = 1
    stages = [
        {**stage, "epochs": epochs, **_shorten_warmups(each, epochs)}
        for stage, each, epochs in zip(recipe.stages, whole, lengths, strict=True)
        if epochs
    ]
    return replace(recipe, stages=tuple(stages))


def _shorten_warmups(stage: Recipe, epochs: int) -> dict[str, Any]:
    """The warm-ups of a stage that has other epochs: the same shares of them."""
    share = epochs / stage.epochs
    shortened: dict[str, Any] = {"warmup_epochs": round(stage.warmup_epochs * share, 2)}
    if stage.learning_rate_warmup:
        shortened["learning_rate_warmup"] = math.floor(stage.learning_rate_warmup * share)
    return shortened


def affordable_share(recipes: Iterable[tuple[Recipe, Dataset]], seconds: float, num_samples: int) -> tuple[float, float]:
    """The share of epochs that trainings can have within a time, and the seconds that all of their epochs take.

    A few steps of each are taken, and a few images measured, on copies of the programs. A training whose first steps fail does
    not count.

    Args:
        recipes: the trainings and their data.
        seconds: the time for all trainings, one after the other.
        num_samples: the number of importance samples for each test image.
    """
    training = measuring = 0.0
    for recipe, dataset in recipes:
        one, other = _timed(recipe, dataset, num_samples)
        training, measuring = training + (one if math.isfinite(one) else 0.0), measuring + other
    left = max(seconds - measuring, LEAST_FOR_TRAINING * seconds)
    return (min(1.0, left / training) if training else 0.0), training


def _timed(recipe: Recipe, dataset: Dataset, num_samples: int) -> tuple[float, float]:
    """The seconds of a whole training, and of measuring it."""
    recipe = resolve(recipe, dataset)
    vae = build(recipe, dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        training = expected_seconds(vae, recipe, dataset)
    vae.eval()
    return training, _measuring(vae, dataset, num_samples if vae.model.depth else 1)


def _measuring(vae: VAE, dataset: Dataset, num_samples: int) -> float:
    """The seconds of measuring all test images, from the fastest of a few chunks, the first of which includes capturing."""
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
