"""``compare``: compare runs image by image, with the settings in which they differ.

Importing this does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError, in_one_line
from pyrovae.evaluation.comparison import Difference, paired_difference
from pyrovae.experiments import files
from pyrovae.experiments.checking import DAMAGE
from pyrovae.experiments.evaluations import Evaluation
from pyrovae.experiments.recipe import MOST_OF_A_FILE, Recipe

# The share above which a remark warns of heavy tails.
SHARE_OF_HEAVY_TAILS = 0.1


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A run in a comparison.

    Args:
        run: the folder of the run.
        evaluation: the last evaluation of the run.
        difference: the difference from the best run, in nats per image; None for the best.
        settings: the settings in which any of the runs differ.
    """

    run: str
    evaluation: Evaluation
    difference: Difference | None
    settings: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Comparison:
    """A comparison of runs, from the best to the worst.

    Args:
        rows: the runs.
        by: the figure that is compared: ``log_likelihood``, or ``elbo`` where a loss is no density.
        remarks: remarks for the reader.
    """

    rows: Sequence[ComparedRun]
    by: str
    remarks: Sequence[str]

    def __str__(self) -> str:
        measured = self.rows[0].evaluation
        lines = [f"{self.by}, nats per {measured.example}; {measured.protocol} [{measured.protocol_hash}]"]
        for row in self.rows:
            settings = ", ".join(f"{name} {value}" for name, value in row.settings.items())
            difference = "best" if row.difference is None else str(row.difference)
            lines.append(
                f"{row.run}: {getattr(row.evaluation, self.by):.2f}, {difference}{f'; {settings}' if settings else ''}"
            )
        return "\n".join([*lines, *self.remarks])


def compare(*runs: Any) -> Comparison:
    """Compare the last evaluations of runs, each with the best of them.

    The differences are paired, over the same test images. Each has a bootstrap interval over images, which contains the mean
    difference over all such images 19 times in 20.

    Args:
        runs: two or more, each a ``Run`` or its folder.

    Raises:
        InputError: for fewer than two runs, and for runs that were measured on different things.
    """
    folders = [Path(getattr(run, "folder", run)) for run in runs]
    if len(folders) < 2:
        raise InputError("expected at least two run folders to compare; got one")
    evaluations = [(str(folder), Evaluation.load(folder)) for folder in folders]
    first, reference = evaluations[0]
    for run, evaluation in evaluations[1:]:
        if reason := incomparable(reference, evaluation):
            raise InputError(f"expected runs measured on one thing; {first} and {run} are not: {reason}")
    by = "log_likelihood" if reference.normalized else "elbo"
    for run, evaluation in evaluations:
        if getattr(evaluation, by) is None:
            raise InputError(f"{run}: expected a {by} that is finite; its evaluation has none: leave the run out")
    settings = dict(zip(map(str, folders), _differing([recipe_in(folder) for folder in folders]), strict=True))
    ranked = sorted(evaluations, key=lambda pair: getattr(pair[1], by), reverse=True)
    best = ranked[0][1].per_image[by]
    rows = [
        ComparedRun(run, each, paired_difference(each.per_image[by], best) if number else None, settings[run])
        for number, (run, each) in enumerate(ranked)
    ]
    return Comparison(rows, by, list(_remarks([each for _, each in ranked])))


def recipe_in(folder: Path) -> Recipe:
    """Read the recipe of a run folder, without its programs.

    Raises:
        InputError: where there is none.
    """
    try:
        return Recipe.from_dict(files.read_json(folder / "recipe.json", MOST_OF_A_FILE)["recipe"])
    except DAMAGE as error:
        raise InputError(f"{folder}: expected a run folder with recipe.json; got {in_one_line(error)}") from error


def _differing(recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    """The settings of each recipe in which any two of them differ."""
    names = dict.fromkeys(name for each in recipes for name in recipes[0].differences(each))
    return [{name: getattr(each, name) for name in names} for each in recipes]


def incomparable(one: Evaluation, other: Evaluation) -> str:
    """The reason why two evaluations cannot be compared; empty where they can."""
    if one.normalized != other.normalized or (not one.normalized and one.likelihood != other.likelihood):
        loss = one if not one.normalized else other
        return f"{loss.model}: a loss that is no density of the data has no log-likelihood"
    if one.num_images != other.num_images:
        return f"{one.num_images:,} test images and {other.num_images:,}"
    if one.protocol_hash != other.protocol_hash:
        protocols = (f"'{each.protocol}' [{each.protocol_hash}]" for each in (one, other))
        return f"two protocols, {' and '.join(protocols)}"
    if one.discrete != other.discrete:
        kinds = (f"{each.likelihood}, {'probabilities' if each.discrete else 'densities'}" for each in (one, other))
        return f"probabilities and densities have no common unit: {' and '.join(kinds)}"
    return ""


def _remarks(evaluations: Sequence[Evaluation]) -> Iterable[str]:
    """The remarks on evaluations, once for each kind."""
    sizes = sorted({each.num_samples for each in evaluations})
    if len(sizes) > 1:
        yield (
            f"{' and '.join(f'{size:,}' for size in sizes)} importance samples: fewer make a looser bound, which is part of "
            "the difference"
        )
    shares = [each.share_of_heavy_tails or 0.0 for each in evaluations]
    heavy = [share for share in shares if share >= SHARE_OF_HEAVY_TAILS]
    if heavy:
        which = "one run" if len(heavy) == 1 else f"{len(heavy)} runs"
        yield (
            f"weights of up to {max(heavy):.0%} of the images have heavy tails in {which}: such a figure may be too low, "
            "'pyrovae bounds' says by how much"
        )
