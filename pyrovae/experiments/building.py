"""Build the data and the programs of a recipe.

This and ``methods`` are the only places that translate a recipe; library classes take ordinary arguments and never see one.
Importing it does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError, nearest
from pyrovae.experiments.published import RECIPES
from pyrovae.experiments.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pyrovae.data.datasets import Dataset
    from pyrovae.data.preparation import Preparation
    from pyrovae.programs.architecture import Architecture
    from pyrovae.programs.columns import Columns
    from pyrovae.programs.guides import VAE

SHORT_SCHEDULE_STEPS = 2000


def short_schedule(recipe: Recipe, num_images: int, epochs: int | None = None) -> Recipe:
    """Shorten a training to minutes: about 2,000 steps unless ``epochs`` is given, half of them warm-up if there is any."""
    if epochs is None:
        epochs = math.ceil(SHORT_SCHEDULE_STEPS / max(1, num_images // recipe.batch_size))
    warmup_epochs = epochs // 2 if recipe.warmup_epochs else 0
    # Where there are fewer examples than the batch size, a batch holds all of them.
    batch_size = min(recipe.batch_size, num_images)
    return replace(recipe, epochs=epochs, warmup_epochs=warmup_epochs, patience=0, batch_size=batch_size)


def recipe_of_guide(guide: str) -> Recipe:
    """The first published recipe of a guide, for its architecture."""
    return next((recipe for recipe in RECIPES.values() if recipe.guide == guide), replace(Recipe(), guide=guide))


def assemble(
    recipe: Recipe,
    shape: tuple[int, int, int],
    num_classes: int = 0,
    examples: Tensor | None = None,
    columns: Columns | None = None,
) -> VAE:
    """Make the programs of a recipe, freshly initialised from torch's global generator.

    Args:
        recipe: the recipe.
        shape: channels, height and width.
        num_classes: the number of classes of the data, for a condition on them.
        examples: training images followed by contexts ``(K, D + C)``, for pseudo-inputs.
        columns: the kinds of the data's columns, where they are mixed.

    Raises:
        InputError: for an unknown name, and for a prior that does not fit the guide.
    """
    from torch import nn

    from pyrovae.data.conditions import CONDITIONS
    from pyrovae.programs.flows import SplineTransform
    from pyrovae.programs.guides import GUIDES, VAE
    from pyrovae.programs.models import GenerativeModel
    from pyrovae.programs.networks import INITIALIZATIONS
    from pyrovae.programs.priors import PRIORS, PriorSettings

    condition = look_up(CONDITIONS, "condition", recipe.condition)(shape, num_classes)
    architecture = _architecture(recipe, shape, 0 if condition is None else condition.size, columns)
    model = GenerativeModel.of(architecture, _likelihood(recipe, columns), skip_connections=recipe.skip_connections)
    if condition is not None:
        model.observed_mask, model.pixels = condition.observed_mask, condition.pixels
    of_guide = replace(architecture, hidden_layers=recipe.encoder_layers or recipe.hidden_layers, dropout=recipe.dropout)
    guide = look_up(GUIDES, "guide", recipe.guide).of(model, of_guide)
    prior = look_up(PRIORS, "prior", recipe.prior)
    if recipe.prior.startswith("vamp") and guide.top_posterior is None:
        raise InputError(
            f"expected a guide whose q(z_L | x) is a density in closed form for the prior {recipe.prior!r}; in a "
            f"{recipe.guide!r} hierarchy of {len(recipe.latent_sizes)} layers it is an integral over the layers below: "
            "use the guide 'ladder' or 'top_down', or one layer"
        )
    if recipe.latent_sizes:
        settings = PriorSettings(num_components=recipe.num_components, posterior=guide.top_posterior, examples=examples)
        model.prior = prior.of(architecture, settings)
    vae = VAE(model, guide)
    initialize = look_up(INITIALIZATIONS, "initialization", recipe.initialization)
    flows = [each for each in vae.modules() if isinstance(each, SplineTransform)]
    of_flows = {id(layer) for each in flows for layer in each.modules()}
    for layer in vae.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and id(layer) not in of_flows:
            initialize(layer)
    return vae


def _architecture(recipe: Recipe, shape: tuple[int, int, int], context_size: int, columns: Columns | None) -> Architecture:
    from pyrovae.programs.architecture import NETWORKS, Architecture
    from pyrovae.programs.flows import FLOWS, POSTERIORS
    from pyrovae.programs.networks import ACTIVATIONS

    return Architecture(
        shape=shape,
        latent_sizes=recipe.latent_sizes,
        hidden_sizes=recipe.hidden_sizes,
        context_size=context_size,
        hidden_layers=recipe.hidden_layers,
        activation=look_up(ACTIVATIONS, "activation", recipe.activation),
        batch_norm=recipe.batch_norm,
        layer_norm=recipe.layer_norm,
        residual_layers=recipe.residual_layers,
        block=look_up(NETWORKS, "network", recipe.network),
        columns=columns,
        incomplete=recipe.missing,
        posterior=look_up(POSTERIORS, "posterior", recipe.posterior),
        flow=partial(look_up(FLOWS, "flow", recipe.flow), num_transforms=recipe.flow_transforms),
    )


def columns_of(described: Dataset | Preparation) -> Columns | None:
    """The kinds of the columns of mixed data or of counts, for programs; None for all other data."""
    from pyrovae.programs.columns import Columns

    if described.values == "counts":
        size = math.prod(described.shape)
        return Columns(("count",) * size, (0,) * size)
    if described.values != "mixed":
        return None
    numbers = (
        len(names) if kind == "category" else 0 for kind, names in zip(described.kinds, described.categories, strict=True)
    )
    return Columns(described.kinds, tuple(numbers))


def _likelihood(recipe: Recipe, columns: Columns | None) -> Callable[..., nn.Module]:
    from pyrovae.programs.likelihoods import LIKELIHOODS, FixedScaleGaussian, MixedColumns

    likelihood = look_up(LIKELIHOODS, "likelihood", recipe.likelihood)
    if likelihood is MixedColumns:
        if columns is None:
            raise InputError("expected columns of several kinds for the likelihood 'mixed'; these data have none: use another")
        return partial(likelihood, columns=columns)
    return partial(likelihood, scale=recipe.likelihood_scale) if likelihood is FixedScaleGaussian else likelihood


def load_data(
    recipe: Recipe,
    root: str | None = None,
    mirror: str | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Dataset:
    """Load the dataset of a recipe, as bits or grey values as its likelihood needs, and under its condition.

    Raises:
        InputError: as ``load_dataset``, and for a likelihood that does not fit the data.
    """
    from pyrovae.data.loading import load_dataset

    return load_dataset(recipe.dataset, root, mirror=mirror, progress=progress, **data_settings(recipe))


def data_settings(recipe: Recipe) -> dict[str, Any]:
    """The arguments of ``load_dataset`` that a recipe states, but for the name.

    Raises:
        InputError: for a likelihood that does not exist.
    """
    from pyrovae.programs.likelihoods import LIKELIHOODS

    binarization = recipe.binarization
    if binarization == "auto" and recipe.likelihood != "auto":
        binarization = "dynamic" if "bits" in look_up(LIKELIHOODS, "likelihood", recipe.likelihood).values else "none"
    names = ("condition", "validation", "split_seed", "label", "drop", "columns", "missing")
    return {"binarization": binarization} | {name: getattr(recipe, name) for name in names}


def resolve(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Fill in the settings that a recipe leaves to the data.

    Raises:
        InputError: for a likelihood that does not fit the data.
    """
    from pyrovae.programs.likelihoods import LIKELIHOODS

    if recipe.likelihood == "auto":
        recipe = replace(recipe, likelihood=dataset.likelihood)
    if dataset.batch_values not in look_up(LIKELIHOODS, "likelihood", recipe.likelihood).values:
        fitting = ", ".join(name for name, each in LIKELIHOODS.items() if dataset.batch_values in each.values)
        real = ": or use --columns '*=real'" if dataset.batch_values in ("mixed", "counts") else ""
        raise InputError(
            f"expected a likelihood of {dataset.batch_values} for {dataset.name!r}, out of {fitting}; "
            f"got {recipe.likelihood!r}{real}"
        )
    return recipe


