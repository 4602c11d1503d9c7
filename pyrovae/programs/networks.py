"""Networks: modules from tensors ``(*, in_features)`` to tensors ``(*, out_features)``, for any leading dimensions.

Particles come as ``(K, B, C)`` where torch's own batch norm takes ``(N, C)`` alone; everything here takes both.
Weights are initialised as Glorot and Bengio (2010) did, biases at zero, as in all the papers that pyrovae implements.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn


def linear(in_features: int, out_features: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer with Glorot-uniform weights and a zero bias."""
    layer = nn.Linear(in_features, out_features, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization of ``(*, C)`` over all leading dimensions: particles count as examples.

    >>> import torch
    >>> h = BatchNorm(3)(torch.randn(10, 20, 3) + 5)
    >>> h.shape, bool(h.mean((0, 1)).abs().max() < 1e-5)
    (torch.Size([10, 20, 3]), True)
    """

    def forward(self, h: Tensor) -> Tensor:  # noqa: D102
        return super().forward(h.reshape(-1, h.shape[-1])).view(h.shape)


def mlp(sizes: Sequence[int], *, activation: Callable[[], nn.Module] = nn.ReLU, batch_norm: bool = False) -> nn.Sequential:
    """A multilayer perceptron ``(*, sizes[0]) -> (*, sizes[-1])``, every layer followed by the activation.

    Batch norm stands before each activation; its shift takes the place of the layer's bias.
    """
    layers: list[nn.Module] = []
    for in_features, out_features in pairwise(sizes):
        layers.append(linear(in_features, out_features, bias=not batch_norm))
        if batch_norm:
            layers.append(BatchNorm(out_features))
        layers.append(activation())
    return nn.Sequential(*layers)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.1),
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}
