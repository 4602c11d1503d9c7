"""Networks: modules from tensors ``(*, in_features)`` to tensors ``(*, out_features)``, for any leading dimensions.

Particles come as ``(K, B, C)``, but torch's own batch norm takes only ``(N, C)``; everything here takes both.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

_frozen: ContextVar[bool] = ContextVar("frozen", default=False)


@contextmanager
def frozen_statistics() -> Iterator[None]:
    """Let networks compute what they will when they are measured, for inputs that are no data.

    Batch norm uses its running statistics and leaves them as they are, and dropout leaves out nothing.
    """
    before = _frozen.set(True)
    try:
        yield
    finally:
        _frozen.reset(before)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization of ``(*, C)`` over all leading dimensions: particles count as examples.

    >>> import torch
    >>> h = BatchNorm(3)(torch.randn(10, 20, 3) + 5)
    >>> h.shape, bool(h.mean((0, 1)).abs().max() < 1e-5)
    (torch.Size([10, 20, 3]), True)
    """

    def forward(self, h: Tensor) -> Tensor:  # noqa: D102
        return self.normalize(h.reshape(-1, h.shape[-1])).view(h.shape)

    def normalize(self, h: Tensor) -> Tensor:
        """Normalise ``(N, C)`` or ``(N, C, L)`` over N and L."""
        if _frozen.get():
            return F.batch_norm(h, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(h)


class Dropout(nn.Dropout):
    """Dropout that leaves out nothing within ``frozen_statistics``."""

    def forward(self, h: Tensor) -> Tensor:  # noqa: D102
        return h if _frozen.get() else super().forward(h)


class Residual(nn.Module):
    """A network added to its input, h + f(h), each ``(*, C)``. He et al. (2016), equation 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, h: Tensor) -> Tensor:  # noqa: D102
        return h + self.network(h)


def mlp(
    sizes: Sequence[int],
    *,
    activation: Callable[[], nn.Module] = nn.ReLU,
    batch_norm: bool = False,
    layer_norm: bool = False,
    residual: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    r"""Make a multilayer perceptron ``(*, sizes[0]) -> (*, sizes[-1])`` with an activation after every layer.

    Batch norm, or layer norm, comes before each activation; its shift replaces the layer's bias. Dropout comes after each
    activation. Under ``gate`` a layer computes twice as many features, one half of which gates the other:

    .. math:: h' = (W_1 h + b_1) \odot \operatorname{sigmoid}(W_2 h + b_2)

    Dauphin et al. (2017), equation 1. With ``residual``, layers of equal input and output are added to their input, through
    a linear map after the activation, so that the sum may fall as well as grow:

    .. math:: h' = h + W_2 a(W_1 h + b_1) + b_2

    >>> mlp([3, 5], activation=gate)
    Sequential(
      (0): Linear(in_features=3, out_features=10, bias=True)
      (1): GLU(dim=-1)
    )
    """
    norm = BatchNorm if batch_norm else nn.LayerNorm if layer_norm else None
    layers: list[nn.Module] = []
    for in_features, out_features in pairwise(sizes):
        computed = features_before_activation(out_features, activation)
        layer: list[nn.Module] = [nn.Linear(in_features, computed, bias=norm is None)]
        layer += [] if norm is None else [norm(computed)]
        layer += [activation(), *([Dropout(dropout)] if dropout else [])]
        if residual and layers and in_features == out_features:
            layer = [Residual(nn.Sequential(*layer, nn.Linear(out_features, out_features)))]
        layers += layer
    return nn.Sequential(*layers)


def features_before_activation(number: int, activation: Callable[[], nn.Module]) -> int:
    """The number of features before the activation, for ``number`` after it: a gate needs twice as many."""
    return 2 * number if activation is gate else number


def gate() -> nn.GLU:
    """Make the nonlinearity of gated networks."""
    return nn.GLU(dim=-1)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.1),
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "gate": gate,
}

Layer = nn.Linear | nn.Conv2d


def glorot(layer: Layer) -> None:
    """Draw uniform weights of variance 2 / (in + out), Glorot and Bengio (2010), and set the bias to zero."""
    nn.init.xavier_uniform_(layer.weight)
    _without_bias(layer)


def he(layer: Layer) -> None:
    """Draw normal weights of variance 2 / in, He et al. (2015), equation 10, and set the bias to zero."""
    nn.init.kaiming_normal_(layer.weight)
    _without_bias(layer)


def torch_default(layer: Layer) -> None:
    """Draw uniform weights of variance 1 / (3 in), as torch does. Under batch norm, smaller weights mean larger steps."""
    layer.reset_parameters()


def _without_bias(layer: Layer) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


INITIALIZATIONS: dict[str, Callable[[Layer], None]] = {"glorot": glorot, "he": he, "torch": torch_default}
