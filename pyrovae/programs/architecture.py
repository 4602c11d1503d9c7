"""The sizes that a model and its guide share, and the networks between them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from pyrovae.programs.columns import Columns, InputFeatures
from pyrovae.programs.conditionals import DiagonalGaussian
from pyrovae.programs.convolutions import Block, ImageDecoder, ImageEncoder, PixelReadout, ResidualBlock, Shape, convolution
from pyrovae.programs.flows import FLOWS, POSTERIORS, Flow
from pyrovae.programs.networks import mlp

# The networks next to the data: blocks of convolutions, or None for the multilayer perceptron that is used everywhere else.
NETWORKS: dict[str, Block | None] = {"mlp": None, "convolutional": convolution, "residual": ResidualBlock}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The sizes of a model and its guide; networks between layer l and the one below have the width ``hidden_sizes[l - 1]``.

    ``GenerativeModel.of`` and the ``of`` of each guide compose their parts from it.

    Args:
        shape: channels, height and width of an image; a row of data holds their product D.
        latent_sizes: the sizes D_1 to D_L of the latent layers; none for a regressor.
        hidden_sizes: one width for each latent layer; a regressor has one too.
        context_size: the number of entries C of a context.
        hidden_layers: layers in each network; blocks at each size of an image in a convolutional one.
        activation: the function that makes the nonlinearity after each layer.
        batch_norm: normalise over the batch before each nonlinearity.
        layer_norm: normalise over the features of each example before each nonlinearity, in perceptrons.
        residual_layers: whether hidden layers of perceptrons after the first add to their input.
        dropout: the probability with which a hidden feature of a perceptron is left out in training.
        block: one of ``NETWORKS``, for the networks next to the data.
        columns: the kinds of the data's columns, where networks do not see all of them as they are.
        incomplete: whether NaN stands for a missing entry of the data.
        posterior: one of ``POSTERIORS``, for each layer of a guide.
        flow: makes the map of a normalizing flow, one of ``FLOWS``.
    """

    shape: Shape
    latent_sizes: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    context_size: int = 0
    hidden_layers: int = 2
    activation: Callable[[], nn.Module] = nn.ReLU
    batch_norm: bool = False
    layer_norm: bool = False
    residual_layers: bool = False
    dropout: float = 0.0
    block: Block | None = None
    columns: Columns | None = None
    incomplete: bool = False
    posterior: Callable[[int, Flow], nn.Module] = POSTERIORS["gaussian"]
    flow: Flow = FLOWS["coupling"]

    @property
    def data_size(self) -> int:
        """The number of entries D of a row of data."""
        return math.prod(self.shape)

    @property
    def input_size(self) -> int:
        """The number of entries D + C of a guide's input: the data, followed by the context."""
        return self.data_size + self.context_size

    def network(self, in_features: int, width: int) -> nn.Module:
        """A multilayer perceptron ``(*, in_features) -> (*, width)``."""
        return mlp(
            [in_features] + [width] * self.hidden_layers,
            **self._options,
            layer_norm=self.layer_norm,
            residual=self.residual_layers,
            dropout=self.dropout,
        )

    def gaussian(self, in_features: int, width: int, size: int) -> nn.Module:
        """A diagonal Gaussian over ``size`` dimensions given ``(*, in_features)``, through a network."""
        return nn.Sequential(self.network(in_features, width), DiagonalGaussian(width, size))

    def encoder(self, width: int) -> nn.Module:
        """A network from a guide's input ``(*, D + C)`` to features ``(*, width)``."""
        seen = InputFeatures(self.data_size, self.columns, incomplete=self.incomplete)
        if self.block is None:
            network = self.network(seen.size + self.context_size, width)
        else:
            network = ImageEncoder(self.shape, self.context_size, width, self.block, self.hidden_layers, **self._options)
        return nn.Sequential(seen, network) if self.columns or self.incomplete else network

    def decoder(self, in_features: int, width: int, likelihood: Callable[..., nn.Module]) -> nn.Module:
        """A likelihood of the data given ``(*, in_features)``, through a network."""
        if self.block is None:
            return nn.Sequential(self.network(in_features, width), likelihood(width, self.data_size))
        decoder = ImageDecoder(self.shape, in_features, width, self.block, self.hidden_layers, **self._options)
        readout = partial(PixelReadout, self.shape)
        return nn.Sequential(decoder, likelihood(decoder.out_features, self.data_size, readout=readout))

    @property
    def posteriors(self) -> list[nn.Module]:
        """The modules from a guide's Gaussians to its posteriors, for each layer."""
        return [self.posterior(size, self.flow) for size in self.latent_sizes]

    @property
    def _options(self) -> dict[str, Any]:
        return {"activation": self.activation, "batch_norm": self.batch_norm}
