"""``pyrovae recipes``."""

import click

from pyrovae.recipes import PUBLISHED, RECIPES

from .console import show_list


@click.command()
def recipes() -> None:
    """List the published trainings that --recipe knows."""
    show_list(
        ("recipe", "dataset", "guide", "epochs", "paper", "published"),
        [(name, recipe.dataset, recipe.guide, str(recipe.epochs), *PUBLISHED[name]) for name, recipe in RECIPES.items()],
    )
