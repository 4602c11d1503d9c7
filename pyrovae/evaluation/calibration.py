"""Simulation-based calibration of a guide: the ranks of the latents that made an example among draws given the example."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from scipy.stats import binom
from torch import nn

from pyrovae.evaluation.latents import latent_sites
from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE, Estimates, LogLikelihood, log_likelihood
from pyrovae.evaluation.measuring import measuring
from pyrovae.evaluation.paths import simulate_by_site
from pyrovae.inference.plates import Site, sample_sites

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.engine.modules import Program

Track = Callable[[Sequence[Any]], Iterable[Any]]

# The probabilities of the central intervals whose coverage is reported.
LEVELS = (0.5, 0.9)
# The probability that a guide without any fault is said to have one, over all its units and tests together.
FALSE_ALARMS = 0.01
# With fewer examples the statistics are not normal; with fewer draws no rank is outside the interval of 90 %.
FEWEST_EXAMPLES, FEWEST_DRAWS = 100, 19


@dataclass(frozen=True, eq=False)
class UnitVerdicts:
    r"""The faults of the units of one layer, each tested at a false-alarm rate over all units of all layers.

    Two statistics of the ranks are standard normal where the guide is the posterior: their mean, and their variance about it,
    each less its mean and divided by its standard deviation under uniform ranks. A shift of the guide makes ranks vary less, so
    that a shifted unit is not said to be too wide as well.

    Args:
        shift: the statistic of the mean ``(D_l,)``; above zero where the guide's draws are too low.
        spread: the statistic of the variance ``(D_l,)``; above zero where the guide is too narrow, or its location, example by
            example, is wrong by more than its deviation says.
        shift_p: the two-sided p-value of ``shift`` ``(D_l,)``, times the number of tests of all layers.
        spread_p: the same of ``spread``.
        false_alarms: the p-value below which a unit has a fault.
    """

    shift: Tensor
    spread: Tensor
    shift_p: Tensor
    spread_p: Tensor
    false_alarms: float

    @property
    def shifted(self) -> Tensor:
        """True for each unit whose draws are too low or too high ``(D_l,)``."""
        return self.shift_p < self.false_alarms

    @property
    def too_narrow(self) -> Tensor:
        """True for each unit whose draws are too close together ``(D_l,)``."""
        return (self.spread_p < self.false_alarms) & (self.spread > 0)

    @property
    def too_wide(self) -> Tensor:
        """True for each unit whose draws are too far apart ``(D_l,)``."""
        return (self.spread_p < self.false_alarms) & (self.spread < 0) & ~self.shifted

    @property
    def faults(self) -> dict[str, list[int]]:
        """The numbers of the units with each fault, from 1; faults that no unit has are left out."""
        found = {"too narrow": self.too_narrow, "too wide": self.too_wide, "shifted": self.shifted}
        return {name: (each.nonzero()[:, 0] + 1).tolist() for name, each in found.items() if each.any()}

    def __str__(self) -> str:
        counts = [f"{name}: {len(units)} of {len(self.shift)} units" for name, units in self.faults.items()]
        return ", ".join(counts) or "calibrated"


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """The calibration of a guide on examples that the model drew.

    Args:
        ranks: by layer, the number of draws below the true latent of each example and unit ``(N, D_l)``, from 0 to L.
        num_draws: the number L of draws.
        log_likelihood: importance sampling and the ELBO of the same examples, in nats.
        log_weights: log p(x, z) - log q(z | x) at the latents that made each example ``(N,)``, in nats.
    """

    ranks: Mapping[str, Tensor]
    num_draws: int
    log_likelihood: LogLikelihood
    log_weights: Tensor

    @property
    def num_examples(self) -> int:
        """The number N of examples."""
        return len(self.log_likelihood.per_image)

    @property
    def num_units(self) -> int:
        """The number of units of all layers."""
        return sum(each.shape[1] for each in self.ranks.values())

    @property
    def gap(self) -> Estimates:
        """The log-likelihood less the ELBO of each example, in nats: KL(q(z | x) || p(z | x)), too low as the former is."""
        return Estimates(self.log_likelihood.per_image - self.log_likelihood.elbo_per_image)

    @property
    def largest_gap(self) -> Estimates:
        r"""The mean gap bounded from above, in nats, by the latents that made each example, draws of its posterior.

        .. math:: E[\log p(x, z^*) - \log q(z^* | x)] - L = \operatorname{KL}(q \| p) + \operatorname{KL}(p \| q)
        """
        return Estimates(self.log_weights - self.log_likelihood.elbo_per_image)

    def coverage(self, level: float) -> dict[str, Tensor]:
        """The share of examples whose latent is in the central interval of the draws ``(D_l,)``, by layer."""
        lowest = _lowest_inside(self.num_draws, level)
        inside = {name: (each >= lowest) & (each <= self.num_draws - lowest) for name, each in self.ranks.items()}
        return {name: each.double().mean(0) for name, each in inside.items()}

    def coverage_band(self, level: float, false_alarms: float = FALSE_ALARMS) -> tuple[float, float]:
        """The lowest and highest coverage that chance gives an exact guide, over all units and ``LEVELS`` together."""
        low, high = binomial_band(
            self.num_examples, expected_coverage(self.num_draws, level), false_alarms / (self.num_units * len(LEVELS))
        )
        return low / self.num_examples, high / self.num_examples

    def verdicts(self, false_alarms: float = FALSE_ALARMS) -> dict[str, UnitVerdicts]:
        """The faults of each layer's units, by layer; an exact guide has one with about probability ``false_alarms``."""
        return {name: self._verdicts_of(each, false_alarms) for name, each in self.ranks.items()}

    def _verdicts_of(self, ranks: Tensor, false_alarms: float) -> UnitVerdicts:
        shift, spread, tests = shift_score(ranks, self.num_draws), spread_score(ranks, self.num_draws), 2 * self.num_units
        return UnitVerdicts(shift, spread, _p_value(shift, tests), _p_value(spread, tests), false_alarms)

    def __repr__(self) -> str:
        layers = "; ".join(f"{name} {each}" for name, each in self.verdicts().items())
        gap = f"{self.gap.mean:.2f} ± {self.gap.standard_error:.2f} nats"
        return f"Calibration({layers}; gap {gap}; {self.num_examples} simulated examples, {self.num_draws} draws each)"


