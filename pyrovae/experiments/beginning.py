"""The run folder and the data of a training: new, or begun before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.errors import InputError
from pyrovae.experiments.building import build, build_objective, build_optimizer, load_data, resolved
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run, new_folder
from pyrovae.experiments.trials import batches_of

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.programs.guides import VAE


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
