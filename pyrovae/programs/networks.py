"""Networks: modules from tensors ``(*, in_features)`` to tensors ``(*, out_features)``, for any leading dimensions.

Particles come as ``(K, B, C)`` where torch's own batch norm takes ``(N, C)`` alone; everything here takes both.
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
    """Batch norm normalises by its running statistics and leaves them as they are: for inputs that are no data."""
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
        rows = h.reshape(-1, h.shape[-1])
        if _frozen.get():
            normal = F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        else:
            normal = super().forward(rows)
        return normal.view(h.shape)


def mlp(sizes: Sequence[int], *, activation: Callable[[], nn.Module] = nn.ReLU, batch_norm: bool = False) -> nn.Sequential:
    """A multilayer perceptron ``(*, sizes[0]) -> (*, sizes[-1])``, every layer followed by the activation.

    Batch norm stands before each activation; its shift takes the place of the layer's bias.
    """
    layers: list[nn.Module] = []
    for in_features, out_features in pairwise(sizes):
        layers.append(nn.Linear(in_features, out_features, bias=not batch_norm))
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


def glorot(layer: nn.Linear) -> None:
    """Uniform weights of variance 2 / (in + out), Glorot and Bengio (2010), and a zero bias."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


# torch's own is uniform with variance 1 / (3 in). Under batch norm smaller weights mean larger steps.
INITIALIZATIONS: dict[str, Callable[[nn.Linear], None]] = {"glorot": glorot, "torch": nn.Linear.reset_parameters}
