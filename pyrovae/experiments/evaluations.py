"""``Evaluation``: the record of how programs were measured on a test set, which is written and read only here.

In a run folder ``evaluations/NAME.json`` holds plain values, ``evaluations/NAME.safetensors`` the values of each image; NAME is
``test`` for the run's own test set, else that of the other dataset. ``evaluation.json`` of version 0.1.0 is still read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.errors import InputError, in_one_line, visible
from pyrovae.experiments import files
from pyrovae.experiments.checking import DAMAGE, check_finite, check_numbers, check_value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDER = "evaluations"
# The most bytes of the values of all images, and of one image.
MOST_BYTES, MOST_OF_AN_IMAGE = 2**30, 256
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
