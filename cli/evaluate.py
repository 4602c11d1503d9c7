"""``pyrovae evaluate``."""

from __future__ import annotations

import click

from pyrovae.experiments.summaries import of_evaluation

from . import console, options
from .opening import opened


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--samples", type=click.IntRange(min=1), default=5000, show_default=True, help="Samples per image.")
@click.option(
    "--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Of the importance samples."
)
@click.option(
    "--dataset", metavar="NAME", help="Measure on another dataset of such images; or where the run's own data have moved to."
)
@options.root
@options.mirror
@options.device
@options.threads
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

    With --dataset it is that of other images, served as the run's likelihood wants them; evaluations/NAME.json and
    figures/log-likelihoods-NAME.png hold what comes out, beside the evaluation of the run's own. An evaluation of more
    samples is kept.
    """
    from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE

    trained, images = opened(run, root, mirror, device, other=dataset, quiet=as_json)
    other = dataset if images.protocol.hash != trained.protocol_hash else None
    track = console.metered("evaluating", f"x {IMAGES_AT_ONCE} examples", quiet=as_json)
    evaluation = trained.measure(samples, seed=seed, dataset=images, track=track)
    # Printed first: hours of sampling are not to be lost to a folder that cannot be written.
    if as_json:
        console.print_json(evaluation.as_dict())
    else:
        console.show(of_evaluation(evaluation), title=f"{run} on the test set{f' of {other}' if other else ''}")
    if kept := trained.keeps(evaluation):
        console.say(f"{run} keeps its evaluation of {kept:,} samples; this one of {samples:,} is not kept", fg="yellow")
        return
    trained.save_evaluation(evaluation)
    trained.draw_evaluation(other)
