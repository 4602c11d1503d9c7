"""Convolutional networks between rows ``(*, C H W)`` that hold an image and features ``(*, F)``, for any leading dimensions.

Both directions go through two halvings of the image; at each size there are blocks, of ``convolution`` or ``ResidualBlock``.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrovae.programs.networks import BatchNorm, features_before_activation, gate, mlp

Shape = tuple[int, int, int]
Activation = Callable[[], nn.Module]
Block = Callable[..., nn.Module]

# The channels at half and at a quarter of the size, and at full size in the decoder.
HALF, QUARTER, FULL = 32, 64, 16


class ImageBatchNorm(BatchNorm):
    """Batch normalization of ``(N, C, H, W)`` over examples and pixels."""

    def forward(self, h: Tensor) -> Tensor:  # noqa: D102
        return self.normalize(h.flatten(2)).reshape(h.shape)


def _nonlinearity(activation: Activation) -> nn.Module:
    return nn.GLU(dim=1) if activation is gate else activation()


def _normalized_convolution(in_channels: int, out_channels: int, stride: int, batch_norm: bool) -> list[nn.Module]:
    layer = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=not batch_norm)
    return [layer, ImageBatchNorm(out_channels)] if batch_norm else [layer]


def convolution(
    in_channels: int, out_channels: int, *, stride: int = 1, activation: Activation = nn.ReLU, batch_norm: bool = False
) -> nn.Sequential:
    """Make a convolution of 3 x 3 and its activation: ``(N, C, H, W)`` to ``(N, C', H / stride, W / stride)``, rounded up.

    With the activation ``gate`` it is the gated convolution of van den Oord et al. (2016), equation 2, the gated half linear.
    """
    computed = features_before_activation(out_channels, activation)
    return nn.Sequential(
        *_normalized_convolution(in_channels, computed, stride, batch_norm),
        _nonlinearity(activation),
    )


class ResidualBlock(nn.Module):
    r"""Two convolutions beside a shortcut: the shapes of ``convolution``.

    .. math:: h' = a(\operatorname{conv}_2(a(\operatorname{conv}_1(h))) + W h)

    W is a projection where the number of channels or the size changes, else the identity. He et al. (2016), figure 2. Under
    ``gate`` the activation comes before the sum, so that the shortcut stays free.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        activation: Activation = nn.ReLU,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        first = convolution(in_channels, out_channels, stride=stride, activation=activation, batch_norm=batch_norm)
        second = _normalized_convolution(out_channels, features_before_activation(out_channels, activation), 1, batch_norm)
        gated = activation is gate
        self.inner = nn.Sequential(first, *second, *([_nonlinearity(activation)] if gated else []))
        same = stride == 1 and in_channels == out_channels
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        self.activation = nn.Identity() if gated else activation()

    def forward(self, h: Tensor) -> Tensor:  # noqa: D102
        return self.activation(self.inner(h) + self.shortcut(h))


def _blocks(
    block: Block, number: int, in_channels: int, out_channels: int, *, stride: int = 1, **options: Any
) -> nn.Sequential:
    first = block(in_channels, out_channels, stride=stride, **options)
    return nn.Sequential(first, *(block(out_channels, out_channels, **options) for _ in range(number - 1)))


class ImageEncoder(nn.Module):
    """A network from rows ``(*, C H W + R)``, an image followed by other entries, to features ``(*, width)``.

    The image is halved twice; the R further entries join its features before the last layer.

    Args:
        shape: C, H and W.
        rest: the number R of other entries.
        width: the number of features.
        block: the function or class that makes a block.
        number: the number of blocks at each size.
        options: the ``activation`` and ``batch_norm`` of every layer.
    """

    def __init__(self, shape: Shape, rest: int, width: int, block: Block, number: int, **options: Any) -> None:
        super().__init__()
        self.shape = shape
        self.blocks = nn.Sequential(
            _blocks(block, number, shape[0], HALF, stride=2, **options),
            _blocks(block, number, HALF, QUARTER, stride=2, **options),
        )
        self.features = mlp([math.prod(_quarter(shape)) + rest, width], **options)

    def forward(self, rows: Tensor) -> Tensor:  # noqa: D102
        pixels = math.prod(self.shape)
        image, rest = rows[..., :pixels].reshape(-1, *self.shape), rows[..., pixels:]
        seen = self.blocks(image).reshape(*rows.shape[:-1], -1)
        return self.features(torch.cat([seen, rest], -1))


class ImageDecoder(nn.Module):
    """A network from features ``(*, in_features)`` to maps of the image's size, in rows ``(*, FULL H W)``.

    It mirrors ``ImageEncoder``. Images are enlarged to the nearest pixel and then convolved, which allows any size and leaves
    no checkerboard pattern (Odena et al., 2016).
    """

    def __init__(self, shape: Shape, in_features: int, width: int, block: Block, number: int, **options: Any) -> None:
        super().__init__()
        self.quarter, self.half_size, self.full_size = _quarter(shape), _halved(shape)[1:], shape[1:]
        self.features = mlp([in_features, width, math.prod(self.quarter)], **options)
        self.at_quarter = _blocks(block, number, QUARTER, QUARTER, **options)
        self.at_half = _blocks(block, number, QUARTER, HALF, **options)
        self.at_full = block(HALF, FULL, **options)
        self.out_features = FULL * shape[1] * shape[2]

    def forward(self, h: Tensor) -> Tensor:  # noqa: D102
        image = self.at_quarter(self.features(h).reshape(-1, *self.quarter))
        image = self.at_half(F.interpolate(image, size=self.half_size))
        image = self.at_full(F.interpolate(image, size=self.full_size))
        return image.reshape(*h.shape[:-1], -1)


class PixelReadout(nn.Module):
    """A linear map of each pixel's features, ``(*, F H W)`` to ``(*, G H W)``, with a bias of its own for each pixel.

    Args:
        shape: the shape of the image; H and W are its last two entries.
        in_features: the number F H W of features.
        out_features: the number G H W of outputs.
    """

    def __init__(self, shape: Shape, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.size = shape[1:]
        pixels = shape[1] * shape[2]
        self.map = nn.Conv2d(in_features // pixels, out_features // pixels, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, h: Tensor) -> Tensor:  # noqa: D102
        image = h.reshape(-1, self.map.in_channels, *self.size)
        return self.map(image).reshape(*h.shape[:-1], -1) + self.bias


def _halved(shape: Shape) -> Shape:
    return shape[0], -(-shape[1] // 2), -(-shape[2] // 2)


def _quarter(shape: Shape) -> Shape:
    half = _halved(shape)
    return QUARTER, -(-half[1] // 2), -(-half[2] // 2)
