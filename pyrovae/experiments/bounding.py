"""Bounds on the log-likelihood of a run from both sides, in nats per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError, in_one_line, visible
from pyrovae.experiments import files
from pyrovae.experiments.checking import DAMAGE, check_value
from pyrovae.experiments.evaluations import KINDS

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.evaluation.annealing import AnnealedLikelihood
    from pyrovae.evaluation.likelihood import Estimates
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


def sample_bounds(
    vae: VAE,
    dataset: Dataset,
    settings: Mapping[str, int],
    shard: tuple[int, int],
    track: Callable[[str, str], Track],
) -> dict[str, Estimates]:
    """Sample the bounds of some test images and of as many simulated ones, or of a shard of each, by name.

    Args:
        vae: the programs.
        dataset: the dataset of the test images.
        settings: the numbers of ``images``, ``temperatures``, ``chains`` and importance ``samples``, and the ``seed``.
        shard: as of ``log_likelihood``.
        track: function from a label and a unit to one that wraps a sequence, to show progress.
    """
    import torch

    from pyrovae.evaluation.annealing import annealed_log_likelihood, bidirectional_bounds
    from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE, Estimates, log_likelihood

    model, guide, samples = vae.model, vae.guide, settings["samples"]
    x, context = bounded_images(dataset, settings["images"])
    chains: dict[str, Any] = {"num_temperatures": settings["temperatures"], "num_chains": settings["chains"]}
    shared: dict[str, Any] = {"context": context, "shard": shard}
    with torch.random.fork_rng():
        torch.manual_seed(settings["seed"])
        sampling = track("importance sampling", f"x {IMAGES_AT_ONCE} images")
        sampled = log_likelihood(model, guide, x, samples, track=sampling, **shared)
        annealing = track("annealing test images", "transitions")
        annealed = annealed_log_likelihood(model, guide, x, track=annealing, **chains, **shared)
        simulating = track("both ways on simulated images", "transitions")
        both = bidirectional_bounds(model, guide, len(x), num_samples=samples, track=simulating, **chains, **shared)
    simulated = {
        "simulated": both.importance_sampled,
        "simulated_annealed": both.lower,
        "simulated_upper": Estimates(both.upper),
    }
    return {"sampled": sampled, "annealed": annealed, **simulated}


def bounds_of(
    recipe: Recipe, dataset: Dataset, estimates: Mapping[str, Any], settings: Mapping[str, int], *, epochs: int, seconds: float
) -> Bounds:
    """Make the bounds from the estimates of all images.

    Args:
        recipe: the recipe of the training.
        dataset: the dataset of the test images.
        estimates: what ``sample_bounds`` returns.
        settings: its settings.
        epochs: the number of epochs that the programs were trained for.
        seconds: the time of sampling.
    """
    x, _ = bounded_images(dataset, settings["images"])
    return Bounds(
        OnTestImages(**_on_test_images(estimates, dataset.log_jacobians(x))),
        OnSimulatedImages(**_on_simulated_images(estimates, dataset.log_jacobian)),
        len(x),
        len(dataset.test),
        settings["samples"],
        settings["temperatures"],
        settings["chains"],
        dataset.name,
        dataset.example,
        recipe.condition,
        str(dataset.protocol),
        dataset.protocol.hash,
        epochs,
        seconds,
    )


def _on_test_images(estimates: Mapping[str, Any], shift: Tensor) -> dict[str, float]:
    from pyrovae.evaluation.likelihood import Estimates

    sampled, annealed = estimates["sampled"], estimates["annealed"]
    return (
        _estimated("importance_sampled", sampled, shift)
        | _annealed(annealed, shift)
        | _estimated("difference", Estimates(annealed.per_image - sampled.per_image))
    )


def _on_simulated_images(estimates: Mapping[str, Any], shift: float) -> dict[str, float]:
    from pyrovae.evaluation.likelihood import Estimates

    lower, upper = estimates["simulated_annealed"], estimates["simulated_upper"]
    return (
        _estimated("importance_sampled", estimates["simulated"], shift)
        | _annealed(lower, shift)
        | _estimated("upper", upper, shift)
        | _estimated("gap", Estimates(upper.per_image - lower.per_image))
    )


def bounded_images(dataset: Dataset, images: int) -> tuple[Any, Any]:
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
