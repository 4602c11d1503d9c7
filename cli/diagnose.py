"""``pyrovae diagnose``: which latents a trained model does not use, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import console, options
from .opening import open_run_and_data

FIGURES = ("rate", "activity", "information", "prior_width", "change", "loss", "response", "gain")


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--images", type=click.IntRange(min=2), default=500, show_default=True, help="Number of test images.")
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Number of steps by which posteriors of unused units are refined; with 0 the guide is not accused.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Table to write: .csv, .parquet, .npz or .npy.  [default: none]",
)
@options.seed
@options.root
@options.mirror
@options.device
@options.threads
@options.as_json
def diagnose(
    run: str,
    images: int,
    steps: int,
    output: Path | None,
    seed: int,
    root: str | None,
    mirror: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Diagnose the latents of a run: which units and layers are unused, and whether by prior, guide or decoder.

    A row for each layer and unit: the rate in nats, activity, information about the image in nats, the width of the prior given
    the layer above; what drawing the unit anew changes in x and costs in nats; and what a posterior refined for each image
    would gain. Standard errors are over images.
    """
    from pyrovae.experiments.exporting import TABLES, check_ending, write_table

    if output:
        check_ending(output, TABLES)
    trained, dataset = open_run_and_data(run, root, mirror, device, quiet=as_json)
    found = trained.diagnose(num_images=images, num_steps=steps, seed=seed, dataset=dataset)
    if output:
        write_table(output, [found.table])
    if as_json:
        console.print_json(found.as_dict())
        return
    console.show_list(("layer", "unit", "verdict", *FIGURES), [_cells(row) for row in found.table.to_dict("records")])
    for sentence in found.summary:
        click.echo(sentence)


def _cells(row: dict[Any, Any]) -> list[str]:
    import pandas

    unit = "all" if pandas.isna(row["unit"]) else str(row["unit"])
    return [row["layer"], unit, row["verdict"], *(_with_error(row[name], row[f"{name}_error"]) for name in FIGURES)]


def _with_error(value: float, error: float) -> str:
    return "" if value != value else f"{value:.3f} ± {error:.3f}"
