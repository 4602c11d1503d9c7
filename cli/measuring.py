"""What ``pyrovae evaluate`` measures, and ``fit`` ends with: figures as plain values, and as the rows that people read."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from . import console

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.data.rows import Rows
    from pyrovae.evaluation.likelihood import LogLikelihood
    from pyrovae.programs.guides import VAE
    from pyrovae.runs import Evaluation, Run
    from pyrovae.settings import Recipe


def measure(run: Run, dataset: Dataset, num_samples: int, *, quiet: bool) -> Evaluation:
    """Evaluate a run's programs on the test images, in nats per image of the values in the file."""
    from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE, log_likelihood
    from pyrovae.runs import Evaluation

    start = time.perf_counter()
    model, guide, context = run.vae.model, run.vae.guide, dataset.contexts.get("test")
    # Without a latent every sample is the same one.
    num_samples = num_samples if model.depth else 1
    track = console.metered("evaluating", f"x {IMAGES_AT_ONCE} images", quiet=quiet)
    result = log_likelihood(model, guide, dataset.test, num_samples, context=context, track=track)
    described = _described(run, dataset)
    results = _figures(result, dataset, normalized=described["normalized"]) | {
        "num_samples": num_samples,
        **described,
        **measured_latents(run.vae, dataset.test, context),
        "seconds": time.perf_counter() - start,
    }
    per_image = {"elbo": result.elbo_per_image, "pareto_k": result.pareto_k}
    per_image |= {"log_likelihood": result.per_image} if described["normalized"] else {}
    shift = {"elbo": dataset.log_jacobian, "log_likelihood": dataset.log_jacobian, "pareto_k": 0.0}
    return Evaluation(results, {name: (each + shift[name]).cpu().numpy() for name, each in per_image.items()})


def _figures(result: LogLikelihood, dataset: Dataset, *, normalized: bool) -> dict[str, Any]:
    """None for what cannot be known, which JSON has no number for."""
    log_likelihood = result.mean + dataset.log_jacobian
    figures = {
        "log_likelihood": log_likelihood,
        "standard_error": result.standard_error,
        "elbo": result.elbo + dataset.log_jacobian,
        "bits_per_dimension": -log_likelihood / (math.log(2) * _scored(dataset)),
        "sampling_error": result.sampling_error,
        "share_of_heavy_tails": result.share_of_heavy_tails,
        "effective_sample_size": result.effective_sample_size.median().item(),
    }
    known: dict[str, Any] = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    if not normalized:
        # A loss that is no density of the data has a bound of its own, and no likelihood.
        known |= dict.fromkeys(("log_likelihood", "standard_error", "bits_per_dimension", "sampling_error"))
    return known | {"curve": {str(size): value + dataset.log_jacobian for size, value in result.curve.items()}}


def _scored(dataset: Dataset) -> float:
    """Entries of an image that its context does not give away, on average over the test set."""
    context = dataset.contexts.get("test")
    told = None if dataset.condition is None or context is None else dataset.condition.told(context)
    return math.prod(dataset.shape) - (0.0 if told is None else told.sum(1).double().mean().item())


def _described(run: Run, dataset: Dataset) -> dict[str, Any]:
    """What was measured, and on what."""
    from pyrovae.programs.conditionals import LIKELIHOODS

    likelihood = LIKELIHOODS[run.recipe.likelihood]
    return {
        "dataset": dataset.name,
        "values": dataset.served_values,
        "condition": run.recipe.condition,
        "likelihood": run.recipe.likelihood,
        "discrete": likelihood.discrete,
        "normalized": likelihood.normalized,
        "model": _model(run.recipe),
        "epochs": len(run.history),
        "kl_weight": next((row["kl_weight"] for row in reversed(run.history)), run.recipe.kl_weight),
        "protocol": str(dataset.protocol),
        "protocol_hash": dataset.protocol.hash,
        "num_images": len(dataset.test),
    }


