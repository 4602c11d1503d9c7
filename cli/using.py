"""``pyrovae encode``, ``score``, ``reconstruct``, ``impute`` and ``sample``: use a trained model on your own data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console, options
from .opening import open_run, reference_of

if TYPE_CHECKING:
    import pandas


_run = click.argument("run", metavar="RUN", type=click.Path())
_data = click.argument("data", metavar="DATA", type=click.Path())


@click.command()
@_run
@_data
@options.output("FILE", "Table to write: .csv, .parquet, .npz or .npy.")
@click.option("--layer", metavar="NAME", default="", help="Latent layer to encode, z1 next to the data.  [default: all]")
@click.option(
    "--samples", "draws", type=click.IntRange(min=1), help="Number of draws of each latent in place of mean and deviation."
)
@options.class_name
@options.seed
@options.device
@options.threads
@options.as_json
def encode(
    run: str,
    data: str,
    output: Path,
    layer: str,
    draws: int | None,
    class_name: str,
    seed: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Encode each example of DATA: mean and standard deviation of each latent, in a row for each example.

    DATA is a file or a folder as for 'fit --dataset'. It is prepared as the training data were, by the statistics of the
    training.
    """
    from pyrovae.experiments.using import encode_blocks

    opened = open_run(run, device)
    how: dict[str, Any] = {"layer": layer, "draws": draws or 0, "class_name": class_name, "seed": seed}
    _written(output, data, as_json, lambda note: encode_blocks(opened, data, **how, note=note))


