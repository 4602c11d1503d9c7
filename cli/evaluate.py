"""``pyrovae evaluate``, and the measuring that ``fit`` ends with."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pyrovae.errors import InputError

from . import console, options
from .pictures import draw_histogram

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.programs.guides import VAE
    from pyrovae.runs import Evaluation, Run
    from pyrovae.settings import Recipe


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--samples", type=click.IntRange(min=1), default=5000, show_default=True, help="Samples per image.")
@click.option(
    "--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Of the importance samples."
)
@click.option("--dataset", metavar="NAME", help="Measure on another dataset of such images, which it was not trained on.")
@options.root
@options.device
@options.as_json
def evaluate(
    run: str, samples: int, seed: int, dataset: str | None, root: str | None, device: str | None, as_json: bool
) -> None:
    """Estimate the test log-likelihood of a run folder by importance sampling.

    With --dataset it is that of other images, served as the run's likelihood wants them; evaluation-NAME.json and
    histogram-NAME.png hold what comes out, beside the evaluation of the run's own.
    """
    import torch

    from pyrovae.runs import Run

    trained = Run.load(run)
    if not trained.is_whole:
        epochs = f"{len(trained.history)} of {trained.recipe.total_epochs} epochs"
        console.say(f"warning: the training was interrupted after {epochs}", fg="yellow")
    other = dataset if dataset != trained.recipe.dataset else None
    images = _load(trained, other, root).to(options.torch_device(device))
    trained.vae.to(images.test.device)
    torch.manual_seed(seed)
    evaluation = measure(trained, images, samples, quiet=as_json)
    # Printed first: hours of sampling are not to be lost to a folder that cannot be written.
    if as_json:
        console.print_json(evaluation.results)
    else:
        console.show(summary(evaluation.results), title=f"{run} on the test set{f' of {other}' if other else ''}")
    trained.save_evaluation(evaluation, other or "")
    draw_histogram(trained, other or "")


def _load(run: Run, other: str | None, root: str | None) -> Dataset:
    """The run's own dataset, or another of images of the same shape, as its likelihood takes them and under its condition."""
    from pyrovae.recipes import load_data, resolved

    recipe = run.recipe if other is None else replace(run.recipe, dataset=other)
    dataset = load_data(recipe, root)
    if other is None:
        return dataset
    resolved(recipe, dataset)
    if dataset.shape != run.shape:
        raise InputError(
            f"expected images of shape {run.shape}, as {run.recipe.dataset!r} has; got {dataset.shape} of {other!r}"
        )
    size = dataset.condition.size if dataset.condition else 0
    if size != run.vae.model.context_size:
        raise InputError(
            f"expected contexts of {run.vae.model.context_size} entries under the condition {recipe.condition!r}; "
            f"got {size} of {other!r}"
        )
    return dataset


def measure(run: Run, dataset: Dataset, num_samples: int, *, quiet: bool) -> Evaluation:
    """Evaluate a run's programs on the test images, in nats per image."""
    from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE, log_likelihood
    from pyrovae.programs.conditionals import LIKELIHOODS
    from pyrovae.runs import Evaluation

    start = time.perf_counter()
    model, guide, context = run.vae.model, run.vae.guide, dataset.contexts.get("test")
    # Without a latent every sample is the same one.
    num_samples = num_samples if model.depth else 1
    chunks = -(-len(dataset.test) // IMAGES_AT_ONCE)
    with console.meter("evaluating", chunks, f"x {IMAGES_AT_ONCE} images", quiet=quiet) as meter:
        result = log_likelihood(
            model,
            guide,
            dataset.test,
            num_samples,
            context=context,
            track=lambda parts: console.tracked(parts, meter.advance),
        )
    # A loss that is no density of the data has a bound of its own, and no likelihood.
    normalized = LIKELIHOODS[run.recipe.likelihood].normalized
    results = {
        "log_likelihood": result.mean if normalized else None,
        "standard_error": result.standard_error if normalized else None,
        "elbo": result.elbo,
        "num_samples": num_samples,
        **_measured(run, dataset),
        **measured_latents(run.vae, dataset.test, context),
        "seconds": time.perf_counter() - start,
    }
    per_image = {"elbo": result.elbo_per_image} | ({"log_likelihood": result.per_image} if normalized else {})
    return Evaluation(results, {name: each.cpu().numpy() for name, each in per_image.items()})


def _measured(run: Run, dataset: Dataset) -> dict[str, Any]:
    """What was measured, and on what."""
    from pyrovae.programs.conditionals import LIKELIHOODS

    return {
        "dataset": dataset.name,
        "condition": run.recipe.condition,
        "likelihood": run.recipe.likelihood,
        "discrete": LIKELIHOODS[run.recipe.likelihood].discrete,
        "model": _model(run.recipe),
        "epochs": len(run.history),
        "kl_weight": run.history[-1]["kl_weight"],
        "protocol": str(dataset.protocol),
        "protocol_hash": dataset.protocol.hash,
        "num_images": len(dataset.test),
    }


def measured_latents(vae: VAE, x: Tensor, context: Tensor | None) -> dict[str, Any]:
    """What each layer costs in nats, its units, and those that are active above each threshold."""
    from pyrovae.evaluation.latents import THRESHOLDS, active_units, activity, kl_by_layer

    activities = activity(vae.guide, x, context)
    above = {f"above_{threshold:g}": active_units(activities, threshold) for threshold in THRESHOLDS}
    units = {
        layer: {"units": len(each)} | {name: counts[layer] for name, counts in above.items()}
        for layer, each in activities.items()
    }
    return {"kl_by_layer": kl_by_layer(vae.model, vae.guide, x, context), "active_units": units}


def _model(recipe: Recipe) -> str:
    """What a figure is of: likelihoods of different kinds are no numbers to compare."""
    layers = "-".join(map(str, recipe.latent_sizes))
    latents = f"{recipe.guide} guide over {layers}, {recipe.prior} prior, " if layers else "regressor, "
    return f"{latents}{recipe.likelihood} likelihood, {recipe.network} networks, trained by {recipe.objective}"


def summary(results: dict[str, Any]) -> dict[str, str]:
    """The rows of the table that people read."""
    rows = _density(results)
    if results["kl_by_layer"]:
        rows["ELBO, nats per image"] = f"{results['elbo']:.2f} (one-sample bound, averaged over the same samples)"
        rows["KL by layer, nats"] = ", ".join(f"{layer} {value:.2f}" for layer, value in results["kl_by_layer"].items())
        rows["active units"] = _active(results["active_units"])
    if results["kl_weight"] < 1:
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


def _density(results: dict[str, Any]) -> dict[str, str]:
    density = "log p(x)" if results["condition"] == "none" else f"log p(x | {results['condition']})"
    if results["log_likelihood"] is None:
        return {density: "none: the cross-entropy of grey values is no density of them; the ELBO below is that of the loss"}
    samples = f"{results['num_samples']:,} importance samples each" if results["kl_by_layer"] else "exact: there is no latent"
    value = f"{results['log_likelihood']:.2f} ± {results['standard_error']:.2f}"
    return {f"{density}, nats per image": f"{value} (standard error over images; {samples})"}
