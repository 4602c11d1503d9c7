r"""Normalizing flows: densities of latents that invertible maps make of Gaussian noise.

Maps are neural splines of zuko, Durkan et al. (2019), which start as the identity: a prior starts as N(0, I), and a posterior
as the guide's Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import Independent, TorchDistribution, constraints
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.extras import import_extra

# Matrices of a map grow with the square of the number of units.
MOST_UNITS = 1024


class NormalizingFlow(TorchDistribution):
    r"""The distribution of z that an invertible map f makes of standard normal noise u.

    .. math:: z = m + s \odot f(u), \quad
        \log q(z) = \log N(u | 0, I) - \log \Big|\det \frac{\partial f}{\partial u}\Big| - \sum_d \log s_d

    Rezende and Mohamed (2015), equation 5. The density of a draw is known from the draw, without the inverse.

    Args:
        base: Gaussians of m and s ``(*, D)``, each entry independent.
        transform: the map f of zuko's, from ``(*, D)`` to ``(*, D)``.
        temperature: a factor of the noise.

    >>> flow = NormalizingFlow(dist.Normal(torch.zeros(3), 1.0), SplineTransform(3, passes=2)(None))
    >>> flow.sample((5,)).shape, flow.log_prob(torch.zeros(5, 3)).shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, base: dist.Normal, transform: Any, *, temperature: float = 1.0, validate_args: bool | None = None
    ) -> None:
        self.base, self.transform, self.temperature = base, transform, temperature
        self._drawn: tuple[Tensor, int, Tensor] | None = None
        super().__init__(base.batch_shape[:-1], base.batch_shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> NormalizingFlow:
        """The same distribution, drawn from independently for each entry of the batch."""
        base = self.base.expand((*batch_shape, *self.event_shape))
        expanded = NormalizingFlow(base, self.transform, temperature=self.temperature, validate_args=False)
        expanded._validate_args = self._validate_args
        return expanded

    def at_temperature(self, temperature: float) -> NormalizingFlow:
        """The flow of noise that is ``temperature`` times as large."""
        return NormalizingFlow(self.base, self.transform, temperature=temperature * self.temperature, validate_args=False)

    def value_of(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The value ``(*, D)`` of noise u, and the logarithm of the volume that it takes up by that of the noise ``(*,)``."""
        mapped, log_volume = self.transform.call_and_ladj(self.temperature * noise)
        return self.base.loc + self.base.scale * mapped, log_volume + self._log_scales

    def noise_of(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The noise u ``(*, D)`` of a value, and the logarithm of the value's volume by that of the noise ``(*,)``."""
        noise, log_volume = self.transform.inv.call_and_ladj((value - self.base.loc) / self.base.scale)
        return noise / self.temperature, self._log_scales - log_volume

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw values ``(*sample_shape, *batch_shape, D)``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        return self.draw(torch.randn(shape, dtype=self.base.loc.dtype, device=self.base.loc.device))

    def draw(self, noise: Tensor) -> Tensor:
        """The value ``(*, D)`` of standard normal noise u as a draw, whose density is then known without the inverse."""
        value, log_volume = self.value_of(noise)
        self._drawn = value, _version(value), log_noise_density(noise) - log_volume
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        """Values ``(*, D)`` to log-densities ``(*,)`` in nats."""
        if (known := self._known(value)) is not None:
            return known
        if self._validate_args:
            self._validate_sample(value)
        noise, log_volume = self.noise_of(value)
        return log_noise_density(noise) - log_volume

    def _known(self, value: Tensor) -> Tensor | None:
        """The log-density of the last draw, if this is it: unchanged, and with the derivatives that are now asked for."""
        if self._drawn is None or value is not self._drawn[0] or _version(value) != self._drawn[1]:
            return None
        log_density = self._drawn[2]
        return log_density if log_density.requires_grad or not torch.is_grad_enabled() else None

    @property
    def _log_scales(self) -> Tensor:
        return self.base.scale.log().sum(-1) + self.event_shape.numel() * math.log(self.temperature)


def _version(value: Tensor) -> int:
    """The number of changes to a tensor in place, which are not counted in inference mode."""
    return 0 if value.is_inference() else value._version


def log_noise_density(noise: Tensor) -> Tensor:
    """Standard normal log-densities ``(*,)`` of noise ``(*, D)``, in nats."""
    return (-0.5 * noise.square() - 0.5 * math.log(2 * math.pi)).sum(-1)


class SplineTransform(nn.Module):
    """An invertible map of ``size`` numbers given a context, which starts as the identity.

    Args:
        size: the number D of numbers.
        context_size: the number C of entries of the context; none by default.
        passes: the groups of numbers, each of which is mapped given those before; None for a group for each number.
        num_transforms: the number of maps, one after the other, with the groups in turn from first to last and back.

    Raises:
        InputError: where zuko is not installed, and for more than ``MOST_UNITS`` numbers.
    """

    def __init__(self, size: int, context_size: int = 0, *, passes: int | None, num_transforms: int = 3) -> None:
        super().__init__()
        validates = TorchDistribution._validate_args
        zuko = import_extra("zuko", "flows", "for normalizing flows")
        # zuko turns validation off for the whole process when it is imported.
        torch.distributions.Distribution.set_default_validate_args(validates)
        if size > MOST_UNITS:
            raise InputError(f"expected at most {MOST_UNITS:,} units in a layer with a flow; got {size:,}: use fewer")
        self.context_size = context_size
        # zuko finds which entries depend on which by looking at values, which the device "meta" does not have.
        with torch.device("cpu"):
            self.transform = zuko.flows.NSF(size, context_size, transforms=num_transforms, passes=passes).transform
        for part in self.transform.transforms:
            # A map of one number without a context is made of parameters alone.
            last = [part.hyper[-1].weight, part.hyper[-1].bias] if hasattr(part, "hyper") else part.phi
            for each in last:
                nn.init.zeros_(each)

    def forward(self, context: Tensor | None) -> Any:
        """The map for contexts ``(*, C)``: cheap in this direction, and by as many passes as there are groups in the other."""
        return self.transform(context if self.context_size else None)


class FlowPosterior(nn.Module):
    r"""Replace a Gaussian by the flow that starts at it, given its own parameters.

    .. math:: z = \mu + \sigma \odot f(u; \mu, \log \sigma), \quad u \sim N(0, I)

    So it is the same in every guide: what the guide reads off data and layers above reaches f through the Gaussian. The cheap
    direction of f is that of a draw and its density; estimators that leave out the score need the other.

    Args:
        transform: the map f, of contexts ``(*, 2 D)``.
    """

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, gaussian: Independent) -> NormalizingFlow:
        """The flow, of the batch and event shape of the Gaussian."""
        base = gaussian.base_dist
        return NormalizingFlow(base, self.transform(torch.cat([base.loc, base.scale.log()], -1)))


Flow = Callable[..., SplineTransform]

# The maps between all groups of numbers: two halves, or one after the other.
FLOWS: dict[str, Flow] = {
    "coupling": partial(SplineTransform, passes=2),
    "autoregressive": partial(SplineTransform, passes=None),
}


def gaussian_posterior(size: int, flow: Flow) -> nn.Module:
    """Make the map that leaves the guide's Gaussian as it is."""
    return nn.Identity()


def flow_posterior(size: int, flow: Flow) -> FlowPosterior:
    """Make the map of the guide's Gaussian over ``size`` numbers to a flow."""
    return FlowPosterior(flow(size, 2 * size))


# What is drawn from at each layer of a guide, given its Gaussian.
POSTERIORS: dict[str, Callable[[int, Flow], nn.Module]] = {"gaussian": gaussian_posterior, "flow": flow_posterior}
