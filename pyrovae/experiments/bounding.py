"""Bounds on the log-likelihood of a run from both sides, in nats per image."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError, visible
from pyrovae.experiments import files
from pyrovae.experiments.checking import DAMAGE, check_value
from pyrovae.experiments.measuring import KINDS, in_one_line

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.evaluation.annealing import AnnealedLikelihood, BidirectionalBounds
    from pyrovae.evaluation.likelihood import Estimates, LogLikelihood
    from pyrovae.experiments.measuring import Track
    from pyrovae.experiments.recipe import Recipe
    from pyrovae.programs.guides import VAE

BOUNDS = "bounds.json"
# The seed of the subset of test images: subsets of one size are the same for everybody.
SUBSET_SEED = 1


@dataclass(frozen=True)
class OnTestImages:
    """The mean lower bounds over test images, each with its standard error over images.

    Args:
        importance_sampled: the importance-sampled log-likelihood.
        annealed: the annealed log-likelihood, from the guide to the posterior.
        difference: the annealed minus the importance-sampled one, image by image.
        acceptance_rate: the acceptance rate of the chains.
        step_size: the size of their steps.
    """

    importance_sampled: float
    importance_sampled_standard_error: float
    annealed: float
    annealed_standard_error: float
    difference: float
    difference_standard_error: float
    acceptance_rate: float
    step_size: float


@dataclass(frozen=True)
class OnSimulatedImages:
    """The mean bounds from both sides over images drawn from the model, each with its standard error over images.

    Args:
        importance_sampled: the importance-sampled log-likelihood.
        annealed: the annealed lower bound, from the guide to the posterior.
        upper: the annealed upper bound, in reverse, from the latents that the images were drawn from.
        gap: the upper minus the annealed lower bound, image by image.
        acceptance_rate: the acceptance rate of the chains.
        step_size: the size of their steps.
    """

    importance_sampled: float
    importance_sampled_standard_error: float
    annealed: float
    annealed_standard_error: float
    upper: float
    upper_standard_error: float
    gap: float
    gap_standard_error: float
    acceptance_rate: float
    step_size: float


@dataclass(frozen=True)
class Bounds:
    """The bounds on the log-likelihood from both sides, in nats per image, and how they were computed.

    Args:
        test: the bounds on test images.
        simulated: the bounds on as many images drawn from the model.
        num_images: the number of images of each kind.
        num_test_images: the number of images in the test set.
        num_samples: the number of importance samples for each image.
        num_temperatures: the number of temperatures from guide to posterior.
        num_chains: the number of annealed chains for each image.
        dataset: the name of the dataset.
        example: the word for an example: image, or row of a table.
        condition: the condition of the density.
        protocol: the protocol of the data.
        protocol_hash: the hash of the protocol.
        epochs: the number of epochs that the programs were trained for.
        seconds: the time of computing the bounds.
    """

    test: OnTestImages
    simulated: OnSimulatedImages
    num_images: int
    num_test_images: int
    num_samples: int
    num_temperatures: int
    num_chains: int
    dataset: str
    example: str
    condition: str
    protocol: str
    protocol_hash: str
    epochs: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The fields as a dictionary, to be written as JSON."""
        return asdict(self)

    def save(self, folder: Path) -> None:
        """Write the bounds into a run folder."""
        files.write_json(folder / BOUNDS, self.as_dict())

    @classmethod
    def load(cls, folder: Path) -> Bounds:
        """Read the last bounds of a run folder.

        Raises:
            InputError: where there are none.
        """
        try:
            values = {"example": "image", **files.read_json(folder / BOUNDS)}
            kinds = _kinds(cls) | {"test": _kinds(OnTestImages), "simulated": _kinds(OnSimulatedImages)}
            check_value(BOUNDS, values, kinds)
            found: dict[str, Any] = {key: visible(each) if isinstance(each, str) else each for key, each in values.items()}
            found["test"] = OnTestImages(**values["test"])
            found["simulated"] = OnSimulatedImages(**values["simulated"])
            return cls(**found)
        except DAMAGE as error:
            raise InputError(f"{folder}: expected bounds, as 'pyrovae bounds' writes; got {in_one_line(error)}") from error


def _kinds(record: type) -> dict[str, Any]:
    """The kind that ``check_value`` must find under each key of a record of plain values."""
    return {each.name: KINDS[str(each.type)] for each in fields(record) if each.type in KINDS}


def refuse_what_has_no_bounds(folder: Path, vae: VAE, recipe: Recipe) -> None:
    """Refuse programs without latents, and a loss that is no density.

    Raises:
        InputError: for either.
    """
    from pyrovae.programs.likelihoods import LIKELIHOODS

    if not vae.model.depth:
        raise InputError(f"{folder}: expected latents to anneal; a regressor has none, and 'pyrovae evaluate' is exact")
    if not LIKELIHOODS[recipe.likelihood].normalized:
        raise InputError(
            f"{folder}: expected a likelihood that is a density of the data; {recipe.likelihood!r} is a loss, and "
            "has no log-likelihood to bound: 'pyrovae evaluate' shows its ELBO"
        )


def measure_bounds(
    vae: VAE,
    recipe: Recipe,
    dataset: Dataset,
    *,
    epochs: int,
    num_images: int,
    num_temperatures: int,
    num_chains: int,
    num_samples: int,
    track: Callable[[str, str], Track],
) -> Bounds:
    """Compute bounds on test images and on simulated ones.

    Args:
        vae: the programs.
        recipe: the recipe of their training.
        dataset: the dataset of the test images.
        epochs: the number of epochs that the programs were trained for.
        num_images: the number of test images, and of images drawn from the model.
        num_temperatures: the number of temperatures from guide to posterior.
        num_chains: the number of annealed chains for each image.
        num_samples: the number of importance samples for each image.
        track: function from a label and a unit to one that wraps a sequence, to show progress.
    """
    from pyrovae.evaluation.annealing import annealed_log_likelihood, bidirectional_bounds
    from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE, log_likelihood

    start = time.perf_counter()
    model, guide = vae.model, vae.guide
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
    return Bounds(
        OnTestImages(**_on_test_images(sampled, annealed, dataset.log_jacobians(x))),
        OnSimulatedImages(**_on_simulated_images(both, dataset.log_jacobian)),
        len(x),
        len(dataset.test),
        num_samples,
        num_temperatures,
        num_chains,
        dataset.name,
        dataset.example,
        recipe.condition,
        str(dataset.protocol),
        dataset.protocol.hash,
        epochs,
        time.perf_counter() - start,
    )


def _on_test_images(sampled: LogLikelihood, annealed: AnnealedLikelihood, shift: Tensor) -> dict[str, float]:
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
    """The subset of test images, the same each time, and their contexts if there are any."""
    import torch

    order = torch.randperm(len(dataset.test), generator=torch.Generator().manual_seed(SUBSET_SEED))
    chosen, context = order[:images].to(dataset.test.device), dataset.contexts.get("test")
    return dataset.test[chosen], None if context is None else context[chosen]


def _annealed(result: AnnealedLikelihood, shift: Tensor | float) -> dict[str, float]:
    return _estimated("annealed", result, shift) | {
        "acceptance_rate": result.acceptance_rate.mean().item(),
        "step_size": result.step_size.mean().item(),
    }


def _estimated(name: str, estimates: Estimates, shift: Tensor | float = 0.0) -> dict[str, float]:
    from pyrovae.evaluation.likelihood import Estimates

    shifted = Estimates(estimates.per_image.double() + shift)
    return {name: shifted.mean, f"{name}_standard_error": shifted.standard_error}
