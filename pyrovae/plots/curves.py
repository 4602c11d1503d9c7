"""Curves over epochs, over the depth of a hierarchy, and over the number of components of a prior."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrovae.plots.style import (
    Label,
    color_of,
    finish,
    grid_of_axes,
    label_directly,
    line_style,
    marker_of,
    new_figure,
    whole_numbers,
)

Array = NDArray[np.floating]
# The share of first epochs, far below the others, that may lie below the axis.
SHARE_OF_EARLY_EPOCHS = 0.1


@dataclass(frozen=True, eq=False)
class Course:
    """The bound of one training.

    Args:
        epochs: the numbers of the epochs ``(T,)``.
        train: the bound on training images in nats ``(T,)``, or None.
        valid: the bound on validation images in nats ``(T,)``, or None.
        kl_weight: the weight of the latent terms ``(T,)``.
    """

    epochs: Array
    train: Array | None
    valid: Array | None
    kl_weight: Array


def learning_curves(courses: Mapping[str, Course], label: str = "ELBO (nats per example)") -> Figure:
    """Draw the bound of each training at every epoch, dashed for training images, above the weight of its latent terms.

    Epochs before the first tenth may lie below the axis.
    """
    figure = new_figure(7, 4.6)
    bound, weight = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    labels, both = [], any(each.train is not None and each.valid is not None for each in courses.values())
    for number, (name, course) in enumerate(courses.items()):
        color = color_of(number)
        first = course.valid if course.valid is not None else course.train
        if first is None:
            continue
        bound.plot(course.epochs, first, color=color, marker=marker_of(first))
        if course.valid is not None and course.train is not None:
            bound.plot(course.epochs, course.train, color=color, linestyle="--", linewidth=1)
        weight.plot(course.epochs, course.kl_weight, **line_style(number))
        labels.append(Label(float(np.nan_to_num(first[-1])), name, color))
    _leave_out_early_epochs(bound, list(courses.values()))
    label_directly(bound, labels)
    said = "solid: validation, dashed: training" if both else ""
    finish(bound, y=label, title=said)
    finish(weight, "epoch", "weight of\nlatent terms")
    weight.set_ylim(-0.05, max(1.1, weight.get_ylim()[1]))
    whole_numbers(weight.xaxis)
    return figure


def _leave_out_early_epochs(axes: Axes, courses: Sequence[Course]) -> None:
    curves = [values for course in courses for values in (course.train, course.valid) if values is not None]
    late = np.concatenate([each[int(SHARE_OF_EARLY_EPOCHS * len(each)) :] for each in curves] or [np.zeros(0)])
    all_of_them = np.concatenate(curves or [np.zeros(0)])
    late, finite = late[np.isfinite(late)], all_of_them[np.isfinite(all_of_them)]
    if len(late):
        lowest, highest = late.min(), finite.max()
        room = 0.05 * (highest - lowest) or 1.0
        axes.set_ylim(max(axes.get_ylim()[0], lowest - room), highest + room)


def counts_over_epochs(lines: Mapping[str, tuple[Array, Mapping[str, Array]]], label: str) -> Figure:
    """Draw counts at every epoch ``(T,)``, two kinds for each name: the first solid, the second dotted.

    Args:
        lines: by name, epochs ``(T,)`` and counts by the name of what is counted.
        label: the label of the y axis.
    """
    figure = new_figure(7, 3.6)
    axes = figure.add_subplot()
    labels = []
    for number, (name, (epochs, counts)) in enumerate(lines.items()):
        color = color_of(number)
        for style, values in zip(("-", ":"), counts.values(), strict=False):
            axes.plot(epochs, values, style, color=color, marker=marker_of(epochs))
        labels.append(Label(float(next(iter(counts.values()))[-1]), name, color))
    axes.set_ylim(bottom=0)
    label_directly(axes, labels)
    kinds = [name for _, counts in lines.values() for name in counts]
    finish(axes, "epoch", label, title=", dotted: ".join(dict.fromkeys(kinds)))
    whole_numbers(axes.xaxis, axes.yaxis)
    return figure


@dataclass(frozen=True)
class Measurement:
    """A measured figure.

    Args:
        x: the position on the x axis.
        value: the figure in nats per image.
        standard_error: the standard error of the figure.
    """

    x: float
    value: float
    standard_error: float = 0.0


def measurements_over(
    panels: Mapping[str, Mapping[str, Sequence[Measurement]]], x: str, *, logarithmic: bool = False
) -> Figure:
    """Draw figures in nats per image over depth, or a number of components, with intervals of two standard errors.

    Args:
        panels: the figures of each family, by the name of the measure.
        x: the label of the x axis.
        logarithmic: whether the x axis is logarithmic.
    """
    figure, ((*axes_of_panels,),) = grid_of_axes(1, len(panels), width=4.2, height=3.2)
    for axes, (measure, families) in zip(axes_of_panels, panels.items(), strict=True):
        labels = []
        for number, (family, found) in enumerate(families.items()):
            ordered = sorted(found, key=lambda each: each.x)
            xs, values = [each.x for each in ordered], [each.value for each in ordered]
            errors = [2 * each.standard_error for each in ordered]
            axes.errorbar(xs, values, yerr=errors, marker="o", markersize=4, capsize=3, **line_style(number))
            labels.append(Label(values[-1], family, color_of(number)))
        if logarithmic:
            axes.set_xscale("log")
        axes.set_xticks(sorted({each.x for found in families.values() for each in found}))
        axes.get_xaxis().set_major_formatter("{x:g}")
        axes.minorticks_off()
        label_directly(axes, labels)
        finish(axes, x, f"{measure} (nats per example)")
    return figure
