"""Log-weights: what everything numerical comes from, the log-densities of one guide trace and of the model replayed on it."""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro.infer.enum import get_importance_trace
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.engine.modules import Program
from pyrovae.inference.gradients import path_derivatives
from pyrovae.programs.conditionals import share_conditionals

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
    return weights_of(*traces_of(model, guide, args, kwargs, num_particles)).reshape(num_particles, -1)


def weights_of(model_trace: Trace, guide_trace: Trace) -> Tensor:
    """The log-weights of two traces, of the shape that all sites have, each for one example of a subsampled plate."""
    # A latent that the guide leaves to the model is drawn from its prior, and weighs nothing.
    terms = [site["log_prob"] for site in sample_sites(model_trace) if site["is_observed"] or site["name"] in guide_trace]
    terms += [-site["log_prob"] for site in sample_sites(guide_trace)]
    shape = torch.broadcast_shapes(*(term.shape for term in terms))
    for site in (*sample_sites(model_trace), *sample_sites(guide_trace)):
        if site["log_prob"].shape != shape:
            raise ValueError(
                f"expected every site in the plate of the examples, with log-densities of shape {tuple(shape)}; "
                f"site {site['name']!r} has {tuple(site['log_prob'].shape)}: use ELBO, which needs no weight per example"
            )
    return sum(terms[1:], terms[0]) / subsampling_of(model_trace)


def subsampling_of(trace: Trace) -> float:
    """For how many examples of its plates each one that is drawn stands: a factor of the bound, not of the weights within."""
    frames = next((site["cond_indep_stack"] for site in sample_sites(trace)), ())
    return math.prod(frame.full_size / frame.size for frame in frames if frame.full_size)


def log_mean_exp(weights: Tensor, dim: int = 0) -> Tensor:
    """The logarithm of the mean weight over particles: ``(K, B)`` to ``(B,)``."""
    return weights.logsumexp(dim) - math.log(weights.shape[dim])


def traces_of(
    model: Program,
    guide: Program,
    args: Any,
    kwargs: Any,
    num_particles: int,
    through: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Trace, Trace]:
    """The guide's trace and the model's replayed against it, log-densities computed, particles in dimension -2.

    With ``through``, the densities of the guide have no gradient but through what it draws: see ``path_derivatives``.
    """
    if num_particles > 1:
        particles = pyro.plate("particles", num_particles, dim=-2)
        model, guide = particles(model), particles(guide)
    if through is not None:
        guide = path_derivatives(guide, through)
    # The conditionals of a guide without its scores have no gradient, and cannot be the model's.
    with share_conditionals() if through is None else nullcontext():
        model_trace, guide_trace = get_importance_trace("flat", float("inf"), model, guide, args, kwargs)
    for site in sample_sites(guide_trace):
        if not site["fn"].has_rsample:
            raise ValueError(
                f"expected reparameterized latents; site {site['name']!r} of the guide is a {type(site['fn']).__name__}, "
                "which has no rsample: sum it out of the model, or train with pyro.infer.SVI and TraceGraph_ELBO"
            )
    return model_trace, guide_trace


def sample_sites(trace: Trace) -> Iterator[Site]:
    """What was drawn or observed."""
    return (site for site in trace.nodes.values() if site["type"] == "sample")
