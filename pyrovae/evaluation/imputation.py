r"""Missing entries drawn from p(x_missing | x_observed): by importance resampling from the guide, and by chains.

NaN stands for a missing entry. Programs must accept this: ``GenerativeModel`` and the encoders do where they are
``incomplete``; programs of your own must score only the other entries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine

from pyrovae.evaluation.chunks import rows_of
from pyrovae.evaluation.latents import latent_sites
from pyrovae.evaluation.measuring import measuring
from pyrovae.evaluation.weighing import resampled_places

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pyrovae.engine.modules import Program

# The number of examples times samples at once, for the memory of a decoder's values.
ROWS_AT_ONCE = 10_000

Latents = dict[str, "Tensor"]


def impute(
    model: nn.Module,
    guide: Program,
    x: Tensor,
    *,
    num_draws: int = 10,
    num_samples: int = 1000,
    num_steps: int = 0,
    context: Tensor | None = None,
) -> Tensor:
    r"""Draw the missing entries of examples M times ``(M, N, D)``.

    Latents are drawn K times from the guide, and M of them are chosen by their weights p(x_observed, z) / q(z | x_observed);
    missing entries are drawn given each. Mattei and Frellsen (2019), section 3.3; exact as K grows. Each of the M draws may go
    on as a chain whose stationary distribution is p(z, x_missing | x_observed), for any guide: z is proposed by the guide for
    the filled example and accepted by Metropolis and Hastings, then x_missing is drawn; Mattei and Frellsen (2018), section 4.

    Args:
        model: the generative program.
        guide: the variational program.
        x: examples ``(N, D)``, with NaN for missing entries.
        num_draws: the number of draws M.
        num_samples: the number of samples K.
        num_steps: the number of steps of each chain.
        context: the contexts c ``(N, C)`` of a conditional model.
    """
    chunks = []
    with measuring(model, guide):
        for rows, *contexts in rows_of(x, context, max(1, ROWS_AT_ONCE // max(num_samples, num_draws))):
            _, filled = _chains(model, guide, rows, contexts, num_draws, num_samples, num_steps)
            chunks.append(filled.reshape(num_draws, len(rows), -1))
    return torch.cat(chunks, 1)


def log_density_of_missing(
    model: nn.Module,
    guide: Program,
    x: Tensor,
    truth: Tensor,
    *,
    num_draws: int = 100,
    num_samples: int = 1000,
    num_steps: int = 0,
) -> Tensor:
    r"""The log-density of the true values of missing entries ``(N,)`` under draws of ``impute``, in nats; low in expectation.

    .. math:: \log p(x_{missing} | x_{observed}) \approx \log \frac 1 M \sum_{m=1}^M p(x_{missing} | z_m)

    Args:
        model: the generative program, p(x | z) a product over entries.
        guide: the variational program.
        x: examples ``(N, D)``, with NaN for missing entries.
        truth: the same examples without missing entries.
        num_draws: the number of draws M.
        num_samples: the number of samples that draws are chosen from.
        num_steps: the number of steps of each draw's chain.
    """
    chunks = []
    with measuring(model, guide):
        for rows, true in rows_of(x, truth, max(1, ROWS_AT_ONCE // max(num_samples, num_draws))):
            latents, _ = _chains(model, guide, rows, [], num_draws, num_samples, num_steps)
            trace = poutine.trace(poutine.condition(model, latents)).get_trace(batch_size=num_draws * len(rows))
            site: Any = trace.nodes["x"]
            entries = site["fn"].base_dist.log_prob(true.repeat(num_draws, 1)).reshape(num_draws, len(rows), -1)
            chunks.append(torch.where(rows.isnan(), entries, 0).sum(-1).logsumexp(0) - math.log(num_draws))
    return torch.cat(chunks)


def _chains(
    model: Program,
    guide: Program,
    x: Tensor,
    contexts: Sequence[Tensor],
    num_draws: int,
    num_samples: int,
    num_steps: int,
) -> tuple[Latents, Tensor]:
    """The latents of each example, resampled and moved along chains, and the filled examples ``(M B, D)``."""
    latents = _resampled(model, guide, (x, *contexts), num_draws, num_samples)
    known, *contexts = _repeated((x, *contexts), num_draws)
    filled = _filled(model, latents, known, contexts)
    for _ in range(num_steps):
        latents = _moved(model, guide, latents, (filled, *contexts))
        filled = _filled(model, latents, known, contexts)
    return latents, filled


def _repeated(columns: Sequence[Tensor], times: int) -> list[Tensor]:
    """Repeat all rows of each column."""
    return [each.repeat(times, 1) for each in columns]


def _resampled(model: Program, guide: Program, columns: Sequence[Tensor], num_draws: int, num_samples: int) -> Latents:
    """Draw latents by importance resampling, as examples ``(M B, D_l)``, the first draw of all examples first."""
    many, count = _repeated(columns, num_samples), len(columns[0])
    latents = {name: site["value"] for name, site in latent_sites(guide, many).items()}
    weights = (_log_density(model, latents, many) - _log_density(guide, latents, many)).reshape(num_samples, count)
    chosen = resampled_places(weights, num_draws)
    places = (chosen * count + torch.arange(count, device=chosen.device)).reshape(-1)
    return {name: each[places] for name, each in latents.items()}


def _moved(model: Program, guide: Program, latents: Latents, filled: Sequence[Tensor]) -> Latents:
    """Take a step of Metropolis and Hastings for the latents of each filled example, with proposals of the guide."""
    proposed = {name: site["value"] for name, site in latent_sites(guide, filled).items()}
    gain = _log_density(model, proposed, filled) - _log_density(guide, proposed, filled)
    gain = gain - _log_density(model, latents, filled) + _log_density(guide, latents, filled)
    accepted = torch.rand_like(gain).log() < gain
    return {name: torch.where(accepted[:, None], proposed[name], each) for name, each in latents.items()}


def _filled(model: Program, latents: Latents, known: Tensor, contexts: Sequence[Tensor]) -> Tensor:
    """The examples with missing entries drawn given their latents."""
    site: Any = poutine.trace(poutine.condition(model, latents)).get_trace(None, *contexts, batch_size=len(known)).nodes["x"]
    return torch.where(known.isnan(), site["value"].to(known.dtype), known)


def _log_density(program: Program, latents: Latents, columns: Sequence[Tensor]) -> Tensor:
    """The log-density of a program's sites for each example ``(B,)``, given the latents."""
    trace = poutine.trace(poutine.condition(program, latents)).get_trace(*columns)
    trace.compute_log_prob()
    total = torch.zeros(len(columns[0]), device=columns[0].device)
    for site in trace.nodes.values():
        if site["type"] == "sample" and "log_prob" in site and site["log_prob"].dim():
            total = total + site["log_prob"]
    return total
