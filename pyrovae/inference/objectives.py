"""Objectives, which training maximises: functions of the log-densities of a guide's trace and the model replayed on it.

An objective is a ``pyro.infer.ELBO``: ``objective.differentiable_loss(model, guide, *args)`` is the negative bound, summed over
the batch, in nats; stock ``pyro.infer.SVI`` takes it as its ``loss``. Nothing here reads a value from the device, so that all
of it can be captured as one graph.
"""

import inspect
from abc import abstractmethod
from typing import Any, ClassVar

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.engine.modules import Program
from pyrovae.engine.shares import num_processes, sum_over_processes
from pyrovae.inference.gradients import GRADIENTS, PathDerivatives, path_coefficients
from pyrovae.inference.plates import Site, inner_plates, sample_sites, subsampling, subsampling_of
from pyrovae.inference.weights import log_mean_exp, traces_of, weights_of


class Objective(pyro.infer.ELBO):
    """The base of all bounds: the interface of ``pyro.infer.ELBO`` on top of one differentiable ``bound``.

    Args:
        num_particles: the number of particles, drawn at once in an outermost plate.
        gradient: one of ``GRADIENTS``, except those in ``gradients``, which are wrong for the bound.

    Raises:
        ValueError: for no particle, and for an estimator that is wrong for the bound.
    """

    gradients: ClassVar[dict[str, str]] = {}

    def __init__(self, num_particles: int = 1, *, gradient: str = "reparameterized") -> None:
        if num_particles < 1:
            raise ValueError(f"expected at least one particle; got num_particles={num_particles}")
        if reason := self.gradients.get(gradient, "" if gradient in GRADIENTS else "there is no such estimator"):
            right = ", ".join(each for each in GRADIENTS if each not in self.gradients)
            raise ValueError(f"expected a gradient out of {right} for {type(self).__name__}; got {gradient!r}: {reason}")
        super().__init__(num_particles=num_particles, vectorize_particles=True)
        self.gradient = gradient

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
        paths = None if self.gradient == "reparameterized" else PathDerivatives()
        return traces_of(model, guide, args, kwargs, self.num_particles, paths)


