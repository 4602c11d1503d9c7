"""``Plan``: the lengths of an experiment's trainings, kept in its folder, so that later calls follow it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.errors import InputError, in_one_line
from pyrovae.experiments import files
from pyrovae.experiments.checking import DAMAGE, check_value
from pyrovae.experiments.papers.experiment import Experiment
from pyrovae.experiments.papers.schedules import affordable_share, shorten_recipe
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.summaries import duration

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset

PLAN = "plan.json"
MINUTES = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """The plan of an experiment: the length and number of trainings, and the samples by which they are measured.

    Args:
        experiment: the name of the experiment.
        epochs: the epochs of its shortest training; the others have the same share of the paper's epochs.
        num_samples: the number of importance samples for each image.
        seeds: the number of trainings of each recipe.
    """

    experiment: str
    epochs: int
    num_samples: int
    seeds: int

    def of(self, experiment: Experiment, recipe: Recipe) -> Recipe:
        """Shorten a recipe of the paper by the plan."""
        return shorten_recipe(recipe, self.epochs / experiment.epochs)

    def is_full(self, experiment: Experiment) -> bool:
        """True for the paper's whole schedule."""
        return self.epochs >= experiment.epochs

    def save(self, folder: Path) -> None:
        """Write the plan into a folder."""
        with files.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / PLAN, asdict(self))


@dataclass(frozen=True)
class PlanRequest:
    """The request of a call; None for what it leaves open.

    Args:
        epochs: the epochs of the shortest training.
        full: whether to train the paper's whole schedule.
        minutes: the time that all trainings may take.
        num_samples: the number of importance samples for each image.
        seeds: the number of trainings of each recipe.
    """

    epochs: int | None = None
    full: bool = False
    minutes: float | None = None
    num_samples: int | None = None
    seeds: int | None = None

    def check(self, experiment: Experiment) -> None:
        """Refuse contradictory requests and too many epochs.

        Raises:
            InputError: for either.
        """
        chosen = [name for name, given in (("epochs", self.epochs), ("full", self.full), ("minutes", self.minutes)) if given]
        if len(chosen) > 1:
            raise InputError(f"expected one of --epochs, --full and --minutes; got {' and '.join(chosen)}: leave the rest out")
        if self.epochs is not None and self.epochs > experiment.epochs:
            raise InputError(
                f"expected at most {experiment.epochs:,} epochs, which is the paper's schedule; got {self.epochs:,}: use --full"
            )


def plan_in(folder: Path) -> Plan | None:
    """Read the plan of a folder; None where there is none.

    Raises:
        InputError: for a damaged plan.
    """
    try:
        found = files.read_json(folder / PLAN)
        check_value(PLAN, found, {"experiment": str, "epochs": int, "num_samples": int, "seeds": int})
        return Plan(found["experiment"], max(1, found["epochs"]), found["num_samples"], max(1, found["seeds"]))
    except FileNotFoundError:
        return None
    except DAMAGE as error:
        raise InputError(
            f"{folder}: expected a plan.json of 'pyrovae reproduce'; got {in_one_line(error)}: remove it, or choose another "
            "--output"
        ) from error


def plans_beside(folder: Path) -> Iterable[Plan]:
    """The plans of the experiments beside a folder; damaged ones are left out."""
    for path in sorted(folder.parent.glob(f"*/{PLAN}")):
        try:
            plan = plan_in(path.parent)
        except InputError:
            continue
        if plan is not None:
            yield plan


def refuse_other(folder: Path, name: str) -> None:
    """Refuse a folder that holds anything but this experiment.

    Raises:
        InputError: for such a folder.
    """
    if not folder.exists():
        return
    plan = plan_in(folder)
    if plan is not None and plan.experiment != name:
        raise InputError(f"{folder}: expected a folder of {name}; it holds {plan.experiment!r}: choose another --output")
    # Names with a leading dot are locks, or remains of a process that died before the plan was written.
    if plan is None and (not folder.is_dir() or any(not each.name.startswith(".") for each in folder.iterdir())):
        raise InputError(f"{folder}: expected a new or an empty folder; it holds files: choose another --output")


def choose_plan(
    folder: Path,
    name: str,
    experiment: Experiment,
    available: Mapping[str, tuple[Recipe, Dataset]],
    asked: PlanRequest,
    at_hand: Callable[[Plan], int],
) -> Plan:
    """Choose the plan of an experiment: the one of its folder, changed as requested, or a new one.

    Args:
        folder: the folder of the experiment.
        name: the name of the experiment.
        experiment: the experiment.
        available: the recipes whose data can be loaded, with the data.
        asked: the request of the call.
        at_hand: the function from a plan to the number of its trainings that are made already.
    """
    before = plan_in(folder)
    epochs = experiment.epochs if asked.full else asked.epochs
    num_samples, seeds = asked.num_samples, asked.seeds or (before.seeds if before else 1)
    if before is not None and epochs is None and asked.minutes is None:
        epochs, num_samples = before.epochs, num_samples or before.num_samples
        logger.info("%d epochs as planned in %s; --epochs, --minutes or --full plans anew", epochs, folder / PLAN)
    if num_samples is None:
        whole = epochs is not None and epochs >= experiment.epochs
        num_samples = experiment.num_samples if whole else min(experiment.num_samples, experiment.short_samples)
    if epochs is None:
        minutes = MINUTES if asked.minutes is None else asked.minutes
        shares = {plan.epochs / _whole(plan) for plan in plans_beside(folder) if _whole(plan)}
        others = {round(share * experiment.epochs) for share in shares} - {0}
        made = {each: at_hand(Plan(name, each, num_samples, seeds)) for each in others}
        epochs = _affordable(experiment, available, 60 * minutes / seeds, num_samples, made)
    return Plan(name, epochs, num_samples, seeds)


def _whole(plan: Plan) -> int:
    from pyrovae.experiments.papers.table import PAPERS

    known = PAPERS.get(plan.experiment)
    return known.epochs if known and known.recipes else 0


def _affordable(
    experiment: Experiment,
    available: Mapping[str, tuple[Recipe, Dataset]],
    seconds: float,
    num_samples: int,
    others: Mapping[int, int],
) -> int:
    """The epochs of the shortest training that a time allows, preferably those of trainings that other experiments made.

    Args:
        experiment: the experiment.
        available: the recipes whose data can be loaded, with the data.
        seconds: the time for all trainings.
        num_samples: the number of importance samples for each image.
        others: the number of trainings at hand, by the epochs of other experiments' plans.
    """
    logger.info("how many epochs fit into %s is measured", duration(seconds))
    share, training = affordable_share(available.values(), seconds, num_samples)
    best = max(1, int(share * experiment.epochs))
    for epochs, at_hand in sorted(others.items()):
        left = 1 - at_hand / len(available)
        if at_hand and epochs / experiment.epochs * training * left <= seconds:
            best = epochs
    logger.info("%d of %d epochs", best, experiment.epochs)
    return best
