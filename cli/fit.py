"""``pyrovae fit``: load, train, measure, draw, and leave a run folder behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyrovae.errors import InputError
from pyrovae.published import RECIPES
from pyrovae.recipes import build, build_objective, build_optimizer, load_data, recipe_of_guide, resolved, short_schedule
from pyrovae.settings import Recipe

from . import console, options, training
from .datasets import fetched
from .measuring import measure, summary
from .pictures import draw

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.programs.guides import VAE
    from pyrovae.runs import Run


@click.command()
@click.option("--recipe", type=click.Choice(list(RECIPES)), help="A paper's whole training: see 'pyrovae recipes'.")
@options.recipe_flags
@click.option("--samples", type=click.IntRange(min=1), default=500, show_default=True, help="Samples per test image.")
@options.engine
@options.root
@options.mirror
@options.device
@click.option("--output", metavar="FOLDER", help="A new folder for the run.  [default: runs/DATASET-GUIDE-N]")
@options.as_json
def fit(
    recipe: str | None,
    samples: int,
    engine: str,
    root: str | None,
    mirror: str | None,
    device: str | None,
    output: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train a VAE, measure it on the test set, draw what it learned.

    --recipe NAME is a paper's whole training. Without it, --guide NAME takes the guide's published architecture with a
    schedule of minutes, on mnist-5k unless --dataset says otherwise. Each setting below replaces the recipe's.
    """
    from pyrovae.runs import Run, new_folder

    dataset, chosen = _prepared(recipe, flags, root, mirror, options.torch_device(device), quiet=as_json)
    # What is refused is refused before anything is written.
    vae = build(chosen, dataset)
    _check(chosen, dataset, vae)
    run = Run.create(output or new_folder("runs", f"{Path(chosen.dataset).stem}-{_kind(chosen)}"), chosen, dataset, vae)
    decision = _train(run, dataset, engine, short=recipe is None, quiet=as_json)
    evaluation = measure(run, dataset, samples, quiet=as_json)
    run.save_evaluation(evaluation)
    pictures = draw(run, dataset)
    if as_json:
        console.print_json(evaluation.results | {"run": str(run.folder)})
    else:
        early = ", stopped early" if run.history[-1].get("stopped_early") else ""
        time = console.duration(sum(row["seconds"] for row in run.history))
        training_row = {"training": f"{len(run.history)} epochs{early} in {time}; {decision}"}
        rows = summary(evaluation.results) | training_row | {"pictures": ", ".join(pictures), "run folder": str(run.folder)}
        console.show(rows, title=f"{_kind(chosen)} on {dataset.name}, {chosen.total_epochs} epochs")


def _prepared(
    recipe: str | None, flags: dict[str, Any], root: str | None, mirror: str | None, device: Any, *, quiet: bool
) -> tuple[Dataset, Recipe]:
    """The data, and the recipe with what it leaves to them and to the flags filled in."""
    chosen = _chosen(recipe, flags)
    fetched(chosen.dataset, root, mirror, quiet=quiet)
    dataset = load_data(chosen, root, mirror).to(device)
    chosen = resolved(chosen, dataset)
    if recipe is None:
        chosen = options.overridden(short_schedule(chosen, len(dataset.train), flags["epochs"]), flags)
    # A path is kept whole, so that the run finds its data from elsewhere.
    return dataset, replace(chosen, dataset=dataset.name)


def _check(recipe: Recipe, dataset: Dataset, vae: VAE) -> None:
    build_optimizer(recipe, vae)
    for stage in recipe.schedule:
        build_objective(stage)
        training.batches_of(stage, dataset)
        if stage.patience and dataset.valid is None:
            raise InputError(
                f"expected validation images for patience; {recipe.dataset!r} has none: use --validation, or --patience 0"
            )


def _train(run: Run, dataset: Dataset, engine: str, *, short: bool, quiet: bool) -> str:
    """Returns what the engine was, and why; where training breaks off it says what is left of it."""
    try:
        if not quiet:
            _announce(run, dataset, short=short)
        return training.train(run, dataset, engine, quiet=quiet)
    except KeyboardInterrupt:
        console.say(f"{run.folder} holds {len(run.history)} of {run.recipe.total_epochs} epochs")
        raise
    except FloatingPointError as error:
        kept = f"{run.folder} holds {len(run.history)} of {run.recipe.total_epochs} epochs"
        raise InputError(f"{error}; {kept}: try a lower --learning-rate") from error


def _chosen(recipe: str | None, flags: dict[str, Any]) -> Recipe:
    """The recipe with the flags that were given; a short schedule comes later, when the size of the data is known."""
    if recipe is not None:
        return options.overridden(RECIPES[recipe], flags)
    default = Recipe()
    return options.overridden(replace(recipe_of_guide(flags["guide"] or default.guide), dataset=default.dataset), flags)


def _kind(recipe: Recipe) -> str:
    return recipe.guide if recipe.latent_sizes else "regressor"


def _announce(run: Run, dataset: Dataset, *, short: bool) -> None:
    """What is about to be trained, and how long it will take."""
    recipe = run.recipe
    seconds = training.expected_seconds(run.vae, recipe, dataset)
    published = "the schedule of minutes" if short else "the schedule of the paper"
    layers = "-".join(map(str, recipe.latent_sizes))
    what = f"{recipe.guide} guide, latent layers {layers}" if layers else "regressor, which has no latent"
    steps = training.num_steps(recipe.schedule, dataset)
    stages = f" in {len(recipe.schedule)} stages" if recipe.stages else ""
    if dataset.found:
        console.say(f"{dataset.found}; likelihood {recipe.likelihood}")
    console.say(f"{what}, on {run.protocol}: {published}")
    console.say(
        f"{recipe.total_epochs} epochs{stages}, {steps} steps on {dataset.train.device}, "
        f"warm-up {recipe.schedule[0].warmup_epochs:g}; about {console.duration(seconds)} or less; writing to {run.folder}"
    )
