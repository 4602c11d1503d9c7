r"""The oddity of examples under a model, by several scores, each larger for what is odder.

A density alone can take simple images of another kind for more likely than those of the training (Nalisnick et al., 2019);
the other scores ask which layers explain an example, how well the guide knows it, and how far it is from typical ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyrovae.engine.modules import Program
from pyrovae.evaluation.chunks import rows_of
from pyrovae.evaluation.gaps import inference_gaps
from pyrovae.evaluation.latents import latent_sites
from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE, log_likelihood
from pyrovae.evaluation.measuring import measuring
from pyrovae.evaluation.refining import LEARNING_RATE
from pyrovae.evaluation.sampling import WeightSampler
from pyrovae.evaluation.weighing import error_of_mean
from pyrovae.inference.plates import sample_sites
from pyrovae.inference.weights import traces_of
from pyrovae.programs.distributions import gaussian_of


@dataclass(frozen=True, eq=False)
class Oddity:
    """The scores of each example ``(N,)`` under one model, in nats.

    Args:
        log_likelihood: log p(x) by importance sampling, which is smaller for what is odder.
        standard_error: its standard error, from the spread of the weights.
        ratios: the likelihood ratios by layer, of ``likelihood_ratios``; each larger for what is odder.
        ratio_errors: their standard errors.
        regret: the ``likelihood_regret``, larger for what is odder; None where the guide's latents are not all Gaussian.
        regret_error: its standard error.
    """

    log_likelihood: Tensor
    standard_error: Tensor
    ratios: dict[str, Tensor]
    ratio_errors: dict[str, Tensor]
    regret: Tensor | None
    regret_error: Tensor | None


def oddity(
    model: Program, guide: Program, x: Tensor, context: Tensor | None = None, *, num_samples: int = 100, num_steps: int = 100
) -> Oddity:
    """Score each example ``(N, D)`` by its likelihood, the ratios over layers, and its regret.

    Args:
        model: the generative program.
        guide: the variational program.
        x: the examples.
        context: the contexts ``(N, C)`` of a conditional model.
        num_samples: the number of samples of each example and score.
        num_steps: the number of steps of the regret; with 0 it is left out.

    Raises:
        ValueError: for data outside the support of the likelihood, and a model that observes nothing.
    """
    found = log_likelihood(model, guide, x, num_samples, context=context)
    above = {
        layer: _bound_above(model, hidden, x, context, num_samples)
        for layer, hidden in guides_above(model, guide, x, context).items()
    }
    regret = error = None
    if num_steps and has_gaussian_latents(guide, x, context):
        regret, error = likelihood_regret(model, guide, x, context, num_samples=num_samples, num_steps=num_steps)
    return Oddity(
        found.per_image,
        found.standard_error_per_image,
        {layer: found.per_image - mean for layer, (mean, _) in above.items()},
        {layer: torch.hypot(found.standard_error_per_image, error) for layer, (_, error) in above.items()},
        regret,
        error,
    )


def likelihood_ratios(
    model: Program, guide: Program, x: Tensor, context: Tensor | None = None, *, num_samples: int = 100
) -> dict[str, Tensor]:
    r"""The likelihood ratio of each example ``(N,)`` by layer, in nats: what the layers up to it tell that those above do not.

    .. math:: \operatorname{LLR}^{>k}(x) = L_S(x) - L^{>k}(x), \quad
        L^{>k}(x) = E_{p(z_{\le k} | z_{>k}) q(z_{>k} | x)} \Big[\log \frac{p(x | z) p(z_{>k})}{q(z_{>k} | x)}\Big]

    Havtorn et al. (2021). The layers up to the k-th are drawn from the model in place of the guide; :math:`L_S` is the bound
    with S samples, so that for many the ratio is :math:`\operatorname{KL}(p(z_{\le k} | z_{>k}) q(z_{>k} | x) \| p(z | x))`.
    A guide that draws the lower layers first runs as a whole, its upper layers are kept, with their densities given
    the lower ones that it drew: :math:`L^{>k}` is then still a bound.

    Args:
        model: the generative program, whose latents are ordered as it draws them: the top layer first.
        guide: the variational program.
        x: the examples ``(N, D)``.
        context: the contexts ``(N, C)`` of a conditional model.
        num_samples: the number of samples S of each bound.

    Returns:
        The ratios by the name of the k-th layer: ``z1``, ... for all but the top one; none with a single layer.
    """
    return oddity(model, guide, x, context, num_samples=num_samples, num_steps=0).ratios


def guides_above(model: Program, guide: Program, x: Tensor, context: Tensor | None) -> dict[str, Program]:
    """The guides that leave the layers up to the k-th one to the model, by the name of that layer; not for the top one."""
    layers = layers_of(model, guide, x, context)
    return {layers[k]: poutine.block(guide, hide=layers[: k + 1]) for k in range(len(layers) - 1)}


def layers_of(model: Program, guide: Program, x: Tensor, context: Tensor | None = None) -> list[str]:
    """The names of the latents that guide and model share, the bottom one first: the model draws it last."""
    with measuring(model, guide), torch.random.fork_rng():
        of_model, of_guide = traces_of(model, guide, next(rows_of(x, context, 2)), {}, num_particles=1)
    known = {site["name"] for site in sample_sites(of_guide)}
    return [site["name"] for site in sample_sites(of_model) if site["name"] in known][::-1]


def _bound_above(model: Program, guide: Program, x: Tensor, context: Tensor | None, num_samples: int) -> tuple[Tensor, Tensor]:
    """The bound of each example ``(N,)`` with a guide of the upper layers, and its standard error."""
    sampler = WeightSampler(model, guide, num_samples * -(-len(x) // IMAGES_AT_ONCE))
    found = []
    with warnings.catch_warnings():
        # That the guide leaves layers to the model is meant.
        warnings.filterwarnings("ignore", "Found vars in model but not guide")
        for rows in rows_of(x, context, IMAGES_AT_ONCE):
            weights = sampler(rows, num_samples).double()
            found.append((weights.mean(0), error_of_mean(weights)))
    means, errors = (torch.cat(each) for each in zip(*found, strict=True))
    return means, errors


def has_gaussian_latents(guide: Program, x: Tensor, context: Tensor | None = None) -> bool:
    """True where a guide has latents, and all of them are products of Gaussians over units."""
    with measuring(guide), torch.random.fork_rng():
        sites = latent_sites(guide, next(rows_of(x, context, 2)))
    return bool(sites) and all(gaussian_of(site["fn"]) is not None for site in sites.values())


def likelihood_regret(
    model: Program, guide: Program, x: Tensor, context: Tensor | None = None, *, num_samples: int = 100, num_steps: int = 100
) -> tuple[Tensor, Tensor]:
    r"""The likelihood regret of each example ``(N,)`` and its standard error, in nats: larger for what is odder.

    .. math:: \operatorname{LR}(x) = \max_{\mu, \sigma} L(x; \mu, \sigma) - L(x; \mu(x), \sigma(x))

    Xiao et al. (2020), where the Gaussians of every layer are optimised for one example alone, from the guide's, by
    Adam: the amortization gap of ``inference_gaps``, image by image. For a posterior in the guide's family it is
    :math:`\operatorname{KL}(q(z | x) \| p(z | x))`. It may fall below zero by chance.

    Args:
        model: the generative program.
        guide: a guide whose latents are Gaussians.
        x: the examples ``(N, D)``.
        context: the contexts ``(N, C)`` of a conditional model.
        num_samples: the number of samples of each bound.
        num_steps: the number of steps of Adam.

    Raises:
        ValueError: for a guide with another latent, or none.
    """
    steps: dict[str, Any] = {"num_samples": num_samples, "num_steps": num_steps, "learning_rate": LEARNING_RATE}
    gaps = inference_gaps(model, guide, x, context, **steps)
    return gaps.amortization.per_image, gaps.sampling_error


def typicality(log_likelihoods: Tensor, reference: Tensor) -> Tensor:
    r"""The distance of each log p(x) ``(N,)`` from its mean over a reference ``(R,)``, in nats: larger for what is odder.

    .. math:: |\log p(x) - \tfrac 1 R \sum_r \log p(x_r)|

    Nalisnick et al. (2019), for single examples: too likely is odd too.

    >>> typicality(torch.tensor([-90.0, -70.0]), torch.tensor([-84.0, -76.0]))
    tensor([10., 10.])
    """
    return (log_likelihoods - reference.mean()).abs()


def negative_waic(one: Sequence[Tensor] | Tensor, other: Sequence[Tensor] | Tensor) -> Tensor:
    r"""The negative WAIC of each example ``(N,)``, in nats, from log p(x) of trainings: larger for what is odder.

    .. math:: \operatorname{Var}_r(\log p_r(x)) - E_r(\log p_r(x))

    Choi et al. (2019). It is high where models disagree. Each log p(x) is estimated twice, by samples of their own: the
    variance over the R trainings is the covariance of both estimates, to which the noise of sampling adds nothing on average.
    It may fall below zero by chance.

    Args:
        one: the log-likelihoods of R trainings ``(R, N)``.
        other: the same, estimated again.

    Raises:
        ValueError: for fewer than two trainings, which have no variance.

    >>> one = torch.tensor([[-80.0, -90.0], [-82.0, -90.0]])
    >>> negative_waic(one, one)
    tensor([83., 90.])
    """
    first, second = (torch.stack(list(each)) for each in (one, other))
    if len(first) < 2:
        raise ValueError(f"expected two trainings or more for a variance over them; got {len(first)}")
    covariance = ((first - first.mean(0)) * (second - second.mean(0))).sum(0) / (len(first) - 1)
    return covariance - (first.mean(0) + second.mean(0)) / 2