def build(recipe: Recipe, dataset: Dataset) -> VAE:
    """Build the model and guide of a recipe for a dataset, initialised with the recipe's seed.

    Raises:
        InputError: for unknown names, for a condition that is not the dataset's, and for an analytic divergence where the guide
            does not allow it.
    """
    import torch

    from pyrovae.data.conditions import CONDITIONS

    for stage in recipe.schedule:
        refuse_unknown_names(stage)
    recipe = resolve(recipe, dataset)
    if recipe.network != "mlp" and dataset.shape[1] == 1:
        raise InputError(
            f"expected images for the network {recipe.network!r}; {dataset.name!r} is a table: use the network 'mlp'"
        )
    if recipe.prior == "vamp" and dataset.batch_values in ("real", "counts", "mixed"):
        raise InputError(
            "expected values in [0, 1], which trained pseudo-inputs are kept in, for the prior 'vamp'; got others: use the "
            "prior 'vamp_data' or 'mixture'"
        )
    if look_up(CONDITIONS, "condition", recipe.condition)(dataset.shape, dataset.num_classes) != dataset.condition:
        raise InputError(
            f"expected data under the condition {recipe.condition!r} of the recipe; got '{dataset.protocol}': "
            f"use load_dataset({dataset.name!r}, condition={recipe.condition!r})"
        )
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        examples = _examples(recipe, dataset)
        vae = assemble(recipe, dataset.shape, dataset.num_classes, examples, columns_of(dataset)).to(dataset.train.device)
    # The mean of counts starts at one, from which training does not reach much larger means.
    if recipe.output_bias or dataset.batch_values in ("counts", "mixed"):
        likelihood: Any = list(vae.model.likelihood.children())[-1]
        likelihood.start_at_means(dataset.train[:].nanmean(0) if recipe.missing else dataset.train.mean(0))
    if any(stage.analytic_kl for stage in recipe.schedule) and not vae.guide.analytic_kl:
        raise InputError(
            f"expected a guide that allows analytic_kl; got {recipe.guide!r} with {len(recipe.latent_sizes)} layers, where a "
            "divergence in closed form is not the bound's: use --no-analytic-kl, or another guide"
        )
    return vae


