"""Generative programs p(x, z)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyro
import torch
from pyro.distributions import Independent
from torch import Tensor, nn

from pyrovae.programs.architecture import Architecture
from pyrovae.programs.conditionals import evaluate_conditional
from pyrovae.programs.likelihoods import Bernoulli
from pyrovae.programs.priors import StandardNormal


class GenerativeModel(nn.Module):
    r"""A generative model of data under a hierarchy of latent variables, as a Pyro program.

    .. math:: p(x, z | c) = p(z_L | c) \prod_{l=1}^{L-1} p(z_l | z_{l+1}) \; p(x | z_1, c)

    The sites are ``z1`` (next to the data) to ``zL`` (on top) and ``x``, all in the plate ``data``. Stock Pyro works on
    it: ``poutine.condition``, ``Predictive``, ``Trace_ELBO``. Sønderby et al. (2016), equations 1 to 3; with a context c the
    conditional VAE of Doersch (2016), equation 12, and with no latent at all, L = 0, the regressor beside it.

    Args:
        prior: p(z_L | c), called with the context, or None; no prior means no latent.
        likelihood: p(x | z_1, c), called with z_1 followed by the context ``(*, D_1 + C)``.
        conditionals: p(z_l | z_{l+1}) for l = 1 to L - 1, each called with z_{l+1}; none for a plain VAE.
        observed_mask: contexts ``(B, C)`` to the mask of the entries of the data that they contain ``(B, D)``, which are not
            scored, or None.
        skip_connections: whether the data depend on every layer: the likelihood is then p(x | z_1 ... z_L), called with all
            layers side by side, the bottom one first. With two layers this is the hierarchical VAE of Tomczak and Welling
            (2018), equation 13.

    >>> model = GenerativeModel(StandardNormal(2), Bernoulli(2, 784))
    >>> model(batch_size=3).shape
    torch.Size([3, 784])
    """

    def __init__(
        self,
        prior: nn.Module | None,
        likelihood: nn.Module,
        conditionals: Iterable[nn.Module] = (),
        *,
        skip_connections: bool = False,
        observed_mask: Callable[[Tensor], Tensor | None] | None = None,
    ) -> None:
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood
        self.conditionals = nn.ModuleList(conditionals)
        self.skip_connections = skip_connections
        self.observed_mask = observed_mask
        self.pixels: Callable[[Tensor], Tensor] | None = None
        self.context_size: int | None = None
        self.incomplete = False

    @classmethod
    def of(
        cls,
        architecture: Architecture,
        likelihood: Callable[..., nn.Module] = Bernoulli,
        *,
        skip_connections: bool = False,
    ) -> GenerativeModel:
        """Make a model with a standard normal prior, diagonal Gaussians below it, and a likelihood, by default one of bits."""
        sizes, widths = architecture.latent_sizes, architecture.hidden_sizes
        parents = sum(sizes if skip_connections else sizes[:1]) + architecture.context_size
        model = cls(
            StandardNormal(sizes[-1]) if sizes else None,
            architecture.decoder(parents, widths[0], likelihood),
            map(architecture.gaussian, sizes[1:], widths[1:], sizes[:-1]),
            skip_connections=skip_connections,
        )
        model.context_size, model.incomplete = architecture.context_size, architecture.incomplete
        return model

    @property
    def depth(self) -> int:
        """The number L of latent layers."""
        return 0 if self.prior is None else len(self.conditionals) + 1

    def forward(self, x: Tensor | None = None, context: Tensor | None = None, *, batch_size: int = 1) -> Tensor:
        """Observe the rows of x ``(B, D)`` given the rows of the context ``(B, C)``.

        Where the model is ``incomplete``, NaN in x stands for a missing entry: the density is that of the other entries, Mattei
        and Frellsen (2019), equation 3. Without x, draw a row for each row of the context, or ``batch_size`` rows.

        Raises:
            ValueError: for a context of another size than that of the architecture.
        """
        got = 0 if context is None else context.shape[-1]
        if self.context_size not in (None, got):
            raise ValueError(
                f"expected a context of {self.context_size} entries for each row; got {got or 'none'}: give context="
            )
        rows = next((given_rows.shape[0] for given_rows in (x, context) if given_rows is not None), batch_size)
        with pyro.plate("data", rows, dim=-1):
            latents: list[Tensor] = []
            if self.prior is not None:
                latents = [pyro.sample(f"z{self.depth}", evaluate_conditional(self.prior, context))]
            for conditional in reversed(self.conditionals):
                latents.insert(0, pyro.sample(f"z{self.depth - len(latents)}", evaluate_conditional(conditional, latents[0])))
            parents = beside(*(latents if self.skip_connections else latents[:1]), context)
            likelihood = self._scored(self.likelihood(parents), context)
            if x is None or not self.incomplete:
                return pyro.sample("x", likelihood, obs=x)
            # The number 1 is in the support of every likelihood: a masked entry then has a gradient of zero and not of NaN.
            return pyro.sample("x", _masked(likelihood, ~x.isnan()), obs=x.nan_to_num(1.0))

    def complete(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Put the entries that the contexts contain in place of drawn ones in data ``(B, D)``."""
        mask = None if self.observed_mask is None or context is None else self.observed_mask(context)
        if mask is None or self.pixels is None or context is None:
            return x
        return torch.where(mask, self.pixels(context), x)

    def _scored(self, likelihood: Independent, context: Tensor | None) -> Independent:
        """The likelihood without the entries that the context contains."""
        mask = None if self.observed_mask is None or context is None else self.observed_mask(context)
        return likelihood if mask is None else _masked(likelihood, ~mask)


def _masked(likelihood: Independent, scored: Tensor) -> Independent:
    """The likelihood of the scored entries, a mask ``(B, D)``."""
    entries = likelihood.base_dist
    # In its own shape a mask would be compared with the batch, and an exported graph then not be free in both sizes.
    scored = scored.expand(torch.broadcast_shapes(scored.shape, entries.batch_shape))
    return entries.mask(scored).to_event(1)


def beside(*rows: Tensor | None) -> Tensor:
    """Put rows ``(*, D_1)``, ``(*, D_2)``, ... side by side, with leading dimensions broadcast; None is left out."""
    known = [each for each in rows if each is not None]
    shape = torch.broadcast_shapes(*(each.shape[:-1] for each in known))
    return torch.cat([each.expand(*shape, -1) for each in known], -1) if len(known) > 1 else known[0]
