"""The flags by which a measurement is cut into shards, and what they do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from pyrovae.errors import InputError
from pyrovae.experiments.tables import names_in

from . import console
from .refusals import interrupt_with

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.run import Run

_FLAGS = (
    click.option(
        "--shard", metavar="I/N", help="Measure only the I-th of N parts of the images, and keep it in the run folder."
    ),
    click.option("--merge", is_flag=True, help="Join the shards in the run folder to the whole, the same to the last bit."),
    click.option("--shards", type=click.IntRange(min=1), help="Measure that many shards in other processes, and merge them."),
    click.option(
        "--backend",
        type=click.Choice(names_in("pyrovae.experiments.sweeping.backends:BACKENDS")),
        default="processes",
        show_default=True,
        help="Where --shards are measured: processes of this machine, a Ray or Dask cluster, or a SLURM array.",
    ),
    click.option(
        "--workers", type=click.IntRange(min=1), help="Shards at a time.  [default: the processors by the threads of each]"
    ),
)


def flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags to a command."""
    for each in reversed(_FLAGS):
        command = each(command)
    return command


def shard_of(text: str | None, *, merge: bool, shards: int | None) -> tuple[int, int] | None:
    """The shard that a text names; None without a text.

    Raises:
        InputError: for another text, a shard out of range, and more than one of the flags.
    """
    from pyrovae.experiments.sharding import check_shard

    if (text is not None) + merge + (shards is not None) > 1:
        raise InputError("expected one of --shard, --merge and --shards; got more: leave the others out")
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and len(text) < 20):
        raise InputError(f"expected a shard as I/N, such as 3/16; got {text!r}")
    shard = (int(number), int(count))
    check_shard(shard)
    return shard


def asked_settings(names: Mapping[str, Any]) -> dict[str, int]:
    """The settings, by flag, that the command line states itself: shards that are merged must have them."""
    context = click.get_current_context()
    stated = click.core.ParameterSource.COMMANDLINE
    return {name: value for name, value in names.items() if context.get_parameter_source(name) is stated}


def measure_all(
    run: Run,
    kind: str,
    dataset: Dataset,
    settings: Mapping[str, int],
    *,
    shards: int,
    backend: str,
    workers: int | None,
    quiet: bool,
    **place: Any,
) -> None:
    """Measure all shards that are not there yet; exit with 1 where one fails."""
    import joblib
    import torch

    from pyrovae.experiments.sweeping.shards import measure_shards

    interrupt_with("the same command goes on with the shards")
    threads, numbers = torch.get_num_threads(), itertools.count(1)
    workers = workers or max(1, joblib.cpu_count() // threads)

    def say(shard: str, reason: str) -> None:
        if reason or not quiet:
            console.say(
                f"{next(numbers)}: shard {shard} {f'failed: {reason}' if reason else 'is done'}", fg="red" if reason else None
            )

    if measure_shards(
        run, kind, shards, settings, dataset, backend=backend, workers=workers, threads=threads, ended=say, **place
    ):
        raise SystemExit(1)


def say_measured(path: Any, *, as_json: bool) -> None:
    """Say where the file of a shard is."""
    if as_json:
        console.print_json({"shard": str(path)})
    else:
        click.echo(f"{path} is measured; --merge joins all shards")
