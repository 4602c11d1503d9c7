"""The parts of the bound: a distortion, and a rate that is partly information and partly the misfit of the prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae.evaluation.chunks import rows_of
from pyrovae.evaluation.latents import IMAGES_AT_ONCE
from pyrovae.evaluation.measuring import measuring
from pyrovae.evaluation.support import check_support
from pyrovae.inference.plates import sample_sites
from pyrovae.inference.weights import traces_of
from pyrovae.programs.distributions import GaussianMixture, gaussian_of
from pyrovae.programs.models import GenerativeModel

# The number of pairs of images at once, each of them some numbers in double precision.
PAIRS_AT_ONCE = 5_000_000


@dataclass(frozen=True)
class Surgery:
    """The parts of an evidence lower bound, in nats per image, all from the same samples.

    Args:
        distortion: the negative expected log-likelihood.
        rates: the divergence from its prior of each layer, sampled.
        mutual_information: that between the set's images and the top layer: at most the logarithm of their number.
        marginal_kl: the divergence of the aggregate posterior of the top layer from its prior.
    """

    distortion: float
    rates: dict[str, float]
    mutual_information: float
    marginal_kl: float

    @property
    def rate(self) -> float:
        """The rate of all layers together."""
        return sum(self.rates.values())

    @property
    def elbo(self) -> float:
        """The evidence lower bound: minus rate minus distortion."""
        return -self.rate - self.distortion


def elbo_surgery(model: nn.Module, guide: nn.Module, x: Tensor, context: Tensor | None = None) -> Surgery:
    r"""Split the bound on a set of N images into its parts, with one sample of each posterior.

    .. math:: \frac 1 N \sum_n \operatorname{KL}(q(z_L | x_n) \| p(z_L)) = I_q(n; z_L) + \operatorname{KL}(q(z_L) \| p(z_L)),
        \quad q(z_L) = \frac 1 N \sum_n q(z_L | x_n)

    Hoffman and Johnson (2016), equation 6. Both terms are those of the N given images. As estimates for all images of this
    kind, the information is too small, since it is at most :math:`\log N`, and the marginal divergence is too large by as much:
    near this limit more images are needed. Below the top layer the rate is that of each layer given the layers above.

    Args:
        model: the generative program.
        guide: a guide whose top layer is Gaussian given the data alone.
        x: images ``(N, D)``; time grows as their square.
        context: the contexts ``(N, C)``.

    Raises:
        ValueError: for a model that is no ``GenerativeModel`` or has no latents, a guide without ``top_posterior`` or whose top
            layer is an integral over the layers below, a prior that depends on the context, and data outside the support of the
            likelihood.
    """
    if (why := obstacle(model, guide, context)) is not None:
        raise ValueError(why)
    top = f"z{model.depth}"
    with measuring(model, guide):
        chunks = [_parts(model, guide, rows, top) for rows in check_support(model, rows_of(x, context, IMAGES_AT_ONCE))]
        log_q, log_p, z, loc, scale = (torch.cat(parts) for parts in zip(*(drawn for _, drawn in chunks), strict=True))
        aggregate = GaussianMixture(loc, scale, validate_args=False)
        log_aggregate = torch.cat([aggregate.log_prob(few) for few in z.split(max(1, PAIRS_AT_ONCE // len(z)))])
    means = {name: sum(parts[name] for parts, _ in chunks) / len(x) for name in sorted(chunks[0][0])}
    return Surgery(
        -means.pop("x"),
        means,
        (log_q - log_aggregate).mean().item(),
        (log_aggregate - log_p).mean().item(),
    )


def _parts(model: nn.Module, guide: nn.Module, rows: Sequence[Tensor], top: str) -> tuple[dict[str, float], tuple[Tensor, ...]]:
    """The sums over a few images of log p(x | z) and the rates; and the top layer's densities, values and Gaussians."""
    model_trace, guide_trace = traces_of(model, guide, rows, {}, num_particles=1)
    prior: dict[str, Any] = model_trace.nodes
    posterior: dict[str, Any] = guide_trace.nodes
    sums = {"x": prior["x"]["log_prob"].double().sum().item()}
    for site in sample_sites(guide_trace):
        sums[site["name"]] = (site["log_prob"] - prior[site["name"]]["log_prob"]).double().sum().item()
    gaussian = gaussian_of(posterior[top]["fn"])
    if gaussian is None:
        raise ValueError(
            f"expected a Gaussian q(z_L | x); site {top!r} of the guide is a {type(posterior[top]['fn']).__name__}"
        )
    drawn = posterior[top]["log_prob"], prior[top]["log_prob"], posterior[top]["value"], gaussian.loc, gaussian.scale
    return sums, tuple(each.double() for each in drawn)


def obstacle(model: Any, guide: Any, context: Tensor | None) -> str | None:
    """The reason why ``elbo_surgery`` cannot be done; None where it can."""
    if not isinstance(model, GenerativeModel):
        return (
            f"expected a GenerativeModel, which says what its top layer and its prior are; got {_kind(model)}: compose one of "
            "pyrovae's parts, or use log_weights and kl_by_layer, which take any program"
        )
    if not hasattr(type(guide), "top_posterior"):
        return (
            f"expected a guide that says by top_posterior what q(z_L | x) is, one of GUIDES; got {_kind(guide)}: give it that "
            "attribute, or use kl_by_layer, which takes any program"
        )
    if not model.depth:
        return "expected a model with latent layers; a regressor's bound is its log-likelihood, and has no rate"
    if not getattr(guide, "is_gaussian", True):
        return (
            "expected a Gaussian q(z_L | x), of which the aggregate posterior is a mixture; got a normalizing flow: train with "
            "the posterior 'gaussian'"
        )
    if getattr(guide, "top_posterior", None) is None:
        return (
            f"expected a guide whose q(z_L | x) is a density in closed form; that of {type(guide).__name__} is an integral "
            "over the layers below: use a ladder, top-down or mean-field guide, or one layer"
        )
    if context is not None and model.prior is not None:
        with measuring(model, guide):
            conditional = bool(model.prior(context[:1]).batch_shape)
        if conditional:
            return "expected a prior that depends on no context: the aggregate posterior is compared with one p(z_L)"
    return None


def _kind(program: Any) -> str:
    return getattr(program, "__name__", type(program).__name__)
