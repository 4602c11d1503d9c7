"""Encoders: modules from data ``(B, D)`` to the Gaussians that a guide starts from, one per layer, the bottom one first."""

from __future__ import annotations

from collections.abc import Iterable

from pyro.distributions import Independent
from torch import Tensor, nn

from pyrovae.programs.architecture import Architecture
from pyrovae.programs.conditionals import DiagonalGaussian


class LadderEncoder(nn.Module):
    r"""A deterministic upward pass with a distribution at each rung.

    .. math:: d_l = \operatorname{network}_l(d_{l-1}), \quad d_0 = x, \quad \hat q_l = \operatorname{head}_l(d_l)

    Sønderby et al. (2016), equations 13 to 15. With one rung it is the encoder of a plain VAE.
    """

    def __init__(self, networks: Iterable[nn.Module], heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.heads = nn.ModuleList(heads)

    @classmethod
    def of(cls, architecture: Architecture) -> LadderEncoder:
        """A network and a diagonal Gaussian for each latent layer."""
        widths, sizes = architecture.hidden_sizes, architecture.latent_sizes
        below = (architecture.data_size, *widths[:-1])
        return cls(map(architecture.network, below, widths), map(DiagonalGaussian, widths, sizes))

    def forward(self, x: Tensor) -> list[Independent]:
        """Data ``(B, D)`` to one distribution per layer, each of batch shape ``(B,)``, the bottom layer first."""
        rungs = []
        features = x
        for network, head in zip(self.networks, self.heads, strict=True):
            features = network(features)
            rungs.append(head(features))
        return rungs
