"""``QUANTITIES``: what the tables of papers show of a trained run, each with its doubt.

A quantity is a function ``View -> Estimate | None``: None where the run has no such thing. A new one is a line in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pyrovae.evaluation.latents import kl_by_layer
from pyrovae.evaluation.measuring import measuring
from pyrovae.experiments.pictures.views import SCATTERED, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of the papers: a unit is active above one of these; it is used where its KL is above the first.
LOW, HIGH = 0.01, 0.1
EARLY = 0.1
NEIGHBOURS, PARTS = 10, 10


@dataclass(frozen=True, eq=False)
class Estimate:
    """A figure and its doubt.

    Args:
        value: the figure.
        standard_error: of the value: over images, or over epochs for times.
        per_image: what it is the mean of ``(N,)``, where it is a mean over images.
    """

    value: float
    standard_error: float
    per_image: NDArray[np.floating] | None = None

    @classmethod
    def over_images(cls, values: NDArray[np.floating]) -> Estimate:
        """The mean of a value of each image."""
        return cls(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5), values)


@dataclass(frozen=True)
class Quantity:
    """A column of a table.

    Args:
        title: its header, with the unit.
        of: the estimate of a run.
    """

    title: str
    of: Callable[[View], Estimate | None]


def combined(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over trainings of several seeds; its error holds the spread over images and that over seeds."""
    values = np.array([each.value for each in estimates])
    per_image = [each.per_image for each in estimates if each.per_image is not None]
    whole = len(per_image) == len(estimates) and len({len(each) for each in per_image}) == 1
    mean = np.mean(per_image, 0) if whole else None
    images = Estimate.over_images(mean).standard_error if mean is not None else _root_mean_square(estimates)
    seeds = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
    return Estimate(float(values.mean()), float(np.hypot(images, seeds)), mean)


def _root_mean_square(estimates: Sequence[Estimate]) -> float:
    return float(np.sqrt(np.sum([each.standard_error**2 for each in estimates])) / len(estimates))


def _of_images(name: str) -> Callable[[View], Estimate | None]:
    def of(view: View) -> Estimate | None:
        values = None if view.evaluation is None else view.evaluation.per_image.get(name)
        return None if values is None else Estimate.over_images(values)

    return of


def _active(threshold: float) -> Callable[[View], Estimate | None]:
    def of(view: View) -> Estimate | None:
        if view.evaluation is None or not view.evaluation.activity_by_unit:
            return None
        units = np.concatenate([np.array(each, float) for each in view.evaluation.activity_by_unit.values()])
        return _count(units, threshold, view.evaluation.num_images)

    return of


def _count(variances: NDArray[np.floating], threshold: float, number: int) -> Estimate:
    """How many variances over so many images are above a threshold; units near it make the doubt.

    The relative error of a variance of N normal values is sqrt(2 / (N - 1)).
    """
    from scipy.special import ndtr

    errors = np.maximum(variances, 1e-12) * (2 / max(number - 1, 1)) ** 0.5
    above = ndtr((variances - threshold) / errors)
    return Estimate(float((variances > threshold).sum()), float(np.sqrt((above * (1 - above)).sum())))


def _early_active_units(view: View) -> Estimate | None:
    """Units above the higher threshold after the first tenth of the epochs."""
    rows = [row.get("activity_by_unit") for row in view.history]
    early = rows[max(0, round(EARLY * len(rows)) - 1)] if rows else None
    if not early:
        return None
    return Estimate(float(sum(value > HIGH for layer in early.values() for value in layer)), 0.0)


def _used_units(view: View) -> Estimate | None:
    """Units that cost more than the lower threshold, in nats."""
    if view.evaluation is None or not view.evaluation.kl_by_unit:
        return None
    return Estimate(float(sum(value > LOW for layer in view.evaluation.kl_by_unit.values() for value in layer)), 0.0)


