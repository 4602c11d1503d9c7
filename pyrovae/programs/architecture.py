"""The sizes that a model and its guide share."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from pyrovae.programs.conditionals import DiagonalGaussian
from pyrovae.programs.networks import mlp


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes from the data upwards: between layer l and the one below it stand networks of width ``hidden_sizes[l - 1]``.

    ``GenerativeModel.of`` and the ``of`` of each guide compose their parts from it.

    Args:
        data_size: entries of a row of data.
        latent_sizes: D_1 to D_L.
        hidden_sizes: one width for each latent layer.
        hidden_layers: layers in each network.
        activation: makes the nonlinearity behind each of them.
        batch_norm: normalise over the batch before each nonlinearity.
    """

    data_size: int
    latent_sizes: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    hidden_layers: int = 2
    activation: Callable[[], nn.Module] = nn.ReLU
    batch_norm: bool = False

    def network(self, in_features: int, width: int) -> nn.Module:
        """A multilayer perceptron ``(*, in_features) -> (*, width)``."""
        sizes = [in_features] + [width] * self.hidden_layers
        return mlp(sizes, activation=self.activation, batch_norm=self.batch_norm)

    def gaussian(self, in_features: int, width: int, size: int) -> nn.Module:
        """A diagonal Gaussian over ``size`` dimensions given ``(*, in_features)``, through a network."""
        return nn.Sequential(self.network(in_features, width), DiagonalGaussian(width, size))
