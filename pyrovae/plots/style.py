"""The style of all pictures: readable in print, on a dark page, and by people who are colour-blind.

Lines differ by colour and by dashes and carry their names at their ends; each axis has its unit; pictures of many marks keep
their text and axes as vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

# Okabe and Ito (2008), darker colours first; distinguishable in all common kinds of colour blindness.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5C5C5C", "#8C510A", "#000000", "#B8A900")
DASHES = ("-", "--", "-.", ":")
SEQUENTIAL = "viridis"
SMALL = 8
# A vector file of more marks is slow to open: there they become one image.
MOST_VECTOR_MARKS = 2000
# The least distance between two names at the right edge, in heights of the axis.
LABEL_GAP = 0.065


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of a size in inches."""
    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def grid_of_axes(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[list[Axes]]]:
    """Make a figure of rows and columns of axes, each of a size in inches."""
    figure = new_figure(width * columns + 0.4, height * rows + 0.4)
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def finish(axes: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Name the axes, with their units, and leave out the lines at the top and right."""
    axes.set_xlabel(x, fontsize=SMALL)
    axes.set_ylabel(y, fontsize=SMALL)
    axes.set_title(title, fontsize=SMALL + 1)
    axes.tick_params(labelsize=SMALL - 1)
    axes.spines[["top", "right"]].set_visible(False)


def whole_numbers(*axes: Axis) -> None:
    """Put ticks only at whole numbers."""
    for each in axes:
        each.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))


def color_of(number: int) -> str:
    """The colour of a line, by its number."""
    return COLORS[number % len(COLORS)]


def line_style(number: int) -> dict[str, Any]:
    """The colour and dashes of a line, by its number."""
    return {"color": color_of(number), "linestyle": DASHES[number // 2 % len(DASHES)]}


def as_text(name: str) -> str:
    r"""Escape a name for matplotlib, to which two dollars are a formula and names with a leading ``_`` are in no legend.

    >>> print(as_text("$x$"))
    \$x\$
    """
    escaped = name.replace("$", r"\$")
    return f"\u200b{escaped}" if escaped.startswith("_") else escaped


def is_many(marks: int) -> bool:
    """True for a number of marks that is rasterised in vector files."""
    return marks > MOST_VECTOR_MARKS


@dataclass(frozen=True)
class Label:
    """A name to be written at the right end of a line.

    Args:
        y: the height of the line's last point.
        text: the name.
        color: the colour of the line.
    """

    y: float
    text: str
    color: str


def label_directly(axes: Axes, labels: Sequence[Label]) -> None:
    """Write names beside the right ends of lines, moved apart where they would overlap."""
    bottom, top = axes.get_ylim()
    heights = [(label.y - bottom) / (top - bottom) for label in labels]
    for label, height in zip(labels, spread(heights, LABEL_GAP), strict=True):
        axes.text(1.02, height, label.text, color=label.color, transform=axes.transAxes, fontsize=SMALL, va="center", ha="left")


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights in [0, 1] apart by the least possible until any two are ``gap`` apart, in their order.

    >>> [round(each, 2) for each in spread([0.5, 0.5, 0.9], 0.1)]
    [0.45, 0.55, 0.9]
    """
    order = np.argsort(heights, kind="stable")
    # After the room of lower names is subtracted, the least change is an isotonic regression: conflicting neighbours are
    # averaged.
    blocks: list[list[float]] = []
    for rank, place in enumerate(order):
        blocks.append([min(max(heights[place], 0.0), 1.0) - rank * gap])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    moved = [float(np.mean(block)) for block in blocks for _ in block]
    found = [0.0] * len(heights)
    for rank, place in enumerate(order):
        found[place] = moved[rank] + rank * gap
    return found


def marker_of(points: ArrayLike) -> str:
    """The marker of a line: dots where it has few points, else none."""
    return "." if np.size(points) < 30 else ""
