"""Priors of the top latent: modules whose forward takes nothing and returns a distribution of event shape ``(D_L,)``."""

import pyro.distributions as dist
import torch
from pyro.distributions import Independent
from torch import Tensor, nn


class StandardNormal(nn.Module):
    """The prior p(z) = N(0, I) over ``size`` dimensions."""

    zero: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        # A buffer, so that the prior follows the module's device and dtype; it is no state to be saved.
        self.register_buffer("zero", torch.zeros(size), persistent=False)

    def forward(self) -> Independent:
        """The distribution, of empty batch shape and event shape ``(size,)``."""
        return dist.Normal(self.zero, torch.ones_like(self.zero)).to_event(1)
