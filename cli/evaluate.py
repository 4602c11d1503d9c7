"""``pyrovae evaluate``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from pyrovae.errors import InputError

from . import console, options
from .datasets import fetched
from .measuring import measure, summary
from .pictures import draw_histogram

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.runs import Run


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--samples", type=click.IntRange(min=1), default=5000, show_default=True, help="Samples per image.")
@click.option(
    "--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Of the importance samples."
)
@click.option("--dataset", metavar="NAME", help="Measure on another dataset of such images, which it was not trained on.")
@options.root
@options.mirror
@options.device
@options.as_json
def evaluate(
    run: str,
    samples: int,
    seed: int,
    dataset: str | None,
    root: str | None,
    mirror: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Estimate the test log-likelihood of a run folder by importance sampling.

    With --dataset it is that of other images, served as the run's likelihood wants them; evaluation-NAME.json and
    histogram-NAME.png hold what comes out, beside the evaluation of the run's own.
    """
    import torch

    from pyrovae.runs import Run

    trained = Run.load(run)
    if not trained.is_whole:
        epochs = f"{len(trained.history)} of {trained.recipe.total_epochs} epochs"
        console.say(f"warning: the training was interrupted after {epochs}", fg="yellow")
    other = dataset if dataset != trained.recipe.dataset else None
    fetched(other or trained.recipe.dataset, root, mirror, quiet=as_json)
    images = _load(trained, other, root, mirror).to(options.torch_device(device))
    trained.vae.to(images.test.device)
    torch.manual_seed(seed)
    evaluation = measure(trained, images, samples, quiet=as_json)
    # Printed first: hours of sampling are not to be lost to a folder that cannot be written.
    if as_json:
        console.print_json(evaluation.results)
    else:
        console.show(summary(evaluation.results), title=f"{run} on the test set{f' of {other}' if other else ''}")
    trained.save_evaluation(evaluation, other or "")
    draw_histogram(trained, other or "")


def _load(run: Run, other: str | None, root: str | None, mirror: str | None) -> Dataset:
    """The run's own dataset, or another of images of the same shape, as its likelihood takes them and under its condition."""
    from pyrovae.recipes import load_data, resolved

    recipe = run.recipe if other is None else replace(run.recipe, dataset=other)
    dataset = load_data(recipe, root, mirror)
    if other is None:
        run.check_data(dataset)
        return dataset
    resolved(recipe, dataset)
    if dataset.shape != run.shape:
        raise InputError(
            f"expected images of shape {run.shape}, as {run.recipe.dataset!r} has; got {dataset.shape} of {other!r}"
        )
    size = dataset.condition.size if dataset.condition else 0
    if size != run.vae.model.context_size:
        raise InputError(
            f"expected contexts of {run.vae.model.context_size} entries under the condition {recipe.condition!r}; "
            f"got {size} of {other!r}"
        )
    return dataset
