"""The trainings of an experiment: their data, their run folders, and the training of missing ones."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.experiments import files
from pyrovae.experiments.building import resolve
from pyrovae.experiments.evaluations import Evaluation
from pyrovae.experiments.folder import name_of
from pyrovae.experiments.locks import OccupiedError, lock_folder
from pyrovae.experiments.papers.experiment import SUBSTITUTES, Experiment
from pyrovae.experiments.papers.planning import Plan
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.training import train

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset

# The time between two looks at a run that another process trains.
WAIT_SECONDS = 5.0
RUNS, LOCKS = "runs", ".locks"

logger = logging.getLogger(__name__)

Watch = Callable[[str], AbstractContextManager[tuple[Any, Any]]]


@dataclass(frozen=True)
class Member:
    """A training of an experiment.

    Args:
        name: the name of the training in the experiment.
        paper: the recipe of the paper.
        recipe: the recipe that is trained.
        dataset: the data.
        folder: the run folder.
    """

    name: str
    paper: Recipe
    recipe: Recipe
    dataset: Dataset
    folder: Path

    @property
    def title(self) -> str:
        """The name with the seed."""
        return f"{self.name}, seed {self.recipe.seed}"


@dataclass
class Data:
    """A cache of datasets, each loaded once, with substitutes, and the reasons why some cannot be loaded.

    Args:
        load: the function from a recipe to its data.
        known: the loaded datasets.
        reasons: the reasons why datasets could not be loaded, by name.
    """

    load: Callable[[Recipe], Dataset]
    known: dict[tuple[Any, ...], Dataset] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def of(self, recipe: Recipe) -> tuple[Recipe, Dataset] | None:
        """A recipe with a dataset that can be loaded, and this dataset; None if there is none."""
        for name in filter(None, (recipe.dataset, SUBSTITUTES.get(recipe.dataset))):
            chosen = replace(recipe, dataset=name)
            key = tuple(getattr(chosen, each) for each in ("dataset", "likelihood", "binarization", "condition", "validation"))
            if key not in self.known and name not in self.reasons:
                try:
                    self.known[key] = self.load(chosen)
                except InputError as error:
                    self.reasons[name] = str(error)
            if key in self.known:
                return chosen, self.known[key]
        return None


def members_of(name: str, experiment: Experiment, recipe: Recipe, dataset: Dataset, plan: Plan, runs: Path) -> Iterator[Member]:
    """The trainings of a recipe, one for each seed.

    Args:
        name: the name of the training.
        experiment: the experiment.
        recipe: the recipe of the paper, with a dataset that can be loaded.
        dataset: this dataset.
        plan: the plan of the experiment.
        runs: the folder of the run folders.
    """
    for seed in range(plan.seeds):
        seeded = replace(plan.of(experiment, recipe), seed=seed)
        yield Member(name, experiment.recipes[name], seeded, dataset, _folder_of(seeded, dataset, runs))


def _folder_of(recipe: Recipe, dataset: Dataset, runs: Path) -> Path:
    """The run folder of a recipe on some data, different for any two that differ."""
    recipe = replace(resolve(recipe, dataset), dataset=dataset.name)
    # Defaults are left out, so that settings added later do not change names.
    settings = {name: value for name, (value, _) in recipe.differences(Recipe()).items()}
    values = json.dumps([settings, dataset.protocol.hash], sort_keys=True)
    return runs / f"{name_of(recipe)}-{hashlib.sha256(values.encode()).hexdigest()[:8]}"


def measured_samples(folder: Path) -> int:
    """The number of importance samples by which a run was measured after its end; 0 where it is missing or incomplete."""
    try:
        run, found = Run.load_begun(folder), Evaluation.load(folder)
    except InputError:
        return 0
    if not run.is_whole or found.epochs != len(run.history):
        return 0
    return found.num_samples


def is_done(member: Member, num_samples: int) -> bool:
    """True where a training is made and measured by enough samples; without latents one is enough."""
    return measured_samples(member.folder) >= (num_samples if member.recipe.latent_sizes else 1)


def train_missing(members: Sequence[Member], num_samples: int, engine: str, watch: Watch) -> dict[Path, Run]:
    """Train and measure missing runs; those that another process works on come last, and are waited for."""
    waiting = deque(each for each in members if not is_done(each, num_samples))
    turned_away = 0
    if waiting:
        logger.info("%d of %d trainings are at hand", len(members) - len(waiting), len(members))
    while waiting:
        member = waiting.popleft()
        try:
            _make(member, num_samples, engine, watch)
            turned_away = 0
        except OccupiedError:
            waiting.append(member)
            turned_away += 1
            if turned_away >= len(waiting):
                time.sleep(WAIT_SECONDS)
    return {each.folder: Run.load(each.folder) for each in members}


def _make(member: Member, num_samples: int, engine: str, watch: Watch) -> None:
    with _alone(member.folder):
        if is_done(member, num_samples):
            return
        logger.info("%s: %s", member.title, member.folder)
        with watch(member.title) as (track, measuring):
            run = train(member.recipe, member.folder, dataset=member.dataset, engine=engine, track=track)
            run.evaluate(num_samples, dataset=member.dataset, track=measuring)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other experiments out of a run while it is trained and measured.

    Raises:
        OccupiedError: for a run that another experiment works on.
    """
    lock = folder.parent / LOCKS / folder.name
    with files.writing(folder.parent):
        lock.mkdir(parents=True, exist_ok=True)
    with lock_folder(lock):
        yield
