"""``pyrovae report``: one page about one run or several."""

from __future__ import annotations

import click

from . import console, options
from .opening import views_of_runs


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", metavar="FILE", default="report.html", show_default=True, help="Where the page is written.")
@options.root
@options.mirror
@options.device
@options.threads
def report(runs: tuple[str, ...], output: str, root: str | None, mirror: str | None, device: str | None) -> None:
    """Write one page that tells the story of run folders.

    What was trained on what, the likelihood with its doubt and the published figure beside it, pictures with a word on how to
    read them, and the commands that do it again. The page stands alone and asks for nothing from anywhere.
    """
    from pyrovae.experiments.report import write_report

    views = views_of_runs(runs, root, mirror, device)
    with console.logged(quiet=False):
        click.echo(write_report(views, output))
