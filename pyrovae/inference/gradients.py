r"""Gradient estimators: how the derivative of a bound reaches the parameters of the guide.

The parameters enter a bound twice: through the samples, :math:`z = z_\psi(\epsilon)`, and through their density,
:math:`q_\psi(z | x)`. The derivative of the second, the score, has expectation zero in an ELBO and is noise there: *sticking
the landing* leaves it out (Roeder et al., 2017, equation 8). In an importance-weighted bound it is not zero, but a second
reparameterization turns it into a derivative through the samples: *doubly reparameterized* gradients (Tucker et al., 2019,
equation 8):

.. math:: \nabla_\psi L = E \sum_k c_k \, \frac{\partial \log w_k}{\partial z_k} \frac{d z_k}{d \psi}, \quad
    c_k = \hat w_k - \beta (1 - \alpha) \hat w_k (1 - \hat w_k)

with :math:`\hat w` the normalised :math:`w^{1 - \alpha}` and :math:`\beta` the weight of the latent terms; :math:`c_k` is
:math:`\hat w_k^2` for the importance-weighted bound at weight one, and :math:`1 / K` for the ELBO. All layers of one draw are
one z: each layer's drawn parents pass their derivatives on.

Parameters that a ladder shares with its model keep the plain gradient under both estimators. For these the score is no mere
noise: it cancels most of the model's own, :math:`\sum_k \hat w_k \partial_\theta \log p_\theta(x, z_k)`, and without it their
gradient, right on average, had a hundred times the variance in a ladder of five layers on MNIST. What a guide takes from a
conditional of the model by ``evaluate_conditional`` therefore counts as drawn parents do.

A doubly reparameterized gradient is right where each log-weight depends on the latents of its own particle and example alone.
Batch norm behind a latent breaks this while it trains: for a VAE of one layer on MNIST the mean gradient of the guide then had
2.5 times its length, and a cosine of 0.41 with the right one.

The score is left out by a term that cancels it, for any guide: with every latent fixed at its drawn value, the derivative of
log q is the score. The guide runs once.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from pyro.distributions import Normal
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.programs.distributions import gaussian_of

Site = Any

GRADIENTS = ("reparameterized", "sticking_the_landing", "doubly_reparameterized")
# Distributions whose log-density is a given number, whatever the value.
POINT_MASSES = ("Delta", "Unit")


class PathDerivatives(Messenger):
    r"""A handler that takes the score out of the log-densities of one run of a guide, followed by ``leave_out_scores``.

    For the site i with its parents, :math:`q_i(z_i | z_{<i})`, the term that is subtracted has value zero and the derivative

    .. math:: \partial_\psi \log q_{\psi, i}(\bar z_i | \bar z_{<i})

    where bars are for fixed values. The result can be differentiated once.

    Args:
        weighted: whether to multiply derivatives through samples by coefficients, set by ``weigh_by`` once they are known.
    """

    def __init__(self, *, weighted: bool = False) -> None:
        super().__init__()
        self.weighted = weighted
        self._backward = _Backward()
        self._parents: list[Tensor] = []
        self._seen: dict[str, Tensor] = {}

    def weigh_by(self, coefficients: Tensor) -> None:
        """Set the coefficients, of a shape that broadcasts to that of the log-densities."""
        self._backward.coefficients = coefficients

    def _pyro_post_sample(self, msg: Any) -> None:
        # The guide's trace has recorded the value as drawn, whose density a flow remembers; the rest of the guide sees another.
        value = msg["value"]
        if isinstance(value, Tensor) and value.requires_grad and not msg["is_observed"]:
            msg["value"] = self._parent(self._weighed(value, msg["fn"].event_dim) if self.weighted else value)
            self._seen[msg["name"]] = msg["value"]

    def _pyro_post_conditional(self, msg: Any) -> None:
        gaussian = gaussian_of(msg["value"])
        if gaussian is not None and gaussian.loc.requires_grad:
            loc, scale = self._parent(gaussian.loc), self._parent(gaussian.scale)
            msg["value"] = Normal(loc, scale).to_event(msg["value"].event_dim)

    def _parent(self, value: Tensor) -> Tensor:
        self._parents.append(_Parent.apply(value, self._backward))
        return self._parents[-1]

    def _weighed(self, value: Tensor, event_dim: int) -> Tensor:
        """The same value, whose derivative by the guide's own parameters is multiplied by the coefficients."""
        own = value - value.detach() + self._without(value)
        own.register_hook(partial(self._backward.weighed, event_dim))
        return value + own

    def _without(self, value: Tensor) -> Tensor | float:
        """Zeros with minus the derivatives of a value by its parents."""
        return -_ByParents.apply(self._backward, [value], *self._parents) if self._parents else 0.0

    def leave_out_scores(self, sites: Iterable[Site], *, check: bool = False) -> None:
        """Give the guide's sites log-densities of the same value, but with derivatives through the samples alone.

        Args:
            sites: the sites of the guide's trace.
            check: verify by values that the scores are gone.

        Raises:
            ValueError: for a density that cannot be evaluated at a value that it has not drawn; with ``check`` also for one
                that is not the same function of value and parameters each time, or whose score cannot be separated.
        """
        for site in sites:
            if self.weighted:
                site["value"] = self._seen.get(site["name"], site["value"])
            site["log_prob"] = _log_density(site, site["value"])
            if site["log_prob"].requires_grad:
                score = _log_density(site, site["value"].detach())
                if check:
                    self._check(site, score)
                site["log_prob"] = site["log_prob"] + self._cancelling(score)

    def _cancelling(self, score: Tensor) -> Tensor:
        """Zeros whose derivative is minus the score, with derivatives by latents above and by the model's conditionals kept."""
        if not score.requires_grad:
            return torch.zeros_like(score)
        return score.detach() - score - self._without(score)

    def refuse_coupled(self, weights: Tensor) -> None:
        """Refuse log-weights that depend on latents of other particles or examples.

        Args:
            weights: the log-weights, whose leading dimensions are those of each latent's value.

        Raises:
            ValueError: for such log-weights.
        """
        if not self._seen:
            return
        first = torch.zeros_like(weights)
        first.flatten()[0] = 1
        with self._backward:
            found = torch.autograd.grad(weights, list(self._seen.values()), first, retain_graph=True, allow_unused=True)
        for name, derivative in zip(self._seen, found, strict=True):
            if derivative is None:
                continue
            others = derivative * (1 - first.reshape(*first.shape, *(1,) * (derivative.dim() - first.dim())))
            if others.abs().max() > torch.finfo(others.dtype).eps ** 0.5 * derivative.abs().max():
                raise ValueError(
                    "expected log-weights that each depend on the latents of one example; here one depends on "
                    f"{name!r} of others, as by batch norm in training, so that a doubly reparameterized gradient is not that "
                    "of the bound: use gradient='reparameterized', or networks without batch norm behind a latent"
                )

    def _check(self, site: Site, score: Tensor) -> None:
        """Refuse a density whose score is not gone."""
        what = f"site {site['name']!r} of the guide is a {distribution_name(site)}"
        with torch.enable_grad(), self._backward:
            again = _log_density(site, _Parent.apply(site["value"], self._backward))
            left = again + self._cancelling(score)
            scores, rest = (_derivatives(each, _leaves(each)) for each in (score, left))
        if distribution_name(site) in POINT_MASSES and scores:
            raise ValueError(
                f"expected latents that are drawn where the guide says pyro.sample; {what} whose log_density depends on "
                "parameters, so that its score cannot be told from its path: use gradient='reparameterized'"
            )
        largest = max((each.abs().max().item() for each in scores), default=0.0)
        tolerance = torch.finfo(score.dtype).eps ** 0.5
        same = torch.allclose(score, site["log_prob"], rtol=tolerance, atol=tolerance, equal_nan=True)
        if not same or any(each.abs().max() > tolerance * largest for each in rest):
            raise ValueError(
                f"expected log-densities that are the same at the same values; {what} whose log_prob is not the same function "
                "of its value and parameters each time, so that its score cannot be left out: use gradient='reparameterized'"
            )


