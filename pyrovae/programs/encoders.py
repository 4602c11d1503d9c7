"""Encoders: modules from data to the Gaussians that a guide starts from, one per layer, the bottom one first.

What they are called with is data ``(B, D)``, and behind them the context where there is one: ``(B, D + C)``.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyro.distributions import Independent
from torch import Tensor, nn

from pyrovae.programs.architecture import Architecture
from pyrovae.programs.conditionals import DiagonalGaussian


class UpwardPass(nn.Module):
    r"""Deterministic features of the data, layer upon layer.

    .. math:: d_l = \operatorname{network}_l(d_{l-1}), \quad d_0 = x
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    @classmethod
    def of(cls, architecture: Architecture) -> UpwardPass:
        """A network for each latent layer."""
        return cls(_networks(architecture))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Data ``(B, D)`` to the features of each layer, the bottom one first."""
        return _climb(self.networks, x)


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
    """One for each latent layer."""
    widths = architecture.hidden_sizes[: len(architecture.latent_sizes)]
    if not widths:
        return []
    return [architecture.encoder(widths[0]), *map(architecture.network, widths, widths[1:])]
