"""``pyrovae bounds``: how far off an importance-sampled figure can be."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from pyrovae.errors import InputError

from . import console, options
from .opening import opened

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.evaluation.annealing import AnnealedLikelihood, BidirectionalBounds
    from pyrovae.evaluation.likelihood import Estimates, LogLikelihood
    from pyrovae.runs import Run

# Of the test images that are bounded: everybody's subset of one size is the same.
SUBSET_SEED = 1


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--images", type=click.IntRange(min=2), default=100, show_default=True, help="Test images, and simulated ones.")
@click.option("--temperatures", type=click.IntRange(min=2), default=300, show_default=True, help="From guide to posterior.")
@click.option("--chains", type=click.IntRange(min=1), default=5, show_default=True, help="Annealed chains per image.")
@click.option("--samples", type=click.IntRange(min=1), default=5000, show_default=True, help="Importance samples per image.")
@click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Of samples and chains.")
@options.root
@options.mirror
@options.device
@options.as_json
def bounds(
    run: str,
    images: int,
    temperatures: int,
    chains: int,
    samples: int,
    seed: int,
    root: str | None,
    mirror: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Bound the log-likelihood of a run folder from both sides, by annealed importance sampling.

    On some test images, beside importance sampling; and on as many images that the model draws, from above too. bounds.json in
    the run folder keeps what comes out.
    """
    import torch

    trained, dataset = opened(run, root, mirror, device, quiet=as_json)
    _refuse_what_has_no_bounds(trained)
    torch.manual_seed(seed)
    results = measure(trained, dataset, images, temperatures, chains, samples, quiet=as_json)
    if as_json:
        console.print_json(results)
    else:
        console.show(summary(results), title=f"{run}: log-likelihood from both sides")
    trained.save_bounds(results)


def _refuse_what_has_no_bounds(run: Run) -> None:
    from pyrovae.programs.conditionals import LIKELIHOODS

    if not run.vae.model.depth:
        raise InputError(f"{run.folder}: expected latents to anneal; a regressor has none, and 'pyrovae evaluate' is exact")
    if not LIKELIHOODS[run.recipe.likelihood].normalized:
        raise InputError(
            f"{run.folder}: expected a likelihood that is a density of the data; {run.recipe.likelihood!r} is a loss, and "
            "has no log-likelihood to bound: 'pyrovae evaluate' shows its ELBO"
        )


def measure(
    run: Run, dataset: Dataset, images: int, temperatures: int, chains: int, samples: int, *, quiet: bool
) -> dict[str, Any]:
    """Bounds on test images and on simulated ones: plain values, in nats per image."""
    from pyrovae.evaluation.annealing import annealed_log_likelihood, bidirectional_bounds
    from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE, log_likelihood

    start = time.perf_counter()
    model, guide, shift = run.vae.model, run.vae.guide, dataset.log_jacobian
    x, context = _subset(dataset, images)
    sampled = log_likelihood(
        model,
        guide,
        x,
        samples,
        context=context,
        track=console.metered("importance sampling", f"x {IMAGES_AT_ONCE} images", quiet=quiet),
    )
    annealed = annealed_log_likelihood(
        model,
        guide,
        x,
        num_temperatures=temperatures,
        num_chains=chains,
        context=context,
        track=console.metered("annealing test images", "transitions", quiet=quiet),
    )
    both = bidirectional_bounds(
        model,
        guide,
        len(x),
        num_temperatures=temperatures,
        num_chains=chains,
        num_samples=samples,
        context=context,
        track=console.metered("both ways on simulated images", "transitions", quiet=quiet),
    )
    return {
        "test": _on_test_images(sampled, annealed, shift),
        "simulated": _on_simulated_images(both, shift),
        "num_images": len(x),
        "num_test_images": len(dataset.test),
        "num_samples": samples,
        "num_temperatures": temperatures,
        "num_chains": chains,
        "dataset": dataset.name,
        "condition": run.recipe.condition,
        "protocol": str(dataset.protocol),
        "protocol_hash": dataset.protocol.hash,
        "seconds": time.perf_counter() - start,
    }


def _on_test_images(sampled: LogLikelihood, annealed: AnnealedLikelihood, shift: float) -> dict[str, float]:
    from pyrovae.evaluation.likelihood import Estimates

    return (
        _estimated("importance_sampled", sampled, shift)
        | _annealed(annealed, shift)
        | _estimated("difference", Estimates(annealed.per_image - sampled.per_image))
    )


def _on_simulated_images(both: BidirectionalBounds, shift: float) -> dict[str, float]:
    from pyrovae.evaluation.likelihood import Estimates

    return (
        _estimated("importance_sampled", both.importance_sampled, shift)
        | _annealed(both.lower, shift)
        | _estimated("upper", Estimates(both.upper), shift)
        | _estimated("gap", Estimates(both.gap))
    )


def _subset(dataset: Dataset, images: int) -> tuple[Any, Any]:
    """Test images drawn once and for all, and their contexts where there are any."""
    import torch

    order = torch.randperm(len(dataset.test), generator=torch.Generator().manual_seed(SUBSET_SEED))
    chosen, context = order[:images].to(dataset.test.device), dataset.contexts.get("test")
    return dataset.test[chosen], None if context is None else context[chosen]


def _annealed(result: AnnealedLikelihood, shift: float) -> dict[str, float]:
    return _estimated("annealed", result, shift) | {
        "acceptance_rate": result.acceptance_rate.mean().item(),
        "step_size": result.step_size.mean().item(),
    }


def _estimated(name: str, estimates: Estimates, shift: float = 0.0) -> dict[str, float]:
    return {name: estimates.mean + shift, f"{name}_standard_error": estimates.standard_error}


def summary(results: dict[str, Any]) -> dict[str, str]:
    """The rows of the table that people read."""
    test, simulated = results["test"], results["simulated"]
    density = "log p(x)" if results["condition"] == "none" else f"log p(x | {results['condition']})"
    chains = f"{results['num_chains']} chains of {results['num_temperatures']:,} temperatures"
    samples = f"{results['num_samples']:,} importance samples"
    return {
        f"{density} of test images, nats": "",
        "  importance-sampled": f"{_pm(test, 'importance_sampled')} (standard error over images; {samples} each)",
        "  annealed": f"{_pm(test, 'annealed')} (a lower bound too; {chains} each, {test['acceptance_rate']:.0%} accepted)",
        "  annealed less sampled": f"{_pm(test, 'difference')} ({_said_of(test['difference'])})",
        f"{density} of simulated images, nats": "",
        "  importance-sampled ": _pm(simulated, "importance_sampled"),
        "  annealed, from below": f"{_pm(simulated, 'annealed')} ({simulated['acceptance_rate']:.0%} accepted)",
        "  annealed, from above": f"{_pm(simulated, 'upper')} (in reverse, from the latents that the images were drawn from)",
        "  gap": f"{_pm(simulated, 'gap')} (the truth is between the two, in expectation)",
        "images": f"{results['num_images']:,} of {results['num_test_images']:,} test images, the same each time, and as many "
        f"that the model draws; {results['protocol']} [{results['protocol_hash']}]",
        "measured in": console.duration(results["seconds"]),
    }


def _said_of(difference: float) -> str:
    if difference < 0:
        return "below zero: more samples than chains could make up for; more temperatures or chains are needed"
    return "above zero: the importance samples miss that much"


def _pm(figures: dict[str, float], name: str) -> str:
    # Added to zero, a rounded minus zero loses its sign.
    return f"{round(figures[name], 2) + 0.0:.2f} ± {figures[f'{name}_standard_error']:.2f}"
