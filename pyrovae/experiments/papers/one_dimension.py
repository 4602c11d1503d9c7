"""The approximation of any density by a VAE in one dimension, computed: Doersch (2016), appendix A.

For data of a density with distribution function F, decoder and guide are given by formulas, not trained:

    f(z) = F^-1(Phi(z)),  p(x|z) = N(x | f(z), sigma^2),  q(z|x) = N(z | g(x), (g'(x) sigma)^2),  g = f^-1

As sigma falls, KL(q(z|x) || p(z|x)) falls to zero (with sigma squared), and the model's density to that of the data. Prior and
likelihood are parts of a Pyro program, and the integrals are sums over its log-densities.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from pyrovae.experiments.papers.computed import ComputedResult
from pyrovae.experiments.papers.outcome import Figure as Value
from pyrovae.experiments.papers.outcome import Row
from pyrovae.experiments.papers.verdicts import FAILS, HOLDS, Verdict
from pyrovae.plots.style import finish, line_style, new_figure
from pyrovae.programs.models import GenerativeModel

# The density of the data: positive everywhere, smooth, and not Gaussian.
WEIGHTS, MEANS, SCALES = (torch.tensor(values, dtype=torch.float64) for values in ((0.6, 0.4), (-1.0, 1.5), (0.6, 0.8)))
SIGMAS = tuple(0.5 / 2**step for step in range(8))
# Halving sigma divides a divergence proportional to sigma squared by about four.
FOUR = 3.8, 4.2
STANDARD = dist.Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))


def data_log_density(x: Tensor) -> Tensor:
    """The log-density of the data."""
    return (dist.Normal(MEANS, SCALES).log_prob(x[..., None]) + WEIGHTS.log()).logsumexp(-1)


def g(x: Tensor) -> Tensor:
    """Compute Phi^-1(F(x)), from the side where the tail is not one."""
    below = (WEIGHTS * dist.Normal(MEANS, SCALES).cdf(x[..., None])).sum(-1)
    above = (WEIGHTS * dist.Normal(-MEANS, SCALES).cdf(-x[..., None])).sum(-1)
    return torch.where(below < 0.5, torch.special.ndtri(below), -torch.special.ndtri(above))


def slope_of_g(x: Tensor) -> Tensor:
    """The derivative of ``g``."""
    return (data_log_density(x) - STANDARD.log_prob(g(x))).exp()


def f(z: Tensor) -> Tensor:
    """Compute g^-1 by bisection: it grows with z."""
    lower, upper = torch.full_like(z, -30.0), torch.full_like(z, 30.0)
    for _ in range(60):
        middle = (lower + upper) / 2
        below = g(middle) < z
        lower, upper = torch.where(below, middle, lower), torch.where(below, upper, middle)
    return (lower + upper) / 2


class Prior(nn.Module):
    """The prior N(0, 1)."""

    def forward(self, context: Tensor | None = None) -> dist.Distribution:  # noqa: D102
        return STANDARD.expand((1,)).to_event(1)


class Likelihood(nn.Module):
    """The likelihood N(f(z), sigma^2)."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, z: Tensor) -> dist.Distribution:  # noqa: D102
        return dist.Normal(f(z), self.sigma).to_event(1)


def divergences(x: Tensor, sigma: float, nodes: int = 401) -> tuple[Tensor, Tensor]:
    """Compute KL(q(z|x) || p(z|x)) in nats, and log p_sigma(x), for each x ``(B,)``: sums over 12 standard deviations of q."""
    guide = dist.Normal(g(x), slope_of_g(x) * sigma)
    steps = torch.linspace(-12, 12, nodes, dtype=torch.float64)[:, None]
    z = guide.loc + guide.scale * steps
    # With all latents fixed, the log-densities of all sites add up to log p(x, z).
    model = poutine.condition(GenerativeModel(Prior(), Likelihood(sigma)), {"z1": z[..., None]})
    trace = poutine.trace(pyro.plate("nodes", nodes, dim=-2)(model)).get_trace(x[:, None])
    trace.compute_log_prob()
    joint = trace.nodes["z1"]["log_prob"] + trace.nodes["x"]["log_prob"]
    width = guide.scale * (steps[1] - steps[0])
    evidence = (joint + width.log()).logsumexp(0)
    log_q = guide.log_prob(z)
    return ((log_q - joint + evidence) * log_q.exp() * width).sum(0), evidence


def falling_divergence() -> ComputedResult:
    """Compute the mean divergence of the guide from the posterior for falling sigmas, each half of the one before."""
    x = torch.linspace(-3, 4, 71, dtype=torch.float64)
    density = data_log_density(x).exp()
    rows, means, curves = [], [], []
    kl_title, error_title = "KL(q(z|x) || p(z|x)), mean over the data, nats", "largest error of log p(x) on [-3, 4], nats"
    for sigma in SIGMAS:
        kl, evidence = divergences(x, sigma)
        means.append(((kl * density).sum() / density.sum()).item())
        curves.append(evidence.exp())
        figures = {kl_title: Value(means[-1], 0.0), error_title: Value((evidence - density.log()).abs().max().item(), 0.0)}
        rows.append(Row(f"sigma {sigma:g}", (), 0, figures, (), "by quadrature", 0.0))
    ratio = means[-2] / means[-1]
    verdict = HOLDS if means == sorted(means, reverse=True) and FOUR[0] < ratio < FOUR[1] else FAILS
    evidence_in_words = (
        f"halving the last sigma divides the divergence by {ratio:.2f}; at sigma {SIGMAS[-1]:g} it is {means[-1]:.1e}"
    )
    statement = "as sigma falls to zero, so does KL(q(z|x) || p(z|x)): the approximation has no error in one dimension"

    figure = new_figure(8, 3.4)
    left, right = figure.subplots(1, 2)
    left.loglog(SIGMAS, means, "o-", color=line_style(0)["color"])
    finish(left, "sigma", "KL(q(z|x) || p(z|x)) (nats)")
    for number, (sigma, curve) in enumerate(list(zip(SIGMAS, curves, strict=True))[:3]):
        right.plot(x, curve, label=f"sigma {sigma:g}", **line_style(number))
    right.plot(x, density, "k--", label="data")
    finish(right, "x", "p(x)")
    right.legend(frameon=False)
    return ComputedResult(
        (kl_title, error_title), rows, (Verdict(statement, verdict, (evidence_in_words,)),), {"falling-divergence": figure}
    )
