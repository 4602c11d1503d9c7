"""Images: on grids, in rows with names, side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrovae.plots.style import SMALL, new_figure

Array = NDArray[np.floating]
Shape = tuple[int, int, int]
# The inches of an image of 28 pixels; larger images take up to twice as much.
INCHES, PIXELS = 0.55, 28
# The inches of a character in the name of a row, of a word beneath an image, and between rows.
NAME_INCHES, WORD_INCHES, GAP = 0.066, 0.15, 0.06


def tile_images(images: Array, shape: Shape, columns: int) -> Array:
    """Put images ``(N, D)`` in [0, 1] row by row on one canvas ``(rows * H, columns * W)``, with colours last.

    Args:
        images: one image a row.
        shape: channels (1 or 3), height and width.
        columns: images in a row of the canvas; the rest of the last row is white.
    """
    channels, height, width = shape
    rows = -(-len(images) // columns)
    canvas = np.ones((rows * columns, height, width, channels))
    canvas[: len(images)] = np.clip(images, 0, 1).reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    canvas = canvas.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return canvas.reshape(rows * height, columns * width, channels).squeeze(-1 if channels == 1 else ())


def image_grid(images: Array, shape: Shape, *, columns: int, title: str = "") -> Figure:
    """Draw images ``(N, D)`` in [0, 1], row by row on a grid.

    Args:
        images: one image a row.
        shape: channels (1 or 3), height and width.
        columns: images in a row of the grid.
        title: written above.
    """
    return image_panels({"": {title: images}}, {"": shape}, columns=columns)


def image_panels(rows: Mapping[str, Mapping[str, Array]], shapes: Mapping[str, Shape], *, columns: int) -> Figure:
    """Draw grids of images beside each other: a row of panels for each name, a column for each title.

    Args:
        rows: by name and title, images ``(N, D)``.
        shapes: the shapes of the images of each row.
        columns: images in a row of a panel.
    """
    titles = list(dict.fromkeys(title for panels in rows.values() for title in panels))
    heights = {name: max(-(-len(each) // columns) * _aspect(shapes[name]) for each in rows[name].values()) for name in rows}
    inches = max(_inches(shape) for shape in shapes.values())
    figure = new_figure(inches * columns * len(titles) + 0.4, inches * sum(heights.values()) + 0.35 * len(rows))
    grid = figure.subplots(len(rows), len(titles), squeeze=False, height_ratios=list(heights.values()))
    for number, (name, panels) in enumerate(rows.items()):
        for axes, title in zip(grid[number], titles, strict=True):
            if title in panels:
                _show(axes, tile_images(panels[title], shapes[name], columns))
            else:
                axes.set_axis_off()
            axes.set_title(title if number == 0 else "", fontsize=SMALL + 1)
        grid[number][0].set_ylabel(name, fontsize=SMALL)
    return figure


def image_rows(
    rows: Mapping[str, Array],
    shape: Shape,
    *,
    title: str = "",
    above: Sequence[str] = (),
    after: Mapping[str, Sequence[str]] = {},
) -> Figure:
    """Draw images in rows that have names.

    Args:
        rows: by name, images ``(N, D)`` in [0, 1].
        shape: channels (1 or 3), height and width.
        title: the title above all rows.
        above: a word for each column.
        after: by the name of a row, a word beneath each of its images.
    """
    columns = max(map(len, rows.values()))
    width, height = _inches(shape) * columns, _inches(shape) * _aspect(shape)
    left, top = NAME_INCHES * max(map(len, rows)) + 0.15, (0.25 if title else 0.0) + (0.2 if above else 0.0) + GAP
    pitch = height + (WORD_INCHES if after else 0.0) + GAP
    size = left + width + GAP, top + pitch * len(rows)
    # Placed without a layout engine, so that the size of images does not depend on the names of rows.
    figure = Figure(figsize=size, dpi=150)
    for number, (name, images) in enumerate(rows.items()):
        bottom = size[1] - top - pitch * number - height
        axes = figure.add_axes((left / size[0], bottom / size[1], width / size[0], height / size[1]))
        _show(axes, tile_images(images, shape, columns))
        axes.set_ylabel(name, fontsize=SMALL, rotation=0, ha="right", va="center")
        middles = (np.arange(columns) + 0.5) * shape[2]
        if number == 0 and above:
            axes.set_xticks(middles, above, fontsize=SMALL - 1)
            axes.tick_params(top=False, bottom=False, labeltop=True, labelbottom=False, pad=1)
        if name in after:
            axes.set_xticks(middles[: len(after[name])], after[name], fontsize=SMALL - 1)
            axes.tick_params(bottom=False, pad=1)
    figure.suptitle(title, fontsize=SMALL + 1, y=1 - 0.04 / size[1], va="top")
    return figure


def _show(axes: Axes, canvas: Array) -> None:
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _aspect(shape: Shape) -> float:
    return shape[1] / shape[2]


def _inches(shape: Shape) -> float:
    return INCHES * min(2.0, max(1.0, shape[2] / PIXELS))