class _Backward:
    """Instructions to the nodes of a graph for its backward pass.

    As a context, derivatives reach the values of a site's parents, and no further back.
    """

    # A separate object: nodes of a graph must not refer to an object that refers to the graph, which would never be freed.
    coefficients: Tensor
    depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: Any) -> None:
        self.depth -= 1

    def weighed(self, event_dim: int, gradient: Tensor | None) -> Tensor | None:
        """Return what multiplies a derivative by the coefficients when added to it."""
        if gradient is None:
            return None
        return gradient * (self.coefficients - 1).reshape(*self.coefficients.shape, *(1,) * event_dim)


class _Parent(torch.autograd.Function):
    """The identity on a parent of a site, which stops derivatives to what it was made of while values are fixed."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, told: _Backward) -> Tensor:
        ctx.told = told
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        # None rather than zeros: infinite derivatives must not come back as zero times infinity.
        return (None if ctx.told.depth else gradient), None


class _ByParents(torch.autograd.Function):
    """Zeros in place of a value or a log-density, with its derivatives by each of the parents alone."""

    @staticmethod
    def forward(ctx: Any, told: _Backward, of: list[Tensor], *parents: Tensor) -> Tensor:
        ctx.told, ctx.of, ctx.parents = told, of, parents
        return torch.zeros_like(of[0])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        # The graph is kept: the rest of the backward pass goes through the same networks.
        with ctx.told:
            derivatives = torch.autograd.grad(ctx.of, ctx.parents, [gradient], retain_graph=True, allow_unused=True)
        return None, None, *derivatives


def path_coefficients(weights: Tensor, alpha: float, kl_weight: Tensor | float) -> Tensor:
    r"""The factors of the particles' path derivatives that turn their shares in the bound into c.

    Args:
        weights: log-weights ``(..., K, B)``.
        alpha: the order of the Rényi bound; zero for the importance-weighted one.
        kl_weight: the weight :math:`\beta` of the latent terms.
    """
    normalized = ((1 - alpha) * weights.detach()).softmax(-2)
    return 1 - kl_weight * (1 - alpha) * (1 - normalized)


def distribution_name(site: Site) -> str:
    """The class of a site's distribution, without wrappers that only change its shape."""
    fn = site["fn"]
    while type(fn).__name__ in ("Independent", "MaskedDistribution", "ExpandedDistribution"):
        fn = fn.base_dist
    return type(fn).__name__


