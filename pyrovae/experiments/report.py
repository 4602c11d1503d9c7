"""``write_report``: write one page about one run or several.

The page contains its pictures, style and script, and its policy allows nothing else. The same runs give the same bytes. Text is
escaped by ``jinja2``, names in drawings by matplotlib.
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

from pyrovae.errors import InputError, in_one_line
from pyrovae.experiments import files
from pyrovae.experiments.checking import DAMAGE
from pyrovae.experiments.nearest import nearest_publication
from pyrovae.experiments.pictures.gallery import draw, obstacle
from pyrovae.experiments.pictures.kinds import KINDS
from pyrovae.experiments.pictures.needs import comparable
from pyrovae.experiments.pictures.views import View
from pyrovae.experiments.summaries import bounds_rows, evaluation_rows, surroundings_rows
from pyrovae.plots.encoding import encode_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
RESOLUTION = 110


@dataclass(frozen=True)
class Table:
    """A table: rows under named columns.

    Args:
        columns: the names of the columns.
        rows: the rows, with a cell for each column.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_report(views: Sequence[View], path: str | Path) -> Path:
    """Write a page about runs and return its path.

    Args:
        views: the views of the runs.
        path: the path of the page.

    Raises:
        InputError: for a page that cannot be written.
    """
    path = Path(path)
    files.write_file(path, page(views).encode())
    return path


def page(views: Sequence[View]) -> str:
    """The page about runs, as HTML."""
    pictures, missing = _pictures(views)
    return render_page(
        "report.html",
        title=", ".join(view.title for view in views),
        several=len(views) > 1,
        comparable=_comparable(views),
        summary=_summary(views),
        runs=[describe_run(view) for view in views],
        pictures=pictures,
        missing=missing,
    )


def render_page(template: str, **values: Any) -> str:
    """Render a page that needs no other files, as HTML.

    Args:
        template: a file of ``templates`` that extends page.html.
        values: the values for the template.
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
        return f"Their figures cannot be compared: {reason}."
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


def describe_run(view: View) -> dict[str, Any]:
    """Describe one run for the page.

    Raises:
        InputError: for a folder with contents that no training writes.
    """
    try:
        return _told(view)
    except DAMAGE as error:
        raise InputError(f"{view.title}: expected a run; its folder holds {in_one_line(error)}") from error


def _told(view: View) -> dict[str, Any]:
    evaluation, bounds = view.evaluation, view.bounds
    tables: dict[str, Mapping[str, str]] = {
        "The likelihood, and how far to trust it": {} if evaluation is None else evaluation_rows(evaluation),
        "Bounds from both sides": {} if bounds is None else bounds_rows(bounds),
        "What was published": nearest_publication(view.run.recipe, evaluation),
        "How it was trained": surroundings_rows(view.history, view.run.environment),
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
        found.append("The current weights were not evaluated: there is no likelihood to show.")
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
    """The pictures that make sense for the runs, and the reasons why others do not or cannot be drawn."""
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
    """Make an element of a page from a picture: images as one PNG, others as SVG in the colours of the page.

    Args:
        figure: the picture.
        name: a name that is unique on the page, of letters, digits and dashes.
        shows: what the picture shows, in a line.
        is_grid: whether it consists of images.
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
    """Give a drawing the colours of the page, and identifiers that no other drawing has. Only tags are changed."""
    names = set(re.findall(r'<[^>]* id="([^"]+)"', drawn))

    def rename_reference(found: re.Match[str]) -> str:
        return found[1] + (f"{kind}-{found[2]}" if found[2] in names else found[2])

    def change_tag(found: re.Match[str]) -> str:
        tag = found[0].replace("#000000", "currentColor").replace("#ffffff", "var(--page)")
        tag = re.sub(r' id="([^"]+)"', rf' id="{kind}-\1"', tag)
        for start in ("url\\(#", 'href="#'):
            tag = re.sub(rf'({start})([^")]+)', rename_reference, tag)
        return re.sub(r"^<text (?!.*fill)", '<text fill="currentColor" ', tag)

    return re.sub(r"<[^>]*>", change_tag, drawn)
