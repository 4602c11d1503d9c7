"""Pictures: arrays in, a matplotlib ``Figure`` out. Nothing here opens a window or writes a file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

Array = NDArray[np.floating]


def image_grid(images: Array, shape: tuple[int, int, int], *, columns: int, title: str = "") -> Figure:
    """Images ``(N, D)`` in [0, 1], row by row on a grid.

    Args:
        images: one image a row.
        shape: channels (1 or 3), height and width.
        columns: images in a row of the grid.
        title: written above.
    """
    channels, height, width = shape
    rows = -(-len(images) // columns)
    canvas = np.ones((rows * columns, height, width, channels))
    canvas[: len(images)] = np.asarray(images).reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    canvas = canvas.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    figure = Figure(figsize=(columns * 0.6, rows * 0.6 * height / width + 0.3), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    axes.imshow(
        canvas.reshape(rows * height, columns * width, channels).squeeze(-1 if channels == 1 else ()),
        cmap="gray",
        vmin=0,
        vmax=1,
    )
    axes.set_axis_off()
    axes.set_title(title, fontsize="medium")
    return figure


def reconstructions(originals: Array, means: Array, shape: tuple[int, int, int]) -> Figure:
    """Originals ``(N, D)`` above the means ``(N, D)`` of their reconstructions."""
    return image_grid(
        np.concatenate([originals, means]),
        shape,
        columns=len(originals),
        title="test images, and their reconstructions",
    )


def completions(told: Array, drawn: Array, originals: Array, *, shape: tuple[int, int, int]) -> Figure:
    """In each row what the model is told of an image ``(N, D)``, what it draws ``(N, S, D)``, and the image ``(N, D)``."""
    rows = np.concatenate([told[:, None], drawn, originals[:, None]], 1)
    title = "told, drawn (means of p(x|z, c)), and the truth"
    return image_grid(rows.reshape(-1, rows.shape[-1]), shape, columns=rows.shape[1], title=title)


def training_curve(history: Sequence[Mapping[str, float]], bound: str) -> Figure:
    """The bound under ``bound`` at every epoch of a history, in nats per image."""
    figure = Figure(figsize=(6, 3.5), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    axes.plot([row["epoch"] for row in history], [row[bound] for row in history], marker="." if len(history) < 30 else "")
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{bound.removesuffix('_nats').replace('_', ' ')} (nats per image)")
    return figure


def activity_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """The active units and the divergence of each layer at every epoch of a history that has them."""
    figure = Figure(figsize=(9, 3.5), layout="constrained", dpi=150)
    active, divergence = figure.subplots(1, 2)
    rows = [row for row in history if "kl_by_layer" in row]
    epochs, marker = [row["epoch"] for row in rows], "." if len(rows) < 30 else ""
    for layer in rows[-1]["kl_by_layer"]:
        counts = [row["active_units"][layer] for row in rows]
        divergence.plot(epochs, [row["kl_by_layer"][layer] for row in rows], marker=marker, label=layer)
        color = divergence.lines[-1].get_color()
        for threshold, style in (("above_0.01", "-"), ("above_0.1", ":")):
            active.plot(epochs, [each[threshold] for each in counts], style, marker=marker, color=color)
    for axes, label in ((active, "active units (variance above 0.01, dotted 0.1)"), (divergence, "KL (nats per image)")):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel(label)
    divergence.legend(fontsize="small")
    return figure


def histogram(values: Mapping[str, Array]) -> Figure:
    """Log-likelihoods of each image ``(N,)`` in nats, by the name of their set, over each other on one scale."""
    figure = Figure(figsize=(6, 3.5), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=60)
    for name, each in values.items():
        axes.hist(each, bins=edges.tolist(), density=True, alpha=0.6, label=f"{name}, mean {each.mean():.1f}")
    axes.set_xlabel("log p(x) (nats per image)")
    axes.set_ylabel("density of images")
    axes.legend(fontsize="small")
    return figure
