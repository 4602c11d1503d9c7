"""Calibrate the guide of a run on examples that its model draws, and say in words what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyrovae.errors import InputError
from pyrovae.evaluation.calibration import (
    FALSE_ALARMS,
    FEWEST_DRAWS,
    FEWEST_EXAMPLES,
    LEVELS,
    Calibration,
    binomial_band,
    calibrate,
    expected_coverage,
)
from pyrovae.experiments import files
from pyrovae.experiments.using import refuse_a_loss
from pyrovae.plots.calibration import IntervalCoverage, RankHistograms, coverage_by_unit, rank_histograms
from pyrovae.plots.encoding import encode_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.evaluation.calibration import UnitVerdicts
    from pyrovae.experiments.folder import RunFolder
    from pyrovae.experiments.measuring import Track

# The number of bins of a histogram of ranks, and the most units that a line names.
BINS, MOST_NAMED = 20, 10


def calibrate_run(
    run: RunFolder,
    num_examples: int,
    dataset: Dataset | None = None,
    *,
    num_draws: int = 99,
    num_samples: int = 1000,
    seed: int = 0,
    track: Callable[[str, str], Track] = lambda label, unit: iter,
) -> Calibration:
    """Calibrate the guide of a run: see ``calibration.calibrate``.

    Args:
        run: the trained model.
        num_examples: the number of examples to simulate.
        dataset: the run's data, for a conditional model, of whose test contexts each example gets one by chance.
        num_draws: the number of draws of the guide for each example.
        num_samples: the number of importance samples for each example.
        seed: the seed of the random numbers.
        track: function from a label and a unit to one that wraps a sequence, to show progress.

    Raises:
        InputError: for a regressor, a loss that is no density, and too few examples or draws.
    """
    refuse_what_has_no_posterior(run)
    for name, number, fewest in (("examples", num_examples, FEWEST_EXAMPLES), ("draws", num_draws, FEWEST_DRAWS)):
        if number < fewest:
            raise InputError(f"expected at least {fewest} {name}; got {number}: fewer show nothing of a guide")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes: dict[str, Any] = {"num_draws": num_draws, "num_samples": num_samples}
        contexts = None if dataset is None else _some_contexts(dataset.contexts["test"], num_examples)
        return calibrate(run.vae.model, run.vae.guide, num_examples, context=contexts, track=track, **sizes)


def refuse_what_has_no_posterior(run: RunFolder) -> None:
    """Refuse a regressor, and a loss that is no density.

    Raises:
        InputError: for either.
    """
    if not run.recipe.latent_sizes:
        raise InputError(f"{run.folder}: expected latents; a regressor has none: name another run")
    refuse_a_loss(run)


def _some_contexts(contexts: Tensor, number: int) -> Tensor:
    """Draw contexts with replacement, so that any number of examples has one."""
    return contexts[torch.randint(len(contexts), (number,)).to(contexts.device)]


def calibration_record(found: Calibration) -> dict[str, Any]:
    """The plain values of a calibration, to be written as JSON; units are numbered from 1."""
    covered = {level: found.coverage(level) for level in LEVELS}
    return {
        "num_examples": found.num_examples,
        "num_draws": found.num_draws,
        "num_samples": found.log_likelihood.num_samples,
        "false_alarm_rate": FALSE_ALARMS,
        "elbo_gap_nats": found.gap.mean,
        "elbo_gap_standard_error": found.gap.standard_error,
        "largest_elbo_gap_nats": found.largest_gap.mean,
        "largest_elbo_gap_standard_error": found.largest_gap.standard_error,
        "share_of_heavy_tails": _finite(found.log_likelihood.share_of_heavy_tails),
        "coverage_bands": {_percent(level): found.coverage_band(level) for level in LEVELS},
        "layers": {
            name: {
                "verdict": str(each),
                "faults": each.faults,
                "shift": each.shift.tolist(),
                "spread": each.spread.tolist(),
                "shift_p": each.shift_p.tolist(),
                "spread_p": each.spread_p.tolist(),
                "coverage": {_percent(level): covered[level][name].tolist() for level in LEVELS},
            }
            for name, each in found.verdicts().items()
        },
    }


def calibration_rows(found: Calibration) -> dict[str, str]:
    """The rows of a calibration, by name."""
    rows = {name: _verdict_in_words(each) for name, each in found.verdicts().items()}
    rows |= {f"coverage of {_percent(level)}": _coverage_in_words(found, level) for level in LEVELS}
    heavy = found.log_likelihood.share_of_heavy_tails
    gap = f"{found.gap.mean:.2f} ± {found.gap.standard_error:.2f} (log p(x) less ELBO; standard error over examples"
    return rows | {
        "gap of the ELBO, nats per example": f"{gap}; heavy tails of {heavy:.1%})" if heavy == heavy else f"{gap})",
        "the gap is at most": f"{found.largest_gap.mean:.2f} ± {found.largest_gap.standard_error:.2f} "
        "(log p(x, z) - log q(z | x) at the latents that made each example, less ELBO)",
        "examples": f"{found.num_examples:,} that the model drew, {found.num_draws} draws of the guide each; an exact guide "
        f"has a fault by chance in {FALSE_ALARMS:.0%} of such checks",
    }


def _verdict_in_words(verdict: UnitVerdicts) -> str:
    named = [f"{fault}: {_units_in_words(units, len(verdict.shift))}" for fault, units in verdict.faults.items()]
    return "; ".join(named) or f"calibrated: {len(verdict.shift)} units"


def _units_in_words(units: list[int], among: int) -> str:
    named = ", ".join(map(str, units[:MOST_NAMED]))
    return f"{len(units)} of {among} units ({named}{', ...' if len(units) > MOST_NAMED else ''})"


def _coverage_in_words(found: Calibration, level: float) -> str:
    low, high = found.coverage_band(level)
    layers = found.coverage(level).items()
    ranges = ", ".join(f"{name} {each.min().item():.1%} to {each.max().item():.1%}" for name, each in layers)
    return f"{ranges} (right: {low:.1%} to {high:.1%})"


def _percent(level: float) -> str:
    return f"{level:.0%}"


def _finite(value: float) -> float | None:
    return value if value == value else None


def calibration_figures(found: Calibration) -> dict[str, Figure]:
    """The pictures of a calibration by the names of their files."""
    return {
        "calibration-ranks": rank_histograms(_histograms(found)),
        "calibration-coverage": coverage_by_unit(_coverages(found)),
    }


def save_calibration_figures(run: RunFolder, found: Calibration, folder: str | Path | None = None) -> list[Path]:
    """Write the pictures of a calibration and return their paths.

    Args:
        run: the run, in whose ``figures`` they are by default.
        found: the calibration.
        folder: another folder.

    Raises:
        InputError: for a folder that cannot be written.
    """
    figures = calibration_figures(found)
    if folder is None:
        return [run.save_figure(name, figure) for name, figure in figures.items()]
    paths = {Path(folder) / f"{name}.png": figure for name, figure in figures.items()}
    files.make_folder(Path(folder))
    for path, figure in paths.items():
        files.write_file(path, encode_figure(figure))
    return [*paths]


def _histograms(found: Calibration) -> dict[str, RankHistograms]:
    """The histograms of all layers, with a band that is as rarely left as a verdict is wrong, over all bins and units."""
    num_ranks = found.num_draws + 1
    edges = np.unique(np.linspace(0, num_ranks, min(BINS, num_ranks) + 1).round())
    shares = np.diff(edges) / num_ranks
    band = binomial_band(found.num_examples, shares, FALSE_ALARMS / (found.num_units * len(shares)))
    low, high = (each / (found.num_examples * shares) for each in band)
    histograms = {}
    for name, ranks in found.ranks.items():
        counts = np.stack([np.histogram(unit, edges - 0.5)[0] for unit in ranks.T.numpy()])
        histograms[name] = RankHistograms(edges / num_ranks, counts / (found.num_examples * shares), low, high)
    return histograms


def _coverages(found: Calibration) -> dict[str, dict[str, IntervalCoverage]]:
    """The coverage of each interval in each layer."""
    intervals: dict[str, dict[str, IntervalCoverage]] = {name: {} for name in found.ranks}
    for level in LEVELS:
        right = expected_coverage(found.num_draws, level), *found.coverage_band(level)
        for name, each in found.coverage(level).items():
            intervals[name][f"central {_percent(level)}"] = IntervalCoverage(each.numpy(), *right)
    return intervals
