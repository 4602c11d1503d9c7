"""What gradients go through between the loss and the optimizer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.utils import get_total_norm

Gradients = Sequence[Tensor | None]


@dataclass(frozen=True)
class Clipping:
    r"""Cut long gradients to a norm, and leave out the steps of those that are far too long.

    .. math:: g \min(1, c / \|g\|), \quad \text{and no step where not } \|g\| \le s

    with the Euclidean norm over all parameters together. With either, a gradient that is not finite is left out too.
    Pascanu et al. (2013), section 3.2; Child (2021), section 3, for steps that are left out.

    Args:
        max_norm: c, infinite for no cut.
        skip_norm: s, infinite where every step is taken.
        scale: of the loss before it is differentiated: 1 / B makes gradients those of the mean over a batch of B.
    """

    max_norm: float = math.inf
    skip_norm: float = math.inf
    scale: float = 1.0

    @property
    def skips(self) -> bool:
        """Whether any step may be left out: those of gradients that are not finite are wherever norms are looked at."""
        return min(self.max_norm, self.skip_norm) < math.inf

    def scaled(self, loss: Tensor) -> Tensor:
        """What is differentiated."""
        return loss if self.scale == 1 else loss * self.scale

    def __call__(self, gradients: Gradients, healthy: Tensor) -> tuple[Gradients, Tensor]:
        """The gradients that the optimizer takes, and whether it takes them: never where a loss was not ``healthy``."""
        if not self.skips:
            return gradients, healthy.clone()
        norm = get_total_norm([each for each in gradients if each is not None])
        if self.max_norm < math.inf:
            factor = (self.max_norm / norm).clamp(max=1)
            gradients = [None if each is None else each * factor for each in gradients]
        return gradients, healthy & norm.isfinite() & (norm <= self.skip_norm)
