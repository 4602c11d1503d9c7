"""``pyrovae fit``: train, measure and draw, in a run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pyrovae.errors import InputError
from pyrovae.experiments.devices import torch_device
from pyrovae.experiments.launch import launched_number
from pyrovae.experiments.published import RECIPES
from pyrovae.experiments.recipe import Recipe, settings_in
from pyrovae.experiments.summaries import describe_course, evaluation_rows
from pyrovae.experiments.tables import names_in

from . import console, options

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset


@click.command()
@click.option("--recipe", type=options.Name(list(RECIPES)), help="Published training to run in full: see 'pyrovae recipes'.")
@click.option(
    "--config", metavar="FILE", type=click.Path(), help="File with a recipe, as 'pyrovae recipes NAME --toml' prints."
)
@click.option(
    "--resume", metavar="RUN", type=click.Path(), help="Run folder whose training to resume; with more epochs by --epochs."
)
@options.recipe_flags
@click.option(
    "--samples", type=click.IntRange(min=1), default=500, show_default=True, help="Number of importance samples per test image."
)
@options.engine
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two checkpoints, in seconds.",
)
@click.option(
    "--on-nan",
    type=click.Choice(names_in("pyrovae.experiments.failing:ON_NAN")),
    default="stop",
    show_default=True,
    help="Response to a loss that is not finite: stop, skip the step, or rewind to the last checkpoint.",
)
@click.option("--tensorboard", is_flag=True, help="Write the course of the training for TensorBoard into the run folder.")
@options.root
@options.mirror
@options.device
@options.threads
@click.option(
    "-o", "--output", metavar="FOLDER", help="Run folder; a training that was begun there is resumed.  [default: runs/NAME-N]"
)
@options.as_json
def fit(
    recipe: str | None,
    config: str | None,
    resume: str | None,
    samples: int,
    engine: str,
    checkpoint_every: float,
    on_nan: str,
    tensorboard: bool,
    root: str | None,
    mirror: str | None,
    device: str | None,
    output: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train a VAE, measure it on the test set, draw what it learned.

    --recipe NAME runs a published training in full. Without it, --guide NAME takes the guide's published architecture with a
    schedule of minutes, on mnist-5k unless --dataset says otherwise. --config FILE is a recipe too: settings that it leaves out
    have their defaults, or the values of --recipe. Each flag below replaces a setting of both.
    """
    from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE
    from pyrovae.experiments.beginning import recipe_and_data
    from pyrovae.experiments.tensorboard import TensorBoard
    from pyrovae.experiments.training import train

    number, _ = launched_number()
    # Of several processes the first one speaks.
    quiet = as_json or number > 0
    base = RECIPES[recipe] if recipe else None
    if config:
        base = (base or Recipe()).replace(**settings_in(config))
    settings = {name: each for name, each in flags.items() if each is not None}
    with console.downloads(quiet=quiet) as progress:
        if resume is None:
            chosen, dataset = recipe_and_data(base, settings, root, mirror, progress)
        else:
            chosen, dataset = _of_a_run(resume, recipe or config, settings, root, mirror, progress)
    dataset = dataset.to(torch_device(device))
    how: dict[str, Any] = {"engine": engine, "checkpoint_every": checkpoint_every, "on_nan": on_nan}
    watching: list[Any] = [TensorBoard(dataset)] if tensorboard and not number else []
    if base is None and resume is None and not quiet:
        watching.append(console.once("the guide's published architecture with a schedule of minutes: --recipe for a paper's"))
    with console.log_to_console(quiet=quiet, silent=number > 0), console.training(*watching, quiet=quiet) as track:
        run = train(chosen, resume or output, dataset=dataset, track=track, **how)
    if number:
        return
    measuring = console.progress_track("evaluating", f"x {IMAGES_AT_ONCE} examples", quiet=as_json)
    evaluation = run.evaluate(samples, dataset=dataset, track=measuring)
    pictures = run.draw(dataset=dataset)
    if as_json:
        console.print_json(evaluation.as_dict() | {"run": str(run.folder)})
    else:
        course = {"training": describe_course(run.history, run.environment), "pictures": ", ".join(pictures)}
        rows = evaluation_rows(evaluation) | course | {"run folder": str(run.folder)}
        console.show(rows, title=f"{run.folder.name} on {dataset.name}, {run.recipe.total_epochs} epochs")


def _of_a_run(
    folder: str, other: str | None, settings: dict[str, Any], root: str | None, mirror: str | None, progress: Any
) -> tuple[Recipe, Dataset]:
    """The recipe of a run to be resumed, with more epochs if requested, and its data."""
    from pyrovae.experiments.run import Run

    if other is not None or set(settings) - {"epochs"}:
        names = ", ".join(sorted(set(settings) - {"epochs"})) or "a recipe"
        raise InputError(f"expected no setting but --epochs with --resume, which takes the recipe of the run; got {names}")
    run = Run.load_begun(folder)
    return run.recipe.replace(**settings), run.dataset(root=root, mirror=mirror, progress=progress)
