"""Densities between a start distribution and the posterior, against those of the programs."""

from functools import partial

import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import Chain

from pyrovae.evaluation import paths
from pyrovae.evaluation.paths import GeometricPath
from pyrovae.evaluation.repeated import Repeated
from pyrovae.inference.modules import evaluation_mode
from pyrovae.inference.weights import log_weights
from pyrovae.programs.conditionals import share_constants
from pyrovae.recipes import assemble
from pyrovae.settings import Recipe

pytestmark = pytest.mark.usefixtures("float64")

DATA = [[0.5, -1.0, 0.2], [2.0, 0.3, -0.7], [-1.5, 0.8, 0.0]]


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("start", ["guide", "prior"])
def test_a_path_holds_the_densities_and_gradients_of_the_programs(start, depth, monkeypatch):
    """Against log-densities of the conditionals at the same values; the gradients by central differences."""
    chain, x = Chain(depth), torch.tensor(DATA)
    guide = chain.wrong_guide("mean_field")
    z = torch.randn(3, depth)
    layers = z.split(1, -1)
    prior = dist.Normal(0, 1).log_prob(layers[-1]).sum(-1)
    for conditional, below, above in zip(chain.model.conditionals, layers, layers[1:], strict=False):
        prior = prior + conditional(above).log_prob(below)
    joint = prior + chain.model.likelihood(layers[0]).log_prob(x)
    posterior = sum(head(x).log_prob(layer) for head, layer in zip(guide.encoder.heads, layers, strict=True))
    monkeypatch.setattr(paths, "Repeated", partial(Repeated, engine="graph"))
    with evaluation_mode():
        path = GeometricPath(chain.model, guide, start)
        density, state = path.given([x], 1), path.state_of([x], z)[None]
        point = density(state)
        torch.testing.assert_close(point.log_start[0], dist.Normal(0, 1).log_prob(state[0]).sum(-1))
        torch.testing.assert_close(point.log_weight[0], joint - (posterior if start == "guide" else prior))
        for direction in torch.eye(depth):
            there, back = density(state + 1e-5 * direction), density(state - 1e-5 * direction)
            slope = (there.log_density(0.3) - back.log_density(0.3)) / 2e-5
            torch.testing.assert_close(point.gradient(0.3) @ direction, slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_a_prior_that_is_shared_by_all_chunks_is_that_of_each(prior):
    """Log-weights of the same draws: the path's, under components that an earlier chunk encoded, and the programs' own."""
    sizes = {"latent_sizes": (4,), "hidden_sizes": (8,), "hidden_layers": 1, "num_components": 3}
    recipe = Recipe(guide="ladder", prior=prior, likelihood="bernoulli", batch_norm=True, **sizes)
    vae, x = assemble(recipe, (1, 2, 3)).double(), torch.bernoulli(torch.full((5, 6), 0.5))
    path = GeometricPath(vae.model, vae.guide)
    path.calls_ahead = 100
    with evaluation_mode(), share_constants():
        for rows in (x[:3], x[3:], x[1:4]):
            density = path.given([rows], 4)
            torch.manual_seed(1)
            point = density(path.draw([rows], 4))
            torch.manual_seed(1)
            torch.testing.assert_close(point.log_weight, log_weights(vae.model, vae.guide, rows, num_particles=4))
