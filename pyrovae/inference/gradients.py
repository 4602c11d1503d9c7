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
one z: each layer's drawn parents pass their derivatives on. Parameters that a ladder shares with its model get both
derivatives, that of the guide and that of the model, :math:`\sum_k \hat w_k \partial_\theta \log p_\theta(x, z_k)`. For
these the score is no mere noise: it cancels most of the model's own, and without it their gradient, right on average, had a
hundred times the variance in a ladder of five layers on MNIST. Sticking the landing therefore leaves out the score of the
guide's own parameters alone, where a site's ``infer`` says which these are (``OWN_SCORE``); in a doubly reparameterized
gradient the score of the others cannot stay, since their share of the derivative through the samples has another factor.

The score is left out by a term that cancels it, for any guide: with every latent fixed at its drawn value, the derivative of
log q is the score. The guide runs once.
"""

from collections.abc import Iterable
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.programs.conditionals import OWN_SCORE

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
        weighted: whether to multiply derivatives through samples by ``coefficients``, which are set once they are known, of a
            shape that broadcasts to that of the log-densities.
    """

    coefficients: Tensor

    def __init__(self, *, weighted: bool = False) -> None:
        super().__init__()
        self.weighted = weighted
        self._fixing = _Fixing()
        self._values: list[Tensor] = []

    def _pyro_post_sample(self, msg: Any) -> None:
        # The guide's trace has recorded the value as drawn; the rest of the guide sees the value as set here.
        value = msg["value"]
        if isinstance(value, Tensor) and value.requires_grad and not msg["is_observed"]:
            msg["value"] = _Parent.apply(value, self._fixing)
            self._values.append(msg["value"])

    def leave_out_scores(self, sites: Iterable[Site], *, check: bool = False) -> None:
        """Give the guide's sites log-densities of the same value, but with derivatives through the samples alone.

        Args:
            sites: the sites of the guide's trace, with log-densities computed.
            check: verify by values that the scores are gone.

        Raises:
            ValueError: for a density that cannot be evaluated at a value that it has not drawn; with ``check`` also for one
                that is not the same function of value and parameters each time, or whose score cannot be separated.
        """
        for site in sites:
            if site["log_prob"].requires_grad:
                scored = self._scored(site)
                score = _log_density(site, site["value"].detach(), scored)
                if check:
                    self._check(site, score, own=scored is not site["fn"])
                site["log_prob"] = site["log_prob"] + self._cancelling(score)
            if self.weighted:
                site["log_prob"] = self._weigh(site["log_prob"], 0)
                site["value"] = self._weigh(site["value"], site["fn"].event_dim)

    def _scored(self, site: Site) -> Any:
        """The distribution whose score is left out."""
        own = None if self.weighted else site["infer"].get(OWN_SCORE)
        return site["fn"] if own is None else own()

    def _cancelling(self, score: Tensor) -> Tensor:
        """Zeros whose derivative is minus the score, with derivatives by the values of latents above kept."""
        if not score.requires_grad:
            return torch.zeros_like(score)
        zeros = score.detach() - score
        return zeros + _ByParents.apply(self._fixing, [score], *self._values) if self._values else zeros

    def _weigh(self, value: Tensor, event_dim: int) -> Tensor:
        if not value.requires_grad:
            return value
        value = value.view_as(value)
        value.register_hook(lambda gradient: self._weighed(gradient, event_dim))
        return value

    def _weighed(self, gradient: Tensor, event_dim: int) -> Tensor:
        coefficients = self.coefficients.reshape(*self.coefficients.shape, *(1,) * event_dim)
        return (gradient * coefficients).reshape(gradient.shape)

    def _check(self, site: Site, score: Tensor, *, own: bool) -> None:
        """Refuse a density whose score, or that of the guide's own parameters, is not gone."""
        what = f"site {site['name']!r} of the guide is a {distribution_name(site)}"
        with torch.enable_grad(), self._fixing:
            again = _log_density(site, _Parent.apply(site["value"], self._fixing), site["fn"])
            left = again + self._cancelling(score)
            scores = _derivatives(score, _leaves(score))
            rest = _derivatives(left, _leaves(score if own else left))
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


class _Fixing:
    """A context in which no derivative goes from a site's parameters back through the latents above."""

    # A separate object: nodes of a graph must not refer to an object that refers to the graph, which would never be freed.
    depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: Any) -> None:
        self.depth -= 1


class _Parent(torch.autograd.Function):
    """The identity on a latent, which stops derivatives to the parameters of its draw while values are fixed."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, fixing: _Fixing) -> Tensor:
        ctx.fixing = fixing
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        # None rather than zeros: infinite derivatives must not come back as zero times infinity.
        return (None if ctx.fixing.depth else gradient), None


class _ByParents(torch.autograd.Function):
    """Zeros in place of a log-density at fixed values, with its derivatives by each of the latents above."""

    @staticmethod
    def forward(ctx: Any, fixing: _Fixing, log_density: list[Tensor], *values: Tensor) -> Tensor:
        ctx.fixing, ctx.log_density, ctx.values = fixing, log_density, values
        return torch.zeros_like(log_density[0])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        # The graph is kept: the rest of the backward pass goes through the same networks.
        with ctx.fixing:
            derivatives = torch.autograd.grad(ctx.log_density, ctx.values, [gradient], retain_graph=True, allow_unused=True)
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


def _log_density(site: Site, value: Tensor, fn: Any) -> Tensor:
    """The log-density of a site's distribution at a value that need not be the drawn one, scaled and masked as in the program.

    Raises:
        ValueError: for a distribution that can be evaluated only at the value that it drew.
    """
    try:
        log_density = fn.log_prob(value, *site["args"], **site["kwargs"])
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
