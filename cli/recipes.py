"""``pyrovae recipes``: list the published trainings."""

from dataclasses import asdict

import click

from pyrovae.errors import InputError
from pyrovae.experiments.published import PUBLISHED, RECIPES
from pyrovae.experiments.recipe import Recipe

from .console import show, show_list
from .options import Name, plain


@click.command()
@click.argument("name", required=False, type=Name(list(RECIPES)))
@click.option("--toml", is_flag=True, help="Print the settings of NAME as a file for 'pyrovae fit --config'.")
def recipes(name: str | None, toml: bool) -> None:
    """List the published trainings of --recipe; with a NAME, its settings, and where the paper states them."""
    if toml:
        if name is None:
            raise InputError("expected the NAME of a recipe with --toml; got none: see 'pyrovae recipes'")
        click.echo(RECIPES[name].to_toml(), nl=False)
        return
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
        (setting.replace("_", " "), plain(value), plain(defaults[setting]), publication.says[setting])
        for setting, value in asdict(RECIPES[name]).items()
        if value != defaults[setting] and setting != "stages"
    ]
    rows += [
        (f"stage {number}", plain(stage) or "as above", "", publication.says["stages"] if number == 1 else "")
        for number, stage in enumerate(RECIPES[name].stages, start=1)
    ]
    show({"paper": publication.paper, "published, nats per image": publication.figure}, title=f"--recipe {name}")
    show_list(("setting", "recipe", "default", "where the paper says so"), rows)
