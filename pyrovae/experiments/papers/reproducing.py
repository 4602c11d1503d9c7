"""``reproduce``: make a table or a figure of a paper; missing runs are trained and measured, others are used again.

    FOLDER/../runs/     the run folders, by recipe and protocol, shared by experiments
    FOLDER/plan.json    the chosen schedule, which later calls follow
    FOLDER/outcome.json, table.md, table.csv, report.html, figures/

After any interruption, the next call resumes and ends in the same table.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.experiments import environment, files
from pyrovae.experiments.building import load_data
from pyrovae.experiments.locks import lock_folder
from pyrovae.experiments.papers.experiment import Experiment
from pyrovae.experiments.papers.members import RUNS, Data, Member, Watch, is_done, measured_samples, members_of, train_missing
from pyrovae.experiments.papers.outcome import Figure, Outcome, Row
from pyrovae.experiments.papers.planning import Plan, PlanRequest, choose_plan, refuse_other
from pyrovae.experiments.papers.quantities import QUANTITIES, Estimate, combine_seeds
from pyrovae.experiments.papers.table import experiment_named
from pyrovae.experiments.papers.verdicts import FAILS, UNDECIDED, Verdict, verdict_on
from pyrovae.experiments.papers.writing import Picture, known_outcome, pictures_of, write_outcome
from pyrovae.experiments.pictures.views import View
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset

logger = logging.getLogger(__name__)


def no_watch(title: str) -> AbstractContextManager[tuple[Any, Any]]:
    """Return a context that shows no progress."""
    return nullcontext((None, iter))


def reproduce(
    name: str,
    folder: str | Path | None = None,
    *,
    epochs: int | None = None,
    full: bool = False,
    minutes: float | None = None,
    seeds: int | None = None,
    num_samples: int | None = None,
    only: Sequence[str] = (),
    engine: str = "auto",
    load: Callable[[Recipe], Dataset] = load_data,
    watch: Watch = no_watch,
) -> Outcome:
    """Make a table or a figure of a paper; only missing runs are trained.

    Args:
        name: a name of ``PAPERS``.
        folder: the folder of the results, by default ``reproduced/NAME``; runs are kept in a folder ``runs`` beside it.
        epochs: the epochs of its shortest training; the others have the same share of the paper's epochs.
        full: train the paper's whole schedule.
        minutes: the time that all trainings may take here, from which the number of epochs follows; by default 10.
        seeds: the number of trainings of each recipe, by default 1.
        num_samples: the number of importance samples for each image; by default the paper's for whole schedules, else fewer.
        only: names of trainings, or parts of them: no others are trained, but others at hand stay in the table.
        engine: one of ``ENGINES``.
        load: the function from a recipe to its data.
        watch: the function from the name of a training to a context that gives the ``track`` of ``train`` and that of
            ``Run.evaluate``.

    Raises:
        InputError: for an unknown experiment or training, the folder of another experiment or of another process, missing data,
            and as ``train``.
    """
    experiment = experiment_named(name)
    folder = Path("reproduced") / name if folder is None else Path(folder)
    refuse_other(folder, name)
    chosen = _chosen(experiment, only)
    if experiment.compute:
        return _computed(name, experiment, folder)
    asked = PlanRequest(epochs, full, minutes, num_samples, seeds)
    asked.check(experiment)
    data = Data(load)
    available = {key: found for key, recipe in experiment.recipes.items() if (found := data.of(recipe)) is not None}
    missing = {key: data.reasons[recipe.dataset] for key, recipe in experiment.recipes.items() if key not in available}
    if not set(chosen) & set(available):
        raise InputError(f"{name}: {missing[chosen[0]]}")
    runs = folder.parent / RUNS

    def members(plan: Plan) -> dict[str, list[Member]]:
        return {key: list(members_of(key, experiment, *found, plan, runs)) for key, found in available.items()}

    def at_hand(plan: Plan) -> int:
        return sum(all(is_done(each, 1) for each in of_seeds) for of_seeds in members(plan).values())

    plan = choose_plan(folder, name, experiment, available, asked, at_hand)
    plan.save(folder)
    with lock_folder(folder):
        wanted = members(plan)
        left_out = [key for key in available if key not in chosen and not all(is_done(each, 1) for each in wanted[key])]
        missing |= dict.fromkeys(left_out, "left out by --only, and not made before")
        _refuse_loss(folder, plan, missing, wanted)
        kept = [each for key in wanted if key not in left_out for each in wanted[key]]
        making = _Made(name, experiment, plan, missing, folder, kept, _measured_alike(kept, plan, engine, watch))
        return known_outcome(folder, making.key) or making.outcome()


def _chosen(experiment: Experiment, only: Sequence[str]) -> list[str]:
    """The names of the chosen trainings: those given by name, or by a part of their name."""
    if not only:
        return list(experiment.recipes)
    chosen = []
    for part in only:
        found = [name for name in experiment.recipes if part.lower() in name.lower()]
        if not found:
            raise InputError(f"expected names of trainings out of {'; '.join(experiment.recipes) or 'none'}; got {part!r}")
        chosen += [part] if part in experiment.recipes else found
    return list(dict.fromkeys(chosen))


def _refuse_loss(folder: Path, plan: Plan, missing: Mapping[str, str], wanted: Mapping[str, Sequence[Member]]) -> None:
    """Refuse to replace a table by one with fewer rows, or on other data.

    Raises:
        InputError: for such a loss.
    """
    known = known_outcome(folder)
    if known is None or known.epochs != plan.epochs or known.seeds > plan.seeds:
        return
    for row in known.rows:
        now = [each.folder.name for each in wanted.get(row.name, ())]
        if row.name in missing or not set(row.runs) <= set(now):
            reason = missing.get(row.name, "its data are others now")
            raise InputError(f"{folder}: expected the data of the table that was made there; {row.name}: {reason}")


def _measured_alike(members: Sequence[Member], plan: Plan, engine: str, watch: Watch) -> dict[Path, Run]:
    """The runs, all measured by the same number of samples: the planned one, or a larger one of another experiment."""
    most = max((measured_samples(each.folder) for each in members if each.recipe.latent_sizes), default=0)
    return train_missing(members, max(plan.num_samples, most), engine, watch)


@dataclass
class _Made:
    """An experiment whose runs are all there."""

    name: str
    experiment: Experiment
    plan: Plan
    missing: dict[str, str]
    folder: Path
    members: Sequence[Member]
    runs: Mapping[Path, Run]

    @property
    def key(self) -> str:
        """The hash of all that the outcome depends on."""
        evaluations = [self.runs[each.folder].evaluation for each in self.members]
        figures = [(each.num_samples, each.elbo, each.log_likelihood, each.epochs) for each in evaluations]
        folders = [each.folder.name for each in self.members]
        bounds = [View(self.runs[each.folder], each.name).bounds for each in self.members]
        values = [repr(self.experiment), asdict(self.plan), folders, figures, bounds, self.missing, version("pyrovae")]
        return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()[:16]

    def outcome(self) -> Outcome:
        """Measure the quantities, test the statements, draw the pictures and write all of it."""
        views: dict[str, list[View]] = {}
        for each in self.members:
            views.setdefault(each.name, []).append(View(self.runs[each.folder], each.name, each.dataset))
        logger.info("measuring the table: %d quantities of %d trainings", len(self._quantities), len(self.members))
        found = {name: _estimates(self._quantities, of_seeds) for name, of_seeds in views.items()}
        drawn, obstacles = pictures_of(self.experiment, {name: of_seeds[0] for name, of_seeds in views.items()})
        rows = [self._row(name, views[name], found[name]) for name in views]
        elsewhere = sorted({each for row in rows for each in row.differs if "in place of" in each})
        outcome = Outcome(
            experiment=self.name,
            shows=self.experiment.shows,
            source=self.experiment.source + (" (quoted)" if self.experiment.quoted else ""),
            epochs=self.plan.epochs,
            full=self.plan.is_full(self.experiment) and not self.missing,
            seeds=self.plan.seeds,
            num_samples=max(view.evaluation.num_samples for each in views.values() for view in each if view.evaluation),
            columns=[QUANTITIES[each].title for each in self.experiment.columns],
            rows=rows,
            missing=self.missing,
            verdicts=[self._explained(verdict_on(each, found)) for each in self.experiment.statements],
            remarks=(*self.experiment.remarks, *(f"Tested on {each}." for each in elsewhere), *obstacles),
            pictures=[],
            environment=environment.describe_environment(),
            seconds=sum(each.seconds for each in rows),
            key=self.key,
            folder=self.folder,
        )
        return write_outcome(outcome, drawn)

    def _explained(self, verdict: Verdict) -> Verdict:
        """Add a shortened schedule to the reasons of a statement that does not hold or is not decided."""
        if verdict.verdict not in (FAILS, UNDECIDED) or self.plan.is_full(self.experiment):
            return verdict
        share = self.plan.epochs / self.experiment.epochs
        reasons = (verdict.reason, f"The trainings have {share:.1%} of the paper's epochs.")
        return replace(verdict, reason=" ".join(filter(None, reasons)))

    @property
    def _quantities(self) -> list[str]:
        claimed = (claim.quantity for each in self.experiment.statements for claim in each.claims)
        return list(dict.fromkeys((*self.experiment.columns, *claimed)))

    def _row(self, name: str, views: Sequence[View], found: Mapping[str, Sequence[Estimate]]) -> Row:
        printed = self.experiment.published.get(name, {})
        figures = {}
        for quantity in self.experiment.columns:
            if found[quantity]:
                whole = combine_seeds(found[quantity])
                figures[QUANTITIES[quantity].title] = Figure(whole.value, whole.standard_error, printed.get(quantity))
        seconds = sum(row["seconds"] for view in views for row in view.history)
        seconds += sum(view.evaluation.seconds for view in views if view.evaluation)
        member = next(each for each in self.members if each.name == name)
        run = views[0].run
        names = [view.run.folder.name for view in views]
        differs = list(self._differs(member, run.recipe, run.evaluation.num_samples))
        return Row(name, names, len(views[0].history), figures, differs, f"{run.protocol} [{run.protocol_hash}]", seconds)

    def _differs(self, member: Member, recipe: Recipe, samples: int) -> Iterator[str]:
        """The differences from the paper, in words."""
        if recipe.total_epochs != member.paper.total_epochs:
            yield f"{recipe.total_epochs:,} of {member.paper.total_epochs:,} epochs"
        if recipe.latent_sizes and samples != self.experiment.num_samples:
            yield f"K = {samples:,}, not {self.experiment.num_samples:,}"
        if recipe.dataset != member.paper.dataset:
            yield f"{recipe.dataset} in place of {member.paper.dataset}, which are other images"
        yield from (said for part, said in self.experiment.differs.items() if part in member.name)


def _estimates(quantities: Iterable[str], views: Sequence[View]) -> dict[str, list[Estimate]]:
    """The estimates by quantity, one for each seed; empty where a run does not have the quantity."""
    found = {}
    for quantity in quantities:
        estimates = [QUANTITIES[quantity].of(view) for view in views]
        known = [each for each in estimates if each is not None]
        found[quantity] = known if len(known) == len(estimates) else []
    return found


def _computed(name: str, experiment: Experiment, folder: Path) -> Outcome:
    """The outcome of an experiment without runs, which is computed once and then read."""
    module, _, function = experiment.compute.partition(":")
    home = importlib.import_module(module)
    code = files.read_file(Path(str(home.__file__)))
    key = hashlib.sha256(f"{experiment!r}{version('pyrovae')}".encode() + code).hexdigest()[:16]
    Plan(name, 1, 0, 1).save(folder)
    with lock_folder(folder):
        if known := known_outcome(folder, key):
            return known
        start = time.perf_counter()
        found = getattr(home, function)()
        outcome = Outcome(
            experiment=name,
            shows=experiment.shows,
            source=experiment.source,
            epochs=0,
            full=True,
            seeds=1,
            num_samples=0,
            columns=found.columns,
            rows=found.rows,
            missing={},
            verdicts=found.verdicts,
            remarks=found.remarks,
            pictures=[],
            environment=environment.describe_environment(),
            seconds=time.perf_counter() - start,
            key=key,
            folder=folder,
        )
        return write_outcome(outcome, [Picture(title, "", figure) for title, figure in found.pictures.items()])
