"""Objectives: what training maximises, all of them from the log-densities of one guide trace and the model replayed on it.

An objective is a ``pyro.infer.ELBO``: ``objective.differentiable_loss(model, guide, *args)`` is the negative of its bound,
summed over the batch, in nats; stock ``pyro.infer.SVI`` takes it as its ``loss``. Nothing here reads a value back from the
device, so the whole can be captured as one graph.
"""

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer.enum import get_importance_trace
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.programs.conditionals import share_conditionals

Program = Callable[..., Any]
Site = Any


def log_weights(model: Program, guide: Program, *args: Any, num_particles: int = 1, **kwargs: Any) -> Tensor:
    r"""Log importance weights of particles drawn from the guide, in nats.

    .. math:: \log w_{kb} = \log p(x_b, z_{kb}) - \log q(z_{kb} | x_b), \quad z_{kb} \sim q(z | x_b)

    Both programs run once, with the particles in an outermost plate; parts that depend on the data alone run once for all
    particles. Effects around the call apply: under ``scale_latents`` the weights are those of the scaled programs.

    Returns:
        Weights ``(K, B)``: particle by example.

    Raises:
        ValueError: where a site stands outside the plate of the examples, or a latent cannot be reparameterized.
    """
    model_trace, guide_trace = _traces(model, guide, args, kwargs, num_particles)
    # A latent that the guide leaves to the model is drawn from its prior, and weighs nothing.
    terms = [site["log_prob"] for site in _sample_sites(model_trace) if site["is_observed"] or site["name"] in guide_trace]
    terms += [-site["log_prob"] for site in _sample_sites(guide_trace)]
    shape = torch.broadcast_shapes(*(term.shape for term in terms))
    for site in (*_sample_sites(model_trace), *_sample_sites(guide_trace)):
        if site["log_prob"].shape != shape:
            raise ValueError(
                f"expected every site in the plate of the examples, with log-densities of shape {tuple(shape)}; "
                f"site {site['name']!r} has {tuple(site['log_prob'].shape)}: use ELBO, which needs no weight per example"
            )
    return sum(terms[1:], terms[0]).reshape(num_particles, -1)


def log_mean_exp(weights: Tensor) -> Tensor:
    """The logarithm of the mean weight over particles: ``(K, B)`` to ``(B,)``."""
    return weights.logsumexp(0) - torch.tensor(float(weights.shape[0]), dtype=weights.dtype).log()


class Objective(pyro.infer.ELBO):
    """What all bounds share: the interface of ``pyro.infer.ELBO`` on top of one differentiable ``bound``.

    Args:
        num_particles: the number K of particles, drawn at once in an outermost plate.
    """

    def __init__(self, num_particles: int = 1) -> None:
        if num_particles < 1:
            raise ValueError(f"expected at least one particle; got num_particles={num_particles}")
        super().__init__(num_particles=num_particles, vectorize_particles=True)

    @abstractmethod
    def bound(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The estimate of the bound, summed over the batch, in nats."""

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The negative of the bound."""
        return -self.bound(model, guide, *args, **kwargs)

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The negative of the bound as a number, without gradients."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The negative of the bound as a number; its gradients are added to those of the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return loss.item()

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        return _traces(model, guide, args, kwargs, self.num_particles)


class ELBO(Objective):
    r"""The evidence lower bound.

    .. math:: \operatorname{ELBO}(x) = E_{q(z|x)}[\log p(x, z) - \log q(z | x)]
        = E_q[\log p(x | z_1)] - \sum_l E_q[\operatorname{KL}(q(z_l | \cdot) \| p(z_l | z_{l+1}))]

    Kingma and Welling (2014), equations 2 and 3.

    Args:
        num_particles: samples that the expectation is averaged over.
        analytic_kl: take each layer's divergence in closed form where one exists, given the layers sampled so far
            (less variance); sampled where none exists, as with a mixture prior.

    Raises:
        ValueError: for ``analytic_kl`` with a guide that does not declare it right (see ``guides``).
    """

    def __init__(self, num_particles: int = 1, *, analytic_kl: bool = False) -> None:
        super().__init__(num_particles)
        self.analytic_kl = analytic_kl

    def terms(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The expected log-likelihood, and the divergence from the prior by latent site; nats, summed over the batch."""
        if self.analytic_kl:
            _check_analytic_kl(guide)
        model_trace, guide_trace = self._get_trace(model, guide, args, kwargs)
        divergence = _analytic_divergence if self.analytic_kl else _sampled_divergence
        observed = [site["log_prob"].sum() for site in _sample_sites(model_trace) if site["is_observed"]]
        latent = {
            site["name"]: divergence(model_trace.nodes.get(site["name"]), site) / self.num_particles
            for site in _sample_sites(guide_trace)
        }
        return sum(observed, torch.zeros(())) / self.num_particles, latent

    def bound(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:  # noqa: D102
        log_likelihood, divergences = self.terms(model, guide, *args, **kwargs)
        return log_likelihood - sum(divergences.values())


class IWELBO(Objective):
    r"""The importance-weighted bound, tighter with every particle.

    .. math:: L_K(x) = E_{z_1 \dots z_K \sim q} \Big[\log \frac 1 K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k | x)}\Big]

    Burda et al. (2016), equation 8. Its value is the log-mean-exp of the weights itself, so what is reported is the bound.
    """

    def bound(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:  # noqa: D102
        return log_mean_exp(log_weights(model, guide, *args, num_particles=self.num_particles, **kwargs)).sum()


def _traces(model: Program, guide: Program, args: Any, kwargs: Any, num_particles: int) -> tuple[Trace, Trace]:
    """The guide's trace and the model's replayed against it, log-densities computed, particles in dimension -2."""
    if num_particles > 1:
        particles = pyro.plate("particles", num_particles, dim=-2)
        model, guide = particles(model), particles(guide)
    with share_conditionals():
        model_trace, guide_trace = get_importance_trace("flat", float("inf"), model, guide, args, kwargs)
    for site in _sample_sites(guide_trace):
        if not site["fn"].has_rsample:
            raise ValueError(
                f"expected reparameterized latents; site {site['name']!r} of the guide is a {type(site['fn']).__name__}, "
                "which has no rsample: sum it out of the model, or train with pyro.infer.SVI and TraceGraph_ELBO"
            )
    return model_trace, guide_trace


def _sample_sites(trace: Trace) -> Iterator[Site]:
    return (site for site in trace.nodes.values() if site["type"] == "sample")


def _sampled_divergence(model_site: Site, guide_site: Site) -> Tensor:
    # An auxiliary site, as autoguides have, stands in the guide alone.
    return guide_site["log_prob"].sum() - (0.0 if model_site is None else model_site["log_prob"].sum())


def _analytic_divergence(model_site: Site, guide_site: Site) -> Tensor:
    if model_site is None:
        return _sampled_divergence(model_site, guide_site)
    try:
        divergence = kl_divergence(guide_site["fn"], model_site["fn"])
    except NotImplementedError:
        return _sampled_divergence(model_site, guide_site)
    return scale_and_mask(divergence, guide_site["scale"], guide_site["mask"]).sum()


def _check_analytic_kl(guide: Program) -> None:
    program = inspect.unwrap(poutine.unwrap(guide))
    if not getattr(program, "analytic_kl", False):
        raise ValueError(
            f"expected a guide that declares analytic_kl; {type(program).__name__} does not: where a latent's parents in "
            "the model depend on it in the guide, a divergence in closed form is not the bound's. Use analytic_kl=False"
        )


OBJECTIVES: dict[str, type[Objective]] = {"elbo": ELBO, "iwelbo": IWELBO}
