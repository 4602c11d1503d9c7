"""Pictures of the log-likelihoods of images, of the reliability of their estimates, and of bounds around them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrovae.plots.style import SMALL, color_of, finish, grid_of_axes, is_many, new_figure

Array = NDArray[np.floating]
BINS = 60
# The share of extreme images on each side that may lie beyond the scale.
SHARE_BEYOND = 0.001
# The limits at which more extreme shapes of tails are drawn.
EXTREME_SHAPES = (-1.0, 5.0)


def histogram(values: Mapping[str, Array]) -> Figure:
    """Draw histograms of the log-likelihoods of images ``(N,)`` in nats, by the name of their set, on one scale.

    A dashed line is the mean of a set. One image in a thousand on each side may lie beyond the scale; infinite values do.
    """
    figure = new_figure(6, 3.5)
    axes = figure.add_subplot()
    values = {name: each[np.isfinite(each)] for name, each in values.items()}
    together = np.concatenate(list(values.values()))
    low = float(np.quantile(together, SHARE_BEYOND, method="lower"))
    high = float(np.quantile(together, 1 - SHARE_BEYOND, method="higher"))
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    for number, (name, each) in enumerate(values.items()):
        color = color_of(number)
        density = np.histogram(each, edges)[0] / (len(each) * np.diff(edges))
        axes.stairs(density, edges, fill=True, alpha=0.25, color=color)
        axes.stairs(density, edges, linewidth=1.5, color=color, label=f"{name}, mean {each.mean():.1f}")
        axes.axvline(float(each.mean()), color=color, linestyle="--", linewidth=1)
    finish(axes, "log p(x) (nats per example)", "density of examples")
    axes.legend(fontsize=SMALL, frameon=False)
    return figure


@dataclass(frozen=True, eq=False)
class SampledCurve:
    """The bound by number of importance samples, and annealed bounds.

    Args:
        sizes: numbers of samples ``(S,)``.
        values: the bound at each size, in nats per image ``(S,)``.
        standard_error: the standard error of the last value, over images.
        lower: the annealed lower bound, and the standard error of its difference to the sampled one; or None.
        gap: the gap between the annealed bounds from both sides on images drawn from the model; or None.
    """

    sizes: Array
    values: Array
    standard_error: float = 0.0
    lower: tuple[float, float] | None = None
    gap: float | None = None


def sampled_curves(runs: Mapping[str, SampledCurve]) -> Figure:
    """Draw the importance-sampled bound against the number of samples, with annealed bounds if there are any.

    The band lies between the annealed lower bound and the same plus the gap of the bounds on simulated images: log p(x) lies
    within it as far as simulated images are like the test images.
    """
    figure, ((*row,),) = grid_of_axes(1, len(runs), width=4.0, height=3.2)
    for number, (axes, (name, curve)) in enumerate(zip(row, runs.items(), strict=True)):
        color = color_of(number)
        axes.plot(curve.sizes, curve.values, marker="o", markersize=4, color=color)
        axes.errorbar(curve.sizes[-1], curve.values[-1], yerr=2 * curve.standard_error, capsize=3, color=color)
        axes.set_xscale("log")
        if curve.lower is not None:
            value, error = curve.lower
            axes.axhspan(value, value + (curve.gap or 0.0), color="#000000", alpha=0.15, linewidth=0)
            axes.axhline(value, color="#000000", linestyle="--", linewidth=1)
            text = f"annealed, from below: {value:.2f} ± {error:.2f} beside the curve"
            text += "" if curve.gap is None else f"\ngap to above, simulated images: {curve.gap:.2f}"
            axes.annotate(text, (0.03, 0.97), xycoords="axes fraction", fontsize=SMALL - 1, va="top")
            axes.set_ylim(top=axes.get_ylim()[1] + 0.25 * np.ptp(axes.get_ylim()))
        finish(axes, "importance samples K", "bound on log p(x) (nats per example)", name if len(runs) > 1 else "")
    return figure


def tail_shapes(runs: Mapping[str, Array], thresholds: Mapping[str, float]) -> Figure:
    """Draw the tail shape of each image's weights, Pareto k ``(N,)``, in order of size; above the line a tail is heavy.

    Infinite values are counted, and drawn at the edges.

    Args:
        runs: tail shapes by name, NaN where unknown.
        thresholds: the shape for each run above which its estimates are not reliable.
    """
    figure = new_figure(6, 3.4)
    axes = figure.add_subplot()
    many = is_many(sum(map(len, runs.values())))
    for number, (name, shapes) in enumerate(runs.items()):
        known = np.sort(shapes[~np.isnan(shapes)])
        share = float((known > thresholds[name]).mean()) if len(known) else 0.0
        places = (np.arange(len(known)) + 0.5) / max(len(known), 1)
        drawn, color = np.clip(known, *EXTREME_SHAPES), color_of(number)
        label = f"{name}: {share:.1%} above {thresholds[name]:.2f}"
        axes.plot(places, drawn, ".", markersize=3, color=color, label=label, rasterized=many)
        axes.axhline(thresholds[name], color=color, linestyle="--", linewidth=1)
    finish(axes, "share of images with a smaller one", "Pareto k of the image's weights")
    axes.legend(fontsize=SMALL, frameon=False, markerscale=3)
    return figure
