"""``pyrovae compress`` and ``pyrovae decompress``: examples to a file of about minus their ELBO in bits, and back."""

from __future__ import annotations

from pathlib import Path

import click

from . import console, options
from .opening import open_run


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.argument("data", metavar="DATA", type=click.Path())
@options.output("FILE", "File to write.")
@options.seed
@options.device
@options.threads
@options.as_json
def compress(run: str, data: str, output: Path, seed: int, device: str | None, as_json: bool) -> None:
    """Compress the examples of DATA without loss, by bits-back coding.

    The model is one of bits, grey levels or counts. 'pyrovae decompress' gives the examples back, with the same run and on the
    same kind of machine: where the arithmetic differs in a bit, nothing is written.
    """
    from pyrovae.experiments.compressing import compress_file
    from pyrovae.experiments.exporting import check_ending

    check_ending(output, (output.suffix.lower(),), data)
    opened = open_run(run, device)
    track = console.progress_track("compressing", "examples", quiet=as_json)
    found = compress_file(opened, data, output, seed=seed, note=console.warn, track=track)
    if as_json:
        console.print_json(found.as_dict())
        return
    rows = {
        "examples": f"{found.examples:,}",
        "file": f"{found.path}, {found.bytes:,} bytes",
        "bits per example": f"{found.bits_per_example:.2f}",
    }
    if found.negative_elbo_bits:
        rows["by the bound"] = f"{found.negative_elbo_bits:.2f} (minus the ELBO at the latents that were coded)"
    console.show(rows, title=f"{data} by {run}")


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@options.output("FILE", "Array to write, .npz or .npy; of a table also .csv or .parquet.")
@options.device
@options.threads
@options.as_json
def decompress(run: str, file: Path, output: Path, device: str | None, as_json: bool) -> None:
    """Decompress a FILE of 'pyrovae compress', with the RUN that compressed it."""
    from pyrovae.experiments.compressing import decompress_file
    from pyrovae.experiments.exporting import ARRAYS, TABLES, as_table, check_ending, write_images, write_table

    opened = open_run(run, device)
    preparation = opened.required_preparation
    check_ending(output, TABLES if preparation.is_table else ARRAYS, file)
    x = decompress_file(opened, file, track=console.progress_track("decompressing", "examples", quiet=as_json))
    if output.suffix.lower() in ARRAYS:
        write_images(output, range(len(x)), x)
    else:
        write_table(output, [as_table(preparation, x, range(len(x)))])
    console.say_written(output, len(x), as_json)
