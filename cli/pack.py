"""``pyrovae pack`` and ``pyrovae unpack``: write a run folder into one file, and back."""

from __future__ import annotations

import click


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("-o", "--output", metavar="FILE", required=True, type=click.Path(), help="Zip file to write.")
@click.option("--checkpoints", is_flag=True, help="Include the newest checkpoint, so that the training can be resumed.")
def pack(run: str, output: str, checkpoints: bool) -> None:
    """Write a run folder into one zip file that can be sent.

    The file holds the recipe, the weights, the history, the evaluations and the pictures, and no path of this machine.
    """
    from pyrovae.experiments.packing import pack

    path = pack(run, output, checkpoints=checkpoints)
    click.echo(f"{path}: {path.stat().st_size:,} bytes")


@click.command()
@click.argument("file", metavar="ZIP", type=click.Path())
@click.option("-o", "--output", metavar="FOLDER", required=True, type=click.Path(), help="Run folder to make.")
def unpack(file: str, output: str) -> None:
    """Make a run folder from a file that 'pyrovae pack' wrote.

    The file may be a stranger's: nothing in it is executed, and anything but the files of a run is refused.
    """
    from pyrovae.experiments.packing import unpack

    click.echo(f"{unpack(file, output)}: see it with 'pyrovae evaluate' or Run.load")
