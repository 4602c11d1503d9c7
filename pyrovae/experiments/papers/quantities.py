"""``QUANTITIES``: the quantities of trained runs in the tables of papers, each with its standard error.

A quantity is a function ``View -> Estimate | None``: None where the run does not have it. A new one is a line in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from pyrovae.evaluation.latents import kl_divergences
from pyrovae.evaluation.measuring import measuring
from pyrovae.experiments.pictures.views import SCATTERED, View
from pyrovae.experiments.tracking import LATENT_IMAGES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pyrovae.evaluation.gaps import InferenceGaps

T = TypeVar("T")
# The papers' thresholds: a unit is active above one of these, and used where its KL is above the first.
LOW, HIGH = 0.01, 0.1
EARLY = 0.1
NEIGHBOURS, PARTS = 10, 10
# The test images on which the guide is refined, and the steps; the draws of all top layers.
REFINED, REFINING_STEPS, DRAWS = 100, 300, 5


@dataclass(frozen=True, eq=False)
class Estimate:
    """A figure and its standard error.

    Args:
        value: the figure.
        standard_error: the standard error of the value, over images, or over epochs for times.
        per_image: the values of images ``(N,)``, where the figure is a mean over images.
        degrees: the degrees of freedom of the standard error.
        rise: the rise of a bound on the log-likelihood by the last samples.
    """

    value: float
    standard_error: float
    per_image: NDArray[np.floating] | None = None
    degrees: float = np.inf
    rise: float = 0.0

    @classmethod
    def over_images(cls, values: NDArray[np.floating], rise: float = 0.0) -> Estimate:
        """Make the estimate of the mean of a value of each image."""
        error = float(values.std(ddof=1) / len(values) ** 0.5)
        return cls(float(values.mean()), error, values, len(values) - 1, rise)


@dataclass(frozen=True)
class Quantity:
    """A column of a table.

    Args:
        title: the header, with the unit.
        of: the function from a run's view to the estimate.
    """

    title: str
    of: Callable[[View], Estimate | None]


def over_images(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over trainings with several seeds, with the error over images alone."""
    value, rise = (float(np.mean([getattr(each, name) for each in estimates])) for name in ("value", "rise"))
    per_image = [each.per_image for each in estimates if each.per_image is not None]
    if len(per_image) == len(estimates) and len({len(each) for each in per_image}) == 1:
        return Estimate.over_images(np.mean(per_image, 0), rise)
    error = float(np.sqrt(np.sum([each.standard_error**2 for each in estimates])) / len(estimates))
    return Estimate(value, error, degrees=min(each.degrees for each in estimates), rise=rise)


def combine_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """Average over trainings with several seeds; the error includes the spread over images and over seeds."""
    whole = over_images(estimates)
    values = np.array([each.value for each in estimates])
    seeds = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
    return replace(whole, standard_error=float(np.hypot(whole.standard_error, seeds)))


def _of_images(name: str) -> Callable[[View], Estimate | None]:
    def of(view: View) -> Estimate | None:
        values = None if view.evaluation is None else view.evaluation.per_image.get(name)
        if view.evaluation is None or values is None:
            return None
        curve = list(view.evaluation.curve.values())
        rise = curve[-1] - curve[-2] if name == "log_likelihood" and len(curve) > 1 else 0.0
        return Estimate.over_images(values, rise)

    return of


def _active(threshold: float) -> Callable[[View], Estimate | None]:
    def of(view: View) -> Estimate | None:
        if view.evaluation is None or not view.evaluation.activity_by_unit:
            return None
        units = np.concatenate([np.array(each, float) for each in view.evaluation.activity_by_unit.values()])
        return _count(units, threshold, view.evaluation.num_images)

    return of


def _count(variances: NDArray[np.floating], threshold: float, number: int) -> Estimate:
    """The number of variances over images that are above a threshold; units near it cause the standard error.

    The relative error of a variance of N normal values is sqrt(2 / (N - 1)).
    """
    from scipy.special import ndtr

    errors = np.maximum(variances, 1e-12) * (2 / max(number - 1, 1)) ** 0.5
    above = ndtr((variances - threshold) / errors)
    return Estimate(float((variances > threshold).sum()), float(np.sqrt((above * (1 - above)).sum())))


