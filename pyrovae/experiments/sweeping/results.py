"""The result of a sweep: each member, and each setting over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyrovae.errors import InputError
from pyrovae.experiments.comparison import incomparable
from pyrovae.experiments.evaluations import Evaluation
from pyrovae.experiments.papers.quantities import Estimate
from pyrovae.experiments.papers.verdicts import Interval, difference
from pyrovae.experiments.sweeping.grid import Member, as_text

if TYPE_CHECKING:
    import pandas

CONFIDENCE = 0.95
COLUMNS = ("seeds", "log p(x), nats", "over seeds ±", "ELBO, nats", "less the best")


@dataclass(frozen=True)
class Setting:
    """A combination of settings over its seeds.

    Args:
        settings: the values that vary.
        evaluations: of its members that ended, by seed.
        log_likelihood: the mean over seeds, in nats per example; the ELBO where a loss is no density.
        deviation: the standard deviation over seeds; not a number for one seed.
        elbo: the mean over seeds.
        difference: from the best setting, with an interval over test examples and seeds; None for the best, and where the two
            were measured on different things.
    """

    settings: Mapping[str, Any]
    evaluations: Mapping[int, Evaluation]
    log_likelihood: float
    deviation: float
    elbo: float
    difference: Interval | None = None


@dataclass(frozen=True)
class SweepResult:
    """The members of a sweep, and the evaluations in their folders.

    Args:
        folder: of the sweep.
        members: in the order of the grid.
        failures: reasons of those that failed, by the name of their folder.
    """

    folder: Path
    members: Sequence[Member]
    failures: Mapping[str, str] = field(default_factory=dict)

    def evaluations(self) -> dict[Path, Evaluation]:
        """The evaluations that there are, by run folder, read once."""
        return dict(self._evaluations)

    @cached_property
    def _evaluations(self) -> dict[Path, Evaluation]:
        found = {}
        for member in self.members:
            try:
                found[member.folder] = Evaluation.load(member.folder)
            except InputError:
                continue
        return found

    def settings(self) -> list[Setting]:
        """The combinations that have a measured member, from the best to the worst."""
        measured = self.evaluations()
        by: dict[tuple[tuple[str, str], ...], dict[int, Evaluation]] = {}
        settings: dict[tuple[tuple[str, str], ...], Mapping[str, Any]] = {}
        for member in self.members:
            if member.folder in measured:
                key = tuple((name, as_text(value)) for name, value in member.settings.items())
                settings[key] = member.settings
                by.setdefault(key, {})[member.recipe.seed] = measured[member.folder]
        ranked = sorted((_summary(settings[key], each) for key, each in by.items()), key=lambda each: -each.log_likelihood)
        return [each if not number else _less_the_best(each, ranked[0]) for number, each in enumerate(ranked)]

    def frame(self) -> pandas.DataFrame:
        """A row for each member: its settings, seed, figures in nats, folder, and why it failed."""
        import pandas

        measured, rows = self.evaluations(), []
        for member in self.members:
            found = measured.get(member.folder)
            figures = {name: getattr(found, name, None) for name in ("log_likelihood", "standard_error", "elbo")}
            reason = self.failures.get(member.folder.name, "")
            settings = {name: as_text(value) for name, value in member.settings.items()}
            rows.append(settings | {"seed": member.recipe.seed} | figures | {"folder": str(member.folder), "failure": reason})
        return pandas.DataFrame(rows)

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """A header, and a row of text for each combination that has a measured member."""
        settings = self.settings()
        names = tuple(self.members[0].settings)
        return (*names, *COLUMNS), [_row(each) for each in settings]

    def remarks(self) -> list[str]:
        """Sentences that a reader of the table must know."""
        found = list(self.evaluations().values())
        said = []
        if max((len(each.evaluations) for each in self.settings()), default=0) == 1:
            said.append("one seed: the intervals hold the spread over test examples, and not that over trainings")
        if len(sizes := sorted({each.num_samples for each in found})) > 1:
            said.append(
                f"{' and '.join(map(str, sizes))} importance samples: fewer make a looser bound, which is part of a difference"
            )
        if len({each.normalized for each in found}) > 1:
            said.append("losses that are no densities stand beside densities: their figures have no common unit")
        return said

    def __str__(self) -> str:
        header, rows = self.table()
        lines = [" | ".join(each) for each in (header, *rows)]
        return "\n".join([*lines, *self.remarks(), *(f"{name}: {reason}" for name, reason in self.failures.items())])


def _summary(settings: Mapping[str, Any], evaluations: Mapping[int, Evaluation]) -> Setting:
    values = np.array([_figure(each) for each in evaluations.values()])
    deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    elbo = float(np.mean([each.elbo for each in evaluations.values()]))
    return Setting(settings, evaluations, float(values.mean()), deviation, elbo)


def _figure(evaluation: Evaluation) -> float:
    return float(evaluation.elbo if evaluation.log_likelihood is None else evaluation.log_likelihood)


def _less_the_best(one: Setting, best: Setting) -> Setting:
    """The same with its difference from the best one, paired by example where both were measured on the same."""
    first, reference = next(iter(one.evaluations.values())), next(iter(best.evaluations.values()))
    if incomparable(reference, first):
        return one
    estimates = [[_estimate(each) for each in setting.evaluations.values()] for setting in (one, best)]
    return replace(one, difference=difference(estimates[0], estimates[1], CONFIDENCE))


def _estimate(evaluation: Evaluation) -> Estimate:
    return Estimate.over_images(evaluation.per_image["log_likelihood" if evaluation.log_likelihood is not None else "elbo"])


def _row(setting: Setting) -> tuple[str, ...]:
    known = setting.difference.said(signed=True) if setting.difference else ""
    deviation = "" if np.isnan(setting.deviation) else f"{setting.deviation:.2f}"
    figures = (f"{len(setting.evaluations)}", f"{setting.log_likelihood:.2f}", deviation, f"{setting.elbo:.2f}", known)
    return (*map(as_text, setting.settings.values()), *figures)
