"""The trainings of an experiment: their data, their run folders, and making those that are not at hand."""

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
from pyrovae.experiments.building import resolved
from pyrovae.experiments.folder import name_of
from pyrovae.experiments.locks import OccupiedError, locked
from pyrovae.experiments.measuring import Evaluation
from pyrovae.experiments.papers.experiment import SUBSTITUTES, Experiment
from pyrovae.experiments.papers.planning import Plan
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.training import train

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset

# Between two looks at a run that another process trains.
WAIT_SECONDS = 5.0
RUNS, LOCKS = "runs", ".locks"

logger = logging.getLogger(__name__)

Watch = Callable[[str], AbstractContextManager[tuple[Any, Any]]]


@dataclass(frozen=True)
class Member:
    """A training of an experiment.

    Args:
        name: in the experiment.
        paper: the recipe of the paper.
        recipe: the one that is trained.
        dataset: its data.
        folder: of its run.
    """

    name: str
    paper: Recipe
    recipe: Recipe
    dataset: Dataset
    folder: Path

    @property
    def title(self) -> str:
        """Its name, with its seed."""
        return f"{self.name}, seed {self.recipe.seed}"


@dataclass
class Data:
    """Datasets, each loaded once; or another in its place, or the reason why there is none.

    Args:
        load: from a recipe to its data.
        known: what was loaded.
        reasons: by name, why a dataset could not be.
    """

    load: Callable[[Recipe], Dataset]
    known: dict[tuple[Any, ...], Dataset] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def of(self, recipe: Recipe) -> tuple[Recipe, Dataset] | None:
        """A recipe on data that are at hand, and these."""
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
    """A training for each seed.

    Args:
        name: of the training.
        experiment: that it belongs to.
        recipe: of the paper, on data that are at hand.
        dataset: these data.
        plan: how long it is trained.
        runs: where the run folders are.
    """
    for seed in range(plan.seeds):
        seeded = replace(plan.of(experiment, recipe), seed=seed)
        yield Member(name, experiment.recipes[name], seeded, dataset, _folder_of(seeded, dataset, runs))


def _folder_of(recipe: Recipe, dataset: Dataset, runs: Path) -> Path:
    """The run folder of a recipe on some data: two that differ in anything have two."""
    recipe = replace(resolved(recipe, dataset), dataset=dataset.name)
    # What has its default is left out, so that a setting that comes later changes no name.
    settings = {name: value for name, (value, _) in recipe.differences(Recipe()).items()}
    values = json.dumps([settings, dataset.protocol.hash], sort_keys=True)
    return runs / f"{name_of(recipe)}-{hashlib.sha256(values.encode()).hexdigest()[:8]}"


def measured_samples(folder: Path) -> int:
    """The importance samples by which a run was measured after its end; none where it is not there, or not whole."""
    try:
        run, found = Run.begun(folder), Evaluation.load(folder)
    except InputError:
        return 0
    if not run.is_whole or found.epochs != len(run.history):
        return 0
    return found.num_samples


def is_done(member: Member, num_samples: int) -> bool:
    """Whether a training is made and measured by as many samples; without a latent one is as good as any."""
    return measured_samples(member.folder) >= (num_samples if member.recipe.latent_sizes else 1)


def made(members: Sequence[Member], num_samples: int, engine: str, watch: Watch) -> dict[Path, Run]:
    """Train and measure what is not at hand; what another process works on comes last, and is waited for."""
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
    """Keep other experiments away from a run while it is begun, trained and measured.

    Raises:
        OccupiedError: where another one works on it.
    """
    lock = folder.parent / LOCKS / folder.name
    with files.writing(folder.parent):
        lock.mkdir(parents=True, exist_ok=True)
    with locked(lock):
        yield