def _early_active_units(view: View) -> Estimate | None:
    """The number of units above the higher threshold after the first tenth of the measured epochs."""
    rows = [row.get("activity_by_unit") for row in view.measured]
    early = rows[max(0, round(EARLY * len(rows)) - 1)] if rows else None
    if not early:
        return None
    return _count(np.array([value for layer in early.values() for value in layer], float), HIGH, LATENT_IMAGES)


def _used_units(view: View) -> Estimate | None:
    """The number of units whose KL is above the lower threshold, in nats; units near it cause the standard error."""
    from scipy.special import ndtr

    parts = _units_of_parts(view)
    if parts is None:
        return None
    means, errors = parts.mean(0), parts.std(0, ddof=1) / len(parts) ** 0.5
    above = ndtr((means - LOW) / np.maximum(errors, 1e-12))
    return Estimate(float((means > LOW).sum()), float(np.sqrt((above * (1 - above)).sum())))


def _idle_kl(view: View) -> Estimate | None:
    """The nats of all units whose activity is not above the higher threshold."""
    parts, found = _units_of_parts(view), view.evaluation
    if parts is None or found is None:
        return None
    activities = [each for layer in found.kl_by_unit for each in found.activity_by_unit[layer]]
    return _over_parts(parts[:, ~(np.array(activities) > HIGH)].sum(1))


def _kl(*layers: str) -> Callable[[View], Estimate | None]:
    """The sum of the nats of some layers."""

    def of(view: View) -> Estimate | None:
        present = [layer for layer in layers if layer in view.layers]
        parts = _parts(view) if present else []
        return _over_parts(np.array([sum(float(part[layer].sum()) for layer in present) for part in parts])) if parts else None

    return of


RATE = _kl("z1", "z2", "z3", "z4", "z5")


def _over_parts(values: NDArray[np.floating]) -> Estimate:
    """The mean of a value over parts of the test images of about the same size."""
    return Estimate(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5), degrees=len(values) - 1)


def _units_of_parts(view: View) -> NDArray[np.floating] | None:
    """The nats of each unit ``(parts, U)``, in the order of the evaluation; None where units have no KL of their own."""
    if view.evaluation is None or not view.evaluation.kl_by_unit:
        return None
    layers = list(view.evaluation.kl_by_unit)
    return np.array([np.concatenate([part[layer].cpu().double().numpy().ravel() for layer in layers]) for part in _parts(view)])


def _parts(view: View) -> list[dict[str, torch.Tensor]]:
    """The divergences of ten parts of the test images, computed once."""
    return _once(view, _divergences_of_parts)


def _once(view: View, compute: Callable[[View], T]) -> T:
    """The value of a function of a view, computed by its first call, from the same random numbers each time."""
    known: dict[Any, Any] = view.__dict__.setdefault("_known", {})
    if compute not in known:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            known[compute] = compute(view)
    return known[compute]


def _divergences_of_parts(view: View) -> list[dict[str, torch.Tensor]]:
    # The order is random, since test sets may be sorted.
    order = torch.randperm(len(view.dataset.test), generator=torch.Generator().manual_seed(0)).to(view.dataset.test.device)
    with measuring(view.run.vae):
        return [kl_divergences(view.run.vae.model, view.run.vae.guide, *view.rows(each)) for each in order.chunk(PARTS)]


def _distortion(view: View) -> Estimate | None:
    """The negative expected log-likelihood given the latents: what is left of the bound without the rate."""
    elbo, rate = _of_images("elbo")(view), RATE(view)
    if elbo is None or rate is None:
        return None
    return Estimate(-elbo.value - rate.value, float(np.hypot(elbo.standard_error, rate.standard_error)), degrees=rate.degrees)


def _gap(part: str) -> Callable[[View], Estimate | None]:
    """A part of the gap between the bound and log p, on some test images."""

    def of(view: View) -> Estimate | None:
        # Of a flow, moves of its Gaussian alone would not tell the cost of the family from that of amortization.
        if not view.layers or not view.run.vae.guide.is_gaussian:
            return None
        return Estimate.over_images(getattr(_once(view, _gaps), part).per_image.cpu().numpy())

    return of


def _gaps(view: View) -> InferenceGaps:
    from pyrovae.evaluation.gaps import inference_gaps

    x, context = view.some_images(REFINED)
    return inference_gaps(view.run.vae.model, view.run.vae.guide, x, context, num_steps=REFINING_STEPS)


