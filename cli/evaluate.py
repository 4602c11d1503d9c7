"""``pyrovae evaluate``: measure a run on a test set."""

from __future__ import annotations

from typing import Any

import click

from pyrovae.experiments.summaries import evaluation_rows

from . import console, options, sharding
from .opening import open_run_and_data


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option(
    "--samples", type=click.IntRange(min=1), default=5000, show_default=True, help="Number of importance samples per image."
)
@click.option(
    "--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Seed of the importance samples."
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="Another dataset of images of this shape to measure on, or the new path of the run's own data.",
)
@sharding.flags
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
    """Estimate the test log-likelihood of a run folder by importance sampling.

    With --dataset the images are others, prepared as the run's likelihood needs them; the results are in evaluations/NAME.json
    and figures/log-likelihoods-NAME.png, beside the evaluation on the run's own images. An earlier evaluation with more samples
    is kept.

    With --shard 3/16 the third of sixteen parts is measured, on any machine that sees the run folder. --merge joins all parts,
    to the same bits as without shards. --shards 16 does both.
    """
    from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE

    part, settings = sharding.shard_of(shard, merge=merge, shards=shards), {"samples": samples, "seed": seed}
    trained, images = open_run_and_data(run, root, mirror, device, other=dataset, quiet=as_json)
    other = dataset if images.protocol.hash != trained.protocol_hash else None
    track = console.progress_track("evaluating", f"x {IMAGES_AT_ONCE} examples", quiet=as_json)
    if part:
        path = trained.measure_shard(part, samples, seed=seed, dataset=images, track=track)
        sharding.say_measured(path, as_json=as_json)
        return
    if shards:
        place: dict[str, Any] = {"other": dataset, "root": root, "mirror": mirror, "backend": backend, "workers": workers}
        sharding.measure_all(trained, "evaluate", images, settings, shards=shards, quiet=as_json, **place)
    if merge or shards:
        evaluation = trained.merged_evaluation(dataset=images, settings=sharding.asked_settings(settings))
    else:
        evaluation = trained.measure(samples, seed=seed, dataset=images, track=track)
    # Printed first, so that hours of sampling are not lost to a folder that cannot be written.
    if as_json:
        console.print_json(evaluation.as_dict())
    else:
        console.show(evaluation_rows(evaluation), title=f"{run} on the test set{f' of {other}' if other else ''}")
    kept = trained.keeps(evaluation)
    if kept:
        console.say(
            f"{run} keeps its evaluation of {kept:,} samples; this one of {evaluation.num_samples:,} is not kept", fg="yellow"
        )
    else:
        trained.save_evaluation(evaluation)
    if merge or shards:
        trained.remove_shards("evaluate", dataset=images)
    if not kept:
        trained.draw_evaluation(other)
