"""Encoders: modules from data to Gaussians from which a guide is made, one per layer, the bottom one first.

They are called with data ``(B, D)``, followed by the context where there is one: ``(B, D + C)``.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyro.distributions import Independent
from torch import Tensor, nn

from pyrovae.programs.architecture import Architecture
from pyrovae.programs.conditionals import DiagonalGaussian


class UpwardPass(nn.Module):
    r"""The deterministic features of the data, layer upon layer.

    .. math:: d_l = \operatorname{network}_l(d_{l-1}), \quad d_0 = x
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    @classmethod
    def of(cls, architecture: Architecture) -> UpwardPass:
        """Make the pass, with a network for each latent layer."""
        return cls(_networks(architecture))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Data ``(B, D)`` to the features of each layer, the bottom one first."""
        return _climb(self.networks, x)


class LadderEncoder(nn.Module):
    r"""A deterministic upward pass with a distribution at each layer.

    .. math:: d_l = \operatorname{network}_l(d_{l-1}), \quad d_0 = x, \quad \hat q_l = \operatorname{head}_l(d_l)

    Sønderby et al. (2016), equations 13 to 15. With one layer it is the encoder of a plain VAE.
    """

    def __init__(self, networks: Iterable[nn.Module], heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.heads = nn.ModuleList(heads)

    @classmethod
    def of(cls, architecture: Architecture) -> LadderEncoder:
        """Make the encoder, with a network and a diagonal Gaussian for each latent layer."""
        return cls(_networks(architecture), map(DiagonalGaussian, architecture.hidden_sizes, architecture.latent_sizes))

    def forward(self, x: Tensor) -> list[Independent]:
        """Data ``(B, D)`` to one distribution per layer, each of batch shape ``(B,)``, the bottom layer first."""
        features = _climb(self.networks, x)
        return [head(each) for head, each in zip(self.heads, features, strict=True)]


def _climb(networks: nn.ModuleList, x: Tensor) -> list[Tensor]:
    features = [x]
    for network in networks:
        features.append(network(features[-1]))
    return features[1:]


def _networks(architecture: Architecture) -> list[nn.Module]:
    """The networks of an upward pass, one for each latent layer."""
    widths = architecture.hidden_sizes[: len(architecture.latent_sizes)]
    if not widths:
        return []
    return [architecture.encoder(widths[0]), *map(architecture.network, widths, widths[1:])]