def _marginal_kl(view: View) -> Estimate | None:
    """The misfit of the prior to the aggregate posterior of the top layer, on some test images; the error is over draws."""
    from pyrovae.evaluation.surgery import obstacle

    context = view.some_images(SCATTERED)[1]
    if obstacle(view.run.vae.model, view.run.vae.guide, context):
        return None
    return _over_parts(_once(view, _marginal_kls))


def _marginal_kls(view: View) -> NDArray[np.floating]:
    from pyrovae.evaluation.surgery import elbo_surgery

    x, context = view.some_images(SCATTERED)
    return np.array([elbo_surgery(view.run.vae.model, view.run.vae.guide, x, context).marginal_kl for _ in range(DRAWS)])


def _annealed(view: View) -> Estimate | None:
    """The nats by which annealing raises the sampled log p of the images of ``pyrovae bounds``."""
    if view.bounds is None:
        return None
    return Estimate(view.bounds.test.difference, view.bounds.test.difference_standard_error)


def _purity(of_class: int | None = None) -> Callable[[View], Estimate | None]:
    """The share of an image's ten nearest neighbours in the topmost layer that have its class."""

    def of(view: View) -> Estimate | None:
        classes = view.classes(SCATTERED)
        if classes is None or not view.layers:
            return None
        with torch.random.fork_rng():
            torch.manual_seed(0)
            points = view.posterior(*view.some_images(SCATTERED))[view.layers[0]]
        distances = torch.cdist(points.double(), points.double()).fill_diagonal_(torch.inf)
        nearest = distances.topk(NEIGHBOURS, largest=False).indices.cpu().numpy()
        shares = (classes[nearest] == classes[:, None]).mean(1)
        return Estimate.over_images(shares if of_class is None else shares[classes == of_class])

    return of


def _seconds_per_epoch(view: View) -> Estimate | None:
    seconds = np.array([row["seconds"] for row in view.history], float)
    # The first epoch includes compiling.
    return Estimate.over_images(seconds[1:]) if len(seconds) > 2 else None


QUANTITIES: dict[str, Quantity] = {
    "elbo": Quantity("ELBO, nats", _of_images("elbo")),
    "log_likelihood": Quantity("log p(x), nats", _of_images("log_likelihood")),
    "active_units": Quantity("units of activity above 0.1", _active(HIGH)),
    "active_units_0.01": Quantity("units of activity above 0.01", _active(LOW)),
    "early_active_units": Quantity("units of activity above 0.1 after a tenth of the epochs", _early_active_units),
    "used_units": Quantity("units of KL above 0.01", _used_units),
    "idle_kl": Quantity("KL of units of activity below 0.1, nats", _idle_kl),
    "kl_z1": Quantity("KL of z1, nats", _kl("z1")),
    "kl_z2": Quantity("KL of z2, nats", _kl("z2")),
    "kl_z3": Quantity("KL of z3, nats", _kl("z3")),
    "kl_z4": Quantity("KL of z4, nats", _kl("z4")),
    "kl_z5": Quantity("KL of z5, nats", _kl("z5")),
    "upper_kl": Quantity("KL above z2, nats", _kl("z3", "z4", "z5")),
    "rate": Quantity("rate, nats", RATE),
    "distortion": Quantity("distortion, nats", _distortion),
    "approximation_gap": Quantity("approximation gap, nats", _gap("approximation")),
    "amortization_gap": Quantity("amortization gap, nats", _gap("amortization")),
    "marginal_kl": Quantity("marginal KL of the top layer, nats", _marginal_kl),
    "annealed": Quantity("annealed less sampled log p, nats", _annealed),
    "class_purity": Quantity("neighbours of the same class, in the top layer", _purity()),
    "purity_of_1": Quantity("neighbours of the same class, of digits 1", _purity(1)),
    "purity_of_2": Quantity("neighbours of the same class, of digits 2", _purity(2)),
    "purity_of_3": Quantity("neighbours of the same class, of digits 3", _purity(3)),
    "purity_of_7": Quantity("neighbours of the same class, of digits 7", _purity(7)),
    "seconds_per_epoch": Quantity("seconds per epoch", _seconds_per_epoch),
}
