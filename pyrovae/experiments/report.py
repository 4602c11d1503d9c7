"""``write_report``: one page that tells the story of one run or of several.

It stands alone: pictures, style and script are in it, and its policy lets nothing else in. The same runs give the same bytes.
All text comes from ``jinja2``, which escapes what is in it; drawings are matplotlib's, which escapes the names in them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError
from pyrovae.experiments import files
from pyrovae.experiments.checking import DAMAGE
from pyrovae.experiments.measuring import in_one_line
from pyrovae.experiments.nearest import nearest_publication
from pyrovae.experiments.pictures.gallery import draw, obstacle
from pyrovae.experiments.pictures.kinds import KINDS
from pyrovae.experiments.pictures.needs import comparable
from pyrovae.experiments.pictures.views import View
from pyrovae.experiments.summaries import of_bounds, of_evaluation, of_surroundings
from pyrovae.plots.encoding import encode_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
RESOLUTION = 110


@dataclass(frozen=True)
class Table:
    """Rows under names.

    Args:
        columns: the names.
        rows: as many cells each.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_report(views: Sequence[View], path: str | Path) -> Path:
    """Write a page about runs; return where it is.

    Args:
        views: of the runs.
        path: of the page.

    Raises:
        InputError: where it cannot be written.
    """
    path = Path(path)
    files.write_file(path, page(views).encode())
    return path


def page(views: Sequence[View]) -> str:
    """The page about runs, as HTML."""
    pictures, missing = _pictures(views)
    return rendered(
        "report.html",
        title=", ".join(view.title for view in views),
        several=len(views) > 1,
        comparable=_comparable(views),
        summary=_summary(views),
        runs=[told(view) for view in views],
        pictures=pictures,
        missing=missing,
    )


def rendered(template: str, **values: Any) -> str:
    """A page that stands alone, as HTML.

    Args:
        template: a file of ``templates`` that extends page.html.
        values: that it is made of.
    """
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    style, script = ((TEMPLATES / name).read_text() for name in ("report.css", "report.js"))
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = {"style": Markup(style), "script": Markup(script), "script_hash": digest, "version": version("pyrovae")}
    return environment.get_template(template).render(**page, **values)


def _comparable(views: Sequence[View]) -> str:
    if reason := comparable(views):
        return f"Their figures are no figures of one thing: {reason}."
    return f"All under one protocol: {views[0].run.protocol} [{views[0].run.protocol_hash}]."


def _summary(views: Sequence[View]) -> Table:
    rows = []
    for view in views:
        found = view.evaluation
        error = "" if found is None or found.standard_error is None else f" ± {found.standard_error:.2f}"
        rows.append(
            (
                view.title,
                f"{found.log_likelihood:.2f}{error}" if found is not None and found.log_likelihood is not None else "",
                f"{found.num_samples:,}" if found else "",
                f"{found.elbo:.2f}" if found else "",
                f"{sum(found.kl_by_layer.values()):.2f}" if found else "",
                f"{len(view.history)} of {view.run.recipe.total_epochs}",
                found.model if found else "not evaluated",
            )
        )
    return Table(("run", "log p(x), nats", "samples", "ELBO, nats", "KL, nats", "epochs", "model"), rows)


def told(view: View) -> dict[str, Any]:
    """The parts of the page about one run.

    Raises:
        InputError: for a folder that holds what no training writes.
    """
    try:
        return _told(view)
    except DAMAGE as error:
        raise InputError(f"{view.title}: expected a run; its folder holds {in_one_line(error)}") from error


def _told(view: View) -> dict[str, Any]:
    evaluation, bounds = view.evaluation, view.bounds
    tables: dict[str, Mapping[str, str]] = {
        "The likelihood, and how far to trust it": {} if evaluation is None else of_evaluation(evaluation),
        "Bounds from both sides": {} if bounds is None else of_bounds(bounds),
        "What was published": nearest_publication(view.run.recipe, evaluation),
        "How it was trained": of_surroundings(view.history, view.run.environment),
    }
    return {
        "name": view.title,
        "warnings": _warnings(view),
        "tables": tables,
        "layers": _layers(view),
        "commands": _commands(view),
        "recipe": view.run.recipe.to_toml(),
    }


