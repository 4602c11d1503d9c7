"""The gallery: find the pictures that make sense for some runs, and draw them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pyrovae.errors import InputError, in_one_line, nearest
from pyrovae.experiments import files
from pyrovae.experiments.checking import DAMAGE
from pyrovae.experiments.folder import FIGURES, RunFolder
from pyrovae.experiments.pictures.kinds import KINDS
from pyrovae.experiments.pictures.views import View, names_of
from pyrovae.plots.encoding import encode_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyrovae.data.datasets import Dataset

SEED = 0


def views_of(runs: Sequence[RunFolder], datasets: Sequence[Dataset | None] = ()) -> list[View]:
    """Make the views of runs, each with its own data if these are loaded already."""
    known = [*datasets, *[None] * (len(runs) - len(datasets))]
    return [View(run, name, dataset) for run, name, dataset in zip(runs, names_of(list(runs)), known, strict=True)]


def obstacle(kind: str, views: Sequence[View]) -> str:
    """The reason why a picture of runs makes no sense; empty where it makes sense for at least some of them."""
    return _reason(kind, views, *_sorted(kind, views))


def draw(kind: str, views: Sequence[View]) -> Figure:
    """Draw a picture of the runs for which it makes sense, the same each time.

    Raises:
        InputError: for an unknown kind, one that makes no sense for these runs, data that cannot be found, and folders with
            contents that no training writes.
    """
    if kind not in KINDS:
        raise InputError(f"expected a kind out of {', '.join(KINDS)}; got {kind!r}{nearest(kind, KINDS)}")
    titles = ", ".join(each.title for each in views)
    met, reasons = _sorted(kind, views)
    if reason := _reason(kind, views, met, reasons):
        raise InputError(f"expected runs that {kind} can be drawn of; got {titles}: {reason}")
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        try:
            return KINDS[kind].draw(met)
        except DAMAGE as error:
            raise InputError(f"expected runs that {kind} can be drawn of; got {titles}: {in_one_line(error)}") from error


def save_picture(kind: str, views: Sequence[View], folder: str | Path | None = None, format: str = "png") -> Path:
    """Draw a picture into a file and return its path.

    Args:
        kind: one of ``KINDS``.
        views: the views of the runs.
        folder: the folder of the file; by default ``figures``, for a single run in its folder.
        format: one of ``plots.FORMATS``.

    Raises:
        InputError: as ``draw``, and for a folder that cannot be written.
    """
    figure = draw(kind, views)
    if folder is None and len(views) == 1:
        return views[0].run.save_figure(kind, figure, format)
    folder = Path(FIGURES if folder is None else folder)
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files.write_file(folder / f"{kind}.{format}", encode_figure(figure, format))
    return folder / f"{kind}.{format}"


def drawable(views: Sequence[View], *, usual: bool = False) -> Iterator[str]:
    """The kinds that make sense for some runs; with ``usual`` only those that ``fit`` draws."""
    return (kind for kind, each in KINDS.items() if (each.is_usual or not usual) and not obstacle(kind, views))


def _reason(kind: str, views: Sequence[View], met: Sequence[View], reasons: Sequence[str]) -> str:
    if met:
        return KINDS[kind].together(met)
    if len(views) == 1:
        return reasons[0]
    return "; ".join(f"{view.title}: {reason}" for view, reason in zip(views, reasons, strict=True))


def _sorted(kind: str, views: Sequence[View]) -> tuple[list[View], list[str]]:
    """The runs that meet the needs of a picture, and the reasons why others do not."""
    reasons = [_missing(kind, view) for view in views]
    return [view for view, reason in zip(views, reasons, strict=True) if not reason], list(filter(None, reasons))


def _missing(kind: str, view: View) -> str:
    """The first reason why a run cannot be drawn, such as contents of its folder that no training writes; else empty."""
    try:
        return next(filter(None, (need(view) for need in KINDS[kind].needs)), "")
    except InputError as error:
        return str(error)
    except DAMAGE as error:
        return f"its folder holds what no training writes: {in_one_line(error)}"
