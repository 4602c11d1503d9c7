"""The activity of latent layers: how far each unit moves with the data, and how many nats it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger, init_to_mean
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyrovae.data.rows import Rows
from pyrovae.engine.modules import Program
from pyrovae.evaluation.chunks import columns_of, rows_of
from pyrovae.evaluation.measuring import measuring
from pyrovae.evaluation.support import check_support
from pyrovae.inference.plates import Site, sample_sites
from pyrovae.inference.weights import traces_of
from pyrovae.programs.distributions import gaussian_of

IMAGES_AT_ONCE = 1000
# Values say less of a mean than the means given other layers: with five times as many, 50 in all, an idle unit seems active
# (variance above 0.01) among 500 images less than once in a billion.
MORE_SAMPLES = 5
# The activities above which a unit is active (Burda et al., 2016), and active beyond doubt.
THRESHOLDS = (1e-2, 1e-1)


def kl_by_layer(model: nn.Module, guide: nn.Module, x: Tensor | Rows, context: Tensor | None = None) -> dict[str, float]:
    r"""The divergence of each latent layer from its prior, in nats per image, with one sample per image.

    .. math:: E_q[\operatorname{KL}(q(z_l | \cdot) \| p(z_l | z_{l+1}))]

    It is computed in closed form where the guide allows it, else sampled. Sønderby et al. (2016), figure 5. A layer near zero
    is unused.

    Args:
        model: the generative program.
        guide: one of ``GUIDES``.
        x: images ``(N, D)``, in memory or not.
        context: the contexts ``(N, C)`` of a conditional model.

    Raises:
        ValueError: for data outside the support of the likelihood.
    """
    return {site: each.sum().item() for site, each in kl_divergences(model, guide, x, context).items()}


def kl_by_unit(model: nn.Module, guide: nn.Module, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
    r"""The divergence of each unit of each layer from its prior ``(D_l,)``, in nats per image: ``kl_by_layer`` is its sum.

    .. math:: E_q[\operatorname{KL}(q(z_{lu} | \cdot) \| p(z_{lu} | z_{l+1}))]

    Only layers whose densities are products over units have it: under a mixture, such as a ``VampPrior``, units have no
    divergence of their own, and the layer is left out. Arguments are those of ``kl_by_layer``. Sønderby et al. (2016), figure
    4.
    """
    return {site: each for site, each in kl_divergences(model, guide, x, context).items() if each.dim()}


def activity(
    guide: Program, x: Tensor | Rows, context: Tensor | None = None, *, num_samples: int | None = 10
) -> dict[str, Tensor]:
    r"""The activity of each unit ``(D_l,)``, by layer: the variance over data of its posterior mean.

    .. math:: A_u = \operatorname{Var}_x(E_{q(u | x)}[u])

    Burda et al. (2016), section 5.2. The mean of a layer that depends on others is averaged over samples of them. The variance
    of this average, :math:`s^2 / S`, is subtracted from the variance over images, so that the estimate is unbiased and may fall
    below zero by chance. Of a latent without a mean in closed form, such as a flow, values are averaged, of
    ``MORE_SAMPLES`` times as many samples. With ``num_samples=None`` the other layers stay at their locations, in one pass,
    which gives another number, larger where averaging smooths. Where no layer depends on another, both are the same and exact.

    Args:
        guide: the variational program.
        x: images ``(N, D)``.
        context: the contexts ``(N, C)``.
        num_samples: the number S of samples of the layers that others depend on; None for their locations.

    Raises:
        ValueError: for fewer than two images or samples, which have no variance, and, without samples, for a latent without a
            mean in closed form.
    """
    found = expected_units(guide, x, context, num_samples=num_samples)
    return {site: means.var(0) - noise.mean(0) for site, (means, noise) in sorted(found.items())}


def expected_units(
    guide: Program, x: Tensor | Rows, context: Tensor | None = None, *, num_samples: int | None = 10
) -> dict[str, tuple[Tensor, Tensor]]:
    """The mean of each unit given each image ``(N, D_l)``, by layer, and the variance of its estimate: see ``activity``."""
    columns_of(x, context)
    if len(x) < 2:
        raise ValueError(f"expected at least two images for a variance over images; got {len(x)}")
    if num_samples is not None and num_samples < 2:
        raise ValueError(f"expected at least two samples, or None for locations; got num_samples={num_samples}")
    with measuring(guide):
        chunks = [_expected_units(guide, rows, num_samples) for rows in rows_of(x, context, IMAGES_AT_ONCE)]
    parts = {site: zip(*(chunk[site] for chunk in chunks), strict=True) for site in chunks[0]}
    return {site: (torch.cat(means), torch.cat(noise)) for site, (means, noise) in parts.items()}


def active_units(activities: Mapping[str, Tensor], threshold: float = THRESHOLDS[0]) -> dict[str, int]:
    """The number of units of each layer whose ``activity`` is above a threshold.

    >>> active_units({"z1": torch.tensor([0.9, 0.05, 0.001])}), active_units({"z1": torch.tensor([0.9, 0.05, 0.001])}, 0.1)
    ({'z1': 2}, {'z1': 1})
    """
    return {site: int((each > threshold).sum()) for site, each in activities.items()}


def kl_divergences(model: nn.Module, guide: nn.Module, x: Tensor | Rows, context: Tensor | None) -> dict[str, Tensor]:
    """The divergence of each unit ``(D_l,)`` by layer, or of the whole layer, a scalar, where units have none."""
    analytic = bool(getattr(guide, "analytic_kl", False))
    total: dict[str, Tensor] = {}
    with measuring(model, guide):
        for rows in check_support(model, rows_of(x, context, IMAGES_AT_ONCE), observes=False):
            model_trace, guide_trace = traces_of(model, guide, rows, {}, num_particles=1)
            for site in sample_sites(guide_trace):
                divergence = divergence_of(model_trace.nodes.get(site["name"]), site, analytic).sum(0)
                total[site["name"]] = total.get(site["name"], 0) + divergence
    return {site: total[site] / len(x) for site in sorted(total)}


def divergence_of(model_site: Site, guide_site: Site, analytic: bool) -> Tensor:
    """The divergence of units ``(B, D)`` where both densities are products over units, else of the layer ``(B,)``."""
    if model_site is None:
        # An auxiliary site is in the guide alone.
        return guide_site["log_prob"]
    posterior, prior = gaussian_of(guide_site["fn"]), gaussian_of(model_site["fn"])
    if posterior is None or prior is None:
        return guide_site["log_prob"] - model_site["log_prob"]
    if analytic:
        return kl_divergence(posterior, prior)
    return posterior.log_prob(guide_site["value"]) - prior.log_prob(guide_site["value"])


def latent_sites(guide: Program, rows: Sequence[Tensor]) -> dict[str, Site]:
    """The sites that a guide draws given a few images, by name."""
    trace = prune_subsample_sites(poutine.trace(guide).get_trace(*rows))
    return {site["name"]: site for site in sample_sites(trace)}


def _expected_units(guide: Program, rows: Sequence[Tensor], num_samples: int | None) -> dict[str, tuple[Tensor, Tensor]]:
    """The mean of each unit given each of a few images ``(B, D_l)``, by layer, and the variance of its estimate."""
    if num_samples is None:
        with InitMessenger(init_to_mean):
            means = {name: _mean(name, site) for name, site in latent_sites(guide, rows).items()}
        return {name: (mean, torch.zeros_like(mean)) for name, mean in means.items()}
    particles = pyro.plate("particles", num_samples, dim=-2)
    runs = [latent_sites(particles(guide), rows)]
    if not all(map(has_mean, runs[0].values())):
        runs += [latent_sites(particles(guide), rows) for _ in range(MORE_SAMPLES - 1)]
    means = {name: torch.cat([_mean_or_value(sites[name]) for sites in runs]) for name in runs[0]}
    return {name: (mean.mean(0), mean.var(0) / len(mean)) for name, mean in means.items()}


def has_mean(site: Site) -> bool:
    """True where the mean of a latent given the others is known."""
    try:
        return site["fn"].mean is not None
    except NotImplementedError:
        return False


def _mean_or_value(site: Site) -> Tensor:
    """The mean of a latent given the others; where it is not known its value, which is another estimate of the same average."""
    return site["fn"].mean if has_mean(site) else site["value"]


def _mean(name: str, site: Site) -> Tensor:
    if not has_mean(site):
        raise ValueError(
            f"expected latents whose means are known; site {name!r} of the guide is a {type(site['fn']).__name__}, which has "
            "none in closed form: give num_samples, or use kl_by_layer, which needs none"
        )
    return site["fn"].mean
