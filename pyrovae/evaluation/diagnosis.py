"""The reasons why units and layers of latents are unused: the prior, the guide or the decoder, with the evidence in figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro.distributions import Normal
from torch import Tensor

from pyrovae.engine.modules import Program
from pyrovae.evaluation.chunks import draw_seed, rows_of
from pyrovae.evaluation.interventions import Below, Effect
from pyrovae.evaluation.latents import divergence_of, expected_units, has_mean
from pyrovae.evaluation.likelihood import Estimates
from pyrovae.evaluation.measuring import measuring
from pyrovae.evaluation.oddity import has_gaussian_latents, layers_of
from pyrovae.evaluation.refining import Place, unit_gains
from pyrovae.evaluation.support import check_support
from pyrovae.evaluation.using import encode
from pyrovae.inference.weights import traces_of

IMAGES_AT_ONCE = 500
# The images whose posteriors are refined, of those that are diagnosed.
REFINED_IMAGES = 100
RATE_DRAWS, MOMENT_SAMPLES = 10, 50
# A unit is used if it costs more than this, in nats: Sønderby et al. (2016), figure 4.
LEAST_RATE = 0.01
# Without a rate of its own it is used if it is active: Burda et al. (2016).
LEAST_ACTIVITY = 0.01
# Log-densities that a unit moves by a nats tell about a^2 nats of it: this response belongs to the least rate.
LEAST_RESPONSE = 0.1
# A decoder that listens responds to a unit by its rate at least; one that moves by a tenth of it wastes the rest.
LEAST_SHARE = 0.1
# A gain is one if it is above the least rate by so many standard errors.
CLEAR = 3.0
# The images that information is estimated from: all pairs of them are looked at.
MOST_FOR_INFORMATION = 2000
# The pairs of images at once.
PAIRS_AT_ONCE = 5_000_000


@dataclass(frozen=True, eq=False)
class Diagnosis:
    r"""The evidence about one unit, or one whole layer, over N images, and the verdict.

    ``used``: it costs more than 0.01 nats, and the data depend on it. Else the verdict names what it is unused for:

    * ``decoder``: whatever value it takes, p(x | z) stays the same, though the guide may spend nats on it;
    * ``guide``: a posterior of its own for each image would raise the bound, which the guide does not give;
    * ``prior``: a better posterior would gain nothing: given the layer above, the data say nothing more of it.

    Args:
        layer: the name of the layer.
        unit: the number of the unit from 0; None for the whole layer.
        rate: the divergence from its conditional prior, in nats; None for a unit of a prior that is no product over units.
        activity: the variance of its posterior mean over images, by image; None for a layer.
        information: the mutual information between the unit and the images, in nats; None for a layer.
        prior_width: the variance of p(z_l | z_{l+1}) over that of the unit over images: far below one where the layer above
            tells the unit; None where the prior has no moments in closed form, and for a layer.
        change: the root mean square change over the entries of E[x | z] as the unit is drawn anew from its prior.
        loss: the loss of log p(x | z) by it, in nats.
        response: the larger absolute change of log p(x | z), in nats, as it is drawn anew or taken from another image.
        gain: the rise of the bound, in nats, as the posterior of the unit is refined for each of some images; only for what
            costs less than 0.01 nats, and for guides of Gaussians.
    """

    layer: str
    unit: int | None
    rate: Estimates | None
    activity: Estimates | None
    information: Estimates | None
    prior_width: Estimates | None
    change: Estimates
    loss: Estimates
    response: Estimates
    gain: Estimates | None = None

    @property
    def is_spent_on(self) -> bool:
        """True where the guide gives the unit more than its prior does."""
        if self.rate is not None:
            return self.rate.mean > LEAST_RATE
        return self.activity is not None and self.activity.mean > LEAST_ACTIVITY

    @property
    def is_ignored(self) -> bool:
        """True where the density of the data hardly depends on the unit."""
        rate = 0.0 if self.rate is None else self.rate.mean
        return self.response.mean < max(LEAST_RESPONSE, LEAST_SHARE * rate)

    @property
    def verdict(self) -> str:
        """The verdict: ``used``, ``decoder``, ``guide`` or ``prior``."""
        gains = self.gain is not None and self.gain.mean - CLEAR * self.gain.standard_error > LEAST_RATE
        if self.is_spent_on:
            return "decoder" if self.is_ignored else "used"
        if gains:
            return "guide"
        return "decoder" if self.is_ignored else "prior"

    @property
    def figures(self) -> dict[str, Estimates | None]:
        """The evidence by name."""
        return {name: each for name, each in vars(self).items() if name not in ("layer", "unit")}


def diagnose(
    model: Program, guide: Program, x: Tensor, context: Tensor | None = None, *, num_steps: int = 100
) -> list[Diagnosis]:
    r"""Diagnose each layer of latents, the bottom one first, and each of its units: whether it is used, and if not, why.

    The rate is :math:`E_q[\operatorname{KL}(q(z_{lu} | \cdot) \| p(z_{lu} | z_{l+1}))]`, the activity that of ``activity``, and
    the information :math:`I(u; n) = E_n[E_{q(u | x_n)} \log q(u | x_n) - \log \frac 1 N \sum_m q(u | x_m)]`, of Hoffman and
    Johnson (2016), where q(u | x) is the Gaussian of its moments, over 2,000 images at most, and at most :math:`\log N`. Where
    a layer depends on others its moments are those of 50 samples, whose noise adds about a hundredth of a nat.

    A unit is drawn anew from its conditional prior given the layer above; under a prior that is no product over units, from its
    marginal. Layers below it are drawn from the model, with the same noise before and after. At the exact posterior of a single
    unit, the loss is :math:`\operatorname{KL}(q \| p) + \operatorname{KL}(p \| q)`: at least its rate.

    The gain of an unused unit is that of a posterior refined for each image, together with all other unused units, over the
    same without its own refinement: the part of the amortization gap (Cremer et al., 2018) that is its own.

    Args:
        model: the generative program.
        guide: the variational program.
        x: images ``(N, D)``, two or more; some hundreds are enough.
        context: the contexts ``(N, C)`` of a conditional model.
        num_steps: the number of steps by which posteriors are refined; with 0 there is no gain.

    Raises:
        ValueError: for programs without latents, latents that are no vectors ``(D_l,)``, fewer than two images, and data
            outside the support of the likelihood.
    """
    layers = layers_of(model, guide, x, context)
    if not layers:
        raise ValueError("expected a model with latents that its guide draws; got none: there is nothing to diagnose")
    found = _evidence(model, guide, x, context, layers)
    unused = [(each.layer, each.unit) for each in found if not each.is_spent_on]
    if num_steps and unused and has_gaussian_latents(guide, x, context):
        gains = unit_gains(model, guide, next(rows_of(x, context, REFINED_IMAGES)), unused, num_steps)
        found = [replace(each, gain=gains.get((each.layer, each.unit))) for each in found]
    return found


def _evidence(model: Program, guide: Program, x: Tensor, context: Tensor | None, layers: Sequence[str]) -> list[Diagnosis]:
    """The diagnoses without gains."""
    moments, samples = encode(guide, x, context, num_samples=MOMENT_SAMPLES), expected_units(guide, x, context)
    with measuring(model, guide):
        chunks = list(check_support(model, rows_of(x, context, IMAGES_AT_ONCE)))
        drawn = _joined([_draw(model, guide, rows, layers) for rows in chunks])
        effects = _effects(model, chunks, drawn)
    found = []
    for layer, draw in drawn.items():
        about = _Units(moments[layer], samples[layer], draw)
        units = [None, *range(draw.value.shape[1])]
        found += [Diagnosis(layer, unit, *about.figures(unit), **_estimates(effects[layer, unit])) for unit in units]
    return found


@dataclass(frozen=True, eq=False)
class _Drawn:
    """The values of a layer under the guide and its prior ``(N, D_l)``, its rate by unit, or ``(N, 1)``, and prior variance."""

    value: Tensor
    anew: Tensor
    rate: Tensor
    prior_variance: Tensor


def _draw(model: Program, guide: Program, rows: Sequence[Tensor], layers: Sequence[str]) -> dict[str, _Drawn]:
    analytic, rates = bool(getattr(guide, "analytic_kl", False)), dict.fromkeys(layers, torch.zeros(()))
    for _ in range(RATE_DRAWS):
        model_trace, guide_trace = traces_of(model, guide, rows, {}, num_particles=1)
        sites: dict[str, tuple[Any, Any]] = {each: (model_trace.nodes[each], guide_trace.nodes[each]) for each in layers}
        for layer, (prior, posterior) in sites.items():
            rates[layer] = rates[layer] + divergence_of(prior, posterior, analytic) / RATE_DRAWS
    return {layer: _of_sites(*pair, rates[layer]) for layer, pair in sites.items()}


def _of_sites(prior: Any, posterior: Any, rate: Tensor) -> _Drawn:
    value = posterior["value"]
    if value.dim() != 2:
        raise ValueError(f"expected latents (B, D_l); site {posterior['name']!r} has shape {tuple(value.shape)}")
    variance = prior["fn"].variance if has_mean(prior) else torch.full_like(value, torch.nan)
    return _Drawn(value, prior["fn"].sample(), rate.reshape(len(value), -1), variance)


def _joined(chunks: Sequence[dict[str, _Drawn]]) -> dict[str, _Drawn]:
    names = ("value", "anew", "rate", "prior_variance")
    return {
        layer: _Drawn(*(torch.cat([getattr(chunk[layer], name) for chunk in chunks]) for name in names)) for layer in chunks[0]
    }


def _effects(model: Program, chunks: Sequence[tuple[Tensor, ...]], drawn: dict[str, _Drawn]) -> dict[Place, Effect]:
    """The effect of each unit, and of each layer, on all images."""
    seed, start, found = draw_seed(chunks[0][0].device), 0, dict[Place, list[Effect]]()
    exchanged = {layer: draw.value.roll(1, 0) for layer, draw in drawn.items()}
    for rows in chunks:
        some = slice(start, start + len(rows[0]))
        for layer, draw in drawn.items():
            below = Below(model, rows, {name: each.value[some] for name, each in drawn.items()}, layer, seed)
            for unit in (None, *range(draw.value.shape[1])):
                effect = below.effect(unit, draw.anew[some], exchanged[layer][some])
                found.setdefault((layer, unit), []).append(effect)
        start += len(rows[0])
    return {key: _all_images(parts) for key, parts in found.items()}


def _all_images(parts: Sequence[Effect]) -> Effect:
    return Effect(*map(torch.cat, zip(*(vars(each).values() for each in parts), strict=True)))


def _estimates(effect: Effect) -> dict[str, Estimates]:
    return {name: Estimates(each.cpu()) for name, each in vars(effect).items()}


class _Units:
    """The figures about the units of a layer, from its moments and samples, each ``(N, D_l)``."""

    def __init__(self, moments: tuple[Tensor, Tensor], samples: tuple[Tensor, Tensor], drawn: _Drawn) -> None:
        self.rate = drawn.rate
        means, noise = samples
        # The mean over images of these terms is the activity.
        self.activity = (means - means.mean(0)).square() * len(means) / (len(means) - 1) - noise
        self.prior_width = drawn.prior_variance / drawn.value.var(0)
        self.information = unit_information(*(each[:MOST_FOR_INFORMATION] for each in moments))

    def figures(self, unit: int | None) -> tuple[Any, ...]:
        """The rate, activity, information and prior width of a unit; of the layer its rate alone."""
        if unit is None:
            return _over_images(self.rate.sum(1)), None, None, None
        known = (
            self.rate if self.rate.shape == self.activity.shape else None,
            self.activity,
            self.information,
            self.prior_width if self.prior_width.isfinite().all() else None,
        )
        return tuple(None if each is None else _over_images(each[:, unit]) for each in known)


def _over_images(values: Tensor) -> Estimates:
    return Estimates(values.double().cpu())


def unit_information(mean: Tensor, deviation: Tensor) -> Tensor:
    r"""The terms of the mutual information of each unit and the images ``(N, D)``, in nats, for Gaussians of each unit.

    .. math:: \log q(u_n | x_n) - \log \tfrac 1 N \sum_m q(u_n | x_m), \quad u_n \sim q(u | x_n) = N(\mu_n, \sigma_n^2)

    Args:
        mean: the means ``(N, D)``.
        deviation: the standard deviations ``(N, D)``.
    """
    return torch.stack([_information(*each) for each in zip(mean.double().T, deviation.double().T, strict=True)], 1)


def _information(mean: Tensor, deviation: Tensor) -> Tensor:
    """The terms ``(N,)`` of one unit."""
    posterior = Normal(mean, deviation, validate_args=False)
    value = posterior.sample()
    some = max(1, PAIRS_AT_ONCE // len(mean))
    aggregate = torch.cat([posterior.log_prob(each[:, None]).logsumexp(1) for each in value.split(some)])
    return posterior.log_prob(value) - aggregate + math.log(len(mean))
