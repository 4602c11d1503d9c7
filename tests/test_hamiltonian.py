"""Transitions against Gaussians.

Statistical checks allow five standard errors: a false alarm in 1.7 million, for seeds that are fixed anyway.
"""

import math

import pyro.distributions as dist
import pytest
import torch

from pyrovae.evaluation.hamiltonian import leapfrog, transition, tune_sizes
from pyrovae.evaluation.paths import Point

pytestmark = pytest.mark.usefixtures("float64")


class Gaussian:
    """A density for transitions alone: N(mean, covariance), the same at every temperature."""

    def __init__(self, mean, covariance):
        self.target = dist.MultivariateNormal(torch.tensor(mean), torch.tensor(covariance))

    def __call__(self, z):
        log_density = self.target.log_prob(z)
        gradient = (self.target.loc - z) @ self.target.precision_matrix
        return Point(z, log_density, torch.zeros_like(log_density), gradient, torch.zeros_like(z))


MEAN, COVARIANCE = [1.0, -2.0], [[1.0, 0.6], [0.6, 0.5]]


def test_transitions_leave_a_gaussian_invariant():
    """From exact samples, ten transitions of a large step: means and covariances within five standard errors."""
    density = Gaussian(MEAN, COVARIANCE)
    point = density(density.target.sample((400, 100)))
    first = point.state
    for _ in range(10):
        point, acceptance = transition(density, point, 0.5, torch.full((100,), 0.45), 5)
    assert 0.3 < acceptance.mean() < 0.95, "nothing was refused: no test of the correction"
    assert (point.state - first).abs().mean() > 0.3, "the chains did not move"
    centred = point.state - density.target.loc
    for moment, truth in ((centred, torch.zeros(2)), (centred[..., None] * centred[..., None, :], torch.tensor(COVARIANCE))):
        error = moment.flatten(0, 1).std(0) / math.sqrt(first.shape[0] * first.shape[1])
        assert ((moment.mean((0, 1)) - truth).abs() < 5 * error).all()


def test_a_trajectory_comes_back_when_its_momentum_is_turned_round():
    density = Gaussian(MEAN, COVARIANCE)
    start, momentum = density(torch.randn(4, 3, 2)), torch.randn(4, 3, 2)
    end, last = leapfrog(density, start, momentum, 0.3, torch.tensor([0.2, 0.4]), 10)
    back, turned = leapfrog(density, end, -last, 0.3, torch.tensor([0.2, 0.4]), 10)
    assert (end.state - start.state).abs().mean() > 0.1
    torch.testing.assert_close(back.state, start.state, rtol=0, atol=1e-10)
    torch.testing.assert_close(turned, -momentum, rtol=0, atol=1e-10)


def test_a_leapfrog_step_errs_by_the_third_power_of_its_size():
    density = Gaussian(MEAN, COVARIANCE)
    start, momentum = density(torch.randn(50, 3, 2)), torch.randn(50, 3, 2)

    def error(size, steps):
        end, last = leapfrog(density, start, momentum, 0.0, torch.tensor(size), steps)
        return (end.log_start - start.log_start + 0.5 * (momentum**2 - last**2).sum(-1)).abs().mean()

    assert error(0.02, 1) / error(0.01, 1) == pytest.approx(8, rel=0.05)
    assert error(0.02, 5) / error(0.01, 10) == pytest.approx(4, rel=0.05), "over one stretch of time the square"


@pytest.mark.parametrize("num_chains", [1, 10])
def test_sizes_settle_where_the_target_is_accepted(num_chains):
    """In scales that differ threefold; of the last hundred of 200 transitions, over 50 images."""
    density = Gaussian([0.0] * 4, torch.diag(torch.tensor([0.1, 1.0, 0.5, 1.0])).tolist())
    start = density(density.target.sample((num_chains, 50)))
    sizes = tune_sizes(density, start, [0.0] * 200, 10)
    assert sizes.shape == (200, 50)
    step = sizes[100:].log().mean(0).exp()
    rates = [transition(density, density(density.target.sample((200, 50))), 0.0, step, 10)[1].mean() for _ in range(5)]
    assert 0.5 < torch.stack(rates).mean() < 0.8


def test_a_density_that_is_not_a_number_is_refused():
    def density(z):
        inside = torch.where(z.abs() < 1, 0.0, torch.nan).sum(-1)
        return Point(z, inside, torch.zeros_like(inside), torch.zeros_like(z), torch.zeros_like(z))

    start = density(torch.zeros(50, 1, 1))
    end, acceptance = transition(density, start, 0.0, torch.ones(1), 1)
    assert end.log_start.isfinite().all()
    assert set(acceptance.flatten().tolist()) == {0.0, 1.0}