@click.command()
@_run
@_data
@options.output("FILE", "Table to write: .csv, .parquet, .npz or .npy.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=100, show_default=True, help="Number of importance samples per example."
)
@options.class_name
@options.seed
@options.root
@options.mirror
@options.device
@options.threads
@options.as_json
def score(
    run: str,
    data: str,
    output: Path,
    samples: int,
    class_name: str,
    seed: int,
    root: str | None,
    mirror: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Score each example of DATA: log p(x) with its error, ELBO, rate, distortion, and its percentile among validation data.

    Figures are in nats: for a table in the units of the file, with the column whose log-density is furthest below that of
    validation data; for images as the model sees them, as bits or grey values in [0, 1].
    """
    from pyrovae.experiments.using import score_blocks

    opened = open_run(run, device)
    reference = reference_of(opened, root, mirror, device, "percentiles")
    how: dict[str, Any] = {"num_samples": samples, "class_name": class_name, "seed": seed}
    _written(output, data, as_json, lambda note: score_blocks(opened, data, reference, **how, note=note))


@click.command()
@_run
@_data
@options.output("FILE", "Array to write, .npz or .npy; of a table also .csv or .parquet.")
@options.class_name
@options.seed
@options.device
@options.threads
@options.as_json
def reconstruct(run: str, data: str, output: Path, class_name: str, seed: int, device: str | None, as_json: bool) -> None:
    """Reconstruct each example of DATA from its latents, in the units of the file."""
    import numpy as np

    from pyrovae.experiments.exporting import ARRAYS, TABLES, as_table, check_ending, write_images
    from pyrovae.experiments.using import reconstruct_blocks

    opened = open_run(run, device)
    check_ending(output, TABLES if opened.required_preparation.is_table else ARRAYS, data)
    if output.suffix.lower() in (".csv", ".parquet"):
        found = reconstruct_blocks(opened, data, class_name=class_name, seed=seed, note=console.warn)
        _written(output, data, as_json, lambda note: (as_table(opened.required_preparation, x, some) for some, x in found))
        return
    rows, blocks = [], []
    for some, x in reconstruct_blocks(opened, data, class_name=class_name, seed=seed, note=console.warn):
        rows += list(some)
        blocks.append(x)
    write_images(output, rows, np.concatenate(blocks))
    console.say_written(output, len(rows), as_json)


@click.command()
@_run
@_data
@options.output("FILE", "Table to write, .csv or .parquet; or all fillings as an array (M, N, ...), .npz or .npy.")
@click.option("--draws", type=click.IntRange(min=1), default=20, show_default=True, help="Number of fillings of each gap.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=1000, show_default=True, help="Number of importance samples per example."
)
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    help="Number of steps of a chain after each filling.  [default: 100; 0 for a model trained with --missing]",
)
@click.option(
    "--mask", metavar="FILE", type=click.Path(), help="Mask of entries to fill: not zero in an .npy file or an image."
)
@options.class_name
@options.seed
@options.device
@options.threads
@options.as_json
def impute(
    run: str,
    data: str,
    output: Path,
    draws: int,
    samples: int,
    steps: int | None,
    mask: str | None,
    class_name: str,
    seed: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Fill the gaps of DATA from p(missing given observed): empty fields of a table, and entries under a mask.

    The guide of a model trained with --missing has seen gaps; for other models, chains correct what the guide has not seen.

    The table has the mean of the fillings of each gap, followed by two columns for each column, NAME_low and NAME_high, between
    which 19 in 20 fillings lie; a column with names has the most frequent name, and NAME_share, the share of fillings that have
    it. Observed entries stay as they are.
    """
    import numpy as np

    from pyrovae.experiments.exporting import ARRAYS, TABLES, check_ending, summary_of, write_images
    from pyrovae.experiments.imputing import impute_blocks

    opened = open_run(run, device)
    check_ending(output, TABLES if opened.required_preparation.is_table else ARRAYS, data)
    how: dict[str, Any] = {"class_name": class_name, "draws": draws, "num_samples": samples, "num_steps": steps, "seed": seed}
    found = impute_blocks(opened, data, mask=mask, **how, note=console.warn)
    if output.suffix.lower() in ARRAYS:
        rows, blocks = zip(*found, strict=True)
        write_images(output, [name for some in rows for name in some], np.concatenate(blocks, 1))
        console.say_written(output, sum(map(len, rows)), as_json)
        return
    _written(
        output, data, as_json, lambda note: (summary_of(opened.required_preparation, filled, some) for some, filled in found)
    )


@click.command()
@_run
@click.option("-n", "--number", type=click.IntRange(min=1), default=64, show_default=True, help="Number of examples to draw.")
@options.output("PATH", "File to write: .npz, .npy, a grid as .png, of a table .csv or .parquet; or a new folder of PNG files.")
@click.option("--class", "class_name", metavar="CLASS", default="", help="Class to draw, for a model conditioned on classes.")
@click.option(
    "--context",
    metavar="DATA",
    type=click.Path(),
    help="Examples whose contexts a conditional model observes; -n draws for each.",
)
@click.option("--means", is_flag=True, help="Write means of p(x given z) in place of draws of x.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Factor of the latents' standard deviations: below one, samples are more typical and less varied.",
)
@options.seed
@options.device
@options.threads
@options.as_json
def sample(
    run: str,
    number: int,
    output: Path,
    class_name: str,
    context: str | None,
    means: bool,
    temperature: float,
    seed: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Draw examples from a trained model, in the units and with the columns of its data."""
    from pyrovae.errors import InputError
    from pyrovae.experiments.exporting import as_table, check_ending, write_images, write_pictures
    from pyrovae.experiments.using import draw_samples

    opened = open_run(run, device)
    preparation = opened.required_preparation
    suffix = output.suffix.lower()
    if suffix or preparation.is_table:
        check_ending(output, (".npz", ".npy", ".csv", ".parquet") if preparation.is_table else (".npz", ".npy", ".png"))
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: expected a new or an empty folder; it holds files: name another")
    if preparation.values in ("real", "counts") and not preparation.is_table and suffix not in (".npz", ".npy"):
        raise InputError(f"{output}: expected .npz or .npy for images of real values or counts, which have no white; name one")
    how: dict[str, Any] = {"means": means, "temperature": temperature, "seed": seed}
    x = draw_samples(opened, number, class_name=class_name, context=context, **how, note=console.warn)
    if suffix in (".csv", ".parquet"):
        _written(output, "", as_json, lambda note: iter([as_table(preparation, x, range(len(x)))]))
        return
    white = 255.0 if preparation.values == "levels" and preparation.binarize == "no" else 1.0
    if suffix == ".png":
        _write_grid(output, x, opened.shape, white)
    elif suffix:
        write_images(output, range(len(x)), x)
    else:
        write_pictures(output, x, white)
    console.say_written(output, len(x), as_json)


def _written(
    output: Path, source: str, as_json: bool, blocks: Callable[[Callable[[str], None]], Iterator[pandas.DataFrame]]
) -> None:
    """Write a table as its blocks come, and print a line for each block."""
    from pyrovae.experiments.exporting import TABLES, check_ending, write_table

    check_ending(output, TABLES, source)

    def counted() -> Iterator[pandas.DataFrame]:
        done = 0
        for block in blocks(console.warn):
            done += len(block)
            if not as_json:
                console.say(f"{done:,} rows")
            yield block

    console.say_written(output, write_table(output, counted()), as_json)


def _write_grid(path: Path, x: Any, shape: tuple[int, int, int], white: float) -> None:
    from pyrovae.experiments import files
    from pyrovae.plots.encoding import encode_figure
    from pyrovae.plots.images import image_panels

    flat = x.reshape(len(x), -1) / white
    figure = image_panels({"": {"": flat}}, {"": shape}, columns=max(1, round(len(x) ** 0.5)))
    files.write_file(path, encode_figure(figure, "png"))
