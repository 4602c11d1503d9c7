"""``pyrovae report``: one page about one run or several."""

from __future__ import annotations

import click

from . import console, options
from .opening import views_of_runs


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", metavar="FILE", default="report.html", show_default=True, help="File to write the page to.")
@options.root
@options.mirror
@options.device
@options.threads
def report(runs: tuple[str, ...], output: str, root: str | None, mirror: str | None, device: str | None) -> None:
    """Write one page about run folders.

    It shows what was trained on which data, the likelihood with its error and the published figure beside it, pictures with
    notes on how to read them, and the commands that do it again. The page needs no other files.
    """
    from pyrovae.experiments.report import write_report

    views = views_of_runs(runs, root, mirror, device)
    with console.log_to_console(quiet=False):
        click.echo(write_report(views, output))
