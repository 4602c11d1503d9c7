"""Batch norm over a batch that processes share: the statistics are those of the whole batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyrovae.engine.collectives import Collective


class WholeStatistics(TorchFunctionMode):
    """A mode in which batch norm normalises with the statistics of the whole batch."""

    def __init__(self, together: Collective) -> None:
        super().__init__()
        self._together = together

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            return _batch_norm(self._together, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    together: Collective,
    values: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute what ``F.batch_norm`` does, with the statistics of all processes' rows."""
    if not training:
        return F.batch_norm(values, running_mean, running_var, weight, bias, False, momentum, eps)
    normalized, mean, variance = _Normalize.apply(values, eps, together)
    if running_mean is not None and running_var is not None:
        count = together.size * values.numel() / values.shape[1]
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * (count / (count - 1)), momentum)
    shape = (1, -1) + (1,) * (values.dim() - 2)
    normalized = normalized if weight is None else normalized * weight.view(shape)
    return normalized if bias is None else normalized + bias.view(shape)


class _Normalize(torch.autograd.Function):
    r"""Normalisation over all processes, by one operation between them forward and one backward.

    .. math:: y = (x - m) / \sqrt{v + \epsilon}, \quad
        dx = (dy - \overline{dy} - y \, \overline{y \, dy}) / \sqrt{v + \epsilon}
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, eps: float, together: Collective) -> tuple[Tensor, Tensor, Tensor]:
        ctx.dims, ctx.together = [0, *range(2, values.dim())], together
        variance, mean = torch.var_mean(values, ctx.dims, correction=0, keepdim=True)
        means, variances = together.gather(torch.stack([mean, variance])).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        scale = (variance + eps).rsqrt()
        normalized = (values - mean) * scale
        ctx.save_for_backward(normalized, scale)
        statistics = mean.flatten(), variance.flatten()
        ctx.mark_non_differentiable(*statistics)
        return normalized, *statistics

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        normalized, scale = ctx.saved_tensors
        own = torch.stack([gradient, gradient * normalized]).mean([1 + dim for dim in ctx.dims], keepdim=True)
        mean, along = (ctx.together.sum(own) / ctx.together.size).unbind(0)
        return (gradient - mean - normalized * along) * scale, None, None
