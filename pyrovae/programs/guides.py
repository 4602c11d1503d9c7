"""Guides q(z | x): Pyro programs that sample every latent ``z1 ... zL`` of a model in the plate ``data``.

A guide declares ``analytic_kl``: whether the divergence of each layer, given the values sampled so far, may be computed in
closed form. It may where no latent's parents in the model depend on the latent in the guide; a bottom-up guide violates this.
``top_posterior(rows)`` is q(z_L | x), of which a ``VampPrior`` is made; it is None where this density is no Gaussian of known
parameters. ``of(model, architecture)`` makes a guide of the family for a model. Under a context ``(B, C)`` a guide is
q(z | x, c): its networks, and ``top_posterior``, are called with data and context side by side, ``(B, D + C)``.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyro
import pyro.distributions as dist
from pyro import poutine
from pyro.distributions import Independent
from torch import Tensor, nn

from pyrovae.programs.architecture import Architecture
from pyrovae.programs.conditionals import DiagonalGaussian, evaluate_conditional
from pyrovae.programs.distributions import product_of_gaussians
from pyrovae.programs.encoders import LadderEncoder, UpwardPass
from pyrovae.programs.models import GenerativeModel, beside
from pyrovae.programs.priors import Posterior


class Guide(nn.Module):
    """The base of guides, which make a Gaussian for each layer, and of it the posterior that the layer is drawn from.

    Args:
        posteriors: for each layer, the bottom one first, a module from its Gaussian to its posterior; by default none, and the
            Gaussians are the posteriors.
    """

    def __init__(self, posteriors: Iterable[nn.Module] = ()) -> None:
        super().__init__()
        self.posteriors = nn.ModuleList(posteriors)

    @property
    def is_gaussian(self) -> bool:
        """True where the Gaussians are the posteriors."""
        return all(isinstance(each, nn.Identity) for each in self.posteriors)

    @property
    def analytic_kl(self) -> bool:
        """True where divergences may be computed in closed form."""
        return self.is_gaussian

    @property
    def top_posterior(self) -> Posterior | None:
        """The density q(z_L | x, c), a function of data and contexts side by side ``(B, D + C)``; None where it is a flow."""
        return self._top_gaussian if self.is_gaussian else None

    def _top_gaussian(self, rows: Tensor) -> Independent:
        raise NotImplementedError

    def draw(self, layer: int, gaussian: Independent) -> Tensor:
        """Draw a layer ``(B, D_l)`` given its Gaussian."""
        return pyro.sample(f"z{layer}", self._posterior(layer, gaussian))

    def _posterior(self, layer: int, gaussian: Independent) -> Independent:
        return self.posteriors[layer - 1](gaussian) if self.posteriors else gaussian


class MeanField(Guide):
    r"""A guide with independent layers given the data: :math:`q(z | x) = \prod_l q(z_l | x)`.

    Args:
        encoder: module from data ``(B, D)`` to one distribution per layer, the bottom one first.
        posteriors: as of ``Guide``.
    """

    def __init__(self, encoder: nn.Module, *, posteriors: Iterable[nn.Module] = ()) -> None:
        super().__init__(posteriors)
        self.encoder = encoder

    @classmethod
    def of(cls, model: GenerativeModel, architecture: Architecture) -> MeanField:
        """Make the guide over one shared upward pass."""
        return cls(LadderEncoder.of(architecture), posteriors=architecture.posteriors)

    def _top_gaussian(self, rows: Tensor) -> Independent:
        return self.encoder(rows)[-1]

    def forward(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sample all layers given data ``(B, D)`` and a context ``(B, C)``."""
        with pyro.plate("data", x.shape[0], dim=-1):
            for layer, gaussian in enumerate(self.encoder(beside(x, context)), start=1):
                self.draw(layer, gaussian)


