"""The uses of a trained model: encode, score, sample and reconstruct, for any model and guide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import Independent
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import nn

from pyrovae.evaluation.chunks import rows_of
from pyrovae.evaluation.latents import has_mean, latent_sites
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.evaluation.measuring import measuring
from pyrovae.programs.distributions import GaussianMixture, gaussian_of
from pyrovae.programs.flows import NormalizingFlow

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.engine.modules import Program
    from pyrovae.programs.models import GenerativeModel

Moments = dict[str, "tuple[Tensor, Tensor]"]

# The fewest samples of a distribution without moments in closed form: their mean is within 0.07 standard deviations.
UNKNOWN_MOMENT_SAMPLES = 200
# The limits of rows at once: many rows of few numbers share the cost of a call; many images would fill memory.
FEWEST_ROWS, MOST_ROWS, NUMBERS_AT_ONCE = 100, 2000, 200_000


def _rows_at_once(size: int) -> int:
    """The number of examples of ``size`` numbers that programs take at a time."""
    return min(MOST_ROWS, max(FEWEST_ROWS, NUMBERS_AT_ONCE // size))


def encode(guide: Program, x: Tensor, context: Tensor | None = None, *, num_samples: int = 10) -> Moments:
    r"""The mean and standard deviation of each latent given each example ``(N, D_l)``, by layer.

    .. math:: \sigma^2 = E[\operatorname{Var}(z | x, z_{\text{others}})] + \operatorname{Var}(E[z | x, z_{\text{others}}])

    A layer that depends on others is averaged over samples of them, drawn in the guide's order; the moments of other layers are
    exact. Where a layer's distribution has no moments in closed form, as a flow has none, they are those of at least
    ``UNKNOWN_MOMENT_SAMPLES`` samples.

    Args:
        guide: the variational program.
        x: examples ``(N, D)``.
        context: the contexts ``(N, C)`` of a conditional model.
        num_samples: the number of samples of the layers that others depend on.
    """
    chunks: list[Moments] = []
    with measuring(guide):
        for rows in rows_of(x, context, _rows_at_once(x.shape[1])):
            drawn = [latent_sites(guide, rows) for _ in range(2)]
            # Where no layer depends on another, all draws have the same moments, as the first two show.
            if any(not torch.equal(_moments(site)[0], _moments(drawn[-1][name])[0]) for name, site in drawn[0].items()):
                enough = num_samples if all(map(has_mean, drawn[0].values())) else max(num_samples, UNKNOWN_MOMENT_SAMPLES)
                drawn += [latent_sites(guide, rows) for _ in range(enough - len(drawn))]
            found = {}
            for name in drawn[0]:
                means, variances = map(torch.stack, zip(*(_moments(sites[name]) for sites in drawn), strict=True))
                found[name] = means.mean(0), (variances.mean(0) + means.var(0, correction=min(1, len(drawn) - 1))).sqrt()
            chunks.append(found)
    whole = {name: list(zip(*(chunk[name] for chunk in chunks), strict=True)) for name in chunks[0]}
    return {name: (torch.cat(means), torch.cat(deviations)) for name, (means, deviations) in whole.items()}


def _moments(site: Any) -> tuple[Tensor, Tensor]:
    """The mean and variance of a layer given the others; its value, without a variance, where they are not known."""
    if has_mean(site):
        return site["fn"].mean, site["fn"].variance
    return site["value"], torch.zeros_like(site["value"])


def draw_latents(guide: Program, x: Tensor, context: Tensor | None = None, *, num_samples: int) -> dict[str, Tensor]:
    """Draw the latents given each example ``(S, N, D_l)``, by layer; the layers of a draw belong together."""
    chunks = []
    with measuring(guide):
        for rows in rows_of(x, context, _rows_at_once(x.shape[1])):
            drawn = [latent_sites(guide, rows) for _ in range(num_samples)]
            chunks.append({name: torch.stack([sites[name]["value"] for sites in drawn]) for name in drawn[0]})
    return {name: torch.cat([chunk[name] for chunk in chunks], 1) for name in chunks[0]}


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a model for each example, in nats, each ``(N,)``.

    Args:
        log_likelihood: the log-likelihood by importance sampling.
        standard_error: the standard error of the log-likelihood, from the spread of the weights.
        elbo: the bound with one sample, -rate - distortion.
        distortion: the expectation of -log p(x | z) under the guide.
        rate: the expectation of log q(z | x) / p(z) under the guide.
        pareto_k: the tail index of the weights; above ``heavy_tail(num_samples)`` the estimate may be too low.
        by_entry: E log p(x_d | z) of each entry ``(N, D)``, where p(x | z) is a product over them.
    """

    log_likelihood: Tensor
    standard_error: Tensor
    elbo: Tensor
    distortion: Tensor
    rate: Tensor
    pareto_k: Tensor
    by_entry: Tensor | None


