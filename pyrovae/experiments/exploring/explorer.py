"""A trained model of images to play with: questions in, answers out, plain values both.

The page in a browser and the widget in a notebook ask the same questions: the keys of ``QUESTIONS``. Latents are values of
every layer, ``{"z1": [...], ..., "zL": [...]}``. Where a layer changes, the layers below it move with it: each keeps its
distance from the mean given the layer above, in standard deviations.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger, init_to_mean
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.errors import InputError, visible
from pyrovae.evaluation.latents import kl_by_unit, latent_sites
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.experiments.exploring.pixels import as_text, checked_latents, checked_point, from_text
from pyrovae.experiments.folder import RunFolder
from pyrovae.experiments.pictures.needs import gaussian_posteriors, images, latents, no_condition
from pyrovae.experiments.pictures.views import View
from pyrovae.plots.embeddings import principal_components
from pyrovae.programs.likelihoods import LIKELIHOODS

Latents = dict[str, Tensor]
Answer = dict[str, Any]
POINTS, ORDERED_BY, PSEUDO_INPUTS = 2000, 200, 60
FEWEST_SAMPLES, MOST_SAMPLES = 1, 5000


class Explorer:
    """The programs of a run and its test images, which answer questions.

    Args:
        run: a trained model of images.
        dataset: its own data, loaded before.

    Raises:
        InputError: for a run of a table, a regressor, a conditional model and flow posteriors; for data that cannot be found.
    """

    def __init__(self, run: RunFolder, dataset: Any = None) -> None:
        self.view = View(run, visible(run.folder.resolve().name), dataset)
        if reason := next(filter(None, (need(self.view) for need in (images, latents, no_condition, gaussian_posteriors))), ""):
            raise InputError(f"{run.folder}: expected a model of whole images with latents; {reason}")
        # Once for all questions: to find every module and buffer at each would take longer than to answer.
        run.vae.eval()
        # Pyro's handlers are those of the process, and no thread's own.
        self._one_at_a_time = threading.Lock()
        self.model, self.guide = run.vae.model, run.vae.guide
        self.x, _ = self.view.some_images(POINTS)
        self.places = self.view.places(POINTS)
        self.sizes = {f"z{number}": size for number, size in enumerate(run.recipe.latent_sizes, 1)}
        self._low, self._range = self._grey_range()
        # A drag over the map asks for them at every step.
        self._components = cache(self._principal_components)

    def answer(self, question: str, values: Mapping[str, Any]) -> Answer:
        """The answer to one of ``QUESTIONS``.

        Raises:
            InputError: for another question, and for values that do not suit it.
        """
        if question not in QUESTIONS:
            raise InputError(f"expected a question out of {', '.join(QUESTIONS)}; got another")
        with self._one_at_a_time:
            return QUESTIONS[question](self, values)

    @cached_property
    def posterior(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Location and scale of each layer at the locations of the others, for all images of the map ``(N, D_l)``."""
        return self._posterior(self.x)

    def _posterior(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        with torch.no_grad(), InitMessenger(init_to_mean):
            sites = latent_sites(self.guide, (x,))
        return {name: (site["fn"].mean, site["fn"].stddev) for name, site in sites.items()}

    @cached_property
    def kl(self) -> dict[str, list[float]]:
        """The divergence of each unit from its prior in nats, by layer; a layer under a mixture has none by unit."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return {name: each.tolist() for name, each in kl_by_unit(self.model, self.guide, self.x[:ORDERED_BY]).items()}

    def begin(self, values: Mapping[str, Any]) -> Answer:
        """The sizes, divergences and classes that a page shows first."""
        run, classes = self.view.run, self.view.classes(POINTS)
        spread = {name: loc.var(0, correction=0).tolist() for name, (loc, _) in self.posterior.items()}
        return {
            "title": self.view.title,
            "about": f"{run.recipe.guide} guide, {run.recipe.prior} prior, {visible(str(run.recipe.dataset))}",
            "shape": list(run.shape),
            "sizes": self.sizes,
            "kl": self.kl,
            "spread": spread,
            "reach": {name: self._reach(name) for name in self.sizes},
            "classes": None if classes is None else [str(each) for each in classes],
            "points": self.places.tolist(),
            "pseudo_inputs": len(self._pseudo_inputs),
        }

    def _reach(self, layer: str) -> float:
        """The range of a layer's sliders: three, or three deviations beyond the furthest posterior."""
        loc, scale = self.posterior[layer]
        return max(3.0, float((loc.abs() + 3 * scale).max()))

    def map(self, values: Mapping[str, Any]) -> Answer:
        """The encodings of all images on a plane of one layer ``(N, 2)``, and the names of its axes."""
        center, directions, names = self._plane(values)
        points = (self.posterior[values["layer"]][0] - center) @ directions.T
        plane = {"center": center.tolist(), "directions": directions.tolist(), "names": names}
        return {"points": np.round(points.cpu().numpy(), 4).tolist(), **plane}

    def _plane(self, values: Mapping[str, Any]) -> tuple[Tensor, Tensor, list[str]]:
        """Origin ``(D,)`` and directions ``(2, D)`` of the plane that is asked for: two units, or principal components."""
        layer, axes = self._layer(values), values.get("axes")
        loc = self.posterior[layer][0]
        if axes == "components" and self.sizes[layer] > 1:
            return self._components(layer)
        units = [0, 0] if axes == "components" else axes
        size = self.sizes[layer]
        if not (isinstance(units, list) and len(units) == 2 and all(type(each) is int and 0 <= each < size for each in units)):
            raise InputError(f"expected 'components' or two units of {layer}, from 0 to {size - 1}; got others")
        return torch.zeros_like(loc[0]), torch.eye(size).to(loc)[units], [f"unit {unit + 1}" for unit in units]

    def _principal_components(self, layer: str) -> tuple[Tensor, Tensor, list[str]]:
        loc = self.posterior[layer][0]
        directions, shares = principal_components(loc.cpu().double().numpy())
        names = [f"component {number} ({share:.0%})" for number, share in enumerate(shares, 1)]
        return loc.mean(0), torch.from_numpy(directions).to(loc), names

    def image(self, values: Mapping[str, Any]) -> Answer:
        """The image of a point of the map."""
        return {"image": self._text(self.x[self._index(values, len(self.x))])}

    def _grey_range(self) -> tuple[float, float]:
        """The value that is black, and how far above it white is: of real values and counts those that there are."""
        if self.view.run.required_preparation.values not in ("real", "counts"):
            return 0.0, 1.0
        known = self.x[~self.x.isnan()]
        return float(known.min()), float(known.max() - known.min()) or 1.0

    def encode(self, values: Mapping[str, Any]) -> Answer:
        """The posterior of an image and what the decoder makes of its location: latents, scales, reconstruction."""
        x = self._example(values)
        return self._encoded(x) | {"encoded": self._text(x[0])}

    def _encoded(self, x: Tensor) -> Answer:
        posterior = self._posterior(x)
        found = self._decoded({name: loc for name, (loc, _) in posterior.items()})
        return found | {"scales": {name: scale[0].tolist() for name, (_, scale) in posterior.items()}}

    def measure(self, values: Mapping[str, Any]) -> Answer:
        """ELBO and log p(x) of an image in nats, by K importance samples, with the standard error of the sampling.

        Of the original values, as ``Run.evaluate`` has them; a loss that is no density has no log p(x).
        """
        samples = values.get("samples", 500)
        if not isinstance(samples, int) or not FEWEST_SAMPLES <= samples <= MOST_SAMPLES:
            raise InputError(f"expected a number of samples from {FEWEST_SAMPLES} to {MOST_SAMPLES}; got another")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            x = self._example(values)
            found = log_likelihood(self.model, self.guide, x, samples, engine="eager")
        found = found.shift(self.view.dataset.log_jacobians(x).to(found.per_image))
        error = float(found.standard_error_per_image[0])
        is_density = LIKELIHOODS[self.view.run.recipe.likelihood].normalized
        return {
            "elbo": found.elbo,
            "log_likelihood": found.mean if is_density else None,
            "standard_error": error if math.isfinite(error) else None,
            "samples": samples,
        }

    def decode(self, values: Mapping[str, Any]) -> Answer:
        """The mean of p(x | z) at given latents."""
        return self._decoded(self._latents(values))

    def set_layer(self, values: Mapping[str, Any]) -> Answer:
        """A layer at other values; the layers below move with it."""
        layer = self._layer(values)
        new = checked_latents({layer: values.get("new")}, {layer: self.sizes[layer]})[layer]
        before = self._latents(values)
        return self._moved(before, layer, before[layer].new_tensor([new]))

    def go_to(self, values: Mapping[str, Any]) -> Answer:
        """A layer at a point of the map, as far from the plane as it was; the layers below move with it."""
        layer, (x, y) = self._layer(values), checked_point(values.get("point"))
        center, directions, _ = self._plane(values)
        before = self._latents(values)
        here = (before[layer] - center) @ directions.T
        if directions[0].equal(directions[1]):
            directions = directions[:1]
            here, there = here[:, :1], torch.tensor([[x]]).to(here)
        else:
            there = torch.tensor([[x, y]]).to(here)
        return self._moved(before, layer, before[layer] + (there - here) @ directions)

    def resample(self, values: Mapping[str, Any]) -> Answer:
        """A layer drawn anew given the one above it, the top one from its prior; the layers below move with it."""
        layer, before = self._layer(values), self._latents(values)
        above = {name: each for name, each in before.items() if int(name[1:]) > int(layer[1:])}
        return self._moved(before, layer, self._traced(above)[layer]["value"])

    def interpolate(self, values: Mapping[str, Any]) -> Answer:
        """Latents on the line between two others, at a share of the way from the first to the second."""
        share = values.get("share")
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise InputError("expected a share of the way from 0 to 1; got another")
        first, second = (self._latents({"latents": values.get(name)}) for name in ("first", "second"))
        return self._decoded({name: torch.lerp(first[name], second[name], float(share)) for name in self.sizes})

    def pseudo_inputs(self, values: Mapping[str, Any]) -> Answer:
        """The first pseudo-inputs of a VampPrior."""
        return {"images": [self._text(each) for each in self._pseudo_inputs]}

    def begin_at(self, values: Mapping[str, Any]) -> Answer:
        """The posterior of a pseudo-input."""
        return self._encoded(self._pseudo_inputs[self._index(values, len(self._pseudo_inputs))][None])

    @cached_property
    def _pseudo_inputs(self) -> Tensor:
        pseudo_inputs = getattr(self.model.prior, "pseudo_inputs", None)
        with torch.no_grad():
            return self.x[:0] if pseudo_inputs is None else pseudo_inputs()[:PSEUDO_INPUTS]

    def _moved(self, before: Latents, layer: str, new: Tensor) -> Answer:
        """A layer at new values ``(1, D)``; each layer below as many standard deviations from its mean as before."""
        here = self._traced(before)
        below = [name for name in self.sizes if int(name[1:]) < int(layer[1:])]
        distances = {name: (before[name] - here[name]["fn"].mean) / here[name]["fn"].stddev for name in below}
        fixed = {name: each for name, each in before.items() if name not in below} | {layer: new}
        with AtDistances(distances):
            return self._shown(self._traced(fixed))

    def _shown(self, nodes: Mapping[str, Any]) -> Answer:
        """Latents and decoded image of a trace of the model."""
        latents = {name: nodes[name]["value"][0].tolist() for name in self.sizes}
        return {"latents": latents, "image": self._text(nodes["x"]["fn"].mean[0])}

    def _traced(self, latents: Latents) -> dict[str, Any]:
        """Trace the model under given latents ``(1, D_l)``; return its sites."""
        with torch.no_grad(), poutine.trace() as handler, poutine.condition(data=dict(latents)):
            self.model(batch_size=1)
        return handler.trace.nodes

    def _decoded(self, latents: Latents) -> Answer:
        return self._shown(self._traced(latents))

    def _text(self, image: Tensor) -> str:
        values = image.nan_to_num(self._low).cpu().numpy()
        return as_text((values - self._low) / self._range, self.view.run.shape)

    def _latents(self, values: Mapping[str, Any]) -> Latents:
        like = self.posterior["z1"][0]
        found = checked_latents(values.get("latents"), self.sizes)
        return {name: torch.tensor([found[name]], dtype=like.dtype, device=like.device) for name in self.sizes}

    def _layer(self, values: Mapping[str, Any]) -> str:
        layer = values.get("layer")
        if not isinstance(layer, str) or layer not in self.sizes:
            raise InputError(f"expected a layer out of {', '.join(self.sizes)}; got another")
        return layer

    def _index(self, values: Mapping[str, Any], count: int) -> int:
        index = values.get("index")
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            raise InputError(f"expected the number of one of {count} images, counted from 0; got another")
        return index

    def _example(self, values: Mapping[str, Any]) -> Tensor:
        """An image of the map by its number, or one that was drawn: bits of it where the model is one of bits."""
        if "drawn" not in values:
            return self.x[[self._index(values, len(self.x))]]
        image = torch.from_numpy(from_text(values["drawn"], self.view.run.shape)).to(self.x)
        if self.view.dataset.batch_values == "bits":
            return (image > 0.5).to(self.x)
        drawn = self._low + self._range * image
        return drawn.round() if self.view.dataset.batch_values == "counts" else drawn


class AtDistances(Messenger):
    """Sets sites where their distributions have them that are so many standard deviations from their means.

    Args:
        distances: by the name of the site.
    """

    def __init__(self, distances: Latents) -> None:
        super().__init__()
        self.distances = distances

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self.distances:
            message["value"] = message["fn"].mean + self.distances[message["name"]] * message["fn"].stddev
            message["done"] = True


QUESTIONS: dict[str, Callable[[Explorer, Mapping[str, Any]], Answer]] = {
    "begin": Explorer.begin,
    "map": Explorer.map,
    "image": Explorer.image,
    "encode": Explorer.encode,
    "measure": Explorer.measure,
    "decode": Explorer.decode,
    "set_layer": Explorer.set_layer,
    "go_to": Explorer.go_to,
    "resample": Explorer.resample,
    "interpolate": Explorer.interpolate,
    "pseudo_inputs": Explorer.pseudo_inputs,
    "begin_at": Explorer.begin_at,
}
