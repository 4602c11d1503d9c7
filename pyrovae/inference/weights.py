"""Log-weights, from which all numerical results come: log-densities of a guide's trace and of the model replayed on it."""

import math
from collections.abc import Collection
from contextlib import nullcontext
from typing import Any

import torch
from pyro import poutine
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape
from torch import Tensor, nn

from pyrovae.engine.modules import Program
from pyrovae.inference.gradients import PathDerivatives
from pyrovae.inference.particles import ProgramCache, with_particles
from pyrovae.inference.plates import Site, examples_of, plates_of, sample_sites, subsampling_of
from pyrovae.inference.supports import scored_by
from pyrovae.programs.conditionals import share_conditionals

# Programs whose gradients without scores were found to be right, by estimator and by whether they were training.
_CHECKED = ProgramCache()


def log_weights(model: Program, guide: Program, *args: Any, num_particles: int = 1, **kwargs: Any) -> Tensor:
    r"""Log importance weights of particles drawn from the guide, in nats.

    .. math:: \log w_{kb} = \log p(x_b, z_{kb}) - \log q(z_{kb} | x_b), \quad z_{kb} \sim q(z | x_b)

    Both programs run once, with the particles in an outermost plate; parts that depend on the data alone run once for all
    particles. Programs that do not broadcast over an outermost dimension take particles as more examples. The plate of the
    examples is the one around all sites; plates within it are summed over. Effects around the call apply: under
    ``scale_latents`` the weights are those of the scaled programs.

    Returns:
        Weights ``(K, B)``, of particles by examples.

    Raises:
        ValueError: for a site outside the plate of the examples, a latent that cannot be reparameterized, and programs that
            take no particles.
    """
    return weights_of(*traces_of(model, guide, args, kwargs, num_particles)).reshape(num_particles, -1)


def weights_of(model_trace: Trace, guide_trace: Trace) -> Tensor:
    """The log-weights of two traces, each for one example, in the shape of the plates around all sites.

    Plates within that of the examples are summed over.
    """
    of_model, of_guide = list(sample_sites(model_trace)), list(sample_sites(guide_trace))
    examples = examples_of(model_trace, guide_trace)
    _refuse_outside([*of_model, *of_guide], examples)
    # A latent that the guide leaves to the model is drawn from its prior, and does not change the weight.
    counted = [site for site in of_model if site["is_observed"] or site["name"] in guide_trace]
    terms = [_per_example(site, examples) for site in counted]
    terms += [-_per_example(site, examples) for site in of_guide]
    return sum(terms[1:], terms[0]) / subsampling_of(model_trace, guide_trace)


def log_mean_exp(weights: Tensor, dim: int = 0) -> Tensor:
    """The logarithm of the mean weight over particles: ``(K, B)`` to ``(B,)``."""
    return weights.logsumexp(dim) - math.log(weights.shape[dim])


def traces_of(
    model: Program,
    guide: Program,
    args: Any,
    kwargs: Any,
    num_particles: int,
    paths: PathDerivatives | None = None,
) -> tuple[Trace, Trace]:
    """The traces of the guide and of the model replayed against it, with log-densities computed; the model's comes first.

    Particles are in a dimension before those of the plates. Where the programs do not broadcast over it, they are more
    examples: K times as many, the first particle of all examples first.

    Args:
        model: the generative program.
        guide: the variational program.
        args: the positional arguments of both.
        kwargs: the keyword arguments of both.
        num_particles: the number of particles K.
        paths: the handler that leaves the scores out of the guide's log-densities, or None.

    Raises:
        ValueError: for latents without a reparameterization, programs that take no particles, and with ``paths`` densities
            whose score cannot be separated.
    """
    arranged = with_particles(model, guide, args, kwargs, num_particles)
    with share_conditionals():
        if paths is None:
            traces = get_importance_trace("flat", math.inf, *arranged)
            _refuse_unless_reparameterized(traces[1])
            return traces
        key = model, guide, (paths.weighted, *(each.training for each in (model, guide) if isinstance(each, nn.Module)))
        check = is_validation_enabled() and not torch.is_inference_mode_enabled() and not _CHECKED.get(key)
        traces = _traces_without_scores(*arranged, paths, check)
    if check:
        _CHECKED.add(key, True)
    return traces


def _traces_without_scores(
    model: Program, guide: Program, args: Any, kwargs: Any, paths: PathDerivatives, check: bool
) -> tuple[Trace, Trace]:
    """The traces as of ``get_importance_trace``, without scores; the model sees samples with weighted derivatives."""
    if isinstance(poutine.unwrap(guide), Messenger):
        raise ValueError(
            f"expected a guide that is a program of its own; {type(poutine.unwrap(guide)).__name__} runs inside the model, "
            "where its score cannot be left out: use gradient='reparameterized'"
        )
    with torch.enable_grad() if check else nullcontext():
        drawn = poutine.trace(paths(guide)).get_trace(*args, **kwargs)
        guide_trace = prune_subsample_sites(drawn)
        _refuse_unless_reparameterized(guide_trace)
        paths.leave_out_scores(sample_sites(guide_trace), check=check)
        replayed = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*args, **kwargs)
        model_trace = prune_subsample_sites(replayed)
        model_trace.compute_log_prob()
        if check and paths.weighted:
            paths.refuse_coupled(weights_of(model_trace, guide_trace))
    if is_validation_enabled():
        check_model_guide_match(replayed, drawn)
        for site in (*sample_sites(model_trace), *sample_sites(guide_trace)):
            check_site_shape(site, math.inf)  # type: ignore[arg-type]
    return model_trace, guide_trace


def _refuse_unless_reparameterized(guide_trace: Trace) -> None:
    for site in sample_sites(guide_trace):
        if not site["fn"].has_rsample:
            raise ValueError(
                f"expected reparameterized latents; site {site['name']!r} of the guide is a "
                f"{type(scored_by(site['fn'])).__name__}, which has no rsample: "
                "sum it out of the model, or train with pyro.infer.SVI and TraceGraph_ELBO"
            )


def _refuse_outside(sites: list[Site], examples: Collection[int]) -> None:
    """Refuse sites that do not have a log-density for each example."""
    totals = [_per_example(site, examples) for site in sites]
    shape = torch.broadcast_shapes(*(total.shape for total in totals))
    outside = [total.shape != shape[len(shape) - total.dim() :] or shape.numel() > total.numel() for total in totals]
    if not examples:
        # Without a plate around all sites, the sites in no plate are outside.
        in_plates = [bool(plates_of(site)) for site in sites]
        outside = outside if not any(in_plates) else [not each for each in in_plates] if not all(in_plates) else in_plates
    for site, is_outside in zip(sites, outside, strict=True):
        if is_outside:
            raise ValueError(
                f"expected every site in the plate of the examples, with log-densities of shape {tuple(shape)}; "
                f"site {site['name']!r} has {tuple(site['log_prob'].shape)}: use ELBO, which needs no weight per example"
            )


def _per_example(site: Site, examples: Collection[int]) -> Tensor:
    """The log-density of a site, summed over plates within that of the examples; the dimensions stay."""
    inner = [frame.dim for frame in plates_of(site).values() if frame.dim not in examples]
    return site["log_prob"].sum(inner, keepdim=True) if inner else site["log_prob"]
