"""Diagnose the latents of a run: a table of evidence, a summary in words, and the settings that usually help."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas
import torch

from pyrovae.errors import InputError
from pyrovae.evaluation.diagnosis import Diagnosis, diagnose

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.folder import RunFolder

# The reasons in words, and the settings that usually help.
REASONS = {
    "decoder": (
        "the data do not depend on it",
        "keep the latents from being priced out at the start (--warmup-epochs, --free-bits), or let the data depend on every "
        "layer (--skip-connections)",
    ),
    "guide": (
        "a posterior refined for each image would use it, the guide does not",
        "a guide that shares the model's top-down pass (--guide ladder, residual_top_down), --batch-norm, or a longer training",
    ),
    "prior": (
        "the data say nothing of it that its prior, with the layer above, does not say already",
        "fewer or smaller layers (--latent-sizes), or nats that cost nothing (--free-bits) until the layers divide the work",
    ),
}


@dataclass(frozen=True, eq=False)
class RunDiagnosis:
    """The diagnosis of a run.

    Args:
        table: a row for each layer, followed by its units from 1: ``layer``, ``unit`` (empty for the layer), ``verdict``, and
            the figures of ``Diagnosis``, each followed by its standard error over images, NAME_error.
        summary: sentences, one for each layer and each reason.
        num_images: the number of images.
    """

    table: pandas.DataFrame
    summary: tuple[str, ...]
    num_images: int

    def as_dict(self) -> dict[str, Any]:
        """The diagnosis as plain values."""
        rows = [{str(name): _plain(value) for name, value in row.items()} for row in self.table.to_dict("records")]
        return {"images": self.num_images, "summary": list(self.summary), "units": rows}


def diagnose_run(
    run: RunFolder, dataset: Dataset, *, num_images: int = 500, num_steps: int = 100, seed: int = 0
) -> RunDiagnosis:
    """Diagnose each unit and layer of a run on some of its test images: see ``diagnosis.diagnose``.

    Args:
        run: the trained model.
        dataset: the run's own data, or other data of the same kind.
        num_images: the number of test images, drawn by the seed.
        num_steps: the number of steps by which posteriors of unused units are refined.
        seed: the seed of the choice of images and of the samples.

    Raises:
        InputError: for a regressor, and for fewer than two images.
    """
    if not run.recipe.latent_sizes:
        raise InputError(f"{run.folder}: expected latents; a regressor has none")
    if min(num_images, len(dataset.test)) < 2:
        raise InputError(f"expected at least two test images; got {min(num_images, len(dataset.test))}: ask for more")
    chosen = torch.randperm(len(dataset.test), generator=torch.Generator().manual_seed(seed))[:num_images].sort().values
    context = dataset.contexts["test"][chosen] if "test" in dataset.contexts else None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = diagnose(run.vae.model, run.vae.guide, dataset.test[chosen], context, num_steps=num_steps)
    return RunDiagnosis(_table(found), tuple(summarise(found)), len(chosen))


def _table(found: Sequence[Diagnosis]) -> pandas.DataFrame:
    rows = []
    for each in found:
        row: dict[str, Any] = {"layer": each.layer, "unit": math.nan if each.unit is None else each.unit + 1}
        row["verdict"] = each.verdict
        for name, figure in each.figures.items():
            row[name] = math.nan if figure is None else figure.mean
            row[f"{name}_error"] = math.nan if figure is None else figure.standard_error
        rows.append(row)
    return pandas.DataFrame(rows).astype({"unit": "Int64"})


def summarise(found: Sequence[Diagnosis]) -> list[str]:
    """The diagnoses in sentences: for each layer how many units are used, and why the others are not, with what helps."""
    sentences = []
    for layer in dict.fromkeys(each.layer for each in found):
        units = [each for each in found if each.layer == layer and each.unit is not None]
        kinds = {verdict: [each for each in units if each.verdict == verdict] for verdict in ("used", *REASONS)}
        sentences.append(f"{layer}: {len(kinds.pop('used'))} of {len(units)} units are used{_whole(found, layer)}.")
        sentences += [_reason(verdict, some) for verdict, some in kinds.items() if some]
    return sentences


def _whole(found: Sequence[Diagnosis], layer: str) -> str:
    """The rate of a layer, and whether it as a whole is unused."""
    (whole,) = [each for each in found if each.layer == layer and each.unit is None]
    rate = "" if whole.rate is None else f", for {whole.rate.mean:.2f} ± {whole.rate.standard_error:.2f} nats"
    return rate if whole.verdict == "used" else f"{rate}; the whole layer is not, because of the {whole.verdict}"


def _reason(verdict: str, units: Sequence[Diagnosis]) -> str:
    """The sentence about the units of a layer that are unused for one reason."""
    reason, help = REASONS[verdict]
    spent = sum(each.is_spent_on for each in units)
    if spent:
        reason = f"{reason}, though the guide spends nats on {spent} of them"
    numbers = ", ".join(str(each.unit + 1) for each in units[:10] if each.unit is not None)
    more = f" and {len(units) - 10} more" if len(units) > 10 else ""
    return f"{units[0].layer}, unit {numbers}{more}: unused because of the {verdict}: {reason}. What usually helps: {help}."


def _plain(value: Any) -> Any:
    """The value for JSON, in which there is no NaN."""
    return None if pandas.isna(value) else value
