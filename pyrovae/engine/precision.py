"""Matrix products in another precision, while everything else stays as it is."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRECISIONS = ("float32", "bfloat16")
aten = torch.ops.aten


class Bfloat16Products(TorchDispatchMode):
    """A mode that multiplies float32 matrices in bfloat16, forwards and backwards, and returns float32.

    Under autocast, samples and their log-densities are bfloat16 too and keep two digits: a ladder trained in this way diverged
    after 14 epochs. Here only the products are rounded.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (aten.mm.default, aten.bmm.default) and args[0].dtype == torch.float32:
            return func(*map(_round, args)).float()
        if func is aten.addmm.default and args[1].dtype == torch.float32 and not kwargs:
            return aten.mm.default(*map(_round, args[1:])).float() + args[0]
        return func(*args, **(kwargs or {}))


def _round(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16)


def products_in(precision: str) -> AbstractContextManager[Any]:
    """A context in which matrix products are computed in one of ``PRECISIONS``."""
    return Bfloat16Products() if precision == "bfloat16" else nullcontext()
