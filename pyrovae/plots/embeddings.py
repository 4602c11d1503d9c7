"""The places of data in a latent space, and the images at its points."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.special import ndtri

from pyrovae.plots.images import Shape, tile_images
from pyrovae.plots.style import SMALL, as_text, color_of, finish, grid_of_axes, is_many, new_figure

Array = NDArray[np.floating]
Classes = NDArray[np.integer] | NDArray[np.str_]
FEW_POINTS = 1000


def principal_components(points: Array, number: int = 2) -> tuple[Array, Array]:
    r"""The orthonormal directions of the largest variance of points ``(number, D)``, and the share of variance of each.

    The largest entry of each direction is positive.

    Args:
        points: the points ``(N, D)``.
        number: the number of directions, at most D.
    """
    centred = points - points.mean(0)
    _, scales, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:number]
    largest = np.abs(directions).argmax(1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    shares = scales**2 / max(float((scales**2).sum()), np.finfo(float).tiny)
    return directions * np.where(signs == 0, 1, signs)[:, None], shares[:number]


def projections(runs: Mapping[str, Mapping[str, Array]], classes: Classes | None) -> Figure:
    """Draw points of each layer along two principal components, coloured by class: a row for each run, a panel for each layer.

    Args:
        runs: by name, points ``(N, D_l)`` of each layer.
        classes: the classes of the points ``(N,)``, or None.
    """
    layers = list(dict.fromkeys(layer for each in runs.values() for layer in each))
    figure, grid = grid_of_axes(len(runs), len(layers), width=2.4, height=2.4)
    marks = sum(len(points) for found in runs.values() for points in found.values())
    for row, (name, found) in zip(grid, runs.items(), strict=True):
        for axes, layer in zip(row, layers, strict=True):
            if layer not in found:
                axes.set_axis_off()
                continue
            points = found[layer]
            directions, shares = principal_components(points)
            # A layer of one unit has one direction; the other coordinate is zero.
            flat = np.zeros((len(points), 2 - len(directions)))
            coordinates = np.concatenate([(points - points.mean(0)) @ directions.T, flat], 1)
            scatter_by_class(axes, coordinates, classes, marks=marks)
            first, second = (*(f" ({share:.0%})" for share in shares), "")[:2]
            title = f"{name}: {layer}" if len(runs) > 1 else layer
            finish(axes, f"component 1{first}", f"component 2{second}", title)
    return figure


def encodings(runs: Mapping[str, Array], classes: Classes | None) -> Figure:
    """Draw points of a latent of two dimensions ``(N, 2)``, coloured by class: a panel for each run."""
    figure, ((*row,),) = grid_of_axes(1, len(runs), width=4.2, height=4.0)
    for axes, (name, points) in zip(row, runs.items(), strict=True):
        scatter_by_class(axes, points, classes, marks=sum(map(len, runs.values())))
        finish(axes, "unit 1", "unit 2", name if len(runs) > 1 else "")
        axes.set_aspect("equal")
    return figure


def scatter_by_class(axes: Axes, points: Array, classes: Classes | None, *, marks: int) -> None:
    """Draw points ``(N, 2)``, each class in its colour, with its number or name at the median of its points.

    Args:
        axes: the axes.
        points: the points.
        classes: the classes of the points ``(N,)``, or None.
        marks: the number of points in the whole figure.
    """
    classes = np.zeros(len(points), int) if classes is None else classes
    size = 10 if len(points) <= FEW_POINTS else 4
    for number, each in enumerate(np.unique(classes)):
        inside = points[classes == each]
        color = color_of(number)
        axes.scatter(inside[:, 0], inside[:, 1], s=size, color=color, alpha=0.6, linewidths=0, rasterized=is_many(marks))
    if len(np.unique(classes)) < 2:
        return
    for number, each in enumerate(np.unique(classes)):
        x, y = np.median(points[classes == each], 0)
        axes.text(
            x,
            y,
            as_text(str(each)),
            color=color_of(number),
            ha="center",
            va="center",
            fontsize=SMALL + 3,
            fontweight="bold",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def lattice(side: int) -> tuple[Array, Array]:
    r"""The points at the quantiles :math:`(i + 1/2) / \mathrm{side}` of two standard normals ``(side * side, 2)``.

    They go row by row, as a picture is read: the first unit grows to the right, the second upwards. Each point stands for the
    same share of the prior. The quantiles ``(side,)`` are returned too.

    >>> points, quantiles = lattice(4)
    >>> points[0].round(3), quantiles
    (array([-1.15,  1.15]), array([0.125, 0.375, 0.625, 0.875]))
    """
    quantiles = (np.arange(side) + 0.5) / side
    values = ndtri(quantiles)
    x, y = np.meshgrid(values, values[::-1])
    return np.stack([x.ravel(), y.ravel()], 1), quantiles


def manifold(runs: Mapping[str, Array], shape: Shape) -> Figure:
    """Draw images at the points of a ``lattice`` ``(side * side, D)``: a panel for each run, ticks at prior quantiles."""
    figure = new_figure(4.6 * len(runs), 4.3)
    ((*row,),) = figure.subplots(1, len(runs), squeeze=False)
    for axes, (name, images) in zip(row, runs.items(), strict=True):
        side = round(len(images) ** 0.5)
        quantiles = lattice(side)[1]
        axes.imshow(tile_images(images, shape, side), cmap="gray", vmin=0, vmax=1)
        chosen = sorted({0, side // 2, side - 1})
        names = [f"{ndtri(quantiles[each]):.2f}\n({quantiles[each]:.1%})" for each in chosen]
        axes.set_xticks([(each + 0.5) * shape[2] for each in chosen], names)
        axes.set_yticks([(side - each - 0.5) * shape[1] for each in chosen], names)
        finish(axes, "unit 1 (quantile of the prior)", "unit 2 (quantile of the prior)", name if len(runs) > 1 else "")
    return figure
