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
from pyrovae.experiments.beginning import recipe_for, recipe_like_the_guide
from pyrovae.experiments.building import data_settings, load_data, recipe_of_guide
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
    device: str | None = None,
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
        workers: members at a time; by default as many as there are processors for this process.
        threads: of each training.
        engine: of the steps.
        device: of the machine where a member trains; by default a GPU if there is one.
        root: where to look for data files first.
        mirror: an address to download from.
        watch: shows how far the members are.

    Raises:
        InputError: for a folder of another sweep, settings that make no recipe, and a backend that is not there.
    """
    from joblib import cpu_count

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
            run_all(left, backend, workers or cpu_count(), folder, ended)
    return SweepResult(folder, members, failures)


def members_of(grid: Grid, folder: Path, root: str | None = None, mirror: str | None = None) -> Iterator[Member]:
    """Every member of a grid, its recipe whole.

    Raises:
        InputError: for settings that make no recipe, and data that are not at hand.
    """
    sizes: dict[str, int] = {}
    for settings in grid.combinations():
        values = {**grid.settings, **settings}
        name = values.pop("recipe", grid.recipe)
        if name:
            recipe = RECIPES[name].replace(**fitting(RECIPES[name], values))
        else:
            like = recipe_of_guide(values.get("guide", Recipe().guide))
            values = fitting(like, values)
            recipe = recipe_for(values, _num_examples(recipe_like_the_guide(values), root, mirror, sizes))
        # Where it is trained, the working directory may be another one.
        yield from grid.with_seeds(settings, recipe.replace(dataset=_whole(recipe.dataset)), folder)


def _num_examples(recipe: Recipe, root: str | None, mirror: str | None, sizes: dict[str, int]) -> int:
    """The number of training examples of a recipe; data that were loaded before are not loaded again."""
    key = repr((_whole(recipe.dataset), data_settings(recipe)))
    if key not in sizes:
        sizes[key] = len(load_data(recipe, root, mirror).train)
    return sizes[key]


def _whole(dataset: Any) -> Any:
    """The name of a dataset, or the whole path of data of a user's own."""
    from pyrovae.data.benchmarks import DATASETS

    return os.path.realpath(dataset) if dataset not in DATASETS and os.path.exists(dataset) else dataset


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
    settings = {name: _whole(each) if name == "dataset" else each for name, each in grid.settings.items()}
    wanted = json.loads(json.dumps({"recipe": grid.recipe, "settings": settings, "vary": list(grid.vary)}))
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if (folder / SPEC).exists():
        try:
            differing = _differing(files.read_json(folder / SPEC, MOST_OF_A_FILE), wanted)
        except DAMAGE as error:
            raise InputError(f"{folder}: expected a sweep; {SPEC} cannot be read ({error}): choose another folder") from error
        if differing:
            raise InputError(
                f"{folder}: expected the sweep that was begun there, with more values or seeds; got one that differs in "
                f"{', '.join(differing)}: choose another folder"
            )
        return
    files.write_json(folder / SPEC, wanted)


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The fields of a recipe in which two sweeps differ: in what they hold for all, or in whether they vary."""
    fixed = [{"recipe": each["recipe"], **each["settings"]} for each in (found, wanted)]
    varied = set(found["vary"]) ^ set(wanted["vary"])
    absent = object()
    names = dict.fromkeys([*fixed[0], *fixed[1], *found["vary"], *wanted["vary"]])
    return [name for name in names if name in varied or fixed[0].get(name, absent) != fixed[1].get(name, absent)]


def _unwatched(members: Sequence[Member]) -> AbstractContextManager[Callable[[str, str], Any]]:
    return nullcontext(lambda name, reason: None)
