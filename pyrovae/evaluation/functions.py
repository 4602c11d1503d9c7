"""Pure functions of a trained model: nothing is drawn in them, noise is an input, so that each can be exported and checked.

All noise is standard normal. Inputs and outputs are tensors by name, of the shapes that ``inputs`` states, with B examples and
K importance samples. The functions hold programs unregistered, so that an exported one has only the parameters that it uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pyro import poutine
from torch import Tensor, nn

from pyrovae.evaluation.latents import latent_sites
from pyrovae.evaluation.measuring import measuring
from pyrovae.evaluation.noise import NoQuantileError, at_mean, explicit_noise, noise_size, value_of
from pyrovae.inference.plates import Site
from pyrovae.programs.distributions import gaussian_of

if TYPE_CHECKING:
    from pyrovae.programs.models import GenerativeModel

Shape = tuple[str | int, ...]


class AsModelled(nn.Module):
    """The units of the model itself: nothing is changed. Any other units have the same methods."""

    dtype: ClassVar[torch.dtype] = torch.float32

    def prepare(self, x: Tensor) -> Tensor:
        """Examples ``(B, D)`` as programs take them."""
        return x

    def restore(self, x: Tensor) -> Tensor:
        """Examples ``(B, D)`` from programs in these units."""
        return x

    def log_jacobian(self, x: Tensor) -> Tensor:
        """The nats ``(B,)`` that turn log-densities of prepared examples into those of x in these units."""
        return torch.zeros_like(x[:, 0])


class PureFunction(nn.Module):
    """The base of functions of a model and its guide, from tensors by name to tensors by name.

    Args:
        model: the generative program.
        guide: the variational program.
        units: the units of x; by default those of the model.
    """

    def __init__(self, model: GenerativeModel, guide: nn.Module, units: nn.Module | None = None) -> None:
        super().__init__()
        # In a tuple, in which nn.Module finds no submodules.
        self._programs = (model, guide)
        self.units: Any = units or AsModelled()
        with measuring(model), torch.random.fork_rng():
            like = next(model.parameters())
            context = like.new_zeros(1, model.context_size) if model.context_size else None
            trace = poutine.trace(model).get_trace(None, context, batch_size=1)
            self._sites: dict[str, Any] = {f"z{layer}": trace.nodes[f"z{layer}"] for layer in range(1, model.depth + 1)}
            self._data: Any = trace.nodes["x"]
        self.dtype = like.dtype
        self.context: dict[str, Shape] = {"context": ("B", model.context_size)} if model.context_size else {}

    @property
    def model(self) -> GenerativeModel:
        """The generative program."""
        return self._programs[0]

    @property
    def programs(self) -> tuple[GenerativeModel, nn.Module]:
        """The generative program and its guide."""
        return self._programs

    @property
    def data_size(self) -> int:
        """The number of entries D of an example."""
        return int(self._data["fn"].event_shape[-1])

    @property
    def latent_sizes(self) -> dict[str, int]:
        """The size of each latent layer, by name."""
        return {name: int(site["fn"].event_shape[-1]) for name, site in self._sites.items()}

    @property
    def inputs(self) -> dict[str, Shape]:
        """The shape of each input."""
        raise NotImplementedError

    def dtype_of(self, name: str) -> torch.dtype:
        """The type of an input."""
        return self.units.dtype if name == "x" else self.dtype

    def _posterior(self, inputs: Mapping[str, Tensor], x: Tensor) -> dict[str, Site]:
        """The sites of the guide, whose values are those of the noise."""
        with explicit_noise(_noise_in(inputs)):
            return latent_sites(self._programs[1], _rows(x, inputs))

    def _generate(self, inputs: Mapping[str, Tensor], latents: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Any:
        """The trace of the model without data, given some latents and the noise of the others."""
        batch_size = next(iter(inputs.values())).shape[0]
        # The inner handler comes first: data without noise are not drawn.
        with at_mean("x"), explicit_noise(noise):
            program = poutine.trace(poutine.condition(self.model, dict(latents)))
            return program.get_trace(None, inputs.get("context"), batch_size=batch_size)

    def _in_units(self, x: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Examples of the model with the entries that contexts contain, in the units of x."""
        return self.units.restore(self.model.complete(x, inputs.get("context")))


