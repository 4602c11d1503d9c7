"""``Evaluation``: the record of how programs were measured on a test set, which is written and read only here.

In a run folder ``evaluations/NAME.json`` holds plain values, ``evaluations/NAME.safetensors`` the values of each image; NAME is
``test`` for the run's own test set, else that of the other dataset. ``evaluation.json`` of version 0.1.0 is still read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError, visible
from pyrovae.experiments import files
from pyrovae.experiments.checking import DAMAGE, check_finite, check_numbers, check_value
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

FOLDER = "evaluations"
# The most bytes of the values of all images, and of one image.
MOST_BYTES, MOST_OF_AN_IMAGE = 2**30, 256
# The number that, after the seed of an evaluation, seeds the draws for its latents.
LATENTS = 1
# The kinds of the fields, by their annotations.
KINDS = {
    "float | None": (float, None),
    "float": float,
    "int": int,
    "str": str,
    "bool": bool,
    "Mapping[str, float]": dict,
    "Mapping[str, Sequence[float]]": dict,
    "Mapping[str, Mapping[str, int]]": dict,
}
Track = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """An evaluation of programs on a test set, in nats per image of the values in the file.

    Args:
        log_likelihood: the mean over images; None for a loss that is no density of the data.
        standard_error: the standard error of the mean, over images; None where it is unknown.
        elbo: the bound with one sample, from the same samples.
        bits_per_dimension: the negative log-likelihood in bits per dimension.
        sampling_error: the standard error of the mean for the same images and new samples.
        share_of_heavy_tails: the share of images whose weights have heavy tails.
        effective_sample_size: the median over images.
        curve: the bound by number of samples.
        num_samples: the number of importance samples for each image.
        num_images: the number of images in the test set.
        dataset: the name of the dataset.
        values: the kind of the values, as in ``Dataset``.
        example: the word for an example: image, or row of a table.
        condition: the condition of the model.
        likelihood: the name of the likelihood.
        discrete: whether the likelihood is a probability rather than a density.
        normalized: whether the likelihood is normalised.
        model: the model in words.
        epochs: the number of epochs trained.
        kl_weight: the weight of the latent terms at the last step.
        protocol: the protocol of the data.
        protocol_hash: the hash of the protocol.
        kl_by_layer: the nats of each layer.
        kl_by_unit: the nats of each unit, where units have a divergence of their own.
        activity_by_unit: the variance over images of each unit's posterior mean.
        active_units: for each layer the number of units, and the number of units above each threshold of activity.
        seconds: the time of measuring.
        per_image: ``log_likelihood``, ``elbo`` and ``pareto_k`` of each image ``(N,)``.
    """

    log_likelihood: float | None
    standard_error: float | None
    elbo: float
    bits_per_dimension: float | None
    sampling_error: float | None
    share_of_heavy_tails: float | None
    effective_sample_size: float | None
    curve: Mapping[str, float]
    num_samples: int
    num_images: int
    dataset: str
    values: str
    example: str
    condition: str
    likelihood: str
    discrete: bool
    normalized: bool
    model: str
    epochs: int
    kl_weight: float
    protocol: str
    protocol_hash: str
    kl_by_layer: Mapping[str, float]
    kl_by_unit: Mapping[str, Sequence[float]]
    activity_by_unit: Mapping[str, Sequence[float]]
    active_units: Mapping[str, Mapping[str, int]]
    seconds: float
    per_image: Mapping[str, NDArray[np.floating]]

    def __repr__(self) -> str:
        value = "no density" if self.log_likelihood is None else f"log p {self.log_likelihood:.2f} ± {self.standard_error:.2f}"
        return (
            f"Evaluation({value}, ELBO {self.elbo:.2f} nats per {self.example}, {self.num_samples:,} samples;\n"
            f"  {self.num_images:,} {self.example}s, {self.protocol} [{self.protocol_hash}];\n"
            f"  {self.model}, {self.epochs} epochs)"
        )

    def as_dict(self) -> dict[str, Any]:
        """The fields without the values of each image, to be written as JSON."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "per_image"}

    def save(self, folder: Path, name: str) -> None:
        """Write the evaluation into a run folder.

        Raises:
            InputError: where the folder cannot be written.
        """
        from safetensors.numpy import save

        files.make_folder(folder / FOLDER)
        files.write_file(folder / FOLDER / f"{name}.safetensors", save(dict(self.per_image)))
        files.write_json(folder / FOLDER / f"{name}.json", self.as_dict())

    @classmethod
    def load(cls, folder: str | Path, dataset: str = "") -> Evaluation:
        """Read the evaluation in a run folder, on its own test set or on another dataset, without loading programs.

        Raises:
            InputError: for a folder without one, and for files that are damaged or do not belong together.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{folder}: expected a run folder, as 'pyrovae fit' makes one; there is no such folder")
        again = f"run 'pyrovae evaluate {folder}{f' --dataset {dataset}' if dataset else ''}'"
        try:
            return cls._read(_path(folder, dataset))
        except DAMAGE as error:
            raise InputError(
                f"{folder}: expected an evaluation with values for each image: {again}; got {in_one_line(error)}"
            ) from error

    @classmethod
    def _read(cls, path: Path) -> Evaluation:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        # Defaults for fields that version 0.1.0 does not have.
        values = {"activity_by_unit": {}, "example": "image", **files.read_json(_with(path, "json"))}
        known = {each.name: KINDS[str(each.type)] for each in fields(cls) if each.name != "per_image"}
        _check_values(values, known)
        most = min(MOST_BYTES, MOST_OF_AN_IMAGE * values["num_images"] + 2**20)
        try:
            per_image = load(files.read_file(_with(path, "safetensors"), most))
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        whole = {each.shape for each in per_image.values()} == {(values["num_images"],)}
        whole = whole and all(each.dtype.kind == "f" for each in per_image.values())
        if not whole or not math.isclose(per_image["elbo"].mean(), values["elbo"], rel_tol=1e-4, abs_tol=1e-2):
            raise ValueError(f"{path.name}.json and {path.name}.safetensors of two evaluations")
        if values["normalized"] and "log_likelihood" not in per_image:
            raise ValueError(f"{path.name}.safetensors without log_likelihood")
        return cls(**{name: values[name] for name in known}, per_image=per_image)


def _check_values(values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    check_value("evaluation", values, kinds)
    for name, kind in kinds.items():
        if kind == (float, None):
            check_finite(name, values[name])
        if kind is str and visible(values[name]) != values[name]:
            raise ValueError(f"expected {name} without control characters; got {visible(values[name][:100])}")
        if kind is dict:
            check_numbers(name, values[name])


def file_name(dataset: str) -> str:
    """The file name of the evaluation on a dataset; an empty name stands for the run's own."""
    return Path(dataset).stem.replace(":", "-") if dataset else "test"


def _path(folder: Path, dataset: str) -> Path:
    path = folder / FOLDER / file_name(dataset)
    files.refuse_link(path.parent)
    old = folder / (f"evaluation-{file_name(dataset)}" if dataset else "evaluation")
    return old if _with(old, "json").exists() and not _with(path, "json").exists() else path


def _with(path: Path, suffix: str) -> Path:
    """Add a suffix to a path, whatever dots are in its name."""
    return path.with_name(f"{path.name}.{suffix}")


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


def in_one_line(error: Exception) -> str:
    """The type and the message of an error in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {visible(lines[0][:200])}"
