"""``pyrovae evaluate``, and the measuring that ``fit`` ends with."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import click

from . import console, options
from .datasets import fetched

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.evaluation.likelihood import LogLikelihood
    from pyrovae.runs import Run
    from pyrovae.settings import Recipe


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--samples", type=click.IntRange(min=1), default=5000, show_default=True, help="Samples per image.")
@click.option(
    "--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Of the importance samples."
)
@options.root
@options.mirror
@options.device
@options.as_json
def evaluate(
    run: str, samples: int, seed: int, root: str | None, mirror: str | None, device: str | None, as_json: bool
) -> None:
    """Estimate the test log-likelihood of a run folder by importance sampling."""
    import torch

    from pyrovae.recipes import load_data
    from pyrovae.runs import Run

    trained = Run.load(run)
    if not trained.is_whole:
        epochs = f"{len(trained.history)} of {trained.recipe.total_epochs} epochs"
        console.say(f"warning: the training was interrupted after {epochs}", fg="yellow")
    fetched(trained.recipe.dataset, root, mirror, quiet=as_json)
    dataset = load_data(trained.recipe, root, mirror).to(options.torch_device(device))
    trained.check_data(dataset)
    trained.vae.to(dataset.test.device)
    torch.manual_seed(seed)
    results = measure(trained, dataset, samples, quiet=as_json)
    # Printed first: hours of sampling are not to be lost to a folder that cannot be written.
    if as_json:
        console.print_json(results)
    else:
        console.show(summary(results), title=f"{run} on the test set")
    trained.save_evaluation(results)


def measure(run: Run, dataset: Dataset, num_samples: int, *, quiet: bool) -> dict[str, Any]:
    """Evaluate a run's programs on the test images: plain values, in nats per image."""
    from pyrovae.evaluation.latents import kl_by_layer
    from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE, log_likelihood
    from pyrovae.programs.conditionals import LIKELIHOODS

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
    normalized = LIKELIHOODS[run.recipe.likelihood].normalized
    return _figures(result, dataset, normalized=normalized) | {
        "num_samples": num_samples,
        "values": dataset.served_values,
        "dataset": dataset.name,
        "condition": run.recipe.condition,
        "model": _model(run.recipe),
        "epochs": len(run.history),
        "kl_weight": run.history[-1]["kl_weight"],
        "protocol": str(dataset.protocol),
        "protocol_hash": dataset.protocol.hash,
        "num_images": len(dataset.test),
        "kl_by_layer": kl_by_layer(model, guide, dataset.test, context),
        "seconds": time.perf_counter() - start,
    }


def _figures(result: LogLikelihood, dataset: Dataset, *, normalized: bool) -> dict[str, Any]:
    """In nats, of the values in the file; None for what cannot be known, which JSON has no number for."""
    log_likelihood = result.mean + dataset.log_jacobian
    figures = {
        "log_likelihood": log_likelihood,
        "standard_error": result.standard_error,
        "elbo": result.elbo + dataset.log_jacobian,
        "bits_per_dimension": -log_likelihood / (math.log(2) * math.prod(dataset.shape)),
        "sampling_error": result.sampling_error,
        "share_of_heavy_tails": result.share_of_heavy_tails,
        "effective_sample_size": result.effective_sample_size.median().item(),
    }
    known: dict[str, Any] = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    if not normalized:
        # A loss that is no density of the data has a bound of its own, and no likelihood.
        known |= dict.fromkeys(("log_likelihood", "standard_error", "bits_per_dimension", "sampling_error"))
    return known | {"curve": {str(size): value + dataset.log_jacobian for size, value in result.curve.items()}}


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
    if results["kl_weight"] < 1:
        rows["trained for"] = f"latent terms that weigh {results['kl_weight']:.2f}, not the true bound"
    return rows | {
        "model": results["model"],
        "images": f"{results['num_images']:,} test images; {results['protocol']} [{results['protocol_hash']}]",
        "measured in": console.duration(results["seconds"]),
    }


def _density(results: dict[str, Any]) -> dict[str, str]:
    density = "log p(x)" if results["condition"] == "none" else f"log p(x | {results['condition']})"
    if results["log_likelihood"] is None:
        return {density: "none: the cross-entropy of grey values is no density of them; the ELBO below is that of the loss"}
    samples = f"{results['num_samples']:,} importance samples each" if results["kl_by_layer"] else "exact: there is no latent"
    value = f"{results['log_likelihood']:.2f} ± {results['standard_error']:.2f}"
    return {f"{density}, nats per image": f"{value} (standard error over images; {samples})"}


def _trust(results: dict[str, Any]) -> dict[str, str]:
    """How far to trust the estimate: its own error, its tails, and how it grew with the samples."""
    curve = ", ".join(f"{int(size):,}: {value:.2f}" for size, value in results["curve"].items())
    rows = {"by number of samples": curve}
    if results["sampling_error"] is not None and results["share_of_heavy_tails"] is not None:
        rows["error of the sampling"] = (
            f"{results['sampling_error']:.3f}; weights of {results['share_of_heavy_tails']:.1%} of the images have heavy tails "
            f"(Pareto k above 0.7: estimated too low, perhaps); median effective sample size "
            f"{results['effective_sample_size']:.0f}"
        )
    return rows