def calibrate(
    model: nn.Module,
    guide: Program,
    num_examples: int = 1000,
    *,
    num_draws: int = 99,
    num_samples: int = 1000,
    context: Tensor | None = None,
    track: Callable[[str, str], Track] = lambda label, unit: iter,
) -> Calibration:
    r"""Calibrate a guide on examples that the model draws with their latents.

    .. math:: z^* \sim p(z), \quad x \sim p(x | z^*), \quad z_1, \dots, z_L \sim q(z | x), \quad
        r = \#\{l : z_l < z^*\}

    For each unit. Where q(z | x) is the posterior, z* and the draws are exchangeable, and r is uniform on 0, ..., L. A layer's
    draws are of the joint density of all layers of the guide, hence of the layer's marginal. Only draws of the guide are
    needed. Talts et al. (2018), algorithm 1; Yao et al. (2018), section 4, for variational posteriors. What is found holds on
    average over examples that the model itself makes, which real ones may not be like.

    Args:
        model: the generative program.
        guide: q(z | x, c).
        num_examples: the number N of examples; with contexts, their number.
        num_draws: the number L of draws; with 99 both intervals of ``LEVELS`` have a whole number of ranks.
        num_samples: the number of importance samples of ``log_likelihood``.
        context: the contexts c ``(N, C)`` of a conditional model.
        track: function from a label and a unit to one that wraps a sequence, to show progress.

    Raises:
        ValueError: for fewer than ``FEWEST_EXAMPLES`` examples or ``FEWEST_DRAWS`` draws, a model that does not draw data at a
            site ``x`` when called without, and a guide that draws none of the model's latents.
    """
    num_examples = num_examples if context is None else len(context)
    for name, number, fewest in (("examples", num_examples, FEWEST_EXAMPLES), ("draws", num_draws, FEWEST_DRAWS)):
        if number < fewest:
            raise ValueError(f"expected at least {fewest} {name}, fewer of which show nothing; got {number}")
    chunks = _simulated(model, num_examples, context)
    with measuring(model, guide):
        tracked = track("ranking latents", f"x {IMAGES_AT_ONCE} examples")(range(-(-num_examples // IMAGES_AT_ONCE)))
        drawn = [
            (rows[0], _ranks(guide, rows, latents, num_draws), _log_weights(model, guide, rows, latents))
            for _, (rows, latents) in zip(tracked, chunks, strict=True)
        ]
    ranks = {name: torch.cat([each[name] for _, each, _ in drawn]).cpu() for name in sorted(drawn[0][1])}
    x, weights = torch.cat([rows for rows, _, _ in drawn]), torch.cat([each for *_, each in drawn])
    sampling = track("importance sampling", f"x {IMAGES_AT_ONCE} examples")
    found = log_likelihood(model, guide, x, num_samples, context=context, track=sampling)
    return Calibration(ranks, num_draws, found, weights.to(found.per_image))


def _simulated(
    model: nn.Module, num_examples: int, context: Tensor | None
) -> Iterator[tuple[tuple[Tensor, ...], dict[str, Tensor]]]:
    """Draw examples, ``IMAGES_AT_ONCE`` of them at a time: the rows for programs, and their latents by site."""
    for start in range(0, num_examples, IMAGES_AT_ONCE):
        contexts = () if context is None else (context[start : start + IMAGES_AT_ONCE],)
        x, latents = simulate_by_site(model, min(IMAGES_AT_ONCE, num_examples - start), *contexts)
        yield (x, *contexts), latents


def _ranks(guide: Program, rows: Sequence[Tensor], latents: Mapping[str, Tensor], num_draws: int) -> dict[str, Tensor]:
    """The ranks ``(B, D_l)`` of latents among draws of the guide, by site that both have."""
    below: dict[str, Tensor] = {}
    for _ in range(num_draws):
        for name, site in latent_sites(guide, rows).items():
            if name in latents:
                below[name] = below.get(name, 0) + (site["value"] < latents[name]).flatten(1).long()
    if not below:
        raise ValueError(f"expected a guide that draws latents of the model, {sorted(latents)}; it draws none of them")
    return below


def _log_weights(model: Program, guide: Program, rows: Sequence[Tensor], latents: Mapping[str, Tensor]) -> Tensor:
    """The log-weight ``(B,)`` of the latents that made each example; latents that the guide does not draw do not count."""
    conditioned = (poutine.trace(poutine.condition(each, dict(latents))).get_trace(*rows) for each in (model, guide))
    of_model, of_guide = (list(sample_sites(prune_subsample_sites(each))) for each in conditioned)
    drawn = [site["name"] for site in of_guide]
    counted = [site for site in of_model if site["name"] in drawn or site["name"] not in latents]
    terms = [_log_prob(site) for site in counted] + [-_log_prob(site) for site in of_guide]
    return torch.stack(terms).sum(0)


def _log_prob(site: Site) -> Tensor:
    density: Tensor = site["fn"].log_prob(site["value"])
    return density.double().reshape(len(density), -1).sum(1)


def shift_score(ranks: Tensor, num_draws: int) -> Tensor:
    r"""The mean of ranks ``(N, D)``, standard normal for many uniform ones ``(D,)``.

    .. math:: \frac{\bar r - L / 2}{\sqrt{m_2 / N}}, \quad m_2 = \frac{(L + 1)^2 - 1}{12}
    """
    second, _ = _moments(num_draws)
    return (ranks.double().mean(0) - num_draws / 2) / (second / len(ranks)) ** 0.5


def spread_score(ranks: Tensor, num_draws: int) -> Tensor:
    r"""The variance of ranks ``(N, D)``, standard normal for many uniform ones ``(D,)``; above zero for a U-shape.

    .. math:: \frac{s^2 - m_2}{\sqrt{(m_4 - m_2^2 (N - 3) / (N - 1)) / N}}, \quad
        m_4 = \frac{((L + 1)^2 - 1)(3 (L + 1)^2 - 7)}{240}

    The moments are those of the uniform distribution on 0, ..., L, and mean and variance of :math:`s^2` are exact.
    """
    (second, fourth), count = _moments(num_draws), len(ranks)
    variance = (fourth - second**2 * (count - 3) / (count - 1)) / count
    return (ranks.double().var(0) - second) / variance**0.5


def _moments(num_draws: int) -> tuple[float, float]:
    """The second and fourth central moment of the uniform distribution on 0, ..., L."""
    square = (num_draws + 1) ** 2
    return (square - 1) / 12, (square - 1) * (3 * square - 7) / 240


def _p_value(score: Tensor, tests: int) -> Tensor:
    """The two-sided p-value of a standard normal score, times the number of tests: Bonferroni's correction."""
    return (tests * torch.special.erfc(score.abs() / 2**0.5)).clamp(max=1.0)


def _lowest_inside(num_draws: int, level: float) -> int:
    """The lowest rank inside the central interval of a level; it is L less the highest."""
    return round((num_draws + 1) * (1 - level) / 2)


def expected_coverage(num_draws: int, level: float) -> float:
    """The probability that a uniform rank is in the central interval of a level, which is a whole number of ranks.

    >>> expected_coverage(99, 0.9), expected_coverage(19, 0.5)
    (0.9, 0.5)
    """
    return 1 - 2 * _lowest_inside(num_draws, level) / (num_draws + 1)


def binomial_band(number: int, probability: Any, false_alarms: float) -> tuple[Any, Any]:
    """The lowest and highest count among ``number``, beyond which chance leads with probability ``false_alarms`` at most."""
    return binom.ppf(false_alarms / 2, number, probability), binom.isf(false_alarms / 2, number, probability)