def _idle_kl(view: View) -> Estimate | None:
    """The nats of all units whose activity is not above the higher threshold."""
    found = view.evaluation
    if found is None or not found.kl_by_unit:
        return None
    pairs = ((layer, unit) for layer, each in found.kl_by_unit.items() for unit in range(len(each)))
    idle = [found.kl_by_unit[layer][unit] for layer, unit in pairs if not found.activity_by_unit[layer][unit] > HIGH]
    return Estimate(float(sum(idle)), 0.0)


def _kl(*layers: str) -> Callable[[View], Estimate | None]:
    """The nats of some layers together, with an error from ten parts of the test images."""

    def of(view: View) -> Estimate | None:
        present = [layer for layer in layers if layer in view.layers]
        if not present:
            return None
        found = [sum(part[layer] for layer in present) for part in _parts(view)]
        return Estimate(float(np.mean(found)), float(np.std(found, ddof=1) / len(found) ** 0.5))

    return of


def _parts(view: View) -> list[dict[str, float]]:
    known: list[dict[str, float]] | None = view.__dict__.get("_kl_of_parts")
    if known is None:
        places = torch.arange(len(view.dataset.test)).chunk(PARTS)
        with torch.random.fork_rng(), measuring(view.run.vae):
            torch.manual_seed(0)
            known = [kl_by_layer(view.run.vae.model, view.run.vae.guide, *view.rows(each)) for each in places]
        view.__dict__["_kl_of_parts"] = known
    return known


def _purity(of_class: int | None = None) -> Callable[[View], Estimate | None]:
    """The share of the ten nearest neighbours of an image in the topmost layer that are of its class."""

    def of(view: View) -> Estimate | None:
        classes = view.classes(SCATTERED)
        if classes is None or not view.layers:
            return None
        with torch.random.fork_rng():
            torch.manual_seed(0)
            points = view.posterior(*view.chosen(SCATTERED))[view.layers[0]]
        distances = torch.cdist(points.double(), points.double()).fill_diagonal_(torch.inf)
        nearest = distances.topk(NEIGHBOURS, largest=False).indices.cpu().numpy()
        shares = (classes[nearest] == classes[:, None]).mean(1)
        return Estimate.over_images(shares if of_class is None else shares[classes == of_class])

    return of


def _seconds_per_epoch(view: View) -> Estimate | None:
    seconds = np.array([row["seconds"] for row in view.history], float)
    # The first one compiles.
    return Estimate.over_images(seconds[1:]) if len(seconds) > 2 else None


QUANTITIES: dict[str, Quantity] = {
    "elbo": Quantity("ELBO, nats", _of_images("elbo")),
    "log_likelihood": Quantity("log p(x), nats", _of_images("log_likelihood")),
    "active_units": Quantity("units of activity above 0.1", _active(HIGH)),
    "active_units_0.01": Quantity("units of activity above 0.01", _active(LOW)),
    "early_active_units": Quantity("the same after a tenth of the epochs", _early_active_units),
    "used_units": Quantity("units of KL above 0.01", _used_units),
    "idle_kl": Quantity("KL of units of activity below 0.1, nats", _idle_kl),
    "kl_z1": Quantity("KL of z1, nats", _kl("z1")),
    "kl_z2": Quantity("KL of z2, nats", _kl("z2")),
    "kl_z3": Quantity("KL of z3, nats", _kl("z3")),
    "kl_z4": Quantity("KL of z4, nats", _kl("z4")),
    "kl_z5": Quantity("KL of z5, nats", _kl("z5")),
    "upper_kl": Quantity("KL above z2, nats", _kl("z3", "z4", "z5")),
    "class_purity": Quantity("neighbours of the same class in the top layer", _purity()),
    "purity_of_1": Quantity("of digits 1", _purity(1)),
    "purity_of_2": Quantity("of digits 2", _purity(2)),
    "purity_of_3": Quantity("of digits 3", _purity(3)),
    "purity_of_7": Quantity("of digits 7", _purity(7)),
    "seconds_per_epoch": Quantity("seconds per epoch", _seconds_per_epoch),
}
