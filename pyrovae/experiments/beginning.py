"""The start of a training: its run folder, new or begun before, and its data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.experiments.building import (
    build,
    load_data,
    recipe_of_guide,
    resolve,
    short_schedule,
)
from pyrovae.experiments.folder import RECIPE
from pyrovae.experiments.measuring import describe_guide
from pyrovae.experiments.methods import refuse_what_cannot_be_trained
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.summaries import duration
from pyrovae.experiments.trials import expected_seconds, num_steps

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset


def recipe_and_data(
    base: Recipe | None,
    settings: Mapping[str, Any],
    root: str | None = None,
    mirror: str | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> tuple[Recipe, Dataset]:
    """Complete a recipe with settings, and load its data.

    Args:
        base: a recipe; None for the published architecture of the guide, with a schedule of minutes.
        settings: the settings that replace those of the recipe.
        root: the folder to look for data files in first.
        mirror: an address to download from.
        progress: called as files are downloaded.
    """
    chosen = recipe_like_the_guide(settings) if base is None else base.replace(**settings)
    dataset = load_data(chosen, root, mirror, progress)
    if base is None:
        chosen = recipe_for(settings, len(dataset.train))
    # A path is kept whole, so that the run finds its data from elsewhere.
    return replace(chosen, dataset=dataset.name), dataset


def recipe_for(settings: Mapping[str, Any], num_examples: int) -> Recipe:
    """The published architecture of the guide with settings, and a schedule of minutes for a number of examples."""
    return short_schedule(recipe_like_the_guide(settings), num_examples, settings.get("epochs")).replace(**settings)


def recipe_like_the_guide(settings: Mapping[str, Any]) -> Recipe:
    """The published architecture of the guide with settings, before a schedule is chosen by its data.

    Raises:
        InputError: for settings that contradict each other or the architecture, which the message then names.
    """
    guide = settings.get("guide", Recipe.guide)
    architecture = replace(recipe_of_guide(guide), dataset=Recipe.dataset)
    try:
        return architecture.replace(**settings)
    except InputError as error:
        if str(error) == _refusal_of(settings):
            raise
        raise InputError(f"{error} (what was not set is as published for the guide {guide!r})") from error


def _refusal_of(settings: Mapping[str, Any]) -> str:
    """The refusal of settings without any architecture; empty where they are not refused."""
    try:
        Recipe().replace(**settings)
    except InputError as error:
        return str(error)
    return ""


def begin(folder: str | Path | None, recipe: Recipe | None, dataset: Dataset | None) -> tuple[Run, Dataset]:
    """Open the run of a folder that was begun, or make a new one; returns it, with fresh programs, and its data.

    Raises:
        InputError: for a recipe that cannot be trained, and for another recipe than that of the folder.
    """
    if folder is not None and (Path(folder) / RECIPE).exists():
        return _begun(Path(folder), recipe, dataset)
    if recipe is None:
        raise InputError(f"{folder}: expected the folder of a training that was begun; there is none: give a recipe")
    dataset = load_data(recipe) if dataset is None else dataset
    return Run.create(folder, recipe, dataset), dataset


def _begun(folder: Path, recipe: Recipe | None, dataset: Dataset | None) -> tuple[Run, Dataset]:
    run = Run.load_begun(folder)
    dataset = run.dataset() if dataset is None else dataset
    run.check_data(dataset)
    if recipe is not None:
        run = _with_more_epochs(run, resolve(recipe, dataset).replace(dataset=run.recipe.dataset))
    programs = build(run.recipe, dataset)
    refuse_what_cannot_be_trained(run.recipe, dataset, programs)
    run.vae.load_state_dict(programs.state_dict())
    run.vae.to(dataset.train.device)
    return run, dataset


def _with_more_epochs(run: Run, recipe: Recipe) -> Run:
    """The run with the epochs of a recipe that is otherwise the same.

    Raises:
        InputError: for another recipe.
    """
    differing = run.recipe.differences(recipe)
    if not differing:
        return run
    if set(differing) == {"epochs"} and not recipe.stages and recipe.epochs > run.recipe.epochs:
        if recipe.learning_rate_schedule != "constant":
            raise InputError(
                f"{run.folder}: expected its {run.recipe.epochs} epochs, over which its learning rate has gone down; got "
                f"{recipe.epochs}: choose another folder, or the schedule 'constant'"
            )
        return replace(run, recipe=recipe)
    pairs = (f"{name} {old} there, {new} now" for name, (old, new) in differing.items())
    raise InputError(
        f"{run.folder}: expected the recipe that was begun there, or more of its epochs; got {'; '.join(pairs)}: "
        "choose another folder"
    )


def describe_training(run: Run, dataset: Dataset) -> Iterator[str]:
    """Describe what is about to be trained, and how long it will take, in lines."""
    recipe = run.recipe
    layers = "-".join(map(str, recipe.latent_sizes))
    what = f"{describe_guide(recipe)}, latent layers {layers}" if layers else "regressor, which has no latent"
    if dataset.description:
        yield f"{dataset.description}; likelihood {recipe.likelihood}"
    yield f"{what}, on {dataset.protocol}"
    stages = f" in {len(recipe.schedule)} stages" if recipe.stages else ""
    seconds = expected_seconds(run.vae, recipe, dataset)
    yield (
        f"{recipe.total_epochs} epochs{stages}, {num_steps(recipe.schedule, dataset)} steps on {dataset.train.device}, "
        f"warm-up {recipe.schedule[0].warmup_epochs:g}{'' if math.isnan(seconds) else f'; about {duration(seconds)} or less'}"
    )
