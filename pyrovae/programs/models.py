"""Generative programs p(x, z)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyro
import torch
from torch import Tensor, nn

from pyrovae.programs.architecture import Architecture
from pyrovae.programs.conditionals import Bernoulli, given
from pyrovae.programs.priors import StandardNormal


class GenerativeModel(nn.Module):
    r"""A hierarchy of latent variables over data, as a Pyro program.

    .. math:: p(x, z) = p(z_L) \prod_{l=1}^{L-1} p(z_l | z_{l+1}) \; p(x | z_1)

    The sites are ``z1`` (next to the data) to ``zL`` (on top) and ``x``, all in the plate ``data``. Stock Pyro works on
    it: ``poutine.condition``, ``Predictive``, ``Trace_ELBO``. Sønderby et al. (2016), equations 1 to 3.

    Args:
        prior: p(z_L), called without arguments.
        likelihood: p(x | z_1), called with z_1 ``(*, D_1)``.
        conditionals: p(z_l | z_{l+1}) for l = 1 to L - 1, each called with z_{l+1}; none for a plain VAE.
        skip_connections: the data depend on every layer: the likelihood is p(x | z_1 ... z_L), called with all of them side
            by side, the bottom one first. Two layers are the hierarchical VAE of Tomczak and Welling (2018), equation 13.

    >>> model = GenerativeModel(StandardNormal(2), Bernoulli(2, 784))
    >>> model(batch_size=3).shape
    torch.Size([3, 784])
    """

    def __init__(
        self,
        prior: nn.Module,
        likelihood: nn.Module,
        conditionals: Iterable[nn.Module] = (),
        *,
        skip_connections: bool = False,
    ) -> None:
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood
        self.conditionals = nn.ModuleList(conditionals)
        self.skip_connections = skip_connections

    @classmethod
    def of(
        cls,
        architecture: Architecture,
        likelihood: Callable[[int, int], nn.Module] = Bernoulli,
        *,
        skip_connections: bool = False,
    ) -> GenerativeModel:
        """Data under a hierarchy of diagonal Gaussians under a standard normal prior; bits, unless told otherwise."""
        sizes, widths = architecture.latent_sizes, architecture.hidden_sizes
        network = architecture.network(sum(sizes) if skip_connections else sizes[0], widths[0])
        return cls(
            StandardNormal(sizes[-1]),
            nn.Sequential(network, likelihood(widths[0], architecture.data_size)),
            map(architecture.gaussian, sizes[1:], widths[1:], sizes[:-1]),
            skip_connections=skip_connections,
        )

    @property
    def depth(self) -> int:
        """The number L of latent layers."""
        return len(self.conditionals) + 1

    def forward(self, x: Tensor | None = None, batch_size: int = 1) -> Tensor:
        """Observe the rows of x ``(B, D)``; without x, draw ``batch_size`` of them."""
        with pyro.plate("data", batch_size if x is None else x.shape[0], dim=-1):
            latents = [pyro.sample(f"z{self.depth}", self.prior())]
            for layer in reversed(range(1, self.depth)):
                latents.insert(0, pyro.sample(f"z{layer}", given(self.conditionals[layer - 1], latents[0])))
            parents = torch.cat(latents, -1) if self.skip_connections else latents[0]
            return pyro.sample("x", self.likelihood(parents), obs=x)
