"""``pyrovae evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pyrovae.errors import InputError

from . import console, options
from .measuring import measure, summary
from .opening import opened
from .pictures import draw_histogram

if TYPE_CHECKING:
    from pathlib import Path

    from pyrovae.runs import Evaluation


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
    histogram-NAME.png hold what comes out, beside the evaluation of the run's own. An evaluation of more samples is kept.
    """
    import torch

    trained, images = opened(run, root, mirror, device, other=dataset, quiet=as_json)
    other = dataset if images.protocol.hash != trained.protocol_hash else None
    torch.manual_seed(seed)
    evaluation = measure(trained, images, samples, quiet=as_json)
    # Printed first: hours of sampling are not to be lost to a folder that cannot be written.
    if as_json:
        console.print_json(evaluation.results)
    else:
        console.show(summary(evaluation.results), title=f"{run} on the test set{f' of {other}' if other else ''}")
    if kept := _better(trained.folder, evaluation, other or ""):
        console.say(f"{run} keeps its evaluation of {kept:,} samples; this one of {samples:,} is not kept", fg="yellow")
        return
    trained.save_evaluation(evaluation, other or "")
    draw_histogram(trained, other or "")


def _better(folder: Path, evaluation: Evaluation, dataset: str) -> int:
    """The samples of an earlier evaluation of the same thing, where they are more; else zero."""
    from pyrovae.runs import Evaluation

    try:
        earlier = Evaluation.load(folder, dataset).results
    except InputError:
        return 0
    same = all(earlier.get(name) == evaluation.results[name] for name in ("protocol_hash", "epochs", "model"))
    return earlier["num_samples"] if same and earlier["num_samples"] > evaluation.results["num_samples"] else 0
