"""``pyrovae plot``: pictures of one run or of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pyrovae.errors import InputError
from pyrovae.experiments.tables import names_in

from . import console, options
from .opening import views_of_runs

if TYPE_CHECKING:
    from pyrovae.experiments.pictures.views import View


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--kind",
    "kinds",
    metavar="NAME",
    type=options.Name(names_in("pyrovae.experiments.pictures.kinds:KINDS")),
    multiple=True,
    help="Picture to draw; may be given several times.  [default: all that make sense for these runs]",
)
@click.option(
    "--format",
    type=click.Choice(names_in("pyrovae.plots.encoding:FORMATS")),
    default="png",
    show_default=True,
    help="Format of the files.",
)
@click.option("-o", "--output", metavar="FOLDER", help="Folder of the pictures.  [default: figures/, in the run of one]")
@click.option("--list", "listed", is_flag=True, help="Say which pictures make sense for these runs and why others do not.")
@options.root
@options.mirror
@options.device
@options.threads
def plot(
    runs: tuple[str, ...],
    kinds: tuple[str, ...],
    format: str,
    output: str | None,
    listed: bool,
    root: str | None,
    mirror: str | None,
    device: str | None,
) -> None:
    """Draw pictures of run folders, those of several runs in one figure.

    Without --kind all that make sense for these runs. One that cannot be drawn is told of in a line, and the others are drawn.
    """
    from pyrovae.experiments.pictures.gallery import drawable, saved
    from pyrovae.experiments.pictures.kinds import KINDS

    views = views_of_runs(runs, root, mirror, device)
    if listed:
        console.show({kind: _said_of(kind, views) for kind in KINDS}, title=f"pictures of {', '.join(runs)}")
        return
    failed = []
    for kind in dict.fromkeys(kinds or drawable(views)):
        try:
            click.echo(saved(kind, views, output, format))
        except InputError as error:
            console.say(f"warning: {' '.join(str(error).split())}", fg="yellow")
            failed.append(kind)
    if failed:
        raise InputError(f"expected pictures of these runs; {', '.join(failed)} could not be drawn: see 'pyrovae plot --list'")


def _said_of(kind: str, views: list[View]) -> str:
    from pyrovae.experiments.pictures.gallery import obstacle
    from pyrovae.experiments.pictures.kinds import KINDS

    reason = obstacle(kind, views)
    return f"no: {reason}" if reason else f"{KINDS[kind].shows} ({KINDS[kind].source})"
