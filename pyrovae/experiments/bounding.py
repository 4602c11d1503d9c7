"""Bounds on the log-likelihood of a run from both sides, in nats per image."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.evaluation.annealing import AnnealedLikelihood, BidirectionalBounds
    from pyrovae.evaluation.likelihood import Estimates, LogLikelihood
    from pyrovae.experiments.measuring import Track
    from pyrovae.experiments.recipe import Recipe
    from pyrovae.programs.guides import VAE

# Of the test images that are bounded: everybody's subset of one size is the same.
SUBSET_SEED = 1


def refuse_what_has_no_bounds(folder: Path, vae: VAE, recipe: Recipe) -> None:
    """Refuse programs without latents, and a loss that is no density.

    Raises:
        InputError: for them.
    """
    from pyrovae.programs.conditionals import LIKELIHOODS

    if not vae.model.depth:
        raise InputError(f"{folder}: expected latents to anneal; a regressor has none, and 'pyrovae evaluate' is exact")
    if not LIKELIHOODS[recipe.likelihood].normalized:
        raise InputError(
            f"{folder}: expected a likelihood that is a density of the data; {recipe.likelihood!r} is a loss, and "
            "has no log-likelihood to bound: 'pyrovae evaluate' shows its ELBO"
        )


def bounded(
    vae: VAE,
    recipe: Recipe,
    dataset: Dataset,
    *,
    num_images: int,
    num_temperatures: int,
    num_chains: int,
    num_samples: int,
    track: Callable[[str, str], Track],
) -> dict[str, Any]:
    """Bounds on test images and on simulated ones, as plain values.

    Args:
        vae: the programs.
        recipe: that they were trained by.
        dataset: whose test images are taken.
        num_images: of them, and as many that the model draws.
        num_temperatures: from guide to posterior.
        num_chains: annealed chains for each image.
        num_samples: importance samples for each image.
        track: from a label and a unit to what wraps a sequence, to show progress.
    """
    from pyrovae.evaluation.annealing import annealed_log_likelihood, bidirectional_bounds
    from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE, log_likelihood

    start = time.perf_counter()
    model, guide, shift = vae.model, vae.guide, dataset.log_jacobian
    x, context = _subset(dataset, num_images)
    sampled = log_likelihood(
        model,
        guide,
        x,
        num_samples,
        context=context,
        track=track("importance sampling", f"x {IMAGES_AT_ONCE} images"),
    )
    annealed = annealed_log_likelihood(
        model,
        guide,
        x,
        num_temperatures=num_temperatures,
        num_chains=num_chains,
        context=context,
        track=track("annealing test images", "transitions"),
    )
    both = bidirectional_bounds(
        model,
        guide,
        len(x),
        num_temperatures=num_temperatures,
        num_chains=num_chains,
        num_samples=num_samples,
        context=context,
        track=track("both ways on simulated images", "transitions"),
    )
    return {
        "test": _on_test_images(sampled, annealed, shift),
        "simulated": _on_simulated_images(both, shift),
        "num_images": len(x),
        "num_test_images": len(dataset.test),
        "num_samples": num_samples,
        "num_temperatures": num_temperatures,
        "num_chains": num_chains,
        "dataset": dataset.name,
        "condition": recipe.condition,
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
