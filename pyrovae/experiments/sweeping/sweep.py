"""``sweep``: the trainings of a grid, each in its run folder, exact to go on with and to extend."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError
from pyrovae.experiments import files
from pyrovae.experiments.beginning import recipe_and_data
from pyrovae.experiments.building import recipe_of_guide
from pyrovae.experiments.checking import DAMAGE
from pyrovae.experiments.published import RECIPES
from pyrovae.experiments.recipe import MOST_OF_A_FILE, Recipe
from pyrovae.experiments.sweeping.backends import run_all
from pyrovae.experiments.sweeping.grid import Grid, Member, fitting
from pyrovae.experiments.sweeping.jobs import Job
from pyrovae.experiments.sweeping.results import SweepResult

SPEC = "sweep.json"
# Takes the members that are not done; within it, its value is called with the name of each that ends and why it failed.
Watch = Callable[[Sequence[Member]], AbstractContextManager[Callable[[str, str], Any]]]


def sweep(
    grid: Grid,
    folder: str | Path,
    *,
    num_samples: int = 500,
    backend: str = "processes",
    workers: int | None = None,
    threads: int = 1,
    engine: str = "auto",
    device: str = "cpu",
    root: str | None = None,
    mirror: str | None = None,
    watch: Watch | None = None,
) -> SweepResult:
    """Train and measure every member of a grid that is not done.

    Members that are done are left alone and begun ones are gone on with, so that a sweep that was killed ends as if it had
    not been; more values and more seeds extend it. One that fails does not stop the others.

    Args:
        grid: the settings that hold for all, and those that vary.
        folder: of the sweep; a run folder for each member lies in it.
        num_samples: importance samples for each test example.
        backend: one of ``BACKENDS``: where members are trained.
        workers: members at a time; by default as many as there are processors.
        threads: of each training.
        engine: of the steps.
        device: where each member trains.
        root: where to look for data files first.
        mirror: an address to download from.
        watch: shows how far the members are.

    Raises:
        InputError: for a folder of another sweep, settings that make no recipe, and a backend that is not there.
    """
    folder = Path(folder).resolve()
    root = str(Path(root).resolve()) if root else None
    members = list(members_of(grid, folder, root, mirror))
    _refuse_common_folders(members)
    _claim(folder, grid)
    jobs = [Job(each, num_samples, engine, threads, device, root, mirror) for each in members]
    left = [job for job in jobs if not job.is_done]
    failures: dict[str, str] = {}
    with (watch or _unwatched)([job.member for job in left]) as told:

        def ended(number: int, reason: str) -> None:
            name = left[number].member.folder.name
            if reason:
                failures[name] = reason
            told(name, reason)

        if left:
            run_all(left, backend, workers or os.cpu_count() or 1, folder, ended)
    return SweepResult(folder, members, failures)


def members_of(grid: Grid, folder: Path, root: str | None = None, mirror: str | None = None) -> Iterator[Member]:
    """Every member of a grid, its recipe whole.

    Raises:
        InputError: for settings that make no recipe, and data that are not at hand.
    """
    for settings in grid.combinations():
        values = {**grid.settings, **settings}
        name = values.pop("recipe", grid.recipe)
        base = RECIPES[name] if name else None
        if base is not None:
            recipe = base.replace(**fitting(base, values))
        else:
            like = recipe_of_guide(values.get("guide", Recipe().guide))
            recipe, _ = recipe_and_data(None, fitting(like, values), root, mirror)
        if Path(recipe.dataset).exists():
            # Where it is trained, the working directory may be another one.
            recipe = recipe.replace(dataset=str(Path(recipe.dataset).resolve()))
        yield from grid.with_seeds(settings, recipe, folder)


def _refuse_common_folders(members: Sequence[Member]) -> None:
    """Refuse two members of one folder.

    Raises:
        InputError: where a value is given twice, or two of them have one name as a folder.
    """
    counts = Counter(member.folder.name.lower() for member in members)
    if common := [name for name, count in counts.items() if count > 1]:
        raise InputError(f"expected values that differ, in their names as folders too; got {common[0]} more than once")


def _claim(folder: Path, grid: Grid) -> None:
    """Keep what the sweep of a folder is; refuse another one.

    Raises:
        InputError: where the folder holds another sweep, or cannot be written.
    """
    wanted = json.loads(json.dumps({"recipe": grid.recipe, "settings": dict(grid.settings), "vary": list(grid.vary)}))
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if (folder / SPEC).exists():
        try:
            found: Mapping[str, Any] = files.read_json(folder / SPEC, MOST_OF_A_FILE)
        except DAMAGE as error:
            raise InputError(f"{folder}: expected a sweep; {SPEC} cannot be read ({error}): choose another folder") from error
        if found != wanted:
            differing = [name for name in wanted if found.get(name) != wanted[name]]
            raise InputError(
                f"{folder}: expected the sweep that was begun there, with more values or seeds; got another "
                f"{' and '.join(differing)}: choose another folder"
            )
        return
    files.write_json(folder / SPEC, wanted)


def _unwatched(members: Sequence[Member]) -> AbstractContextManager[Callable[[str, str], Any]]:
    return nullcontext(lambda name, reason: None)
