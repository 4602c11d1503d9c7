"""``pyrovae encode``, ``score``, ``reconstruct`` and ``sample``: a trained model at work on people's own data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console, options

if TYPE_CHECKING:
    import pandas

    from pyrovae.experiments.run import Run

_run = click.argument("run", metavar="RUN", type=click.Path())
_data = click.argument("data", metavar="DATA", type=click.Path())
_given = click.option(
    "--given", metavar="CLASS", default="", help="The class, for a model that is told classes.  [default: as in DATA]"
)
_seed = click.option(
    "--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Seed of all that is drawn."
)


def _output(metavar: str, help: str) -> Callable[..., Any]:
    return click.option("-o", "--output", metavar=metavar, required=True, type=click.Path(path_type=Path), help=help)


@click.command()
@_run
@_data
@_output("FILE", "Table to write: .csv, .parquet, .npz or .npy.")
@click.option("--layer", metavar="NAME", default="", help="One latent layer alone, z1 next to the data.  [default: all]")
@click.option("--samples", "draws", type=click.IntRange(min=1), help="Draws of each latent in place of mean and deviation.")
@_given
@_seed
@options.device
@options.threads
@options.as_json
def encode(
    run: str,
    data: str,
    output: Path,
    layer: str,
    draws: int | None,
    given: str,
    seed: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Encode each example of DATA: mean and standard deviation of each latent, a row for each.

    DATA is a file or a folder as for 'fit --dataset'. It goes through what the data of the training went through, by the
    statistics of the training.
    """
    from pyrovae.experiments.using import encoded

    opened = _opened(run, device)
    how: dict[str, Any] = {"layer": layer, "draws": draws or 0, "given": given, "seed": seed}
    _written(output, data, as_json, lambda note: encoded(opened, data, **how, note=note))


@click.command()
@_run
@_data
@_output("FILE", "Table to write: .csv, .parquet, .npz or .npy.")
@click.option("--samples", type=click.IntRange(min=1), default=100, show_default=True, help="Importance samples per example.")
@_given
@_seed
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
    given: str,
    seed: int,
    root: str | None,
    mirror: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Score each example of DATA: log p(x) with its error, ELBO, rate, distortion, and its percentile among validation data.

    In nats: of a table in the units of the file, with the column that is furthest below what it is in validation data; of
    images as the model sees them, bits or grey values in [0, 1].
    """
    from pyrovae.errors import InputError
    from pyrovae.experiments.using import scored

    opened, reference = _opened(run, device), None
    try:
        reference = opened.dataset(root=root, mirror=mirror).to(options.torch_device(device))
    except InputError as error:
        console.say(f"warning: no percentiles: {error}", fg="yellow")
    how: dict[str, Any] = {"num_samples": samples, "given": given, "seed": seed}
    _written(output, data, as_json, lambda note: scored(opened, data, reference, **how, note=note))


@click.command()
@_run
@_data
@_output("FILE", "Array to write, .npz or .npy; of a table also .csv or .parquet.")
@_given
@_seed
@options.device
@options.threads
@options.as_json
def reconstruct(run: str, data: str, output: Path, given: str, seed: int, device: str | None, as_json: bool) -> None:
    """Reconstruct each example of DATA: what the model makes of it, in the units of the file."""
    import numpy as np

    from pyrovae.experiments.exporting import ARRAYS, TABLES, as_table, check_ending, write_images
    from pyrovae.experiments.using import reconstructed

    opened = _opened(run, device)
    check_ending(output, TABLES if opened.prepared.is_table else ARRAYS, data)
    if output.suffix.lower() in (".csv", ".parquet"):
        found = reconstructed(opened, data, given=given, seed=seed, note=_note)
        _written(output, data, as_json, lambda note: (as_table(opened.prepared, x, some) for some, x in found))
        return
    rows, blocks = [], []
    for some, x in reconstructed(opened, data, given=given, seed=seed, note=_note):
        rows += list(some)
        blocks.append(x)
    write_images(output, rows, np.concatenate(blocks))
    _say(output, len(rows), as_json)


@click.command()
@_run
@_data
@_output("FILE", "Table to write, .csv or .parquet; or all fillings as an array (M, N, ...), .npz or .npy.")
@click.option("--draws", type=click.IntRange(min=1), default=20, show_default=True, help="Fillings of each gap.")
@click.option("--samples", type=click.IntRange(min=1), default=1000, show_default=True, help="Importance samples per example.")
@click.option(
    "--steps", type=click.IntRange(min=0), help="Steps of a chain after each filling.  [default: 100; 0 after --missing]"
)
@click.option("--mask", metavar="FILE", type=click.Path(), help="What is missing: not zero in an .npy file or an image.")
@_given
@_seed
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
    given: str,
    seed: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Fill the gaps of DATA from p(missing given observed): empty fields of a table, and what a mask hides.

    A model that was trained with --missing knows gaps; the chains of another make up for what its guide has never seen.

    A table holds the mean of the fillings of each gap, and after the columns two for each of them, NAME_low and NAME_high,
    between which nineteen in twenty of the fillings lie; of a column with names the most frequent one, and NAME_share, the
    share of fillings that have it. Where nothing was missing all of them are what was there.
    """
    import numpy as np

    from pyrovae.experiments.exporting import ARRAYS, TABLES, check_ending, summary_of, write_images
    from pyrovae.experiments.imputing import imputed

    opened = _opened(run, device)
    check_ending(output, TABLES if opened.prepared.is_table else ARRAYS, data)
    how: dict[str, Any] = {"given": given, "draws": draws, "num_samples": samples, "num_steps": steps, "seed": seed}
    found = imputed(opened, data, mask=mask, **how, note=_note)
    if output.suffix.lower() in ARRAYS:
        rows, blocks = zip(*found, strict=True)
        write_images(output, [name for some in rows for name in some], np.concatenate(blocks, 1))
        _say(output, sum(map(len, rows)), as_json)
        return
    _written(output, data, as_json, lambda note: (summary_of(opened.prepared, filled, some) for some, filled in found))