class Encode(PureFunction):
    r"""The latents of examples, layer by layer in the guide's order.

    .. math:: z_l = \mu_l + \sigma_l \odot u_l

    From ``x (B, D)`` and ``noise_z1 (B, D_1)``, ...: ``z1``, ...; with ``z1_loc`` and ``z1_scale`` where the layer is a
    Gaussian given the others. Noise of zero leaves each layer at its location.
    """

    @property
    def inputs(self) -> dict[str, Shape]:
        """The shape of each input."""
        return {"x": ("B", self.data_size)} | _noise(self.latent_sizes, "B") | self.context

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the latents ``(B, D_l)``, with their locations and scales."""
        sites, found = self._posterior(inputs, self.units.prepare(inputs["x"])), {}
        for name in sorted(sites):
            found[name] = sites[name]["value"]
            if (gaussian := gaussian_of(sites[name]["fn"])) is not None:
                found |= {f"{name}_loc": gaussian.mean, f"{name}_scale": gaussian.stddev}
        return found


class Decode(PureFunction):
    """The mean of p(x | z), from those latents ``(B, D_l)`` that x depends on: ``z1``, or all with skip connections."""

    @property
    def inputs(self) -> dict[str, Shape]:
        """The shape of each input."""
        needed = list(self.latent_sizes) if self.model.skip_connections else list(self.latent_sizes)[:1]
        return {name: ("B", self.latent_sizes[name]) for name in needed} | self.context

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean ``(B, D)``, in the units of x."""
        latents = {name: inputs[name] for name in self.latent_sizes if name in inputs}
        rows = next(iter(inputs.values())).shape[0]
        # The layers that x does not depend on may have any value.
        sizes = {name: noise_size(site["fn"]) for name, site in self._sites.items() if name not in latents}
        rest = {name: inputs["z1"].new_zeros(rows, size) for name, size in sizes.items()}
        return {"mean": self._in_units(self._generate(inputs, latents, rest).nodes["x"]["fn"].mean, inputs)}


class Sample(PureFunction):
    """Examples drawn from the model: ``z1``, ..., the mean of p(x | z) and, where quantiles are known, ``x``.

    From ``noise_z1``, ... and ``noise_x``. Of a top layer with a mixture as prior, the noise has one entry more, the first,
    which chooses the component. Counts have no quantiles in closed form: for them there is no ``x``.
    """

    @property
    def draws_data(self) -> bool:
        """True where draws of x are a function of noise."""
        try:
            value_of(self._data["fn"], torch.zeros_like(self._data["value"]))
        except NoQuantileError:
            return False
        return True

    @property
    def inputs(self) -> dict[str, Shape]:
        """The shape of each input."""
        sizes = {name: noise_size(site["fn"]) for name, site in self._sites.items()}
        return _noise(sizes | ({"x": self.data_size} if self.draws_data else {}), "B") | self.context

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return latents ``(B, D_l)``, means and draws ``(B, D)`` in the units of x."""
        nodes = self._generate(inputs, {}, _noise_in(inputs)).nodes
        found = {name: nodes[name]["value"] for name in self.latent_sizes}
        found["mean"] = self._in_units(nodes["x"]["fn"].mean, inputs)
        return found | ({"x": self._in_units(nodes["x"]["value"], inputs)} if "noise_x" in inputs else {})


class LogLikelihood(PureFunction):
    r"""The log-likelihood of examples by importance sampling, in nats of the units of x, from K samples given as noise.

    .. math:: \log \frac 1 K \sum_{k=1}^K \frac{p(x, z_k | c)}{q(z_k | x, c)}, \quad z_k = \mu + \sigma \odot u_k

    From ``x (B, D)`` and ``noise_z1 (K, B, D_1)``, ...: Burda et al. (2016), equation 8, as ``log_likelihood`` computes it. A
    model without latents needs no noise and is exact.
    """

    @property
    def inputs(self) -> dict[str, Shape]:
        """The shape of each input."""
        return {"x": ("B", self.data_size)} | _noise(self.latent_sizes, "K", "B") | self.context

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return ``log_likelihood (B,)``."""
        x = self.units.prepare(inputs["x"])
        sites = self._posterior(inputs, x) if self.latent_sizes else {}
        latents = {name: site["value"] for name, site in sites.items()}
        nodes: Any = poutine.trace(poutine.condition(self.model, latents)).get_trace(*_rows(x, inputs)).nodes
        weights = nodes["x"]["fn"].log_prob(nodes["x"]["value"])
        for name, site in sites.items():
            weights = weights + nodes[name]["fn"].log_prob(site["value"]) - site["fn"].log_prob(site["value"])
        if sites:
            # The sum of K ones is K, also where it is an unknown size of a graph.
            weights = weights.logsumexp(0) - torch.zeros_like(weights).logsumexp(0)
        change = self.units.log_jacobian(inputs["x"])
        return {"log_likelihood": weights.to(change) + change}


def _noise(sizes: Mapping[str, int], *leading: str) -> dict[str, Shape]:
    return {f"noise_{name}": (*leading, size) for name, size in sizes.items()}


def _noise_in(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The noise of each site, by its name."""
    return {name.removeprefix("noise_"): each for name, each in inputs.items() if name.startswith("noise_")}


def _rows(x: Tensor, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return (x, inputs["context"]) if "context" in inputs else (x,)


FUNCTIONS: dict[str, type[PureFunction]] = {
    "encode": Encode,
    "decode": Decode,
    "sample": Sample,
    "log_likelihood": LogLikelihood,
}
