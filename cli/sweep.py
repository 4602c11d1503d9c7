"""``pyrovae sweep``: a grid of trainings."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from pyrovae.errors import InputError
from pyrovae.experiments.devices import torch_device
from pyrovae.experiments.published import RECIPES
from pyrovae.experiments.tables import names_in

from . import console, options
from .refusals import interrupt_with

if TYPE_CHECKING:
    from pyrovae.experiments.sweeping.grid import Member

# Between two looks at the histories of the members.
SECONDS = 0.5


@click.command()
@click.argument("spec", metavar="[SPEC]", required=False, type=click.Path())
@click.option("--recipe", type=options.Name(list(RECIPES)), help="A paper's whole training that all members start from.")
@click.option(
    "--vary", metavar="FIELD=VALUE", multiple=True, help="A value of a setting that varies; may be given several times."
)
@click.option("--seeds", type=click.IntRange(min=1), help="Trainings of each combination.  [default: 1]")
@options.recipe_flags
@click.option("--samples", type=click.IntRange(min=1), default=500, show_default=True, help="Samples per test image.")
@click.option(
    "--backend",
    type=click.Choice(names_in("pyrovae.experiments.sweeping.backends:BACKENDS")),
    default="processes",
    show_default=True,
    help="Where members are trained: processes of this machine, a Ray or Dask cluster, or a SLURM array.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Members at a time.  [default: one for each processor]")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of each training.")
@options.engine
@options.root
@options.mirror
@options.device
@click.option("-o", "--output", metavar="FOLDER", required=True, help="Folder of the sweep; a begun one is gone on with.")
@options.as_json
def sweep(
    spec: str | None,
    recipe: str | None,
    vary: tuple[str, ...],
    seeds: int | None,
    samples: int,
    backend: str,
    workers: int | None,
    threads: int,
    engine: str,
    root: str | None,
    mirror: str | None,
    device: str | None,
    output: str,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train every combination of settings that vary, with several seeds, each in a run folder.

    What varies is said by --vary, as in '--vary guide=ladder --vary guide=mean_field --vary latent_sizes=64,32'; 'recipe' may
    vary too. Every other flag of 'fit' holds for all members. Or SPEC is a TOML file with the same: settings, recipe, seeds,
    and a table [vary] of lists. Members that are done are left alone and begun ones are gone on with: the same command
    goes on with a sweep, and more values or seeds extend it.
    """
    from pyrovae.experiments.sweeping.grid import Grid
    from pyrovae.experiments.sweeping.sweep import sweep

    settings = {name: each for name, each in flags.items() if each is not None}
    if spec is not None:
        if recipe or vary or settings or seeds:
            raise InputError(f"expected a file, or flags of what is trained; got {spec} and flags: leave one out")
        grid = Grid.from_toml(spec)
    else:
        grid = Grid(recipe=recipe or "", settings=settings, vary=_varied(vary), seeds=seeds or 1)
    if backend == "processes":
        # Elsewhere the machines of the members have their own.
        torch_device(device)
    interrupt_with("the same command goes on with the sweep")
    result = sweep(
        grid,
        output,
        num_samples=samples,
        backend=backend,
        workers=workers,
        threads=threads,
        engine=engine,
        device=device,
        root=root,
        mirror=mirror,
        watch=partial(_watch, quiet=as_json),
    )
    if as_json:
        members = result.frame().astype(object)
        rows = members.where(members.notna(), None).to_dict("records")
        console.print_json({"folder": str(result.folder), "members": rows})
    else:
        console.show_list(*result.table())
        for remark in result.remarks():
            click.echo(remark)
        click.echo(f"{result.folder}: {len(result.evaluations())} of {len(result.members)} members are done")
    for name, reason in result.failures.items():
        console.say(f"failed: {name}: {reason}", fg="red")
    if result.failures:
        raise SystemExit(1)


def _varied(pairs: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each field that varies, as its flag takes them."""
    found: dict[str, list[Any]] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not sign:
            raise InputError(f"expected FIELD=VALUE after --vary, as in latent_sizes=64,32; got {pair!r}")
        found.setdefault(name, []).append(options.value_of(name, text))
    return found


@contextmanager
def _watch(members: Sequence[Member], *, quiet: bool) -> Iterator[Callable[[str, str], Any]]:
    """A bar for each member on a terminal, a line for each that ends elsewhere, nothing where quiet."""
    screen = Console(stderr=True)
    if quiet or not screen.is_terminal:
        yield partial(_say_ended, len(members), itertools.count(1)) if not quiet else lambda name, reason: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} epochs"))
    done = threading.Event()
    with Progress(*columns, console=screen) as progress:
        tasks = {each.folder.name: progress.add_task(each.folder.name, total=each.recipe.total_epochs) for each in members}
        watching = threading.Thread(target=_look, args=(members, progress, tasks, done), daemon=True)
        watching.start()
        try:
            yield lambda name, reason: progress.update(tasks[name], description=f"{name}{': failed' if reason else ''}")
        finally:
            done.set()
            watching.join()


def _look(members: Sequence[Member], progress: Progress, tasks: Mapping[str, TaskID], done: threading.Event) -> None:
    """Show the epochs of each member, as its history has them, until all are done."""
    while not done.wait(SECONDS):
        for each in members:
            progress.update(tasks[each.folder.name], completed=each.epochs_done)


def _say_ended(total: int, numbers: Iterator[int], name: str, reason: str) -> None:
    console.say(f"{next(numbers)} of {total}: {name} {'failed' if reason else 'is done'}")
