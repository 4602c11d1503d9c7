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
@click.option("--list", "listed", is_flag=True, help="List the pictures, and why some do not make sense for these runs.")
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

    Without --kind all pictures that make sense for these runs are drawn. A warning is printed for each that cannot be drawn.
    """
    from pyrovae.experiments.pictures.gallery import drawable, save_picture
    from pyrovae.experiments.pictures.kinds import KINDS

    views = views_of_runs(runs, root, mirror, device)
    if listed:
        console.show({kind: _said_of(kind, views) for kind in KINDS}, title=f"pictures of {', '.join(runs)}")
        return
    failed = []
    for kind in dict.fromkeys(kinds or drawable(views)):
        try:
            click.echo(save_picture(kind, views, output, format))
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
