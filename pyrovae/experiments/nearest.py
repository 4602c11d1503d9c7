"""The published figure that is nearest to a run, and the differences that make the two hard to compare.

Importing this does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.experiments.published import PUBLISHED, RECIPES
from pyrovae.experiments.recipe import Recipe

if TYPE_CHECKING:
    from pyrovae.experiments.evaluations import Evaluation

# The settings that a run and a publication must have in common to be set side by side.
SAME = ("guide", "prior", "condition", "network")
# Settings that change figures only by chance, and values of settings that are left to the data.
NO_MATTER = ("seed", "split_seed", "dataset")
UNRESOLVED = {"likelihood": "bernoulli", "binarization": "dynamic"}


def nearest_publication(recipe: Recipe, evaluation: Evaluation | None) -> dict[str, str]:
    """The rows of a table with the nearest published log-likelihood beside the run's own, or a row that there is none.

    Args:
        recipe: the recipe of the run.
        evaluation: the last evaluation of the run, or None.
    """
    found = _nearest(recipe)
    if found is None:
        return {"log p(x)": f"none was published of such a model on {Path(recipe.dataset).name}"}
    name, differing = found
    value, samples = PUBLISHED[name].log_likelihoods[recipe.dataset]
    rows = {"paper": PUBLISHED[name].paper, "recipe": name, "log p(x), nats per image": f"{value:.2f} ({samples:,} samples)"}
    if evaluation is None or evaluation.log_likelihood is None:
        return rows | {"protocol": "not compared: this run has no log-likelihood"}
    if evaluation.num_samples != samples:
        differing = {"importance samples": (samples, evaluation.num_samples), **differing}
    if evaluation.epochs < recipe.total_epochs:
        differing = {"epochs trained": (RECIPES[name].total_epochs, evaluation.epochs), **differing}
    if not {"likelihood", "binarization"} & set(differing):
        rows["this run less the paper"] = f"{evaluation.log_likelihood - value:+.2f}"
    return rows | {"protocol": _in_words(differing)}


def _nearest(recipe: Recipe) -> tuple[str, dict[str, tuple[Any, Any]]] | None:
    """The published recipe on the same data that differs in the fewest settings, and these settings."""
    candidates = {
        name: {key: pair for key, pair in _resolved(each).differences(_resolved(recipe)).items() if key not in NO_MATTER}
        for name, each in RECIPES.items()
        if recipe.dataset in PUBLISHED[name].log_likelihoods and all(getattr(each, key) == getattr(recipe, key) for key in SAME)
    }
    return min(candidates.items(), key=lambda pair: len(pair[1]), default=None)


def _resolved(recipe: Recipe) -> Recipe:
    """Fill in the settings that a recipe leaves to the data, as data of bits resolve them."""
    left = {name: value for name, value in UNRESOLVED.items() if getattr(recipe, name) == "auto"}
    if recipe.dataset == "freyfaces":
        left = {}
    return recipe.replace(**left)


def _in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    if not differing:
        return "the same: each setting and the number of samples are those of the paper"
    return "another: " + "; ".join(
        f"{name.replace('_', ' ')} {old} there, {new} here" for name, (old, new) in differing.items()
    )
