"""``pyrovae bounds``: how far off an importance-sampled figure can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pyrovae.experiments.summaries import of_bounds

from . import console, options
from .opening import opened

if TYPE_CHECKING:
    from pyrovae.experiments.bounding import Bounds


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--images", type=click.IntRange(min=2), default=100, show_default=True, help="Test images, and simulated ones.")
@click.option("--temperatures", type=click.IntRange(min=2), default=300, show_default=True, help="From guide to posterior.")
@click.option("--chains", type=click.IntRange(min=1), default=5, show_default=True, help="Annealed chains per image.")
@click.option("--samples", type=click.IntRange(min=1), default=5000, show_default=True, help="Importance samples per image.")
@click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Of samples and chains.")
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

    On some test images, beside importance sampling; and on as many images that the model draws, from above too. bounds.json in
    the run folder keeps what comes out.
    """
    trained, dataset = opened(run, root, mirror, device, quiet=as_json)
    trained.bounds(
        images,
        num_temperatures=temperatures,
        num_chains=chains,
        num_samples=samples,
        seed=seed,
        dataset=dataset,
        track=lambda label, unit: console.metered(label, unit, quiet=as_json),
        show=lambda results: _show(run, results, as_json=as_json),
    )


def _show(run: str, results: Bounds, *, as_json: bool) -> None:
    if as_json:
        console.print_json(results.as_dict())
    else:
        console.show(of_bounds(results), title=f"{run}: log-likelihood from both sides")
