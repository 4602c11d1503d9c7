r"""Gradient estimators: how the derivative of a bound reaches the parameters of the guide.

They enter it twice: through the samples, :math:`z = z_\psi(\epsilon)`, and through the density that scores them,
:math:`q_\psi(z | x)`. The second, the score, has expectation zero in an ELBO and is noise there: *sticking the landing* leaves
it out (Roeder et al., 2017, equation 8). In an importance-weighted bound it is no zero, but a second reparameterization turns
it into a derivative through the samples, which *doubly reparameterized* gradients add up (Tucker et al., 2019, equation 8):

.. math:: \nabla_\psi L = E \sum_k c_k \, \frac{\partial \log w_k}{\partial z_k} \frac{d z_k}{d \psi}, \quad
    c_k = \hat w_k - \beta (1 - \alpha) \hat w_k (1 - \hat w_k)

with :math:`\hat w` the normalised :math:`w^{1 - \alpha}` and :math:`\beta` the weight of the latent terms; :math:`c_k` is
:math:`\hat w_k^2` for the importance-weighted bound at weight one, and :math:`1 / K` for the ELBO. All layers of one draw are
one z: each layer's parents, drawn, pass their derivatives on. What a ladder shares with its model keeps both
parts, that of the guide as above and that of the model, :math:`\sum_k \hat w_k \partial_\theta \log p_\theta(x, z_k)`.
"""

from collections.abc import Callable
from typing import Any

from pyro import poutine
from torch import Tensor

from pyrovae.engine.modules import Program, detached

GRADIENTS = ("reparameterized", "sticking_the_landing", "doubly_reparameterized")


def path_derivatives(guide: Program, through: Callable[[Tensor], Tensor]) -> Program:
    """A guide that draws as ``guide`` does, and whose log-densities have no gradient but through what is drawn.

    It runs twice: once to draw, and once to score what was drawn with all of its parameters detached, those of modules and of
    Pyro's parameter store. Buffers, as of batch norm, move once.

    Args:
        guide: the variational program, all of its particles included.
        through: what is drawn at a site passes through it before anything but the guide's own lower layers sees it.
    """

    def program(*args: Any, **kwargs: Any) -> Any:
        with poutine.block():
            drawn = poutine.trace(guide).get_trace(*args, **kwargs)
        for site in drawn.nodes.values():
            if site["type"] == "sample" and isinstance(site["value"], Tensor) and site["value"].requires_grad:
                site["value"] = through(site["value"])
        with detached():
            return poutine.replay(guide, trace=drawn)(*args, **kwargs)

    return program


class WeighedPaths:
    """Multiplies the gradients that come back through samples by ``coefficients`` ``(K, B)``, set once they are known."""

    coefficients: Tensor

    def __call__(self, value: Tensor) -> Tensor:
        """A sample ``(K, B, *event)``, the same."""
        value = value.view_as(value)
        value.register_hook(lambda gradient: gradient * self._shaped_as(gradient))
        return value

    def _shaped_as(self, gradient: Tensor) -> Tensor:
        return self.coefficients.reshape(self.coefficients.shape + (1,) * (gradient.dim() - self.coefficients.dim()))


def path_coefficients(weights: Tensor, alpha: float, kl_weight: Tensor | float) -> Tensor:
    r"""How much of each particle's path derivative is missing beside its share in the bound.

    The bound passes on :math:`\hat w_k`; times :math:`c_k / \hat w_k = 1 - \beta (1 - \alpha) (1 - \hat w_k)` it is c.

    Args:
        weights: log-weights ``(..., K, B)``.
        alpha: of the Rényi bound; zero for the importance-weighted one.
        kl_weight: :math:`\beta`.
    """
    normalized = ((1 - alpha) * weights.detach()).softmax(-2)
    return 1 - kl_weight * (1 - alpha) * (1 - normalized)
