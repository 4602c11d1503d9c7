"""``reproduce``: a table or a figure of a paper: what is missing is trained and measured, the rest is at hand.

    FOLDER/../runs/     the run folders, by recipe and protocol: experiments share them
    FOLDER/plan.json    the schedule that was chosen: a call that goes on keeps it
    FOLDER/outcome.json, table.md, table.csv, report.html, figures/

Whatever interrupts it, the next call goes on and ends in the same table.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.experiments import environment, files
from pyrovae.experiments.building import load_data, resolved
from pyrovae.experiments.checking import DAMAGE, check_value
from pyrovae.experiments.folder import FIGURES, name_of
from pyrovae.experiments.locks import OccupiedError
from pyrovae.experiments.measuring import Evaluation, in_one_line
from pyrovae.experiments.papers.experiment import SUBSTITUTES, Experiment
from pyrovae.experiments.papers.outcome import OUTCOME, Figure, Outcome, Row
from pyrovae.experiments.papers.quantities import QUANTITIES, Estimate, combined
from pyrovae.experiments.papers.schedules import affordable_share, shortened
from pyrovae.experiments.papers.table import experiment_named
from pyrovae.experiments.papers.verdicts import verdict_on
from pyrovae.experiments.pictures.gallery import draw, obstacle
from pyrovae.experiments.pictures.kinds import KINDS
from pyrovae.experiments.pictures.views import View
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.report import drawing_of, rendered
from pyrovae.experiments.run import Run
from pyrovae.experiments.summaries import duration
from pyrovae.experiments.training import train

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from pyrovae.data.datasets import Dataset

PLAN, REPORT = "plan.json", "report.html"
MINUTES = 10.0
# Between two looks at a run that another process trains.
WAIT_SECONDS = 5.0

logger = logging.getLogger(__name__)

Watch = Callable[[str], AbstractContextManager[tuple[Any, Any]]]


@dataclass(frozen=True)
class Plan:
    """How long and how often trainings are made, and by how many samples they are measured.

    Args:
        share: of each recipe's epochs.
        epochs: of each recipe in place of a share, or None.
        num_samples: importance samples for each image.
        seeds: trainings of each recipe.
    """

    share: float
    epochs: int | None
    num_samples: int
    seeds: int

    def of(self, recipe: Recipe) -> Recipe:
        """A recipe of the paper as it is trained."""
        return shortened(recipe, self.share if self.epochs is None else self.epochs / recipe.total_epochs)


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


def no_watch(name: str) -> AbstractContextManager[tuple[Any, Any]]:
    """Watch nothing."""
    return nullcontext((None, iter))


def default_folder(name: str) -> Path:
    """The folder of an experiment where none is given."""
    return Path("reproduced") / name


def reproduce(
    name: str,
    folder: str | Path | None = None,
    *,
    epochs: int | None = None,
    full: bool = False,
    minutes: float = MINUTES,
    seeds: int | None = None,
    num_samples: int | None = None,
    only: Sequence[str] = (),
    engine: str = "auto",
    load: Callable[[Recipe], Dataset] = load_data,
    watch: Watch = no_watch,
) -> Outcome:
    """Make a table or a figure of a paper; train only what is not at hand.

    Args:
        name: of ``PAPERS``.
        folder: of what is written, by default ``reproduced/NAME``; runs are kept in a folder ``runs`` beside it.
        epochs: of each training, in place of the paper's.
        full: train the paper's whole schedule.
        minutes: that all trainings may take here where neither is given; how many epochs that is, is measured once.
        seeds: trainings of each recipe, 1 by default.
        num_samples: importance samples for each image; by default the paper's for whole schedules, fewer for others.
        only: parts of names of trainings; the others are left out.
        engine: one of ``ENGINES``.
        load: from a recipe to its data.
        watch: from the name of a training to a context that gives the ``track`` of ``train`` and that of ``Run.evaluate``.

    Raises:
        InputError: for an unknown experiment or training, the folder of another experiment, where no training has its data,
            and as ``train`` does.
    """
    experiment = experiment_named(name)
    if full and epochs is not None:
        raise InputError("expected a number of epochs or the whole schedule; got both: leave one out")
    folder = default_folder(name) if folder is None else Path(folder)
    _refuse_other(folder, name)
    if experiment.compute:
        return _computed(name, experiment, folder)
    data = _Data(load)
    recipes = _chosen(experiment, only)
    available = {key: found for key, recipe in recipes.items() if (found := data.of(recipe)) is not None}
    missing = {key: data.reasons[recipe.dataset] for key, recipe in recipes.items() if key not in available}
    if not available:
        raise InputError(f"{name}: {next(iter(missing.values()))}")
    share = 1.0 if full else None
    plan = _planned(folder, name, experiment, available, (share, epochs, num_samples, seeds), minutes)
    members = [
        member
        for key, (recipe, dataset) in available.items()
        for member in _members(key, experiment.recipes[key], recipe, dataset, plan, folder.parent / "runs")
    ]
    runs = _trained(members, plan, engine, watch)
    chosen = _Made(name, experiment, plan, missing, folder, members, runs)
    known = _known(folder, chosen.key)
    return known or chosen.outcome()


def _refuse_other(folder: Path, name: str) -> None:
    """Refuse a folder that holds something else.

    Raises:
        InputError: for it.
    """
    if not folder.exists():
        return
    plan = plan_in(folder)
    if plan and plan["experiment"] != name:
        raise InputError(f"{folder}: expected a folder of {name}; it holds {plan['experiment']!r}: choose another --output")
    if not plan and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: expected a new or an empty folder; it holds files: choose another --output")


def plan_in(folder: Path) -> dict[str, Any]:
    """The plan of a folder; empty where there is none.

    Raises:
        InputError: for one that is damaged.
    """
    try:
        found = files.read_json(folder / PLAN)
        check_value(PLAN, found, {"experiment": str, "share": float, "epochs": (int, None), "num_samples": int, "seeds": int})
        return dict(found)
    except FileNotFoundError:
        return {}
    except DAMAGE as error:
        raise InputError(f"{folder}: expected a plan of 'pyrovae reproduce'; got {in_one_line(error)}") from error


def plans_beside(folder: Path) -> list[dict[str, Any]]:
    """The plans of experiments in the same place."""
    return [plan for path in sorted(folder.parent.glob(f"*/{PLAN}")) if (plan := plan_in(path.parent))]


def _chosen(experiment: Experiment, only: Sequence[str]) -> dict[str, Recipe]:
    for part in only:
        if not any(part.lower() in name.lower() for name in experiment.recipes):
            raise InputError(f"expected parts of names out of {'; '.join(experiment.recipes)}; got {part!r}")
    kept = [name for name in experiment.recipes if not only or any(part.lower() in name.lower() for part in only)]
    return {name: experiment.recipes[name] for name in kept}


@dataclass
class _Data:
    """Datasets, each loaded once; or another in its place, or the reason why there is none."""

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


def _planned(
    folder: Path,
    name: str,
    experiment: Experiment,
    available: Mapping[str, tuple[Recipe, Dataset]],
    asked: tuple[float | None, int | None, int | None, int | None],
    minutes: float,
) -> Plan:
    """The plan of a folder with what is asked for in its place; a new one where there is none; written before it is kept to."""
    share, epochs, num_samples, seeds = asked
    before = plan_in(folder)
    if before and share is None and epochs is None:
        share, epochs = before["share"], before["epochs"]
        num_samples = before["num_samples"] if num_samples is None else num_samples
    seeds = seeds or before.get("seeds") or 1
    if num_samples is None:
        whole = epochs is None and share is not None and share >= 1
        num_samples = experiment.num_samples if whole else min(experiment.num_samples, experiment.short_samples)
    if share is None and epochs is None:
        share = _affordable(folder, available, minutes * 60 / seeds, num_samples)
    plan = Plan(1.0 if share is None else share, epochs, num_samples, seeds)
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if before != {"experiment": name, **asdict(plan)}:
        files.write_json(folder / PLAN, {"experiment": name, **asdict(plan)})
    return plan


def _affordable(folder: Path, available: Mapping[str, tuple[Recipe, Dataset]], seconds: float, num_samples: int) -> float:
    """The share of epochs that is affordable; rather that of another experiment with which more is at hand.

    Of the shares of other experiments beside this one the largest that leaves no more to train than this time allows.
    """
    logger.info("how many epochs fit into %s is measured", duration(seconds))
    measured, measuring = affordable_share(available.values(), seconds, num_samples)
    training = max(seconds - measuring, 0.1 * seconds) / measured if measured < 1 else seconds
    best = measured
    for other in sorted({plan["share"] for plan in plans_beside(folder)}):
        at_hand = sum(
            _is_done(_folder_of(Plan(other, None, num_samples, 1).of(recipe), dataset, folder.parent / "runs"), 0)
            for recipe, dataset in available.values()
        )
        left = 1 - at_hand / len(available)
        if at_hand and other * training * left <= seconds:
            best = other
    logger.info("each training has %.1f %% of the paper's epochs", 100 * best)
    return best


def _folder_of(recipe: Recipe, dataset: Dataset, runs: Path) -> Path:
    """The run folder of a recipe on some data: two that differ in anything have two."""
    recipe = replace(resolved(recipe, dataset), dataset=dataset.name)
    values = json.dumps([asdict(recipe), dataset.protocol.hash], sort_keys=True)
    return runs / f"{name_of(recipe)}-{hashlib.sha256(values.encode()).hexdigest()[:8]}"


def _members(name: str, paper: Recipe, recipe: Recipe, dataset: Dataset, plan: Plan, runs: Path) -> Iterator[Member]:
    for seed in range(plan.seeds):
        seeded = replace(plan.of(recipe), seed=seed)
        yield Member(name, paper, seeded, dataset, _folder_of(seeded, dataset, runs))


def _is_done(folder: Path, num_samples: int) -> bool:
    """Whether a run is trained to its end and measured with as many samples."""
    try:
        run = Run.begun(folder)
        found = Evaluation.load(folder)
    except InputError:
        return False
    enough = found.num_samples >= (num_samples if run.recipe.latent_sizes else 1)
    return run.is_whole and found.epochs == len(run.history) and enough


def _trained(members: Sequence[Member], plan: Plan, engine: str, watch: Watch) -> dict[Path, Run]:
    """Train and measure what is not at hand; what another process trains comes last, and is waited for."""
    waiting = deque(each for each in members if not _is_done(each.folder, plan.num_samples))
    total, turned_away = len(members), 0
    if waiting:
        logger.info("%d of %d trainings are at hand", total - len(waiting), total)
    while waiting:
        member = waiting.popleft()
        try:
            _make(member, plan, engine, watch, f"{member.name}{f', seed {member.recipe.seed}' if plan.seeds > 1 else ''}")
            turned_away = 0
        except OccupiedError:
            waiting.append(member)
            turned_away += 1
            if turned_away >= len(waiting):
                time.sleep(WAIT_SECONDS)
    return {each.folder: Run.load(each.folder) for each in members}


def _make(member: Member, plan: Plan, engine: str, watch: Watch, title: str) -> None:
    if _is_done(member.folder, plan.num_samples):
        return
    logger.info("%s: %s", title, member.folder)
    with watch(title) as (track, measuring):
        run = train(member.recipe, member.folder, dataset=member.dataset, engine=engine, track=track)
        run.evaluate(plan.num_samples, dataset=member.dataset, track=measuring)


def _known(folder: Path, key: str) -> Outcome | None:
    """The outcome of the same runs, whole, where it was written before."""
    try:
        known = Outcome.load(folder / OUTCOME)
    except InputError:
        return None
    whole = all((folder / name).exists() for name in (*known.pictures, "table.md", "table.csv", REPORT))
    return known if known.key == key and whole else None


@dataclass
class _Made:
    """An experiment whose runs are at hand."""

    name: str
    experiment: Experiment
    plan: Plan
    missing: dict[str, str]
    folder: Path
    members: Sequence[Member]
    runs: Mapping[Path, Run]

    @property
    def key(self) -> str:
        """Of all that the outcome depends on."""
        evaluations = [(each.folder.name, self.runs[each.folder].evaluation.num_samples) for each in self.members]
        values = [repr(self.experiment), asdict(self.plan), evaluations, self.missing, version("pyrovae")]
        return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()[:16]

    def outcome(self) -> Outcome:
        """Measure, judge, draw and write."""
        views: dict[str, list[View]] = {}
        for each in self.members:
            views.setdefault(each.name, []).append(View(self.runs[each.folder], each.name, each.dataset))
        found = {name: _estimates(self._quantities, of_seeds) for name, of_seeds in views.items()}
        firsts = {name: of_seeds[0] for name, of_seeds in views.items()}
        drawn, obstacles = _pictures(self.experiment, firsts)
        rows = [self._row(name, views[name], found[name]) for name in views]
        outcome = Outcome(
            experiment=self.name,
            shows=self.experiment.shows,
            source=self.experiment.source + (" (quoted)" if self.experiment.quoted else ""),
            full=all(each.recipe.total_epochs == each.paper.total_epochs for each in self.members),
            seeds=self.plan.seeds,
            num_samples=self.plan.num_samples,
            columns=[QUANTITIES[each].title for each in self.experiment.columns],
            rows=rows,
            missing=self.missing,
            verdicts=[verdict_on(each, found) for each in self.experiment.statements],
            remarks=(*self.experiment.remarks, *obstacles),
            pictures=[],
            environment=environment.described(),
            seconds=sum(each.seconds for each in rows),
            key=self.key,
            folder=self.folder,
        )
        return written(outcome, drawn)

    @property
    def _quantities(self) -> list[str]:
        claimed = (claim.quantity for each in self.experiment.statements for claim in each.claims)
        return list(dict.fromkeys((*self.experiment.columns, *claimed)))

    def _row(self, name: str, views: Sequence[View], found: Mapping[str, Sequence[Estimate]]) -> Row:
        printed = self.experiment.published.get(name, {})
        figures = {}
        for quantity in self.experiment.columns:
            if found[quantity]:
                whole = combined(found[quantity])
                figures[QUANTITIES[quantity].title] = Figure(whole.value, whole.standard_error, printed.get(quantity))
        seconds = sum(row["seconds"] for view in views for row in view.history)
        seconds += sum(view.evaluation.seconds for view in views if view.evaluation)
        member = next(each for each in self.members if each.name == name)
        run = views[0].run
        protocol = f"{run.protocol} [{run.protocol_hash}]"
        names = [view.run.folder.name for view in views]
        return Row(
            name,
            names,
            len(views[0].history),
            figures,
            list(self._differs(member, run.recipe, run.evaluation.num_samples)),
            protocol,
            seconds,
        )

    def _differs(self, member: Member, recipe: Recipe, samples: int) -> Iterator[str]:
        """What is not as in the paper."""
        if recipe.total_epochs != member.paper.total_epochs:
            yield f"{recipe.total_epochs:,} of {member.paper.total_epochs:,} epochs"
        if recipe.latent_sizes and samples != self.experiment.num_samples:
            yield f"K = {samples:,}, not {self.experiment.num_samples:,}"
        if recipe.dataset != member.paper.dataset:
            yield f"{recipe.dataset} in place of {member.paper.dataset}: other images"


def _estimates(quantities: Iterable[str], views: Sequence[View]) -> dict[str, list[Estimate]]:
    """By quantity, one for each seed; none where a run has no such thing."""
    found = {}
    for quantity in quantities:
        estimates = [QUANTITIES[quantity].of(view) for view in views]
        found[quantity] = [each for each in estimates if each is not None] if None not in estimates else []
    return found


def _pictures(experiment: Experiment, views: Mapping[str, View]) -> tuple[list[tuple[str, str, Drawing]], list[str]]:
    """The pictures by name and kind, and what stands in the way of others."""
    drawn, obstacles = [], []
    for title, names in experiment.pictures.items():
        kind = title.partition(" ")[0]
        chosen = [views[name] for name in names or views if name in views]
        if not chosen:
            continue
        if reason := obstacle(kind, chosen):
            obstacles.append(f"Not drawn: {title}: {reason}.")
        else:
            drawn.append((title, kind, draw(kind, chosen)))
    return drawn, obstacles


def written(outcome: Outcome, drawn: Sequence[tuple[str, str, Drawing]]) -> Outcome:
    """The outcome with its pictures, tables and report in its folder; the record comes last."""
    from pyrovae.plots.encoding import encoded

    folder = outcome.folder
    assert folder is not None
    files.make_folder(folder / FIGURES)
    names, elements = [], []
    for title, kind, figure in drawn:
        slug = "".join(each if each.isalnum() else "-" for each in title)
        names.append(f"{FIGURES}/{slug}.png")
        files.write_file(folder / names[-1], encoded(figure, "png"))
        known = KINDS.get(kind)
        shows = known.shows if known else outcome.shows
        drawing = drawing_of(figure, slug, shows, is_grid=known is not None and known.is_grid)
        caption = {"shows": title, "reading": known.reading if known else "", "source": ""}
        elements.append({"kind": slug, "drawing": drawing, **caption})
    outcome = replace(outcome, pictures=names)
    header, rows = outcome.table
    page = rendered(
        "experiment.html",
        title=outcome.experiment,
        outcome=outcome,
        header=header,
        rows=rows,
        command=f"pyrovae reproduce {outcome.experiment}{' --full' if outcome.full and outcome.num_samples else ''}",
        pictures=elements,
        missing={},
    )
    files.write_file(folder / REPORT, page.encode())
    outcome.save()
    return outcome


def _computed(name: str, experiment: Experiment, folder: Path) -> Outcome:
    """What is computed without runs: once, and then read."""
    key = hashlib.sha256(f"{experiment!r}{version('pyrovae')}".encode()).hexdigest()[:16]
    if known := _known(folder, key):
        return known
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / PLAN, {"experiment": name, **asdict(Plan(1.0, None, 0, 1))})
    module, _, function = experiment.compute.partition(":")
    start = time.perf_counter()
    found = getattr(importlib.import_module(module), function)()
    outcome = Outcome(
        experiment=name,
        shows=experiment.shows,
        source=experiment.source,
        full=True,
        seeds=1,
        num_samples=0,
        columns=found.columns,
        rows=found.rows,
        missing={},
        verdicts=found.verdicts,
        remarks=found.remarks,
        pictures=[],
        environment=environment.described(),
        seconds=time.perf_counter() - start,
        key=key,
        folder=folder,
    )
    return written(outcome, [(title, "", figure) for title, figure in found.pictures.items()])
