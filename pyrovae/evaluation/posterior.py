"""Draws of the posterior p(z | x) that a guide only approximates: by importance resampling, and by Hamiltonian chains."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from pyro.ops.stats import effective_sample_size as size_of_chains
from pyro.ops.stats import split_gelman_rubin
from torch import Tensor, nn

from pyrovae.evaluation.annealing import STATES_AT_ONCE, STATES_AT_ONCE_ELSEWHERE
from pyrovae.evaluation.chunks import rows_of
from pyrovae.evaluation.hamiltonian import transition, tune_sizes
from pyrovae.evaluation.measuring import measuring
from pyrovae.evaluation.paths import Density, GeometricPath, drawn_sites
from pyrovae.evaluation.support import check_support
from pyrovae.evaluation.weighing import effective_sample_size, heavy_tail, pareto_k, resampled_places
from pyrovae.extras import import_extra
from pyrovae.inference.particles import arrangement_of
from pyrovae.inference.weights import traces_of, weights_of

if TYPE_CHECKING:
    from pyrovae.engine.modules import Program

Latents = dict[str, Tensor]

# The number of examples times draws at once, for the memory of a decoder's values.
ROWS_AT_ONCE = 10_000
# The largest R-hat of chains that agree: Vehtari et al. (2021), section 4.
LARGEST_R_HAT = 1.01
# The fewest draws of a chain that has an R-hat.
FEWEST_DRAWS = 4


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorDraws:
    """Draws of the latents given each example, with statistics of how far they can be trusted.

    Args:
        x: the examples ``(N, D)``.
        draws: the draws of each latent ``(C, S, N, *event)``: chain, draw, example; resampled ones are one chain.
        by_draw: the statistics of each draw ``(C, S, N)``: its ``log_weight`` in nats before it was resampled, or the
            ``acceptance_rate`` of its trajectory.
        by_example: the statistics of each example ``(N,)``: ``effective_sample_size``, the number of independent draws whose
            mean is as exact, of the worst unit where chains differ by unit; ``pareto_k`` of weights, or ``r_hat`` of the worst
            unit of chains; and ``reliable``, whether the latter is low enough.
    """

    x: Tensor
    draws: Latents
    by_draw: dict[str, Tensor]
    by_example: dict[str, Tensor]

    def to_arviz(self, names: Sequence[Any] | None = None) -> Any:
        """The same as ``arviz.InferenceData``, of groups ``posterior``, ``sample_stats`` and ``observed_data``.

        Args:
            names: the names of the examples; by default their numbers.

        Raises:
            InputError: where the extra ``arviz`` is not installed.
        """
        dims = {name: ["example", *_unit_dims(name, each.dim() - 3)] for name, each in self.draws.items()}
        found = import_arviz().from_dict(
            posterior=_arrays(self.draws),
            sample_stats=_arrays(self.by_draw),
            observed_data=_arrays({"x": self.x}),
            dims=dims | {name: ["example"] for name in self.by_draw} | {"x": ["example", "x_dim"]},
            coords={"example": list(range(len(self.x)) if names is None else names)},
        )
        for name, each in self.by_example.items():
            found.sample_stats[name] = ("example", each.cpu().numpy())
        return found

    def __repr__(self) -> str:
        chains, number, *_ = next(iter(self.by_draw.values())).shape
        reliable = int(self.by_example["reliable"].sum())
        size = self.by_example["effective_sample_size"].median().item()
        return (
            f"PosteriorDraws({chains} x {number} draws of {', '.join(self.draws)}; median effective sample size {size:.0f}; "
            f"{reliable} of {len(self.x)} examples reliable)"
        )


def import_arviz() -> Any:
    """Import ArviZ.

    Raises:
        InputError: where the extra ``arviz`` is not installed.
    """
    with warnings.catch_warnings():
        # It announces its next version whenever it is imported.
        warnings.simplefilter("ignore", FutureWarning)
        return import_extra("arviz", "arviz", "for draws of the posterior with their statistics")


def _unit_dims(name: str, number: int) -> list[str]:
    return [f"{name}_dim"] if number == 1 else [f"{name}_dim_{each}" for each in range(number)]


def _arrays(values: dict[str, Tensor]) -> dict[str, Any]:
    return {name: each.cpu().numpy() for name, each in values.items()}


def resample_posterior(
    model: nn.Module,
    guide: Program,
    x: Tensor,
    num_samples: int = 1000,
    *,
    num_proposals: int = 10_000,
    context: Tensor | None = None,
) -> PosteriorDraws:
    r"""Draw the latents of each example from its posterior by sampling, importance, and resampling.

    .. math:: z_k \sim q(z | x), \quad w_k = \frac{p(x, z_k)}{q(z_k | x)}, \quad
        z \sim \sum_{k=1}^K \frac{w_k}{\sum_j w_j} \delta_{z_k}

    It is exact as K grows, where the guide reaches all of the posterior. Draws repeat where few proposals have most of the
    weight, as the effective sample size says; a Pareto k above ``heavy_tail(num_proposals)`` says that the guide misses too
    much. What it never reaches no statistic shows. Rubin (1987); Vehtari et al. (2024) for k.

    Args:
        model: the generative program.
        guide: the proposal q(z | x, c).
        x: the examples ``(N, D)``.
        num_samples: the number S of draws.
        num_proposals: the number K of proposals, several times S.
        context: the contexts c ``(N, C)`` of a conditional model.

    Raises:
        ValueError: for fewer than one draw or proposal, another number of contexts than of examples, and data outside the
            support of the likelihood.
    """
    _refuse_fewer(num_samples=(num_samples, 1), num_proposals=(num_proposals, 1))
    with measuring(model, guide):
        chunks = check_support(model, rows_of(x, context, max(1, ROWS_AT_ONCE // num_proposals)))
        return _joined([_resampled(model, guide, rows, num_samples, num_proposals) for rows in chunks])


def _resampled(
    model: nn.Module, guide: Program, rows: Sequence[Tensor], num_samples: int, num_proposals: int
) -> PosteriorDraws:
    numbers = [min(ROWS_AT_ONCE, num_proposals - start) for start in range(0, num_proposals, ROWS_AT_ONCE)]
    rounds = [_weighted_draws(model, guide, rows, number) for number in numbers]
    latents = {name: torch.cat([each[name] for each, _ in rounds]) for name in rounds[0][0]}
    weights = torch.cat([each for _, each in rounds]).double()
    places = resampled_places(weights, num_samples), torch.arange(len(rows[0]), device=weights.device)
    k = pareto_k(weights)
    return PosteriorDraws(
        rows[0],
        {name: each[places][None] for name, each in latents.items()},
        {"log_weight": weights[places][None]},
        {
            # The variances of choosing proposals and of the proposals add up.
            "effective_sample_size": 1 / (1 / num_samples + 1 / effective_sample_size(weights)),
            "pareto_k": k,
            "reliable": k <= heavy_tail(num_proposals),
        },
    )


def _weighted_draws(model: nn.Module, guide: Program, rows: Sequence[Tensor], number: int) -> tuple[Latents, Tensor]:
    """Draw latents ``(K, B, *event)`` from the guide, those that it leaves to the model from the prior; and log-weights."""
    place = arrangement_of(model, guide, tuple(rows), {})
    traces = traces_of(model, guide, tuple(rows), {}, number)
    latents = sorted(drawn_sites(traces[0]).items())
    if not latents:
        raise ValueError("expected a model with latents; it draws none of its own when it observes the data")
    values = {name: place.by_example(site["value"], site["fn"].event_dim, number) for name, site in latents}
    return values, weights_of(*traces).reshape(number, -1)


def hamiltonian_posterior(
    model: nn.Module,
    guide: Program,
    x: Tensor,
    num_samples: int = 1000,
    *,
    num_chains: int = 4,
    num_warmup: int = 100,
    num_leapfrog: int = 10,
    context: Tensor | None = None,
) -> PosteriorDraws:
    r"""Draw the latents of each example from its posterior by Hamiltonian chains that start at draws of the guide.

    .. math:: z^{(0)} \sim q(z | x), \quad z^{(t)} \sim T(z | z^{(t-1)}), \quad T \text{ leaves } p(z | x) \text{ invariant}

    Latents are standardized by the guide, so that one size of step suits all directions. It is found for each example by chains
    that are not used again. Exact as chains grow long, where the posterior is in one piece: chains seldom pass from one mode to
    another that is far away, and where all of them start in one, no statistic shows the other. Neal (2011).

    Args:
        model: the generative program.
        guide: q(z | x, c).
        x: the examples ``(N, D)``.
        num_samples: the number S of draws of each chain that are kept.
        num_chains: the number C of chains of each example.
        num_warmup: the number of transitions that find the sizes of steps, and then again of those that are left out.
        num_leapfrog: the number of steps of a trajectory.
        context: the contexts c ``(N, C)`` of a conditional model.

    Raises:
        ValueError: for fewer than four draws, or one chain, transition or step; another number of contexts than of examples,
            data outside the support of the likelihood, no latents or latents without gradients, and a guide that is a flow
            without an inverse.
    """
    _refuse_fewer(num_samples=(num_samples, FEWEST_DRAWS), num_chains=(num_chains, 1), num_warmup=(num_warmup, 1))
    _refuse_fewer(num_leapfrog=(num_leapfrog, 1))
    at_once = max(1, STATES_AT_ONCE.get(x.device.type, STATES_AT_ONCE_ELSEWHERE) // num_chains)
    chains = _Chains(GeometricPath(model, guide), num_samples, num_chains, num_warmup, num_leapfrog, -(-len(x) // at_once))
    with measuring(model, guide):
        return _joined([chains.run(rows) for rows in check_support(model, rows_of(x, context, at_once))])


@dataclass(frozen=True, eq=False)
class _Chains:
    """Hamiltonian chains at the end of a path, for some of ``num_chunks`` chunks of examples."""

    path: GeometricPath
    num_samples: int
    num_chains: int
    num_warmup: int
    num_leapfrog: int
    num_chunks: int

    def run(self, rows: Sequence[Tensor]) -> PosteriorDraws:
        """Run the chains of a few examples."""
        calls = self.num_chunks * (2 * self.num_warmup + self.num_samples) * self.num_leapfrog
        states, acceptance = self._states(rows, self.path.density_for(rows, self.num_chains, calls))
        latents = {name: each.unflatten(0, states.shape[:2]) for name, each in self._values(rows, states).items()}
        units = torch.cat([each.flatten(3) if each.dim() > 3 else each[..., None] for each in latents.values()], 3).double()
        r_hat = split_gelman_rubin(units).amax(-1)
        return PosteriorDraws(
            rows[0],
            latents,
            {"acceptance_rate": acceptance},
            {
                "effective_sample_size": _independent_draws(units),
                "r_hat": r_hat,
                "reliable": r_hat <= LARGEST_R_HAT,
            },
        )

    def _states(self, rows: Sequence[Tensor], density: Density) -> tuple[Tensor, Tensor]:
        """The states that are kept ``(C, S, B, D)``, and the acceptance of their trajectories ``(C, S, B)``."""
        first = density(self.path.draw(rows, self.num_chains))
        sizes = tune_sizes(density, first, [1.0] * self.num_warmup, self.num_leapfrog)
        # The later half, when chains have come to the posterior.
        step = sizes[self.num_warmup // 2 :].log().mean(0).exp()
        point, kept = density(self.path.draw(rows, self.num_chains)), []
        for number in range(self.num_warmup + self.num_samples):
            point, accepted = transition(density, point, 1.0, step, self.num_leapfrog)
            if number >= self.num_warmup:
                kept.append((point.state, accepted))
        states, acceptance = (torch.stack(each, 1) for each in zip(*kept, strict=True))
        return states, acceptance

    def _values(self, rows: Sequence[Tensor], states: Tensor) -> Latents:
        """The latents ``(C S, B, *event)`` of states."""
        parts = states.flatten(0, 1).split(max(1, ROWS_AT_ONCE // len(rows[0])))
        values = [self.path.values_of(rows, each) for each in parts]
        return {name: torch.cat([each[name] for each in values]) for name in values[0]}


def _independent_draws(units: Tensor) -> Tensor:
    """The effective sample size of the worst unit ``(N,)`` of chains ``(C, S, N, U)``.

    It is at most S C log10(S C), beyond which the estimate is noise, and may be below zero: Vehtari et al. (2021), section 3.
    """
    total = units.shape[0] * units.shape[1]
    size, most = size_of_chains(units), total * math.log10(total)
    return torch.where(size < 0, most, size).clamp(max=most).amin(-1)


def _joined(chunks: Sequence[PosteriorDraws]) -> PosteriorDraws:
    """The draws of all examples, from those of chunks of them in order."""

    def joined(parts: Sequence[Latents], dim: int) -> Latents:
        return {name: torch.cat([each[name] for each in parts], dim) for name in parts[0]}

    return PosteriorDraws(
        torch.cat([each.x for each in chunks]),
        joined([each.draws for each in chunks], 2),
        joined([each.by_draw for each in chunks], 2),
        joined([each.by_example for each in chunks], 0),
    )


def _refuse_fewer(**numbers: tuple[int, int]) -> None:
    for name, (number, fewest) in numbers.items():
        if number < fewest:
            raise ValueError(f"expected {name} of at least {fewest}; got {number}")


METHODS: dict[str, Callable[..., PosteriorDraws]] = {"resampling": resample_posterior, "hmc": hamiltonian_posterior}
