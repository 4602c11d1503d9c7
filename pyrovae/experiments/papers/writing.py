"""Write the results of an experiment: pictures, a page, tables, and, last, the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.errors import InputError
from pyrovae.experiments import files
from pyrovae.experiments.folder import FIGURES
from pyrovae.experiments.papers.experiment import Experiment
from pyrovae.experiments.papers.outcome import OUTCOME, Outcome
from pyrovae.experiments.pictures.gallery import draw, obstacle
from pyrovae.experiments.pictures.kinds import KINDS
from pyrovae.experiments.pictures.views import View
from pyrovae.experiments.report import drawing_of, render_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT = "report.html"


@dataclass(frozen=True)
class Picture:
    """A picture of an experiment.

    Args:
        title: the title, by which its file is named.
        kind: one of ``KINDS``, or empty.
        figure: the drawing.
    """

    title: str
    kind: str
    figure: Figure


def known_outcome(folder: Path, key: str | None = None) -> Outcome | None:
    """Read the outcome in a folder, if it is whole and, where a key is given, has this key; else None."""
    try:
        known = Outcome.load(folder / OUTCOME)
    except InputError:
        return None
    whole = all((folder / name).exists() for name in (*known.pictures, "table.md", "table.csv", REPORT))
    return known if whole and key in (None, known.key) else None


def pictures_of(experiment: Experiment, views: Mapping[str, View]) -> tuple[list[Picture], list[str]]:
    """Draw the pictures of an experiment; returns also the reasons why others cannot be drawn."""
    drawn, obstacles = [], []
    for title, names in experiment.pictures.items():
        kind = title.partition(" ")[0]
        chosen = [views[name] for name in names or views if name in views]
        if not chosen:
            continue
        reason = obstacle(kind, chosen)
        with suppress(InputError):
            drawn += [] if reason else [Picture(title, kind, draw(kind, chosen))]
            obstacles += [f"Not drawn: {title}: {reason}."] if reason else []
            continue
        obstacles.append(f"Not drawn: {title}: its runs hold what cannot be drawn.")
    return drawn, obstacles


def write_outcome(outcome: Outcome, drawn: Sequence[Picture]) -> Outcome:
    """Write pictures, page, tables and record of an outcome; while these are written there is no record."""
    from pyrovae.plots.encoding import encode_figure

    folder = outcome.folder
    assert folder is not None
    with files.writing(folder), suppress(FileNotFoundError):
        (folder / OUTCOME).unlink()
    files.make_folder(folder / FIGURES)
    names, elements = [], []
    for each in drawn:
        slug = "".join(letter if letter.isalnum() else "-" for letter in each.title)
        names.append(f"{FIGURES}/{slug}.png")
        files.write_file(folder / names[-1], encode_figure(each.figure, "png"))
        kind = KINDS.get(each.kind)
        shows = kind.shows if kind else outcome.shows
        _, _, part = each.title.partition(" ")
        caption = {
            "shows": shows[0].upper() + shows[1:] + (f" ({part})" if part else ""),
            "reading": kind.reading if kind else "",
        }
        drawing = drawing_of(each.figure, slug, shows, is_grid=kind is not None and kind.is_grid)
        seed = "Of the first seed." if outcome.seeds > 1 else ""
        elements.append({"kind": slug, "drawing": drawing, "source": seed, **caption})
    outcome = replace(outcome, pictures=names)
    header, rows = outcome.table
    page = render_page(
        "experiment.html", title=outcome.experiment, outcome=outcome, header=header, rows=rows, pictures=elements, missing={}
    )
    files.write_file(folder / REPORT, page.encode())
    outcome.save()
    return outcome
