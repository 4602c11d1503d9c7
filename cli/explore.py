"""``pyrovae explore``: a page to play with a trained model."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from . import console, options
from .opening import open_run_and_data


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Port of the page; 0 for any free one."
)
@click.option("--no-browser", is_flag=True, help="Print the address of the page and open no browser.")
@options.root
@options.mirror
@options.device
@options.threads
def explore(run: str, port: int, no_browser: bool, root: str | None, mirror: str | None, device: str | None) -> None:
    """Play with a trained model of images, on a page in the browser.

    Move the units of each layer, draw layers anew, walk over a map of encodings, draw an image by hand and see its posterior
    and its log p(x). The page is served on this machine alone, to who has its address, until Ctrl-C; it asks for nothing from
    anywhere else.
    """
    from pyrovae.experiments.exploring.explorer import Explorer
    from pyrovae.experiments.exploring.server import Server

    trained, dataset = open_run_and_data(run, root, mirror, device, quiet=False)
    server = Server(Explorer(trained, dataset), port)
    click.echo(server.address)
    console.say("Ctrl-C stops it.")
    if no_browser:
        server.run()
        return
    # A page that leads there: what a browser is started with is read by every user of the machine.
    with TemporaryDirectory() as folder:
        page = Path(folder) / "explore.html"
        page.write_text(f'<meta http-equiv="refresh" content="0; url={server.address}">')
        click.launch(str(page))
        server.run()
