"""``pyrovae calibrate``: whether a guide's uncertainty is right, on examples that the model draws."""

from __future__ import annotations

from functools import partial

import click

from . import console, options
from .opening import open_run_and_contexts


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option(
    "--examples", type=click.IntRange(min=100), default=1000, show_default=True, help="Number of examples to simulate."
)
@click.option(
    "--draws", type=click.IntRange(min=19), default=99, show_default=True, help="Number of draws of the guide per example."
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=1000, show_default=True, help="Number of importance samples per example."
)
@options.seed
@click.option(
    "-o", "--output", metavar="FOLDER", type=click.Path(), help="Folder of the pictures.  [default: figures/, in RUN]"
)
@options.root
@options.mirror
@options.device
@options.threads
@options.as_json
def calibrate(
    run: str,
    examples: int,
    draws: int,
    samples: int,
    seed: int,
    output: str | None,
    root: str | None,
    mirror: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Check the uncertainty of a guide by simulation: is each latent unit's posterior too narrow, too wide or shifted?

    The model draws latents and an example of each; the guide draws latents given the example. Where the guide is the posterior,
    the latents that made the example rank anywhere among its draws equally often. Ranks and the coverage of central intervals
    are drawn by layer and unit. The gap of the ELBO on these examples is given in nats.
    """
    from pyrovae.experiments.calibrating import calibration_record, calibration_rows

    trained, dataset = open_run_and_contexts(run, root, mirror, device, quiet=as_json)
    track = partial(console.progress_track, quiet=as_json)
    found = trained.calibrate(examples, num_draws=draws, num_samples=samples, seed=seed, dataset=dataset, track=track)
    # Printed before the pictures are written, so that nothing is lost to a folder that cannot be written.
    if not as_json:
        console.show(calibration_rows(found), title=f"{run}, calibrated by simulation")
    paths = trained.draw_calibration(found, output)
    if as_json:
        console.print_json(calibration_record(found) | {"figures": [str(path) for path in paths]})
        return
    for path in paths:
        click.echo(path)
