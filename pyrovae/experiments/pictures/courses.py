"""Pictures of the courses of trainings, and of their results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pyrovae.evaluation.likelihood import Estimates
from pyrovae.evaluation.weighing import heavy_tail
from pyrovae.experiments.pictures.views import View
from pyrovae.plots import curves, likelihoods, units

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# Smaller values of a unit cannot be distinguished from noise; logarithms end there.
LEAST_ACTIVITY, LEAST_NATS = 1e-4, 1e-3


def learning_curves(views: Sequence[View]) -> Figure:
    """Draw the bound that was trained, at every epoch."""
    courses = {}
    for view in views:
        train, valid, bound = view.bound
        name = view.name if bound == "ELBO" else f"{view.name}, {bound}"
        courses[name] = curves.Course(
            _epochs(view),
            view.over_epochs(train),
            view.over_epochs(valid),
            np.array([row["kl_weight"] for row in view.measured], float),
        )
    bounds = {view.bound[2] for view in views}
    return curves.learning_curves(courses, f"{bounds.pop() if len(bounds) == 1 else 'bound'} (nats per example)")


def active_units(views: Sequence[View]) -> Figure:
    """Draw the number of active units at every epoch: for each layer of one run, or for each of several runs."""
    lines = {}
    for view in views:
        activities = view.units_over_epochs("activity_by_unit")
        if len(views) > 1:
            activities = {view.name: np.concatenate(list(activities.values()), 1)}
        for name, values in activities.items():
            counts = {"activity above 0.01": (values > 0.01).sum(1), "above 0.1": (values > 0.1).sum(1)}
            lines[name] = _epochs(view), counts
    return curves.counts_over_epochs(lines, "active units")


def activity_heat_map(views: Sequence[View]) -> Figure:
    """Draw the activity of each unit at every epoch."""
    return units.unit_heat_maps(
        {view.name: _units(view, "activity_by_unit") for view in views},
        "activity",
        least=LEAST_ACTIVITY,
        sorted_by=0,
        order="their activity after the first epoch",
    )


def divergence_heat_map(views: Sequence[View]) -> Figure:
    """Draw the divergence of each unit at every epoch."""
    return units.unit_heat_maps(
        {view.name: _units(view, "kl_by_unit") for view in views},
        "KL (nats per example)",
        least=LEAST_NATS,
        sorted_by=-1,
        order="their KL after the last epoch",
    )


def divergence_bars(views: Sequence[View]) -> Figure:
    """Draw the divergence of each layer on the test images."""
    return units.divergence_bars({view.name: dict(view.evaluation.kl_by_layer) for view in views if view.evaluation})


def by_depth(views: Sequence[View]) -> Figure:
    """Draw bound and log-likelihood by the number of layers, for each guide and prior."""
    return _measured_over(views, lambda view: len(view.run.recipe.latent_sizes), "latent layers")


def by_components(views: Sequence[View]) -> Figure:
    """Draw the log-likelihood by the number of pseudo-inputs."""
    return _measured_over(views, lambda view: view.run.recipe.num_components, "pseudo-inputs", logarithmic=True, bound=False)


def _measured_over(
    views: Sequence[View], place: Callable[[View], float], x: str, *, logarithmic: bool = False, bound: bool = True
) -> Figure:
    panels: dict[str, dict[str, list[curves.Measurement]]] = defaultdict(lambda: defaultdict(list))
    families = _families(views)
    for view, family in zip(views, families, strict=True):
        found, at = view.evaluation, place(view)
        if found is None:
            continue
        if bound:
            panels["ELBO"][family].append(
                curves.Measurement(at, found.elbo, Estimates(torch.from_numpy(found.per_image["elbo"])).standard_error)
            )
        if found.log_likelihood is not None:
            measured = curves.Measurement(at, found.log_likelihood, found.standard_error or 0.0)
            panels[f"log p(x), K = {found.num_samples:,}"][family].append(measured)
    return curves.measurements_over(panels, x, logarithmic=logarithmic)


def _families(views: Sequence[View]) -> list[str]:
    """The names of runs' families: guide, prior, objective and other parts in which runs differ; the guide, if in none."""
    parts = []
    for recipe in (view.run.recipe for view in views):
        more = [name for name, used in (("batch norm", recipe.batch_norm), ("warm-up", recipe.warmup_epochs)) if used]
        parts.append([recipe.guide, recipe.prior, recipe.objective, *more])
    common = set.intersection(*map(set, parts))
    return [", ".join(each for each in part if each not in common) or part[0] for part in parts]


def log_likelihoods(views: Sequence[View]) -> Figure:
    """Draw the log-likelihood of each test image."""
    return likelihoods.histogram({view.name: view.evaluation.per_image["log_likelihood"] for view in views if view.evaluation})


def sampled_curve(views: Sequence[View]) -> Figure:
    """Draw the importance-sampled bound by number of samples, and annealed bounds."""
    found_curves = {}
    for view in views:
        found, bounds = view.evaluation, view.bounds
        if found is None:
            continue
        sizes, values = np.array([int(size) for size in found.curve]), np.array(list(found.curve.values()))
        lower = None
        # The bounds are on a few images, whose mean differs: only their difference to as many samples of the same images is
        # used.
        if bounds is not None and str(bounds.num_samples) in found.curve:
            at = found.curve[str(bounds.num_samples)]
            lower = at + bounds.test.difference, bounds.test.difference_standard_error
        gap = None if bounds is None or lower is None else bounds.simulated.gap
        found_curves[view.name] = likelihoods.SampledCurve(sizes, values, found.standard_error or 0.0, lower, gap)
    return likelihoods.sampled_curves(found_curves)


def tail_shapes(views: Sequence[View]) -> Figure:
    """Draw Pareto k of each test image."""
    evaluations = {view.name: view.evaluation for view in views if view.evaluation}
    thresholds = {name: heavy_tail(each.num_samples) for name, each in evaluations.items()}
    return likelihoods.tail_shapes({name: each.per_image["pareto_k"] for name, each in evaluations.items()}, thresholds)


def _units(view: View, name: str) -> dict[str, units.UnitCourse]:
    return {layer: units.UnitCourse(_epochs(view), values) for layer, values in view.units_over_epochs(name).items()}


def _epochs(view: View) -> NDArray[np.floating]:
    return np.array([row["epoch"] for row in view.measured], float)
