"""Pages that are made at build time, from the code and the examples."""

import re
import shutil
from dataclasses import MISSING, Field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

# Where a family has its table, and what a reader calls it.
FAMILIES = {
    "guides": "programs.guides:GUIDES",
    "priors": "programs.priors:PRIORS",
    "likelihoods": "programs.likelihoods:LIKELIHOODS",
    "conditions": "data.conditions:CONDITIONS",
    "objectives": "inference.objectives:OBJECTIVES",
    "warmups": "inference.warmup:WARMUPS",
    "learning_rates": "inference.learning_rates:LEARNING_RATES",
}


def copy_notebooks(source: Path, target: Path) -> None:
    """Copy the notebooks of the examples to where Sphinx finds them; those that are gone there go here too."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in source.glob("*.ipynb"):
        shutil.copy2(path, target)


def write_contents(notebooks: Path, folder: Path) -> None:
    """Write the table of contents of the notebooks; where there are none, it says so: an empty one is a warning."""
    names = [
        f"{notebooks.name}/{path.stem}" for path in sorted(notebooks.glob("*.ipynb"))
    ]
    contents = "\n".join(["```{toctree}", ":maxdepth: 1", "", *names, "```"])
    folder.mkdir(exist_ok=True)
    _write_where_new(
        folder / "notebooks.txt",
        (contents if names else "There are none in this checkout.") + "\n",
    )


def write_families(folder: Path) -> None:
    """Write a table for each family of parts: its names, and the first line of each docstring."""
    folder.mkdir(exist_ok=True)
    for family, place in FAMILIES.items():
        module, name = place.split(":")
        table = getattr(import_module(f"pyrovae.{module}"), name)
        _write_where_new(folder / f"{family}.txt", "\n".join(_rows(table)) + "\n")
    from pyrovae import DATASETS, RECIPES, Recipe
    from pyrovae.experiments.pictures.kinds import KINDS
    from pyrovae.experiments.published import PUBLISHED

    datasets = {
        name: (_summary(each.load), "x".join(map(str, each.shape)))
        for name, each in DATASETS.items()
    }
    recipes = {name: (PUBLISHED[name].paper, PUBLISHED[name].figure) for name in RECIPES}
    pictures = {
        name: (f"{each.shows[0].upper()}{each.shows[1:]}.", each.reading)
        for name, each in KINDS.items()
    }
    settings = {
        each.name: (_default(each), each.metadata["help"]) for each in fields(Recipe)
    }
    _write_table(folder / "settings.txt", ("setting", "default", "what it is"), settings)
    _write_table(folder / "datasets.txt", ("name", "what it is", "shape"), datasets)
    _write_table(
        folder / "recipes.txt",
        ("name", "paper", "what was reached there, in nats"),
        recipes,
    )
    _write_table(
        folder / "pictures.txt", ("name", "what is seen", "how to read it"), pictures
    )


def _rows(table: dict[str, Any]) -> list[str]:
    return [
        "| name | what it is |",
        "| --- | --- |",
        *(f"| `{name}` | {_summary(each)} |" for name, each in table.items()),
    ]


def _write_table(
    path: Path, head: tuple[str, ...], rows: dict[str, tuple[str, ...]]
) -> None:
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    lines += [
        f"| `{name}` | {' | '.join(_cell(each) for each in cells)} |"
        for name, cells in rows.items()
    ]
    _write_where_new(path, "\n".join(lines) + "\n")


def _summary(part: Any) -> str:
    line = (part.__doc__ or "").strip().partition("\n")[0]
    return _cell(line)


def _default(setting: Field[Any]) -> str:
    value = (
        setting.default if setting.default is not MISSING else setting.default_factory()
    )  # type: ignore[misc]
    return f"`{value!r}`"


def _cell(text: str) -> str:
    return re.sub(r":math:`(.+?)`", r"$\1$", text.replace("|", "\\|").replace("``", "`"))


def _write_where_new(path: Path, text: str) -> None:
    """Leave a file alone that is as it should be: Sphinx reads what has changed."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