class ELBO(Objective):
    r"""The evidence lower bound.

    .. math:: \operatorname{ELBO}(x) = E_{q(z|x)}[\log p(x, z) - \log q(z | x)]
        = E_q[\log p(x | z_1)] - \sum_l E_q[\operatorname{KL}(q(z_l | \cdot) \| p(z_l | z_{l+1}))]

    Kingma and Welling (2014), equations 2 and 3.

    Args:
        num_particles: samples that the expectation is averaged over.
        analytic_kl: compute each layer's divergence in closed form where one exists, given the layers sampled so far
            (less variance); sampled where none exists, as with a mixture prior.
        free_bits: nats per example up to which a layer's divergence costs nothing: it counts as
            :math:`\max(\lambda, \operatorname{KL}_l)`, averaged over the batch; no bound. Kingma et al. (2016), equation 15.
        gradient: ``sticking_the_landing`` leaves out the guide's score.

    Raises:
        ValueError: for ``analytic_kl`` with a guide that does not declare it (see ``guides``), or with a score left out.
    """

    gradients: ClassVar[dict[str, str]] = {
        "doubly_reparameterized": "in an average of logarithms the score has expectation zero: use sticking_the_landing"
    }

    def __init__(
        self,
        num_particles: int = 1,
        *,
        analytic_kl: bool = False,
        free_bits: float = 0.0,
        gradient: str = "reparameterized",
    ) -> None:
        super().__init__(num_particles, gradient=gradient)
        if analytic_kl and gradient != "reparameterized":
            raise ValueError(
                f"expected the gradient 'reparameterized' with analytic_kl; got {gradient!r}, which leaves out a score that a "
                "divergence in closed form does not have"
            )
        self.analytic_kl = analytic_kl
        self.free_bits = free_bits

    def terms(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The expected log-likelihood, and the divergence from the prior by latent site; nats, summed over the batch."""
        return self._terms(*self._get_trace(model, guide, args, kwargs))

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        if self.analytic_kl:
            _check_analytic_kl(guide)
        return super()._get_trace(model, guide, args, kwargs)

    def _terms(self, model_trace: Trace, guide_trace: Trace) -> tuple[Tensor, dict[str, Tensor]]:
        divergence = _analytic_divergence if self.analytic_kl else _sampled_divergence
        observed = sum(site["log_prob"].sum() for site in sample_sites(model_trace) if site["is_observed"])
        latent = {
            site["name"]: divergence(model_trace.nodes.get(site["name"]), site) / self.num_particles
            for site in sample_sites(guide_trace)
        }
        return torch.as_tensor(observed) / self.num_particles, latent

    def bound(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:  # noqa: D102
        model_trace, guide_trace = self._get_trace(model, guide, args, kwargs)
        log_likelihood, divergences = self._terms(model_trace, guide_trace)
        if self.free_bits:
            counts = {site["name"]: self._counted(site, model_trace, guide_trace) for site in sample_sites(guide_trace)}
            divergences = {site: self._at_least_free(each, counts[site]) for site, each in divergences.items()}
        return log_likelihood - sum(divergences.values())

    def _at_least_free(self, divergence: Tensor, count: Tensor) -> Tensor:
        # The average is over the whole batch, also where processes share it: each then has an equal part of the total.
        whole = sum_over_processes(divergence).clamp(min=self.free_bits * sum_over_processes(count))
        return whole / num_processes() if num_processes() > 1 else whole

    def _counted(self, site: Site, *traces: Trace) -> Tensor:
        """The number of examples in the divergence of a site, as warm-up, subsampling and masks count them."""
        inner = inner_plates(site, *traces)
        counts = scale_and_mask(torch.ones_like(site["log_prob"]), site["scale"], site["mask"])
        # An example counts once, however many entries its inner plates have and however they are subsampled.
        if inner:
            counts = counts.amax([frame.dim for frame in inner]) / subsampling(inner)
        return counts.sum() / self.num_particles


class RenyiELBO(Objective):
    r"""The variational Rényi bound: the ELBO at alpha one, the importance-weighted bound at zero.

    .. math:: L_{\alpha, K}(x) = E \Big[\frac 1 {1 - \alpha} \log \frac 1 K \sum_{k=1}^K w_k^{1 - \alpha}\Big]

    Li and Turner (2016), equation 10. The scale of a subsampled plate is outside of the logarithm; ``pyro.infer.RenyiELBO`` has
    it inside.

    Args:
        num_particles: K, inside the logarithm.
        alpha: the order of the bound.
        num_averages: the number M of estimates that are averaged.
        gradient: ``doubly_reparameterized`` leaves out the guide's score, for any guide of reparameterized latents.
    """

    gradients: ClassVar[dict[str, str]] = {
        "sticking_the_landing": "leaving the score out of a logarithm of an average is biased: use doubly_reparameterized"
    }

    def __init__(
        self, num_particles: int = 2, *, alpha: float = 0.0, num_averages: int = 1, gradient: str = "reparameterized"
    ) -> None:
        if num_averages < 1:
            raise ValueError(f"expected at least one estimate to average; got num_averages={num_averages}")
        super().__init__(num_particles, gradient=gradient)
        self.alpha, self.num_averages = alpha, num_averages

    def bounds(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The bound of each example ``(B,)``, in nats."""
        total = self.num_averages * self.num_particles
        paths = PathDerivatives(weighted=True) if self.gradient == "doubly_reparameterized" else None
        model_trace, guide_trace = traces_of(model, guide, args, kwargs, total, paths)
        drawn = weights_of(model_trace, guide_trace)
        weights = drawn.reshape(self.num_averages, self.num_particles, -1)
        if paths is not None:
            kl_weight = _kl_weight(model_trace, guide_trace)
            paths.weigh_by(path_coefficients(weights, self.alpha, kl_weight).reshape(drawn.shape))
        return subsampling_of(model_trace, guide_trace) * self._means(weights).mean(0)

    def _means(self, weights: Tensor) -> Tensor:
        """The bound of each estimate over its particles: ``(M, K, B)`` to ``(M, B)``."""
        if self.alpha == 1:
            return weights.mean(1)
        return log_mean_exp((1 - self.alpha) * weights, dim=1) / (1 - self.alpha)

    def bound(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:  # noqa: D102
        return self.bounds(model, guide, *args, **kwargs).sum()


class IWELBO(RenyiELBO):
    r"""The importance-weighted bound, tighter with every particle.

    .. math:: L_K(x) = E_{z_1 \dots z_K \sim q} \Big[\log \frac 1 K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k | x)}\Big]

    Burda et al. (2016), equation 8. Its value is the log-mean-exp of the weights itself, so that the bound is reported.

    Args:
        num_particles: K, inside the logarithm.
        num_averages: the number M of estimates that are averaged.
        gradient: ``doubly_reparameterized`` leaves out the guide's score, for any guide of reparameterized latents.
    """

    def __init__(self, num_particles: int = 1, *, num_averages: int = 1, gradient: str = "reparameterized") -> None:
        super().__init__(num_particles, num_averages=num_averages, gradient=gradient)


def _kl_weight(model_trace: Trace, guide_trace: Trace) -> Any:
    """The weight of the latent terms under ``scale_latents``, the same for all of them."""
    scales = [site["scale"] for site in sample_sites(guide_trace)]
    numbers = {scale for scale in scales if not isinstance(scale, Tensor)}
    if len(numbers) > 1:
        raise ValueError(f"expected latents of one scale for doubly reparameterized gradients; got {sorted(numbers)}")
    return scales[0] / subsampling_of(model_trace, guide_trace) if scales else 1.0


def _sampled_divergence(model_site: Site, guide_site: Site) -> Tensor:
    # An auxiliary site, as in autoguides, is in the guide alone.
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


OBJECTIVES: dict[str, type[Objective]] = {"elbo": ELBO, "iwelbo": IWELBO, "renyi": RenyiELBO}