class BottomUp(Guide):
    r"""A guide with each layer given the one below: :math:`q(z | x) = q(z_1 | x) \prod_{l=2}^L q(z_l | z_{l-1})`.

    Sønderby et al. (2016), equations 7 to 9; the guide of Burda et al. (2016).

    Args:
        conditionals: q(z_1 | x), q(z_2 | z_1), ..., each called with the layer below.
        posteriors: as of ``Guide``.
    """

    def __init__(self, conditionals: Iterable[nn.Module], *, posteriors: Iterable[nn.Module] = ()) -> None:
        super().__init__(posteriors)
        self.conditionals = nn.ModuleList(conditionals)

    @classmethod
    def of(cls, model: GenerativeModel, architecture: Architecture) -> BottomUp:
        """Make the guide with a network between each two layers."""
        widths, sizes = architecture.hidden_sizes, architecture.latent_sizes
        bottom = nn.Sequential(architecture.encoder(widths[0]), DiagonalGaussian(widths[0], sizes[0]))
        conditionals = [bottom, *map(architecture.gaussian, sizes, widths[1:], sizes[1:])]
        return cls(conditionals, posteriors=architecture.posteriors)

    @property
    def analytic_kl(self) -> bool:
        """True with one layer alone: with more, z_{l+1}, the parent of z_l in the model, is drawn given z_l."""
        return len(self.conditionals) == 1 and super().analytic_kl

    @property
    def top_posterior(self) -> Posterior | None:
        """The density q(z_L | x) with one layer; None with more, since integrating out the layers below has no closed form."""
        return super().top_posterior if len(self.conditionals) == 1 else None

    def _top_gaussian(self, rows: Tensor) -> Independent:
        return self.conditionals[0](rows)

    def forward(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sample all layers given data ``(B, D)`` and a context ``(B, C)``."""
        with pyro.plate("data", x.shape[0], dim=-1):
            below = beside(x, context)
            for layer, conditional in enumerate(self.conditionals, start=1):
                below = self.draw(layer, conditional(below))


class TopDown(Guide):
    r"""A guide with the top layer given the data, and each other layer given the one above and the data.

    .. math:: q(z | x) = q(z_L | d_L(x)) \prod_{l=1}^{L-1} q(z_l | d_l(x), z_{l+1})

    Tomczak and Welling (2018), equation 14, for any depth, over the features d of one shared upward pass.

    Args:
        features: module from data ``(B, D)`` to the features of each layer, the bottom one first.
        conditionals: one for each layer, the bottom one first, called with the layer's features and the layer above side by
            side; the top one with its features alone.
        posteriors: as of ``Guide``.
    """

    def __init__(self, features: nn.Module, conditionals: Iterable[nn.Module], *, posteriors: Iterable[nn.Module] = ()) -> None:
        super().__init__(posteriors)
        self.features = features
        self.conditionals = nn.ModuleList(conditionals)

    @classmethod
    def of(cls, model: GenerativeModel, architecture: Architecture) -> TopDown:
        """Make the guide with a network for each layer after the shared pass."""
        return cls(*cls._networks(architecture), posteriors=architecture.posteriors)

    @staticmethod
    def _networks(architecture: Architecture) -> tuple[nn.Module, Iterable[nn.Module]]:
        """The shared pass, and the conditionals."""
        widths, sizes = architecture.hidden_sizes, architecture.latent_sizes
        inputs = (*map(sum, zip(widths[:-1], sizes[1:], strict=True)), widths[-1])
        return UpwardPass.of(architecture), map(architecture.gaussian, inputs, widths, sizes)

    def _top_gaussian(self, rows: Tensor) -> Independent:
        return self.conditionals[-1](self.features(rows)[-1])

    def _draw_below(self, layer: int, features: Tensor, above: Tensor) -> Tensor:
        """Draw a layer given its features and the layer above."""
        return self.draw(layer, self.conditionals[layer - 1](beside(features, above)))

    def forward(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sample all layers given data ``(B, D)`` and a context ``(B, C)``."""
        *below, top = self.features(beside(x, context))
        with pyro.plate("data", x.shape[0], dim=-1):
            z = self.draw(len(self.conditionals), self.conditionals[-1](top))
            for layer in range(len(below), 0, -1):
                z = self._draw_below(layer, below[layer - 1], z)


class ResidualTopDown(TopDown):
    r"""A top-down guide that says of each layer below the top how it differs from the model's prior.

    .. math:: q(z_l | z_{l+1}, x) = N(z_l | \mu_p + \Delta \mu, \; (\sigma_p \, \Delta \sigma)^2), \quad
        p(z_l | z_{l+1}) = N(z_l | \mu_p, \sigma_p^2)

    Vahdat and Kautz (2020), section 3.2. Where the data say nothing of a unit, nothing has to be learned of it.

    Args:
        model: the generative program; the guide uses its conditionals and owns none of its parameters.
        features: as of ``TopDown``.
        conditionals: as of ``TopDown``, of which those below the top give the differences.
        posteriors: as of ``Guide``.
    """

    def __init__(
        self,
        model: GenerativeModel,
        features: nn.Module,
        conditionals: Iterable[nn.Module],
        *,
        posteriors: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__(features, conditionals, posteriors=posteriors)
        self._model = (model,)

    @classmethod
    def of(cls, model: GenerativeModel, architecture: Architecture) -> ResidualTopDown:
        """Make the guide with a network for each layer after the shared pass."""
        return cls(model, *cls._networks(architecture), posteriors=architecture.posteriors)

    def _draw_below(self, layer: int, features: Tensor, above: Tensor) -> Tensor:
        difference = self.conditionals[layer - 1](beside(features, above))
        prior = evaluate_conditional(self._model[0].conditionals[layer - 1], above)
        return self.draw(layer, _displaced(difference, prior))


def _displaced(difference: Independent, prior: Independent) -> Independent:
    by, of = difference.base_dist, prior.base_dist
    return dist.Normal(of.loc + by.loc, of.scale * by.scale).to_event(1)


class Ladder(Guide):
    r"""A guide that corrects the model's own top-down pass by evidence from the data at each layer.

    .. math:: q(z_L | x) = \hat q_L(z_L), \quad q(z_l | z_{l+1}, x) \propto \hat q_l(z_l) \, p(z_l | z_{l+1})

    Sønderby et al. (2016), equations 16 to 19.

    Args:
        model: the generative program; the guide uses its conditionals and owns none of its parameters.
        encoder: module from data ``(B, D)`` to the approximate likelihoods :math:`\hat q_l`, the bottom one first.
        posteriors: as of ``Guide``.
    """

    def __init__(self, model: GenerativeModel, encoder: nn.Module, *, posteriors: Iterable[nn.Module] = ()) -> None:
        super().__init__(posteriors)
        # In a tuple, in which nn.Module finds no submodules: each parameter has one owner.
        self._model = (model,)
        self.encoder = encoder

    @classmethod
    def of(cls, model: GenerativeModel, architecture: Architecture) -> Ladder:
        """Make the guide over one shared upward pass."""
        return cls(model, LadderEncoder.of(architecture), posteriors=architecture.posteriors)

    def _top_gaussian(self, rows: Tensor) -> Independent:
        return self.encoder(rows)[-1]

    def forward(self, x: Tensor, context: Tensor | None = None) -> None:
        """Sample all layers given data ``(B, D)`` and a context ``(B, C)``."""
        (model,) = self._model
        evidence = self.encoder(beside(x, context))
        with pyro.plate("data", x.shape[0], dim=-1):
            z = self.draw(model.depth, evidence[-1])
            for layer in reversed(range(1, model.depth)):
                prior = evaluate_conditional(model.conditionals[layer - 1], z)
                z = self.draw(layer, product_of_gaussians(evidence[layer - 1], prior))


class VAE(nn.Module):
    """A generative program and its guide: together they own every parameter, each once.

    Calling it runs both on data, the model on the guide's sample, as a step of training does; ``update_bn`` needs this.
    """

    def __init__(self, model: GenerativeModel, guide: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.guide = guide

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The data ``(B, D)`` that the model observed."""
        return poutine.replay(self.model, trace=poutine.trace(self.guide).get_trace(x, context))(x, context)


GUIDES: dict[str, type[nn.Module]] = {
    "mean_field": MeanField,
    "bottom_up": BottomUp,
    "top_down": TopDown,
    "residual_top_down": ResidualTopDown,
    "ladder": Ladder,
}
