"""Every likelihood is a density of the data that it says, samples from it, and trains."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monte_carlo import without_rare
from pyro.distributions.testing import gof

from pyrovae.data.datasets import Dataset
from pyrovae.data.protocol import Protocol
from pyrovae.programs.distributions import ContinuousBits, DiscretizedLogistic
from pyrovae.programs.likelihoods import LIKELIHOODS

# Columns of several kinds have tests of their own: test_columns.py.
DENSITIES = [name for name, each in LIKELIHOODS.items() if each.normalized and name != "mixed"]
LEVELS = torch.arange(256) / 255
PROTOCOL = Protocol(dataset="grey", sizes=(64, 0, 64))
DATA = Dataset("grey", (torch.rand(64, 12) * 255).round() / 255, None, torch.rand(64, 12).round(), {}, (1, 3, 4), PROTOCOL)


def head(name, size=1):
    torch.manual_seed(2)
    return LIKELIHOODS[name](6, size)


def grid(name):
    """Points that cover nearly all the mass, and what each of them counts for."""
    if "bits" in LIKELIHOODS[name].values:
        return torch.tensor([0.0, 1.0]), 1.0
    if name == "discretized_logistic":
        return LEVELS, 1.0
    if "counts" in LIKELIHOODS[name].values:
        return torch.arange(2000.0), 1.0
    if name == "continuous_bernoulli":
        return (torch.arange(20_000) + 0.5) / 20_000, 1 / 20_000
    return torch.linspace(-20, 20, 40_001), 1e-3


@pytest.mark.parametrize("name", DENSITIES)
def test_a_likelihood_sums_to_one_and_has_the_mean_that_it_says(name):
    features = 3 * torch.randn(5, 6)
    points, width = grid(name)
    with torch.no_grad():
        distribution = head(name)(features)
        mass = distribution.log_prob(points[:, None, None]).double().exp() * width
    torch.testing.assert_close(mass.sum(0), torch.ones(5).double(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close((mass * points[:, None]).sum(0).float(), distribution.mean[:, 0], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", DENSITIES)
def test_samples_agree_with_the_density(name):
    """A goodness of fit on 20,000 samples; false alarms: one in a thousand."""
    with torch.no_grad():
        distribution = head(name)(torch.randn(6))
        samples = distribution.sample((20_000,))
        if not LIKELIHOODS[name].discrete:
            assert gof.auto_goodness_of_fit(samples, distribution.log_prob(samples).exp()) > 1e-3
            return
        points, _ = grid(name)
        counts, probabilities = without_rare(samples, points, distribution.log_prob(points[:, None]).exp())
    assert gof.multinomial_goodness_of_fit(probabilities, counts, total_count=len(samples)) > 1e-3


def test_levels_far_from_the_location_keep_their_digits():
    """In double precision by differences of the distribution function, where single precision would give log 0."""
    loc, scale = torch.tensor(0.5), torch.tensor(0.02)
    exact = torch.sigmoid((LEVELS.double() + 0.5 / 255 - 0.5) / 0.02) - torch.sigmoid(
        (LEVELS.double() - 0.5 / 255 - 0.5) / 0.02
    )
    ours = DiscretizedLogistic(loc, scale).log_prob(LEVELS)
    torch.testing.assert_close(ours[1:-1], exact[1:-1].log().float(), rtol=1e-4, atol=1e-4)
    sharp = DiscretizedLogistic(loc, torch.tensor(0.001)).log_prob(LEVELS)
    assert sharp.isfinite().all()


def test_the_continuous_bernoulli_is_not_the_cross_entropy():
    features, grey = torch.randn(6), torch.full((1,), 0.5)
    conditional = head("continuous_bernoulli")
    cross_entropy = -F.binary_cross_entropy_with_logits(conditional.readout(features), grey, reduction="none")
    assert conditional(features).log_prob(grey) > cross_entropy[0] + 0.5


def test_the_cross_entropy_scores_grey_values_and_is_no_density():
    """Of bits it is the Bernoulli likelihood; over [0, 1] its exponential does not integrate to one."""
    features, bits = torch.randn(6), torch.tensor([[0.0], [1.0]])
    conditional = head("cross_entropy")
    torch.testing.assert_close(conditional(features).log_prob(bits), head("bernoulli")(features).log_prob(bits))
    grey = (torch.arange(20_000) + 0.5)[:, None] / 20_000
    assert abs(conditional(features).log_prob(grey).exp().mean() - 1) > 0.1
    assert not LIKELIHOODS["cross_entropy"].normalized


def test_the_mean_of_continuous_bits_keeps_its_digits():
    """Against the integral by Gauss and Legendre in float64; torch's own is off by a thousandth near one half."""
    logits = torch.cat([torch.logspace(-6, 1.5, 400), -torch.logspace(-6, 1.5, 400)])
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(200))
    x = (nodes + 1) / 2
    densities = torch.exp(logits.double()[:, None] * x - logits.double().abs()[:, None])
    exact = (densities * x * weights).sum(1) / (densities * weights).sum(1)
    found = ContinuousBits(logits=logits)
    torch.testing.assert_close(found.mean.double(), exact, rtol=2e-6, atol=0)
    torch.testing.assert_close(found.expand((2, 800)).mean[1], found.mean)
