"""``pyrovae reproduce``: the tables and figures of the papers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyrovae.experiments.devices import torch_device
from pyrovae.experiments.papers.table import PAPERS

from . import console, options

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.recipe import Recipe


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of the shortest training; others are longer in proportion.")
@click.option("--full", is_flag=True, help="Train the paper's whole schedule.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Time to which the schedule is shortened on this machine, in minutes.  [default: 10, or as planned before]",
)
@click.option("--seeds", type=click.IntRange(min=1), help="Number of trainings of each recipe.  [default: 1]")
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    help="Number of importance samples per test image.  [default: the paper's, or fewer]",
)
@click.option("--only", metavar="PART", multiple=True, help="Train only trainings with PART in their names; may be repeated.")
@click.option("-o", "--output", metavar="FOLDER", help="Folder of the results.  [default: reproduced/NAME]")
@options.engine
@options.root
@options.mirror
@options.device
@options.threads
@options.as_json
def reproduce(
    name: str | None,
    epochs: int | None,
    full: bool,
    minutes: float | None,
    seeds: int | None,
    samples: int | None,
    only: tuple[str, ...],
    output: str | None,
    engine: str,
    root: str | None,
    mirror: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Make a table or a figure of a paper, with the published figures; without a NAME, list all of them.

    Missing runs are trained and measured; run folders are kept in a folder 'runs' beside the output, where other experiments
    find them. After an interruption the same command resumes. The paper's statements about its table or figure are tested: each
    holds, does not hold, or is not decided.
    """
    if name is None:
        _list(as_json=as_json, root=root)
        return
    from pyrovae.experiments.papers.reproducing import reproduce

    with console.log_to_console(quiet=as_json):
        outcome = reproduce(
            name,
            output,
            epochs=epochs,
            full=full,
            minutes=minutes,
            seeds=seeds,
            num_samples=samples,
            only=only,
            engine=engine,
            load=partial(_load, root, mirror, device, as_json),
            watch=partial(_watch, quiet=as_json),
        )
    if as_json:
        console.print_json(outcome.as_dict() | {"folder": str(outcome.folder)})
        return
    console.show_list(*outcome.table)
    click.echo(f"{outcome.source}; {outcome.schedule}; {outcome.doubt}")
    verdicts = [(each.says, each.verdict, "; ".join(filter(None, (*each.evidence, each.reason)))) for each in outcome.verdicts]
    if verdicts:
        console.show_list(("the paper says", "here", "because"), verdicts)
    for reason, names in outcome.left_out.items():
        console.say(f"left out: {', '.join(names)}: {reason}", fg="yellow")
    click.echo(f"{outcome.folder}: table.md, table.csv, report.html{''.join(f', {each}' for each in outcome.pictures)}")


def _load(root: str | None, mirror: str | None, device: str | None, quiet: bool, recipe: Recipe) -> Dataset:
    from pyrovae.experiments.building import load_data

    with console.downloads(quiet=quiet) as progress:
        return load_data(recipe, root, mirror, progress).to(torch_device(device))


@contextmanager
def _watch(title: str, *, quiet: bool) -> Iterator[tuple[Callable[..., Any], Callable[..., Any]]]:
    from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE

    with console.training(quiet=quiet) as track:
        yield track, console.progress_track(f"evaluating {title}", f"x {IMAGES_AT_ONCE} examples", quiet=quiet)


def _list(*, as_json: bool, root: str | None) -> None:
    from pyrovae.experiments.papers.progress import progress_of, speed_here

    speed = speed_here()
    found = {name: progress_of(name, Path("reproduced") / name, speed) for name in PAPERS}
    if as_json:
        console.print_json({name: each.as_dict() for name, each in found.items()})
        return
    rows = [(name, each.shows, each.at_hand, each.time_left, each.full_time) for name, each in found.items()]
    console.show_list(("name", "shows", "at hand", "left, by default", "--full"), rows)
