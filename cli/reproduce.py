"""``pyrovae reproduce``: the tables and figures of the papers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyrovae.experiments.papers.table import PAPERS

from . import console, options

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.recipe import Recipe


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of the shortest training; the others keep their proportion.")
@click.option("--full", is_flag=True, help="Train the paper's whole schedule.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Shorten the schedule to what is done here in this time.  [default: 10, or as planned before]",
)
@click.option("--seeds", type=click.IntRange(min=1), help="Trainings of each recipe.  [default: 1]")
@click.option(
    "--samples", type=click.IntRange(min=1), help="Importance samples per test image.  [default: the paper's, or fewer]"
)
@click.option("--only", metavar="PART", multiple=True, help="Train only what has PART in its name; may be repeated.")
@click.option("-o", "--output", metavar="FOLDER", help="Folder of what is written.  [default: reproduced/NAME]")
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
    """Make a table or a figure of a paper, ours beside what was published; without a NAME list all of them.

    What is missing is trained and measured; run folders are kept in a folder 'runs' beside the output, where other experiments
    find them. Interrupted or killed, the same command goes on. What the paper says of its table or figure is tested against
    ours: it holds, does not hold, or is not decided.
    """
    if name is None:
        _list(as_json=as_json, root=root)
        return
    from pyrovae.experiments.papers.reproducing import reproduce

    with console.logged(quiet=as_json):
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
        return load_data(recipe, root, mirror, progress).to(options.torch_device(device))


@contextmanager
def _watch(title: str, *, quiet: bool) -> Iterator[tuple[Callable[..., Any], Callable[..., Any]]]:
    from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE

    with console.training(quiet=quiet) as track:
        yield track, console.metered(f"evaluating {title}", f"x {IMAGES_AT_ONCE} examples", quiet=quiet)


def _list(*, as_json: bool, root: str | None) -> None:
    from pyrovae.experiments.papers.progress import progress_of, speed_here

    speed = speed_here()
    found = {name: progress_of(name, Path("reproduced") / name, speed) for name in PAPERS}
    if as_json:
        console.print_json({name: each.as_dict() for name, each in found.items()})
        return
    rows = [(name, each.shows, each.at_hand, each.left, each.whole) for name, each in found.items()]
    console.show_list(("name", "shows", "at hand", "left, by default", "--full"), rows)
