"""``pyrovae recipes``."""

from dataclasses import asdict

import click

from pyrovae.recipes import PUBLISHED, RECIPES
from pyrovae.settings import Recipe

from .console import show, show_list


@click.command()
@click.argument("name", required=False, type=click.Choice(list(RECIPES)))
def recipes(name: str | None) -> None:
    """List the published trainings that --recipe knows; with a NAME, where its settings differ from the defaults."""
    if name is not None:
        _show_one(name)
        return
    show_list(
        ("recipe", "dataset", "guide", "epochs", "paper", "published"),
        [(name, recipe.dataset, recipe.guide, str(recipe.epochs), *PUBLISHED[name]) for name, recipe in RECIPES.items()],
    )


def _show_one(name: str) -> None:
    paper, published = PUBLISHED[name]
    defaults = asdict(Recipe())
    rows = {
        setting.replace("_", " "): f"{_plain(value)}  (default {_plain(defaults[setting])})"
        for setting, value in asdict(RECIPES[name]).items()
        if value != defaults[setting]
    }
    show({"paper": paper, "published": published} | rows, title=f"--recipe {name}")


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
