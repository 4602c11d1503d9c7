"""Pictures of latent units: heat maps over epochs, and bars of their divergence."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrovae.plots.style import SEQUENTIAL, SMALL, color_of, finish, grid_of_axes, new_figure, whole_numbers

Array = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class UnitCourse:
    """The course of a value of each unit of one layer over epochs.

    Args:
        epochs: the numbers of the epochs ``(T,)``.
        values: the values of the units ``(T, U)``.
    """

    epochs: Array
    values: Array

    def sort_by(self, epoch: int) -> "UnitCourse":
        """Sort the units by their values at one of the epochs, the largest first.

        >>> UnitCourse(np.arange(2), np.array([[1.0, 3.0, 2.0], [0.0, 1.0, 2.0]])).sort_by(0).values
        array([[3., 2., 1.],
               [1., 2., 0.]])
        """
        order = np.argsort(-self.values[epoch], kind="stable")
        return UnitCourse(self.epochs, self.values[:, order])


def unit_heat_maps(
    runs: Mapping[str, Mapping[str, UnitCourse]], label: str, *, least: float, sorted_by: int, order: str
) -> Figure:
    """Draw the logarithm of a value of each unit at every epoch: a column for each run, a row of panels for each layer.

    Args:
        runs: by name, the layers from the top down.
        label: the label of the values, with their unit.
        least: the value at which all smaller ones are drawn.
        sorted_by: the index of the epoch whose values order the units, the largest on top.
        order: the order of the units in words.
    """
    # From the top down: the deepest run has all layers in order.
    layers = max((list(each) for each in runs.values()), key=len)
    layers = [*dict.fromkeys(layer for each in runs.values() for layer in each if layer not in layers), *layers]
    figure, grid = grid_of_axes(len(layers), len(runs), width=3.2, height=1.9)
    values = np.concatenate([each.values.ravel() for courses in runs.values() for each in courses.values()])
    low, high = np.log10(np.maximum([values.min(), values.max()], least))
    for column, (name, courses) in enumerate(runs.items()):
        for row, layer in enumerate(layers):
            axes = grid[row][column]
            if layer not in courses:
                axes.set_axis_off()
                continue
            course = courses[layer].sort_by(sorted_by)
            shown = np.log10(np.maximum(course.values, least)).T
            edges = course.epochs[0] - 0.5, course.epochs[-1] + 0.5, len(shown) + 0.5, 0.5
            image = axes.imshow(
                shown, aspect="auto", cmap=SEQUENTIAL, vmin=low, vmax=high, extent=edges, interpolation="nearest"
            )
            title = f"{name}: {layer}" if len(runs) > 1 else layer
            finish(axes, "epoch" if row == len(layers) - 1 else "", "unit" if column == 0 else "", title)
            whole_numbers(axes.xaxis, axes.yaxis)
    bar = figure.colorbar(image, ax=[axes for row in grid for axes in row], shrink=0.8)
    bar.ax.tick_params(labelsize=SMALL - 1)
    bar.set_label(f"log10 of {label}", fontsize=SMALL)
    figure.suptitle(f"units sorted by {order}, the largest on top", fontsize=SMALL)
    return figure


def divergence_bars(runs: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the divergence of each layer in nats per image: a group of bars for each layer, a bar for each run."""
    layers = list(dict.fromkeys(layer for each in runs.values() for layer in each))
    figure = new_figure(max(5.0, 0.9 * len(layers) + 0.35 * len(layers) * len(runs)), 3.4)
    axes = figure.add_subplot()
    width = 0.8 / len(runs)
    for number, (name, divergences) in enumerate(runs.items()):
        places = [layers.index(layer) + (number - (len(runs) - 1) / 2) * width for layer in divergences]
        bars = axes.bar(places, list(divergences.values()), width, label=name, color=color_of(number))
        axes.bar_label(bars, fmt="{:.1f}", fontsize=SMALL - 1)
    axes.set_xticks(range(len(layers)), layers)
    finish(axes, "layer, z1 next to the data", "KL (nats per example)")
    if len(runs) > 1:
        axes.legend(fontsize=SMALL, frameon=False)
    return figure
