"""Priors of the top latent: modules whose forward takes a context ``(B, C)`` or None and returns a distribution.

The distribution has the event shape ``(D_L,)``; its batch shape is ``(B,)`` where it depends on the context, else empty.
``of(architecture, settings)`` makes a prior of the family.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import Independent
from torch import Tensor, nn

from pyrovae.programs.architecture import Architecture
from pyrovae.programs.distributions import GaussianMixture
from pyrovae.programs.flows import NormalizingFlow, SplineTransform
from pyrovae.programs.networks import frozen_statistics

Posterior = Callable[[Tensor], Independent]


@dataclass(frozen=True, kw_only=True)
class PriorSettings:
    """The settings of a prior beside its sizes.

    Args:
        num_components: the number of components K of a mixture.
        posterior: q(z_L | x, c) of the guide: from data and context side by side ``(K, D + C)`` to Gaussians.
        examples: rows of training data and contexts ``(K, D + C)``, for pseudo-inputs.
    """

    num_components: int
    posterior: Posterior | None = None
    examples: Tensor | None = None


class StandardNormal(nn.Module):
    """The prior p(z) = N(0, I) over ``size`` dimensions."""

    zero: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        # A buffer, so that it follows the module's device and dtype; it is no state to be saved.
        self.register_buffer("zero", torch.zeros(size), persistent=False)

    @classmethod
    def of(cls, architecture: Architecture, settings: PriorSettings) -> StandardNormal:
        """Make the prior of the top layer."""
        return cls(architecture.latent_sizes[-1])

    def forward(self, context: Tensor | None = None) -> Independent:
        """The distribution, of empty batch shape and event shape ``(size,)``."""
        return dist.Normal(self.zero, torch.ones_like(self.zero)).to_event(1)


class ConditionalGaussian(nn.Module):
    r"""A Gaussian that depends on the context through a network.

    .. math:: p(z_L | c) = N(z_L | \mu(c), \operatorname{diag} \sigma^2(c))

    Sohn et al. (2015), equation 4.

    Args:
        conditional: module from a context ``(B, C)`` to a distribution.
    """

    def __init__(self, conditional: nn.Module) -> None:
        super().__init__()
        self.conditional = conditional

    @classmethod
    def of(cls, architecture: Architecture, settings: PriorSettings) -> ConditionalGaussian:
        """Make the prior of the top layer, with a network of its width."""
        return cls(
            architecture.gaussian(architecture.context_size, architecture.hidden_sizes[-1], architecture.latent_sizes[-1])
        )

    def forward(self, context: Tensor | None = None) -> Independent:
        """The distribution, of batch shape ``(B,)`` and event shape ``(D_L,)``.

        Raises:
            ValueError: without a context.
        """
        if context is None:
            raise ValueError("expected a context for a prior that depends on it; got none: call the model with context=")
        return self.conditional(context)


class MixtureOfGaussians(nn.Module):
    r"""A trainable mixture of K diagonal Gaussians of equal weight; means start as standard normal draws, variances at one.

    .. math:: p(z) = \frac 1 K \sum_k N(z | \mu_k, \operatorname{diag} \sigma_k^2)

    Tomczak and Welling (2018), equation 11.
    """

    def __init__(self, size: int, num_components: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.randn(num_components, size))
        self.log_scale = nn.Parameter(torch.zeros(num_components, size))

    @classmethod
    def of(cls, architecture: Architecture, settings: PriorSettings) -> MixtureOfGaussians:
        """Make the prior of the top layer."""
        return cls(architecture.latent_sizes[-1], settings.num_components)

    def forward(self, context: Tensor | None = None) -> GaussianMixture:
        """The mixture, of event shape ``(size,)``."""
        return GaussianMixture(self.loc, self.log_scale.exp())


class FlowPrior(nn.Module):
    r"""A normalizing flow, which starts as N(0, I). The cheap direction of its map is that of a density.

    .. math:: \log p(z) = \log N(g(z) | 0, I) + \log \Big|\det \frac{\partial g}{\partial z}\Big|

    Chen et al. (2017), equation 2, with splines for g. Of a conditional model it depends on the context: g(z; c).

    Args:
        size: the number D of latents.
        transform: the map g, of contexts ``(*, C)`` if there are any.
    """

    def __init__(self, size: int, transform: SplineTransform) -> None:
        super().__init__()
        self.noise, self.transform = StandardNormal(size), transform

    @classmethod
    def of(cls, architecture: Architecture, settings: PriorSettings) -> FlowPrior:
        """Make the prior of the top layer."""
        size = architecture.latent_sizes[-1]
        return cls(size, architecture.flow(size, architecture.context_size))

    def forward(self, context: Tensor | None = None) -> NormalizingFlow:
        """The flow, of event shape ``(D,)``, and of batch shape ``(B,)`` where it depends on contexts ``(B, C)``."""
        noise = self.noise().base_dist
        if context is not None and self.transform.context_size:
            noise = noise.expand((*context.shape[:-1], *noise.batch_shape))
        return NormalizingFlow(noise, self.transform(context).inv)


class VampPrior(nn.Module):
    r"""The mixture of the guide's own posteriors at K pseudo-inputs.

    .. math:: p(z_L) = \frac 1 K \sum_{k=1}^K q(z_L | u_k)

    Tomczak and Welling (2018), equation 9. In training, as in evaluation, batch norm uses its running statistics for the
    pseudo-inputs: sampling and scoring use the same density, and pseudo-inputs do not enter the statistics of the data.

    In a conditional model a pseudo-input is a row of data followed by a context; the prior does not depend on other contexts.

    Args:
        posterior: q(z_L | x, c) of the guide, which owns the parameters.
        pseudo_inputs: module that returns u ``(K, D + C)``.
    """

    def __init__(self, posterior: Posterior, pseudo_inputs: nn.Module) -> None:
        super().__init__()
        # In a tuple, in which nn.Module finds no submodules: each parameter has one owner.
        self._posterior = (posterior,)
        self.pseudo_inputs = pseudo_inputs

    @classmethod
    def of(cls, architecture: Architecture, settings: PriorSettings) -> VampPrior:
        """Make the prior with trainable pseudo-inputs, which start from examples if there are any, else from noise."""
        start = settings.examples
        if start is None:
            start = 0.01 * torch.randn(settings.num_components, architecture.input_size)
        return cls(_required(settings.posterior), PseudoInputs(start))

    def forward(self, context: Tensor | None = None) -> GaussianMixture:
        """The mixture, of event shape ``(D_L,)``."""
        with frozen_statistics():
            components = self._posterior[0](self.pseudo_inputs()).base_dist
        return GaussianMixture(components.loc, components.scale)


class VampPriorData(VampPrior):
    """A ``VampPrior`` whose pseudo-inputs are K training examples, drawn once and kept as they are."""

    @classmethod
    def of(cls, architecture: Architecture, settings: PriorSettings) -> VampPriorData:
        """Make the prior from the examples; from zeros where there are none and a state will be loaded."""
        chosen = settings.examples
        if chosen is None:
            chosen = torch.zeros(settings.num_components, architecture.input_size)
        return cls(_required(settings.posterior), ChosenInputs(chosen))


class PseudoInputs(nn.Module):
    """K trainable inputs, clamped to the range [0, 1] of the data; outside of it they have no gradient, as in the paper's code.

    Args:
        start: the initial inputs ``(K, D + C)``: N(0, 0.01) in standard deviation, or training examples.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.free = nn.Parameter(start.clone())

    def forward(self) -> Tensor:
        """The inputs ``(K, D + C)``."""
        return self.free.clamp(0.0, 1.0)


class ChosenInputs(nn.Module):
    """K fixed inputs ``(K, D + C)``."""

    chosen: Tensor

    def __init__(self, chosen: Tensor) -> None:
        super().__init__()
        self.register_buffer("chosen", chosen.clone())

    def forward(self) -> Tensor:
        """The inputs ``(K, D + C)``."""
        return self.chosen


def _required(posterior: Posterior | None) -> Posterior:
    if posterior is None:
        raise ValueError("expected the guide's q(z_L | x) for a prior made of it; got none")
    return posterior


PRIORS: dict[str, Any] = {
    "standard_normal": StandardNormal,
    "conditional_gaussian": ConditionalGaussian,
    "mixture": MixtureOfGaussians,
    "flow": FlowPrior,
    "vamp": VampPrior,
    "vamp_data": VampPriorData,
}

# The starts of trainable pseudo-inputs.
STARTS = ("noise", "images")
