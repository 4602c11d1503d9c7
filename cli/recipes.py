"""``pyrovae recipes``."""

from dataclasses import asdict
from typing import Any

import click

from pyrovae.published import PUBLISHED, RECIPES
from pyrovae.settings import Recipe

from .console import show, show_list


@click.command()
@click.argument("name", required=False, type=click.Choice(list(RECIPES)))
def recipes(name: str | None) -> None:
    """List the published trainings that --recipe knows; with a NAME, its settings, and where the paper says so."""
    if name is not None:
        _show_one(name)
        return
    rows = [
        (name, recipe.dataset, recipe.guide, str(recipe.total_epochs), PUBLISHED[name].paper, PUBLISHED[name].figure)
        for name, recipe in RECIPES.items()
    ]
    show_list(("recipe", "dataset", "guide", "epochs", "paper", "published, nats per image"), rows)


def _show_one(name: str) -> None:
    publication, defaults = PUBLISHED[name], asdict(Recipe())
    rows = [
        (setting.replace("_", " "), _plain(value), _plain(defaults[setting]), publication.says[setting])
        for setting, value in asdict(RECIPES[name]).items()
        if value != defaults[setting] and setting != "stages"
    ]
    rows += [
        (f"stage {number}", _plain(stage) or "as above", "", publication.says["stages"] if number == 1 else "")
        for number, stage in enumerate(RECIPES[name].stages, start=1)
    ]
    show({"paper": publication.paper, "published, nats per image": publication.figure}, title=f"--recipe {name}")
    show_list(("setting", "recipe", "default", "where the paper says so"), rows)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_plain(each)}" for name, each in value.items())
    if isinstance(value, tuple):
        return ",".join(map(_plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
