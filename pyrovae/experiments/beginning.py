"""The run folder and the data of a training: new, or begun before."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.experiments.building import (
    build,
    build_objective,
    build_optimizer,
    load_data,
    recipe_of_guide,
    resolved,
    short_schedule,
)
from pyrovae.experiments.environment import busy
from pyrovae.experiments.published import RECIPES
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run, new_folder
from pyrovae.experiments.summaries import duration
from pyrovae.experiments.trials import batches_of, expected_seconds, num_steps

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.programs.guides import VAE


def prepared(
    name: str | None,
    settings: Mapping[str, Any],
    root: str | None = None,
    mirror: str | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> tuple[Recipe, Dataset]:
    """A recipe with what it leaves to settings and to the data filled in, and the data.

    Args:
        name: of a published recipe; None for the published architecture of the guide, with a schedule of minutes.
        settings: that replace those of the recipe.
        root: where to look for data files first.
        mirror: an address to download from.
        progress: told of each download.
    """
    if name is None:
        default = Recipe()
        guide = settings.get("guide", default.guide)
        chosen = replace(recipe_of_guide(guide), dataset=default.dataset).replace(**settings)
    else:
        chosen = RECIPES[name].replace(**settings)
    dataset = load_data(chosen, root, mirror, progress)
    chosen = resolved(chosen, dataset)
    if name is None:
        chosen = short_schedule(chosen, len(dataset.train), settings.get("epochs")).replace(**settings)
    # A path is kept whole, so that the run finds its data from elsewhere.
    return resolved(replace(chosen, dataset=dataset.name), dataset), dataset


def outlook(recipe: Recipe, dataset: Dataset, *, short: bool) -> Iterator[str]:
    """What is about to be trained, and how long it will take, in lines; nothing is written, and what cannot be is refused.

    Args:
        recipe: of the training.
        dataset: it is trained on.
        short: whether its schedule is one of minutes.
    """
    vae = build(recipe, dataset)
    check(recipe, dataset, vae)
    layers = "-".join(map(str, recipe.latent_sizes))
    what = f"{recipe.guide} guide, latent layers {layers}" if layers else "regressor, which has no latent"
    if dataset.found:
        yield f"{dataset.found}; likelihood {recipe.likelihood}"
    yield f"{what}, on {dataset.protocol}: {'the schedule of minutes' if short else 'the schedule of the recipe'}"
    stages = f" in {len(recipe.schedule)} stages" if recipe.stages else ""
    seconds = expected_seconds(vae, recipe, dataset)
    yield (
        f"{recipe.total_epochs} epochs{stages}, {num_steps(recipe.schedule, dataset)} steps on {dataset.train.device}, "
        f"warm-up {recipe.schedule[0].warmup_epochs:g}{'' if math.isnan(seconds) else f'; about {duration(seconds)} or less'}"
    )
    if warning := busy():
        yield f"warning: {warning}"


def created(folder: str | Path | None, recipe: Recipe, dataset: Dataset | None) -> tuple[Run, Dataset]:
    """A new folder for a recipe; nothing is written where it cannot be trained."""
    dataset = load_data(recipe) if dataset is None else dataset
    recipe = resolved(recipe, dataset)
    vae = build(recipe, dataset)
    check(recipe, dataset, vae)
    folder = new_folder("runs", name_of(recipe)) if folder is None else folder
    return Run.create(folder, recipe, dataset, vae), dataset


def begun(folder: Path, recipe: Recipe | None, dataset: Dataset | None) -> tuple[Run, Dataset]:
    """A folder that was begun, for the same recipe or for more of its epochs, with programs as at the first step."""
    run = Run.begun(folder)
    dataset = run.dataset() if dataset is None else dataset
    run.check_data(dataset)
    if recipe is not None:
        run = _with_more_epochs(run, resolved(recipe, dataset).replace(dataset=run.recipe.dataset))
    check(run.recipe, dataset, run.vae)
    programs = build(run.recipe, dataset)
    run.vae.load_state_dict(programs.state_dict())
    run.vae.to(dataset.train.device)
    return run, dataset


def _with_more_epochs(run: Run, recipe: Recipe) -> Run:
    """The run with the epochs of a recipe that says the same otherwise.

    Raises:
        InputError: for another recipe.
    """
    differing = run.recipe.differences(recipe)
    if not differing:
        return run
    if set(differing) == {"epochs"} and not recipe.stages and recipe.epochs > run.recipe.epochs:
        return replace(run, recipe=recipe)
    pairs = (f"{name} {old} there, {new} now" for name, (old, new) in differing.items())
    raise InputError(
        f"{run.folder}: expected the recipe that was begun there, or more of its epochs; got {'; '.join(pairs)}: "
        "choose another folder"
    )


def check(recipe: Recipe, dataset: Dataset, vae: VAE) -> None:
    """Refuse what would be refused later, before anything is written.

    Raises:
        InputError: for settings that make no sense on these data.
    """
    build_optimizer(recipe, vae)
    for stage in recipe.schedule:
        build_objective(stage)
        batches_of(stage, dataset)
        if stage.patience and dataset.valid is None:
            raise InputError(
                f"expected validation images for patience; {recipe.dataset!r} has none: use --validation, or --patience 0"
            )


def name_of(recipe: Recipe) -> str:
    """A name for the folder of a run: its data and guide, and what is not the default of prior and condition."""
    default = Recipe()
    parts = [Path(recipe.dataset).stem.replace(":", "-"), recipe.guide if recipe.latent_sizes else "regressor"]
    parts += [getattr(recipe, name) for name in ("prior", "condition") if getattr(recipe, name) != getattr(default, name)]
    return "-".join(parts)
