"""``pyrovae bounds``: bounds that show how far off an importance-sampled figure can be."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pyrovae.experiments.summaries import bounds_rows

from . import console, options, sharding
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
@sharding.flags
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
    shard: str | None,
    merge: bool,
    shards: int | None,
    backend: str,
    workers: int | None,
    root: str | None,
    mirror: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Bound the log-likelihood of a run folder from both sides, by annealed importance sampling.

    Some test images get a lower bound, beside importance sampling; as many images drawn from the model get an upper bound too.
    The results are kept in bounds.json in the run folder.

    With --shard 3/16 the third of sixteen parts is measured, on any machine that sees the run folder. --merge joins all parts,
    to the same bits as without shards. --shards 16 does both.
    """
    from pyrovae.experiments.bounding import refuse_what_has_no_bounds

    part = sharding.shard_of(shard, merge=merge, shards=shards)
    trained, dataset = open_run_and_data(run, root, mirror, device, quiet=as_json)
    settings = {"images": images, "temperatures": temperatures, "chains": chains, "samples": samples, "seed": seed}
    sizes = {"num_temperatures": temperatures, "num_chains": chains, "num_samples": samples, "seed": seed}
    track = partial(console.progress_track, quiet=as_json)
    show = partial(_show, run, as_json=as_json)
    if part:
        path = trained.bound_shard(part, images, **sizes, dataset=dataset, track=track)
        sharding.say_measured(path, as_json=as_json)
        return
    if shards:
        refuse_what_has_no_bounds(trained.folder, trained.vae, trained.recipe)
        place: dict[str, Any] = {"root": root, "mirror": mirror, "backend": backend, "workers": workers}
        sharding.measure_all(trained, "bounds", dataset, settings, shards=shards, quiet=as_json, **place)
    if merge or shards:
        trained.merge_bounds(dataset=dataset, settings=sharding.asked_settings(settings), show=show)
    else:
        trained.bounds(images, **sizes, dataset=dataset, track=track, show=show)


def _show(run: str, results: Bounds, *, as_json: bool) -> None:
    if as_json:
        console.print_json(results.as_dict())
    else:
        console.show(bounds_rows(results), title=f"{run}: log-likelihood from both sides")