def measured_latents(vae: VAE, x: Tensor | Rows, context: Tensor | None) -> dict[str, Any]:
    """What each layer and unit costs in nats, and how many units are active above each threshold."""
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
        "active_units": units,
    }


def _model(recipe: Recipe) -> str:
    """What a figure is of: likelihoods of different kinds are no numbers to compare."""
    layers = "-".join(map(str, recipe.latent_sizes))
    latents = f"{recipe.guide} guide over {layers}, {recipe.prior} prior, " if layers else "regressor, "
    return f"{latents}{recipe.likelihood} likelihood, {recipe.network} networks, trained by {recipe.objective}"


def summary(results: dict[str, Any]) -> dict[str, str]:
    """The rows of the table that people read."""
    rows = _density(results)
    if results["values"] != "bits" and results["bits_per_dimension"] is not None:
        rows["the same in bits"] = f"{results['bits_per_dimension']:.3f} per dimension"
    if results["kl_by_layer"]:
        rows |= _trust(results)
        rows["ELBO, nats per image"] = f"{results['elbo']:.2f} (one-sample bound, averaged over the same samples)"
        rows["KL by layer, nats"] = ", ".join(f"{layer} {value:.2f}" for layer, value in results["kl_by_layer"].items())
        rows["active units"] = _active(results["active_units"])
    if results["kl_weight"] != 1:
        rows["trained for"] = f"latent terms that weigh {results['kl_weight']:.2f}, not the true bound"
    return rows | {
        "model": results["model"],
        "images": f"{results['num_images']:,} test images; {results['protocol']} [{results['protocol_hash']}]",
        "measured in": console.duration(results["seconds"]),
    }


def _active(layers: dict[str, dict[str, int]]) -> str:
    """The counts of each layer above the lower threshold, and in brackets above the higher."""
    _, lower, higher = next(iter(layers.values()))
    counts = (f"{layer} {each[lower]} ({each[higher]}) of {each['units']}" for layer, each in layers.items())
    return f"{', '.join(counts)}: variance {lower.replace('_', ' ')} ({higher.replace('_', ' ')})"


def _tails(results: dict[str, Any]) -> str:
    from pyrovae.evaluation.weighing import heavy_tail

    if results["share_of_heavy_tails"] is None:
        return "too few samples to know whether their weights have heavy tails"
    return (
        f"weights of {results['share_of_heavy_tails']:.1%} of the images have heavy tails (Pareto k above "
        f"{heavy_tail(results['num_samples']):.2f}: estimated too low, perhaps; 'pyrovae bounds' says by how much)"
    )


def _density(results: dict[str, Any]) -> dict[str, str]:
    density = "log p(x)" if results["condition"] == "none" else f"log p(x | {results['condition']})"
    if results["log_likelihood"] is None:
        return {density: "none: the cross-entropy of grey values is no density of them; the ELBO below is that of the loss"}
    if not results["kl_by_layer"]:
        samples = "exact: there is no latent"
    elif results["num_samples"] == 1:
        samples = "one sample each: the ELBO"
    else:
        samples = f"{results['num_samples']:,} importance samples each"
    value = f"{results['log_likelihood']:.2f} ± {results['standard_error']:.2f}"
    return {f"{density}, nats per image": f"{value} (standard error over images; {samples})"}


def _trust(results: dict[str, Any]) -> dict[str, str]:
    """How far to trust the estimate: its own error, its tails, and how it grew with the samples."""
    curve = ", ".join(f"{int(size):,}: {value:.2f}" for size, value in results["curve"].items())
    rows = {"by number of samples": curve}
    if results["sampling_error"] is not None:
        rows["error of the sampling"] = (
            f"{results['sampling_error']:.3f}; {_tails(results)}; median effective sample size "
            f"{results['effective_sample_size']:.0f} of {results['num_samples']:,}"
        )
    return rows