def _warnings(view: View) -> list[str]:
    found = []
    if not view.run.is_whole:
        found.append(f"The training is not whole: {len(view.history)} of {view.run.recipe.total_epochs} epochs.")
    if view.evaluation is None:
        found.append("It was not evaluated as it is now: there is no likelihood to show.")
    return found


def _layers(view: View) -> Table | None:
    found = view.evaluation
    if found is None or not found.kl_by_layer:
        return None
    thresholds = [name for name in next(iter(found.active_units.values()), {}) if name != "units"]
    rows = [
        (
            layer,
            str(found.active_units[layer]["units"]),
            f"{nats:.2f}",
            *(str(found.active_units[layer][name]) for name in thresholds),
        )
        for layer, nats in found.kl_by_layer.items()
        if layer in found.active_units
    ]
    return Table(("layer", "units", "KL, nats", *(f"active, {name.replace('_', ' ')}" for name in thresholds)), rows)


def _commands(view: View) -> str:
    samples = f" --samples {view.evaluation.num_samples}" if view.evaluation else ""
    lines = ["pyrovae fit --config run.toml --output run" + samples]
    if view.bounds is not None:
        found = view.bounds
        lines.append(
            f"pyrovae bounds run --images {found.num_images} --temperatures {found.num_temperatures} "
            f"--chains {found.num_chains} --samples {found.num_samples}"
        )
    return "\n".join([*lines, "pyrovae report run -o report.html"])


def _pictures(views: Sequence[View]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Those that make sense for the runs, and why the others do not; one that cannot be drawn is one of the others."""
    missing = {kind: obstacle(kind, views) for kind in KINDS}
    pictures = []
    for kind in (kind for kind, reason in list(missing.items()) if not reason):
        each = KINDS[kind]
        try:
            drawing = drawing_of(draw(kind, views), kind, each.shows, is_grid=each.is_grid)
        except InputError as error:
            missing[kind] = str(error)
            continue
        shows = each.shows[0].upper() + each.shows[1:]
        source = "" if each.source == "ours" else f"As in {each.source}."
        pictures.append({"kind": kind, "shows": shows, "reading": each.reading, "source": source, "drawing": drawing})
    return pictures, {kind: reason for kind, reason in missing.items() if reason}


def drawing_of(figure: Figure, name: str, shows: str, *, is_grid: bool) -> Any:
    """A picture as an element of a page: images as one PNG, all else as SVG in the colours of the page.

    Args:
        figure: the picture.
        name: that tells it from the others of the page, in letters, digits and dashes.
        shows: what is seen, in a line.
        is_grid: whether it is made of images.
    """
    from markupsafe import Markup

    if is_grid:
        content = base64.b64encode(encode_figure(figure, "png", dpi=RESOLUTION)).decode()
        return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(shows, content)
    drawn = encode_figure(figure, "svg", transparent=True, dpi=RESOLUTION).decode()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = drawn.replace("<svg ", f'<svg role="img" aria-label="{shows}" ', 1)
    return Markup(_apart(drawn, name))


def _apart(drawn: str, kind: str) -> str:
    """A drawing in the colours of the page, whose names within are no other drawing's. What is no tag stays as it is."""
    names = set(re.findall(r'<[^>]* id="([^"]+)"', drawn))

    def referred(found: re.Match[str]) -> str:
        return found[1] + (f"{kind}-{found[2]}" if found[2] in names else found[2])

    def changed(found: re.Match[str]) -> str:
        tag = found[0].replace("#000000", "currentColor").replace("#ffffff", "var(--page)")
        tag = re.sub(r' id="([^"]+)"', rf' id="{kind}-\1"', tag)
        for start in ("url\\(#", 'href="#'):
            tag = re.sub(rf'({start})([^")]+)', referred, tag)
        return re.sub(r"^<text (?!.*fill)", '<text fill="currentColor" ', tag)

    return re.sub(r"<[^>]*>", changed, drawn)
