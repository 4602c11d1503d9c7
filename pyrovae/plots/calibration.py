"""Pictures of the calibration of a guide: histograms of ranks, and the coverage of intervals by unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrovae.plots.style import SMALL, color_of, finish, grid_of_axes, is_many, whole_numbers

Array = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class RankHistograms:
    """The histograms of the ranks of one layer's units, each with a mean of one.

    Args:
        edges: the edges of the bins, as shares of all ranks ``(M + 1,)``.
        densities: the density of each unit's ranks in each bin ``(U, M)``; one where ranks are uniform.
        low: the lowest density that chance allows in each bin ``(M,)``.
        high: the highest one.
    """

    edges: Array
    densities: Array
    low: Array
    high: Array

    @property
    def outside(self) -> NDArray[np.bool_]:
        """True for each unit with a bin outside the band ``(U,)``."""
        return np.asarray(((self.densities < self.low) | (self.densities > self.high)).any(1))


@dataclass(frozen=True, eq=False)
class IntervalCoverage:
    """The coverage of an interval by unit of one layer, with the band that chance allows.

    Args:
        values: the share of examples in the interval ``(U,)``.
        expected: the probability of the interval.
        low: the lowest share that chance allows.
        high: the highest one.
    """

    values: Array
    expected: float
    low: float
    high: float


def rank_histograms(layers: Mapping[str, RankHistograms]) -> Figure:
    """Draw a panel for each layer with a line for each unit: in the grey band where the guide is calibrated.

    A U-shape is a guide that is too narrow, a hump one that is too wide, a slope one that is shifted. Units that leave the band
    are drawn in another colour, and counted in the title.
    """
    figure, ((*panels,),) = grid_of_axes(1, len(layers), width=3.4, height=2.8)
    for axes, (name, each) in zip(panels, layers.items(), strict=True):
        axes.stairs(each.high, each.edges, baseline=each.low, fill=True, color="#DDDDDD")
        axes.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
        style: dict[str, Any] = {"alpha": 0.6, "linewidth": 0.9, "rasterized": is_many(each.densities.size)}
        # Those that leave the band are drawn last, on top.
        for unit in np.argsort(each.outside, kind="stable"):
            axes.stairs(each.densities[unit], each.edges, color=color_of(int(each.outside[unit])), baseline=None, **style)
        axes.set_ylim(bottom=0.0)
        finish(
            axes,
            "rank of the true latent among draws (share)",
            "density of examples" if axes is panels[0] else "",
            f"{name}: {int(each.outside.sum())} of {len(each.densities)} units outside",
        )
    return figure


def coverage_by_unit(layers: Mapping[str, Mapping[str, IntervalCoverage]]) -> Figure:
    """Draw a panel for each layer with the coverage of each interval by unit, in the band of its colour where it is right."""
    figure, ((*panels,),) = grid_of_axes(1, len(layers), width=3.4, height=2.8)
    for axes, (name, intervals) in zip(panels, layers.items(), strict=True):
        for number, (interval, each) in enumerate(intervals.items()):
            _draw_coverage(axes, interval, each, number)
        axes.set_ylim(-0.02, 1.02)
        whole_numbers(axes.xaxis)
        finish(axes, "unit", "share of examples in the interval" if axes is panels[0] else "", name)
    panels[0].legend(fontsize=SMALL - 1, frameon=False, loc="lower left")
    return figure


def _draw_coverage(axes: Axes, interval: str, each: IntervalCoverage, number: int) -> None:
    units = np.arange(1, len(each.values) + 1)
    axes.axhspan(each.low, each.high, color=color_of(number), alpha=0.15, linewidth=0)
    axes.axhline(each.expected, color=color_of(number), linestyle="--", linewidth=0.8)
    style: dict[str, Any] = {"color": color_of(number), "marker": "os"[number % 2], "markersize": 3, "linestyle": ""}
    axes.plot(units, each.values, label=interval, rasterized=is_many(len(units)), **style)