@click.command()
@_run
@click.option("-n", "--number", type=click.IntRange(min=1), default=64, show_default=True, help="Examples to draw.")
@_output("PATH", "File to write: .npz, .npy, a grid as .png, of a table .csv or .parquet; or a new folder of PNG files.")
@click.option("--given", metavar="CLASS", default="", help="The class to draw, of a model that is told classes.")
@click.option("--told", metavar="DATA", type=click.Path(), help="Examples to draw given, of a conditional model; -n of each.")
@click.option("--means", is_flag=True, help="Write the means of p(x given z) in place of draws of x.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Factor of the deviations of the latents: below one, samples are more typical and less varied.",
)
@_seed
@options.device
@options.threads
@options.as_json
def sample(
    run: str,
    number: int,
    output: Path,
    given: str,
    told: str | None,
    means: bool,
    temperature: float,
    seed: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Draw examples from a trained model, in the units and with the columns of its data."""
    from pyrovae.errors import InputError
    from pyrovae.experiments.exporting import as_table, check_ending, write_images, write_pictures
    from pyrovae.experiments.using import drawn

    opened = _opened(run, device)
    preparation = opened.prepared
    suffix = output.suffix.lower()
    if suffix or preparation.is_table:
        check_ending(output, (".npz", ".npy", ".csv", ".parquet") if preparation.is_table else (".npz", ".npy", ".png"))
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: expected a new or an empty folder; it holds files: name another")
    if preparation.values in ("real", "counts") and not preparation.is_table and suffix not in (".npz", ".npy"):
        raise InputError(f"{output}: expected .npz or .npy for images of real values or counts, which have no white; name one")
    how: dict[str, Any] = {"means": means, "temperature": temperature, "seed": seed}
    x = drawn(opened, number, given=given, told=told, **how, note=_note)
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
    _say(output, len(x), as_json)


def _opened(folder: str, device: str | None) -> Run:
    from pyrovae.experiments.run import Run

    run = Run.load(folder)
    run.vae.to(options.torch_device(device))
    return run


def _note(remark: str) -> None:
    console.say(f"warning: {remark}", fg="yellow")


def _written(
    output: Path, source: str, as_json: bool, blocks: Callable[[Callable[[str], None]], Iterator[pandas.DataFrame]]
) -> None:
    """Write a table as it comes, with a line for each block of it."""
    from pyrovae.experiments.exporting import TABLES, check_ending, write_table

    check_ending(output, TABLES, source)

    def counted() -> Iterator[pandas.DataFrame]:
        done = 0
        for block in blocks(_note):
            done += len(block)
            if not as_json:
                console.say(f"{done:,} rows")
            yield block

    _say(output, write_table(output, counted()), as_json)


def _say(output: Path, rows: int, as_json: bool) -> None:
    if as_json:
        console.print_json({"output": str(output), "rows": rows})
    else:
        click.echo(output)


def _write_grid(path: Path, x: Any, shape: tuple[int, int, int], white: float) -> None:
    from pyrovae.experiments import files
    from pyrovae.plots.encoding import encode_figure
    from pyrovae.plots.images import image_panels

    flat = x.reshape(len(x), -1) / white
    figure = image_panels({"": {"": flat}}, {"": shape}, columns=max(1, round(len(x) ** 0.5)))
    files.write_file(path, encode_figure(figure, "png"))