def refuse_unknown_names(recipe: Recipe) -> None:
    """Refuse a name that is not in the table of its setting.

    Raises:
        InputError: for such a name; it suggests the nearest.
    """
    for each in fields(Recipe):
        if table := each.metadata.get("table"):
            module, _, variable = table.partition(":")
            names = [*each.metadata.get("also", ()), *getattr(import_module(module), variable)]
            look_up(dict.fromkeys(names), each.name.replace("_", " "), getattr(recipe, each.name))


def _examples(recipe: Recipe, dataset: Dataset) -> Tensor | None:
    """The training images for pseudo-inputs, if these start from images: as stored, or drawn and followed by contexts."""
    import torch

    if recipe.prior != "vamp_data" and recipe.pseudo_inputs != "images":
        return None
    if recipe.num_components > len(dataset.train):
        raise InputError(
            f"expected at most as many components as the {len(dataset.train)} training images that they are made of; "
            f"got {recipe.num_components}"
        )
    chosen = torch.randperm(len(dataset.train))[: recipe.num_components].to(dataset.train.device)
    if dataset.condition is None:
        return dataset.train[chosen]
    return torch.cat(tuple(dataset.draw_train(chosen)), -1)


def look_up(table: Mapping[str, Any], family: str, name: str) -> Any:
    """Look up a name in the table of a family.

    Raises:
        InputError: for a name that is not in it; it suggests the nearest.
    """
    if name not in table:
        raise InputError(f"expected a {family} out of {', '.join(table)}; got {name!r}{nearest(name, table)}")
    return table[name]
