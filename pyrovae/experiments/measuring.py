"""Measuring: importance-sampled likelihoods of a test set, and what the latents do on it, as an ``Evaluation``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyrovae.experiments.evaluations import Evaluation
from pyrovae.seeds import seed_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.data.rows import Rows
    from pyrovae.evaluation.likelihood import Estimates, LogLikelihood
    from pyrovae.experiments.recipe import Recipe
    from pyrovae.programs.guides import VAE

# The number that, after the seed of an evaluation, seeds the draws for its latents.
LATENTS = 1
Track = Callable[[Sequence[Any]], Iterable[Any]]


def sample_evaluation(
    vae: VAE, dataset: Dataset, settings: Mapping[str, int], shard: tuple[int, int], track: Track
) -> dict[str, Estimates]:
    """Sample the weights of the test images, or of a shard of them, under ``sampled``.

    Args:
        vae: the programs.
        dataset: the dataset to measure on.
        settings: ``samples``, the number of importance samples for each image, and their ``seed``.
        shard: as of ``log_likelihood``.
        track: function that wraps the chunks of images, to show progress.
    """
    import torch

    from pyrovae.evaluation.likelihood import log_likelihood

    # Without a latent all samples are the same.
    num_samples = settings["samples"] if vae.model.depth else 1
    with torch.random.fork_rng():
        torch.manual_seed(settings["seed"])
        return {"sampled": log_likelihood(vae.model, vae.guide, dataset, num_samples, track=track, shard=shard)}


def evaluation_of(
    vae: VAE,
    recipe: Recipe,
    dataset: Dataset,
    sampled: LogLikelihood,
    *,
    seed: int,
    epochs: int,
    kl_weight: float,
    seconds: float,
) -> Evaluation:
    """Make the evaluation of programs from the importance-sampled likelihoods, and measure the latents.

    Args:
        vae: the programs.
        recipe: the recipe of their training.
        dataset: the dataset that was measured on.
        sampled: the likelihoods of all its test images.
        seed: the seed of the samples.
        epochs: the number of epochs trained.
        kl_weight: the weight of the latent terms at the last step.
        seconds: the time of sampling.
    """
    import torch

    from pyrovae.programs.likelihoods import LIKELIHOODS

    start = time.perf_counter()
    likelihood = LIKELIHOODS[recipe.likelihood]
    with torch.random.fork_rng():
        # A seed of their own: the weights may have been sampled elsewhere.
        torch.manual_seed(seed_of(seed % 2**64, LATENTS))
        latents = measure_latents(vae, dataset.test, dataset.contexts.get("test"))
    return Evaluation(
        **_figures(sampled, dataset, normalized=likelihood.normalized),
        **latents,
        num_samples=sampled.num_samples,
        num_images=len(dataset.test),
        dataset=dataset.name,
        values=dataset.batch_values,
        example=dataset.example,
        condition=recipe.condition,
        likelihood=recipe.likelihood,
        discrete=likelihood.discrete,
        normalized=likelihood.normalized,
        model=describe_model(recipe),
        epochs=epochs,
        kl_weight=kl_weight,
        protocol=str(dataset.protocol),
        protocol_hash=dataset.protocol.hash,
        per_image=_per_image(sampled, normalized=likelihood.normalized),
        seconds=seconds + time.perf_counter() - start,
    )


def _figures(result: LogLikelihood, dataset: Dataset, *, normalized: bool) -> dict[str, Any]:
    """The figures of an evaluation, with None for unknown ones, for which JSON has no number."""
    figures = {
        "log_likelihood": result.mean,
        "standard_error": result.standard_error,
        "elbo": result.elbo,
        "bits_per_dimension": -result.mean / (math.log(2) * _scored(dataset)),
        "sampling_error": result.sampling_error,
        "share_of_heavy_tails": result.share_of_heavy_tails,
        "effective_sample_size": result.effective_sample_size.median().item(),
    }
    known: dict[str, Any] = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    if not normalized:
        # A loss that is no density of the data has a bound, but no likelihood.
        known |= dict.fromkeys(("log_likelihood", "standard_error", "bits_per_dimension", "sampling_error"))
    return known | {"curve": {str(size): value for size, value in result.curve.items()}}


def _per_image(result: LogLikelihood, *, normalized: bool) -> dict[str, NDArray[np.floating]]:
    per_image = {"elbo": result.elbo_per_image, "pareto_k": result.pareto_k}
    per_image |= {"log_likelihood": result.per_image} if normalized else {}
    return {name: each.cpu().numpy() for name, each in per_image.items()}


def _scored(dataset: Dataset) -> float:
    """The number of scored entries of an image, without those that its context contains, on average over the test set."""
    context = dataset.contexts.get("test")
    mask = None if dataset.condition is None or context is None else dataset.condition.observed_mask(context)
    return math.prod(dataset.shape) - (0.0 if mask is None else mask.sum(1).double().mean().item())


def measure_latents(vae: VAE, x: Tensor | Rows, context: Tensor | None) -> dict[str, Any]:
    """Measure the nats of each layer and unit, and the number of active units above each threshold."""
    from pyrovae.evaluation.latents import THRESHOLDS, active_units, activity, kl_divergences

    activities = activity(vae.guide, x, context)
    above = {f"above_{threshold:g}": active_units(activities, threshold) for threshold in THRESHOLDS}
    units = {
        layer: {"units": len(each)} | {name: counts[layer] for name, counts in above.items()}
        for layer, each in activities.items()
    }
    divergences = kl_divergences(vae.model, vae.guide, x, context)
    return {
        "kl_by_layer": {layer: each.sum().item() for layer, each in divergences.items()},
        "kl_by_unit": {layer: [round(nats, 4) for nats in each.tolist()] for layer, each in divergences.items() if each.dim()},
        "activity_by_unit": {layer: [float(f"{each:.4g}") for each in values.tolist()] for layer, values in activities.items()},
        "active_units": units,
    }


def describe_model(recipe: Recipe) -> str:
    """Describe the model of a recipe in words, since figures of different likelihoods cannot be compared."""
    layers = "-".join(map(str, recipe.latent_sizes))
    latents = f"{describe_guide(recipe)} over {layers}, {recipe.prior} prior, " if layers else "regressor, "
    return f"{latents}{recipe.likelihood} likelihood, {recipe.network} networks, trained by {recipe.objective}"


def describe_guide(recipe: Recipe) -> str:
    """Describe the guide of a recipe in words."""
    return f"{recipe.guide} guide{' of flows' if recipe.posterior == 'flow' else ''}"
