"""Clipping of gradients between the loss and the optimizer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.utils import get_total_norm

Gradients = Sequence[Tensor | None]


@dataclass(frozen=True)
class Clipping:
    r"""Clip gradients to a norm, and leave out steps whose gradients are far too long.

    .. math:: g \min(1, c / \|g\|), \quad \text{and no step where not } \|g\| \le s

    with the Euclidean norm over all parameters together. With either, steps whose gradients are not finite are left out too.
    Pascanu et al. (2013), section 3.2; Child (2021), section 3, for steps that are left out.

    Args:
        max_norm: c, infinite for no clipping.
        skip_norm: s, infinite to take every step.
        scale: the factor of the loss before it is differentiated: 1 / B gives gradients of the mean over a batch of B.
    """

    max_norm: float = math.inf
    skip_norm: float = math.inf
    scale: float = 1.0

    @property
    def skips(self) -> bool:
        """True where steps may be left out: with any finite norm, since steps with gradients that are not finite are then."""
        return min(self.max_norm, self.skip_norm) < math.inf

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss times ``scale``, which is differentiated."""
        return loss if self.scale == 1 else loss * self.scale

    def __call__(self, gradients: Gradients, healthy: Tensor) -> tuple[Gradients, Tensor]:
        """Clip gradients; returns them, and whether to take the step: never where a loss was not ``healthy``."""
        if not self.skips:
            return gradients, healthy.clone()
        norm = get_total_norm([each for each in gradients if each is not None])
        if self.max_norm < math.inf:
            factor = (self.max_norm / norm).clamp(max=1)
            gradients = [None if each is None else each * factor for each in gradients]
        return gradients, healthy & norm.isfinite() & (norm <= self.skip_norm)
