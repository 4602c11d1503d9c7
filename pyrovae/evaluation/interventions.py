"""The effects of another value of a unit of latents on the data: on their mean, and on their density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyrovae.engine.modules import Program
from pyrovae.evaluation.chunks import noise_of_chunk
from pyrovae.inference.plates import sample_sites

Latents = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Effect:
    """The effect of other values of a unit on each image ``(B,)``: see ``Diagnosis``."""

    change: Tensor
    loss: Tensor
    response: Tensor


class Below:
    """The part of a model below one layer, as a function of that layer, for some images whose latents are known.

    Args:
        model: the generative program.
        rows: the images ``(B, D)``, followed by contexts ``(B, C)`` if any.
        latents: the latents of all layers, each ``(B, D_l)``, by name, the bottom one first.
        layer: the name of the layer.
        seed: the seed of the layers below, where they are drawn.
    """

    def __init__(self, model: Program, rows: Sequence[Tensor], latents: Latents, layer: str, seed: int) -> None:
        self.model, self.rows, self.latents, self.layer, self.seed = model, rows, latents, layer, seed
        layers = list(latents)
        self._fixed = {name: latents[name] for name in layers[layers.index(layer) :]}
        self._density, self._mean = self.data_given(latents[layer])

    def data_given(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The log-density ``(B,)`` and the mean ``(B, D)`` of the data given another value of the layer.

        The layers below are drawn from the model, with the same noise at every call. Their own density given the layer would
        say little: where the layer tells them but for a thousandth, a small step costs millions of nats and moves nothing.
        """
        with noise_of_chunk(self.seed, 0):
            trace = self._trace({**self._fixed, self.layer: value})
        trace.compute_log_prob()
        data = [site for site in sample_sites(trace) if site["is_observed"] and site["name"] not in self.latents]
        densities = [site["log_prob"].reshape(len(value), -1).double().sum(1) for site in data]
        return torch.stack(densities).sum(0), torch.cat([site["fn"].mean.reshape(len(value), -1) for site in data], 1)

    def effect(self, unit: int | None, anew: Tensor, exchanged: Tensor) -> Effect:
        """The effect of a unit, or of the whole layer, drawn anew and exchanged among images: values ``(B, D_l)``."""
        (drawn, mean), (other, _) = (self.data_given(self._with(unit, each)) for each in (anew, exchanged))
        change = (mean - self._mean).square().mean(1).sqrt().double()
        response = torch.maximum((self._density - drawn).abs(), (self._density - other).abs())
        return Effect(change, self._density - drawn, response)

    def _with(self, unit: int | None, values: Tensor) -> Tensor:
        """The layer with one unit from other values."""
        if unit is None:
            return values
        replaced = self.latents[self.layer].clone()
        replaced[..., unit] = values[..., unit]
        return replaced

    def _trace(self, latents: Latents) -> Trace:
        return prune_subsample_sites(poutine.trace(poutine.condition(self.model, dict(latents))).get_trace(*self.rows))
