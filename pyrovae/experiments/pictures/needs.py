"""The needs of pictures: functions from a ``View`` to the reason why it cannot be drawn, empty where it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pyrovae.experiments.comparison import incomparable
from pyrovae.experiments.pictures.views import View

Need = Callable[[View], str]


def an_epoch(view: View) -> str:
    """Require a training that has ended an epoch."""
    return "" if view.history else "it has not ended an epoch"


def a_bound_at_every_epoch(view: View) -> str:
    """Require the bound at every epoch."""
    train, valid, _ = view.bound
    known = view.over_epochs(train) is not None or view.over_epochs(valid) is not None
    return an_epoch(view) or ("" if known else "its history holds no bound at every epoch")


def units_at_every_epoch(name: str, what: str) -> Need:
    """Require a value of each unit at every epoch."""

    def need(view: View) -> str:
        missing = latents(view) or an_epoch(view)
        return missing or ("" if view.units_over_epochs(name) else f"its history holds no {what} of units at every epoch")

    return need


def an_evaluation(view: View) -> str:
    """Require an evaluation on the run's own test set."""
    return "" if view.evaluation is not None else "it was not evaluated as it is now: run 'pyrovae evaluate'"


def values_of_each_image(name: str) -> Need:
    """Require a finite value for each test image in the evaluation."""

    def need(view: View) -> str:
        if missing := an_evaluation(view):
            return missing
        values = view.evaluation.per_image.get(name) if view.evaluation else None
        if values is None:
            return f"its evaluation has no {name.replace('_', ' ')} of each image"
        return "" if np.isfinite(values).any() else f"its evaluation has no {name.replace('_', ' ')} that is finite"

    return need


def several_samples(view: View) -> str:
    """Require an evaluation by more than one sample for each image."""
    if missing := latents(view) or an_evaluation(view):
        return missing
    return "" if view.evaluation and len(view.evaluation.curve) > 1 else "its evaluation has one sample of each image"


def images(view: View) -> str:
    """Require data that are images."""
    return "" if view.run.shape[1] > 1 and view.run.shape[0] in (1, 3) else "its data are rows of a table and no images"


def latents(view: View) -> str:
    """Require latent layers."""
    return "" if view.run.recipe.latent_sizes else "it is a regressor, which has no latent"


def several_layers(view: View) -> str:
    """Require more than one latent layer."""
    return "" if len(view.run.recipe.latent_sizes) > 1 else "it has one latent layer, and nothing above it to keep"


def a_plane_of_latents(view: View) -> str:
    """Require one latent layer of two units."""
    sizes = view.run.recipe.latent_sizes
    said = ", ".join(map(str, sizes)) or "none"
    return "" if sizes == (2,) else f"it takes one latent layer of 2 units; the sizes of its layers are {said}"


def a_standard_normal_prior(view: View) -> str:
    """Require a standard normal prior, whose quantiles are known."""
    return "" if view.run.recipe.prior == "standard_normal" else f"its prior is {view.run.recipe.prior}, and no standard normal"


def no_condition(view: View) -> str:
    """Require a model without a condition."""
    return "" if view.run.recipe.condition == "none" else "it is a conditional model: see completions"


def a_condition(view: View) -> str:
    """Require a conditional model."""
    return "" if view.run.recipe.condition != "none" else "it is no conditional model"


def a_divergence_of_units(view: View) -> str:
    """Require a layer whose units have a KL of their own, which the top layer under a mixture does not."""
    if view.run.recipe.posterior != "gaussian":
        return "its posteriors are flows, under which no unit has a KL of its own"
    alone = view.run.recipe.prior not in ("standard_normal", "conditional_gaussian") and len(view.run.recipe.latent_sizes) == 1
    return f"its prior is {view.run.recipe.prior}, under which no unit has a KL of its own" if alone else ""


def gaussian_posteriors(view: View) -> str:
    """Require Gaussian posteriors, which have a mean and a standard deviation."""
    return "" if view.run.recipe.posterior == "gaussian" else "its posteriors are flows, whose means are not known"


def a_prior_of_pseudo_inputs(view: View) -> str:
    """Require a ``VampPrior``."""
    prior = view.run.recipe.prior
    return "" if prior in ("vamp", "vamp_data") else f"its prior is {prior}, which has no pseudo-inputs"


def of_one_kind(views: Sequence[View]) -> str:
    """Require runs with the same test images."""
    return "" if len({view.run.protocol_hash for view in views}) == 1 else "they were trained on different data"


def comparable(views: Sequence[View]) -> str:
    """Require runs whose figures can be compared."""
    found = [view.evaluation for view in views if view.evaluation is not None]
    reasons = (incomparable(found[0], each) for each in found[1:])
    return of_one_kind(views) or next(filter(None, reasons), "")


def different_depths(views: Sequence[View]) -> str:
    """Require runs of different depths."""
    return comparable(views) or _different(views, "latent_sizes", "numbers of layers", len)


def different_numbers_of_components(views: Sequence[View]) -> str:
    """Require runs with different numbers of components."""
    return comparable(views) or _different(views, "num_components", "numbers of pseudo-inputs", int)


def _different(views: Sequence[View], setting: str, what: str, number: Callable[..., int]) -> str:
    values = {number(getattr(view.run.recipe, setting)) for view in views}
    return "" if len(values) > 1 else f"it takes runs of different {what}; these have {', '.join(map(str, sorted(values)))}"


def anything(views: Sequence[View]) -> str:
    """Require nothing."""
    return ""