def _log_density(site: Site, value: Tensor) -> Tensor:
    """The log-density of a site's distribution at a value that need not be the drawn one, scaled and masked as in the program.

    Raises:
        ValueError: for a distribution that can be evaluated only at the value that it drew.
    """
    try:
        log_density = site["fn"].log_prob(value, *site["args"], **site["kwargs"])
    except (KeyError, NotImplementedError) as error:
        raise ValueError(
            f"expected densities that can be evaluated at any value; site {site['name']!r} of the guide is a "
            f"{distribution_name(site)} that cannot ({error}): use a flow with an inverse, or gradient='reparameterized'"
        ) from error
    return scale_and_mask(log_density, site["scale"], site["mask"])


def _derivatives(value: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """The derivatives of the sum of a tensor by leaves that it was computed from."""
    if not leaves:
        return []
    derivatives = torch.autograd.grad(value.sum(), leaves, retain_graph=True, allow_unused=True)
    return [each for each in derivatives if each is not None]


def _leaves(value: Tensor) -> list[Tensor]:
    """The tensors that require gradients, mostly parameters, that a tensor was computed from."""
    if value.grad_fn is None:
        return [value] if value.requires_grad else []
    nodes, ahead, leaves = {value.grad_fn}, [value.grad_fn], []
    while ahead:
        node = ahead.pop()
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        following = {each for each, _ in node.next_functions if each is not None} - nodes
        nodes |= following
        ahead.extend(following)
    return leaves