def score(
    model: nn.Module,
    guide: Program,
    x: Tensor,
    context: Tensor | None = None,
    *,
    num_samples: int = 100,
    num_draws: int = 20,
) -> Scores:
    """Score each example ``(N, D)``.

    Args:
        model: the generative program.
        guide: the variational program.
        x: the examples.
        context: the contexts ``(N, C)`` of a conditional model.
        num_samples: the number of importance samples for each example.
        num_draws: the number of draws of the guide over which rate, distortion and the terms of entries are averaged.

    Raises:
        ValueError: for a model that observes more than one site.
    """
    found = log_likelihood(model, guide, x, num_samples, context=context)
    with measuring(model, guide):
        parts = [_expected_terms(model, guide, rows, num_draws) for rows in rows_of(x, context, _rows_at_once(x.shape[1]))]
    by_entry, rate = (torch.cat(each).cpu().double() for each in zip(*parts, strict=True))
    distortion = -(by_entry if by_entry.dim() == 1 else by_entry.sum(1))
    return Scores(
        log_likelihood=found.per_image,
        standard_error=found.standard_error_per_image,
        elbo=-rate - distortion,
        distortion=distortion,
        rate=rate,
        pareto_k=found.pareto_k,
        by_entry=None if by_entry.dim() == 1 else by_entry,
    )


def _expected_terms(model: Program, guide: Program, rows: tuple[Tensor, ...], num_draws: int) -> tuple[Tensor, Tensor]:
    """The means of log p(x_d | z) of each entry ``(B, D)``, or of all ``(B,)`` where it is no product; and of log q / p."""
    terms, rate = torch.zeros(()), torch.zeros(len(rows[0]))
    for _ in range(num_draws):
        sites = latent_sites(guide, rows)
        latents = {name: site["value"] for name, site in sites.items()}
        trace = poutine.trace(poutine.condition(model, latents)).get_trace(*rows)
        site: Any
        (site,) = [each for name, each in trace.nodes.items() if each["type"] == "sample" and _is_data(each, latents, name)]
        density = site["fn"]
        while isinstance(density, Independent):
            density = density.base_dist
        product = not density.event_shape and site["value"].dim() > 1
        terms = terms + (density if product else site["fn"]).log_prob(site["value"])
        for name, each in sites.items():
            prior: Any = trace.nodes[name]
            rate = rate + (each["fn"].log_prob(each["value"]) - prior["fn"].log_prob(each["value"])).cpu()
    return terms / num_draws, rate / num_draws


def _is_data(site: Any, latents: Mapping[str, Tensor], name: str) -> bool:
    return site["is_observed"] and name not in latents and not site_is_subsample(site)


class TemperatureError(ValueError):
    """An error for a latent that cannot have a temperature."""


class at_temperature(Messenger):  # noqa: N801 - used as a context, like a poutine
    """A handler that multiplies the standard deviations of Gaussian latents, of mixtures' components and of a flow's noise.

    Args:
        temperature: the factor, above zero; one changes nothing.

    Raises:
        TemperatureError: for any other latent.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or self.temperature == 1 or not msg["name"].startswith("z"):
            return
        if isinstance(mixture := msg["fn"], GaussianMixture):
            msg["fn"] = GaussianMixture(mixture.loc, self.temperature * mixture.scale, batch_shape=mixture.batch_shape)
            return
        if isinstance(flow := msg["fn"], NormalizingFlow):
            msg["fn"] = flow.at_temperature(self.temperature)
            return
        gaussian = gaussian_of(msg["fn"])
        if gaussian is None:
            kind = type(msg["fn"]).__name__
            raise TemperatureError(f"expected Gaussian latents for a temperature; {msg['name']} is a {kind}: leave it at 1")
        wide = dist.Normal(gaussian.mean, self.temperature * gaussian.variance.sqrt())
        msg["fn"] = wide.to_event(len(msg["fn"].event_shape))


def sample(
    model: GenerativeModel,
    number: int,
    context: Tensor | None = None,
    *,
    means: bool = False,
    temperature: float = 1.0,
) -> Tensor:
    """Draw examples from a model ``(N, D)``.

    Args:
        model: the generative program.
        number: the number of examples N.
        context: the contexts ``(N, C)`` of a conditional model; entries that they contain are taken from them.
        means: return means of p(x | z) in place of draws of x.
        temperature: the temperature of the latents.
    """
    chunks = []
    with measuring(model), at_temperature(temperature):
        for start in range(0, number, FEWEST_ROWS):
            some = None if context is None else context[start : start + FEWEST_ROWS]
            trace = poutine.trace(model).get_trace(None, some, batch_size=min(FEWEST_ROWS, number - start))
            site: Any = trace.nodes["x"]
            chunks.append(model.complete(site["fn"].mean if means else site["value"], some))
    return torch.cat(chunks)


def reconstruct(model: GenerativeModel, guide: Program, x: Tensor, context: Tensor | None = None) -> Tensor:
    """Reconstruct each example ``(N, D)`` by the mean of p(x | z) at one draw of the guide."""
    chunks = []
    with measuring(model, guide):
        for rows in rows_of(x, context, _rows_at_once(x.shape[1])):
            latents = {name: site["value"] for name, site in latent_sites(guide, rows).items()}
            some = rows[1] if len(rows) > 1 else None
            trace = poutine.trace(poutine.condition(model, latents)).get_trace(None, some, batch_size=len(rows[0]))
            site: Any = trace.nodes["x"]
            chunks.append(model.complete(site["fn"].mean, some))
    return torch.cat(chunks)
