"""``pyrovae bounds``: bounds that show how far off an importance-sampled figure can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pyrovae.experiments.summaries import bounds_rows

from . import console, options
from .opening import open_run_and_data

if TYPE_CHECKING:
    from pyrovae.experiments.bounding import Bounds


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option(
    "--images",
    type=click.IntRange(min=2),
    default=100,
    show_default=True,
    help="Number of test images, and of simulated images.",
)
@click.option(
    "--temperatures",
    type=click.IntRange(min=2),
    default=300,
    show_default=True,
    help="Number of temperatures from guide to posterior.",
)
@click.option("--chains", type=click.IntRange(min=1), default=5, show_default=True, help="Annealed chains per image.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=5000, show_default=True, help="Number of importance samples per image."
)
@click.option(
    "--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Seed of samples and chains."
)
@options.root
@options.mirror
@options.device
@options.threads
@options.as_json
def bounds(
    run: str,
    images: int,
    temperatures: int,
    chains: int,
    samples: int,
    seed: int,
    root: str | None,
    mirror: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Bound the log-likelihood of a run folder from both sides, by annealed importance sampling.

    Some test images get a lower bound, beside importance sampling; as many images drawn from the model get an upper bound too.
    The results are kept in bounds.json in the run folder.
    """
    trained, dataset = open_run_and_data(run, root, mirror, device, quiet=as_json)
    trained.bounds(
        images,
        num_temperatures=temperatures,
        num_chains=chains,
        num_samples=samples,
        seed=seed,
        dataset=dataset,
        track=lambda label, unit: console.progress_track(label, unit, quiet=as_json),
        show=lambda results: _show(run, results, as_json=as_json),
    )


def _show(run: str, results: Bounds, *, as_json: bool) -> None:
    if as_json:
        console.print_json(results.as_dict())
    else:
        console.show(bounds_rows(results), title=f"{run}: log-likelihood from both sides")
