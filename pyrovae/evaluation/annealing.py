"""Bounds of the log-likelihood from both sides: annealed importance sampling, forward and in reverse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pyrovae.engine.modules import Program
from pyrovae.evaluation.chunks import WHOLE, chunks_of_shard, columns_of, draw_seed, noise_of_chunk, rows_of
from pyrovae.evaluation.hamiltonian import transition, tune_sizes
from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE, Estimates, LogLikelihood, log_likelihood
from pyrovae.evaluation.measuring import measuring
from pyrovae.evaluation.paths import Density, GeometricPath, Point, simulate
from pyrovae.evaluation.support import check_support
from pyrovae.inference.weights import log_mean_exp

T = TypeVar("T")
Track = Callable[[Sequence[Any]], Iterable[Any]]
# The number of states at once that keeps a device busy.
STATES_AT_ONCE = {"cpu": 1000}
STATES_AT_ONCE_ELSEWHERE = 10_000
# The transitions of the pilot run, which finds the sizes of steps: first at the start distribution, then along the path.
SETTLING, PILOT_TEMPERATURES = 20, 100


@dataclass(frozen=True, eq=False, repr=False)
class AnnealedLikelihood(Estimates):
    """Log-likelihoods by annealed importance sampling, in nats: lower bounds in expectation.

    Args:
        per_image: the log-mean weight over the chains of each image ``(N,)``.
        acceptance_rate: the share of each image's trajectories that were accepted ``(N,)``; NaN without trajectories.
        step_size: the size of a leapfrog step next to the posterior ``(N,)``, in standard deviations of the start distribution.
        num_temperatures: the number of steps from the start distribution to the posterior.
        num_chains: the number of chains for each image.
    """

    acceptance_rate: Tensor
    step_size: Tensor
    num_temperatures: int
    num_chains: int

    def __repr__(self) -> str:
        images = f"{len(self.per_image)} images, {self.num_chains} chains of {self.num_temperatures} temperatures each"
        return f"AnnealedLikelihood({self.mean:.2f} ± {self.standard_error:.2f} nats; {images})"


@dataclass(frozen=True, eq=False, repr=False)
class BidirectionalBounds:
    """The stochastic bounds of log p(x) from both sides, in nats, on data drawn from the model.

    Args:
        x: the data ``(B, D)``.
        lower: annealed importance sampling ``(B,)``, with its acceptance and steps.
        upper: the same in reverse, from the latents that the data were drawn from ``(B,)``.
        importance_sampled: ``log_likelihood`` on the same data.
    """

    x: Tensor
    lower: AnnealedLikelihood
    upper: Tensor
    importance_sampled: LogLikelihood

    @property
    def gap(self) -> Tensor:
        """The upper minus the lower bound ``(B,)``: in expectation at least the error of either."""
        return self.upper - self.lower.per_image

    def __repr__(self) -> str:
        lower, upper, sampled = self.lower.mean, self.upper.mean().item(), self.importance_sampled.mean
        return f"BidirectionalBounds({lower:.2f} to {upper:.2f} nats; importance-sampled {sampled:.2f}; {len(self.x)} images)"


def annealed_log_likelihood(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_temperatures: int = 300,
    num_chains: int = 5,
    num_leapfrog: int = 10,
    start: str = "guide",
    context: Tensor | None = None,
    track: Track = iter,
    shard: tuple[int, int] = WHOLE,
) -> AnnealedLikelihood:
    r"""Bound the log-likelihood of each row of x ``(N, D)`` from below by annealed importance sampling.

    .. math::
        \log p(x | c) \ge E \log \frac 1 K \sum_{k=1}^K \prod_{t=1}^T \frac{f_{b_t}(z_{t-1}^k)}{f_{b_{t-1}}(z_{t-1}^k)},
        \quad \log f_b(z) = (1 - b) \log s(z) + b \log p(x, z | c)

    Each chain goes from the start distribution s to the posterior, by Hamiltonian transitions that leave the densities
    between them invariant. A guide that misses a part of the posterior spoils importance sampling without any sign; a chain can
    reach that part. With one temperature this is importance sampling. Neal (2001); Wu et al. (2017).

    The weights are unbiased for fixed transitions only, and steps that adapt to a chain's own acceptance are not fixed. A pilot
    run, whose chains are not used, finds the size of steps for each image and temperature.

    Args:
        model: the generative program.
        guide: q(z | x, c).
        x: the images.
        num_temperatures: the number T of steps, on the sigmoidal schedule of ``temperatures``.
        num_chains: the number of chains K.
        num_leapfrog: the number of steps of a trajectory.
        start: the start distribution s: the ``guide``, which is tighter, or the ``prior``, as in Wu et al.
        context: the contexts c ``(N, C)`` of a conditional model.
        track: function that wraps the sequence of transitions, to show progress.
        shard: as of ``log_likelihood``, of as many images at a time as are fast: on a CPU 1,000 chains of them.

    Raises:
        ValueError: for fewer than one temperature, chain or step, another number of contexts than of images, data outside the
            support of the likelihood, no latents or latents without gradients, a start that is a flow without an inverse, and a
            shard that is out of range.
    """
    columns = columns_of(x, context)
    annealing = _Annealing(GeometricPath(model, guide, start), num_temperatures, num_chains, num_leapfrog)
    with measuring(model, guide):
        # All data are checked before the first chain runs, which takes long.
        for _ in check_support(model, rows_of(x, context, IMAGES_AT_ONCE)):
            pass
        return annealing.summary(annealing.chunks(annealing.forward, 1, columns, track, shard))


def bidirectional_bounds(
    model: Program,
    guide: Program,
    batch_size: int = 1,
    *,
    num_temperatures: int = 300,
    num_chains: int = 5,
    num_leapfrog: int = 10,
    num_samples: int = 5000,
    start: str = "guide",
    context: Tensor | None = None,
    track: Track = iter,
    shard: tuple[int, int] = WHOLE,
) -> BidirectionalBounds:
    r"""Enclose log p(x) on data drawn from the model, to see how far off the figures of the guide can be.

    .. math:: E \log \frac 1 K \sum_k w_k \; \le \; \log p(x | c) \; \le \; - E \log \frac 1 K \sum_k \frac 1 {w'_k}

    The latents that an image was drawn from are an exact sample of its posterior. From there, chains of annealed importance
    sampling run in reverse, and the means of their inverse weights w' bound log p(x) from above. Their transitions, which are
    reversible, and the sizes of their steps, which come from one pilot run from the start distribution, are those of the
    forward chains. Grosse et al. (2015).

    Args:
        model: the generative program.
        guide: q(z | x, c).
        batch_size: the number of images B to draw; with contexts, their number.
        num_temperatures: the number T of steps.
        num_chains: the number of chains K, forward and in reverse.
        num_leapfrog: the number of steps of a trajectory.
        num_samples: the number of importance samples of the figure that is judged.
        start: the start distribution, as in ``annealed_log_likelihood``.
        context: the contexts c ``(B, C)`` of a conditional model.
        track: function that wraps the sequence of transitions, to show progress.
        shard: as of ``annealed_log_likelihood``; x is whole, and importance samples are of the shard of ``log_likelihood``.

    Raises:
        ValueError: as ``annealed_log_likelihood``, and for a model that does not draw data at a site ``x`` when called without.
    """
    annealing = _Annealing(GeometricPath(model, guide, start), num_temperatures, num_chains, num_leapfrog)
    with measuring(model, guide):
        x, z = simulate(model, batch_size, context)
        runs = annealing.chunks(annealing.both_ways, 2, [*columns_of(x, context), z], track, shard)
    lower = annealing.summary([forward for forward, _ in runs])
    upper = torch.cat([lower.per_image[:0], *(reverse for _, reverse in runs)])
    return BidirectionalBounds(x, lower, upper, log_likelihood(model, guide, x, num_samples, context=context, shard=shard))


class _Forward(NamedTuple):
    """The results of forward chains for a few images: bound, acceptance and last step, each ``(B,)``."""

    bound: Tensor
    acceptance_rate: Tensor
    step_size: Tensor


@dataclass(frozen=True, eq=False)
class _Pace:
    """A counter of transitions, to show progress.

    Args:
        steps: an iterator with one item for each transition.
        calls_ahead: the number of densities that all transitions need.
    """

    steps: Iterator[Any]
    calls_ahead: int

    def __call__(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, and count a step for each."""
        for item in items:
            next(self.steps, None)
            yield item


@dataclass(frozen=True, eq=False)
class _Annealing:
    """Chains along a path, a few images at a time."""

    path: GeometricPath
    num_temperatures: int
    num_chains: int
    num_leapfrog: int

    def __post_init__(self) -> None:
        for name in ("num_temperatures", "num_chains", "num_leapfrog"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least one; got {getattr(self, name)}")

    def chunks(
        self, anneal: Callable[..., T], num_ways: int, columns: Sequence[Tensor], track: Track, shard: tuple[int, int]
    ) -> list[T]:
        """Run chains, one way or both, for as many rows at a time as are fast; returns the results of each chunk of a shard."""
        device = columns[0].device
        size = max(1, STATES_AT_ONCE.get(device.type, STATES_AT_ONCE_ELSEWHERE) // self.num_chains)
        num_chunks, seed = -(-len(columns[0]) // size), draw_seed(device)
        numbers = chunks_of_shard(shard, num_chunks)
        num_transitions = len(self._pilot()) + num_ways * self.num_temperatures
        steps = iter(track(range(len(numbers) * num_transitions)))
        # The number of calls is that of the whole, so that every shard chooses the same engine.
        pace, results = _Pace(steps, num_chunks * num_transitions * self.num_leapfrog), []
        for number in numbers:
            with noise_of_chunk(seed, number):
                results.append(anneal(pace, *(column[number * size : (number + 1) * size] for column in columns)))
        # The tracked sequence is run to its end.
        next(steps, None)
        return results

    def forward(self, pace: _Pace, *rows: Tensor) -> _Forward:
        """Run chains from the start distribution to the posterior."""
        return self._forward(rows, self._transitions(rows, pace))

    def both_ways(self, pace: _Pace, *rows_and_latents: Tensor) -> tuple[_Forward, Tensor]:
        """Run chains forward, and in reverse from exact posterior samples ``(B, D)``, the last column, for the upper bound."""
        *rows, z = rows_and_latents
        transitions = self._transitions(rows, pace)
        state = self.path.state_of(rows, z)
        end = transitions.density(state.expand(self.num_chains, *state.shape))
        log_inverse_weights, _ = transitions.reversed().run(end)
        return self._forward(rows, transitions), -log_mean_exp(log_inverse_weights)

    def summary(self, chunks: Sequence[_Forward]) -> AnnealedLikelihood:
        """The results of all images together."""
        bound, acceptance, step = map(torch.cat, zip(*chunks, strict=True)) if chunks else [torch.zeros(0)] * 3
        return AnnealedLikelihood(bound, acceptance, step, self.num_temperatures, self.num_chains)

    def _forward(self, rows: Sequence[Tensor], transitions: _Transitions) -> _Forward:
        log_weights, acceptance = transitions.run(transitions.density(self.path.draw(rows, self.num_chains)))
        return _Forward(log_mean_exp(log_weights), acceptance, transitions.sizes[-1])

    def _transitions(self, rows: Sequence[Tensor], pace: _Pace) -> _Transitions:
        """The transitions with step sizes for these images, from a pilot run whose chains are not used again."""
        density = self.path.density_for(rows, self.num_chains, pace.calls_ahead)
        point = density(self.path.draw(rows, self.num_chains))
        tuned = tune_sizes(density, point, pace(self._pilot()), self.num_leapfrog)[SETTLING:]
        sizes = interpolate(tuned.T[None], size=self.num_temperatures + 1, mode="linear", align_corners=True)[0].T
        return _Transitions(density, temperatures(self.num_temperatures), sizes, self.num_leapfrog, pace)

    def _pilot(self) -> list[float]:
        return [0.0] * SETTLING + temperatures(min(self.num_temperatures, PILOT_TEMPERATURES))


@dataclass(frozen=True, eq=False)
class _Transitions:
    """The transitions, fixed before the chains run, with the sizes of steps at each temperature ``(T + 1, B)``."""

    density: Density
    temperatures: list[float]
    sizes: Tensor
    num_leapfrog: int
    pace: _Pace

    def reversed(self) -> _Transitions:
        """The same transitions in reverse order."""
        return replace(self, temperatures=self.temperatures[::-1], sizes=self.sizes.flip(0))

    def run(self, point: Point) -> tuple[Tensor, Tensor]:
        """Run chains from a point; returns estimates of log Z_end - log Z_begin ``(K, B)`` and the mean acceptance ``(B,)``."""
        total = torch.zeros_like(point.log_weight, dtype=torch.float64)
        acceptance = torch.zeros_like(self.sizes[0])
        for number, (here, there) in enumerate(self.pace(pairwise(self.temperatures))):
            if number:
                point, accepted = transition(self.density, point, here, self.sizes[number], self.num_leapfrog)
                acceptance += accepted.mean(0)
            total += (there - here) * point.log_weight
        # Without a transition this is zero over zero, NaN.
        return total, acceptance / (len(self.temperatures) - 2)


def temperatures(number: int) -> list[float]:
    r"""The temperatures from zero to one in ``number`` steps, which are short at both ends, where densities change most.

    .. math:: b_t = \frac{\sigma(\delta (2 t / T - 1)) - \sigma(-\delta)}{\sigma(\delta) - \sigma(-\delta)}, \quad \delta = 4

    The sigmoidal schedule of Wu et al. (2017).

    >>> [round(each, 3) for each in temperatures(4)]
    [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    sigmoid = torch.sigmoid(torch.linspace(-4, 4, number + 1, dtype=torch.float64))
    return ((sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])).tolist()
