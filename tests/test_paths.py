"""Densities between a start distribution and the posterior, against those of the programs."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import NOISE, WEIGHT, Chain
from pyro import poutine

from pyrovae.engine.modules import evaluation_mode
from pyrovae.engine.repeated import RepeatedFunction
from pyrovae.evaluation import paths
from pyrovae.evaluation.paths import GeometricPath, flatten_latents, split_latents
from pyrovae.evaluation.standardized import at_standardized_values
from pyrovae.experiments.building import assemble
from pyrovae.experiments.recipe import Recipe
from pyrovae.inference.weights import log_weights
from pyrovae.programs.conditionals import share_constants

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
    monkeypatch.setattr(paths, "RepeatedFunction", partial(RepeatedFunction, engine="graph"))
    with evaluation_mode():
        path = GeometricPath(chain.model, guide, start)
        density, state = path.density_for([x], 1), path.state_of([x], z)[None]
        point = density(state)
        torch.testing.assert_close(point.log_start[0], dist.Normal(0, 1).log_prob(state[0]).sum(-1))
        torch.testing.assert_close(point.log_weight[0], joint - (posterior if start == "guide" else prior))
        for direction in torch.eye(depth):
            there, back = density(state + 1e-5 * direction), density(state - 1e-5 * direction)
            slope = (there.log_density(0.3) - back.log_density(0.3)) / 2e-5
            torch.testing.assert_close(point.gradient(0.3) @ direction, slope, rtol=1e-6, atol=1e-6)


NOISES = {
    "Gaussian": dist.Normal,
    "Laplace": dist.Laplace,
    "without a variance": lambda loc, scale: dist.StudentT(2.0, loc, scale),
    "without a mean": dist.Cauchy,
}
EVENTS = [(), (2,), (2, 3)]


def hierarchy(noise, event):
    """Model and guide of two layers of any event; what the upper one is decides how wide the lower one is, in the guide."""

    def summed(z):
        return z.reshape(*z.shape[: z.dim() - len(event)], -1).sum(-1)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            above = pyro.sample("z2", dist.Normal(torch.zeros(event), 1.0).to_event(len(event)))
            below = pyro.sample("z1", dist.Normal(0.5 * above, 0.7).to_event(len(event)))
            pyro.sample("x", dist.Normal(summed(below)[..., None] * torch.tensor(WEIGHT), NOISE).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            mean = x.mean(-1).reshape(-1, *[1] * len(event)).expand(-1, *event)
            above = pyro.sample("z2", noise(mean, torch.full(event, 0.8)).to_event(len(event)))
            pyro.sample("z1", noise(0.3 * above, (0.4 * above).exp()).to_event(len(event)))

    return model, guide


def log_weights_of_draws(model, guide, x, num_chains):
    """Those of a path's states, and those of the same draws by the function that everything else is made of."""
    with evaluation_mode():
        path = GeometricPath(model, guide)
        density = path.density_for([x], num_chains)
        torch.manual_seed(1)
        point = density(path.draw([x], num_chains))
        torch.manual_seed(1)
        return point.log_weight, log_weights(model, guide, x, num_particles=num_chains)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("noise", NOISES)
def test_states_of_any_latents_have_the_density_of_their_change_of_variables(noise, event):
    """log s(u) = log q(z) + log |det dz/du|, the derivative by automatic differentiation, for one image and chain."""
    model, guide = hierarchy(NOISES[noise], event)
    x = torch.tensor(DATA[:1])
    path = GeometricPath(model, guide)
    state = path.draw([x], 1)
    shapes = {"z1": torch.Size(event), "z2": torch.Size(event)}

    def latents_of(state):
        with at_standardized_values(split_latents(state, shapes)), pyro.plate("chains", 1, dim=-2):
            trace = poutine.trace(guide).get_trace(x)
        return flatten_latents([trace.nodes[name]["value"] for name in shapes], 2)[0, 0]

    with at_standardized_values(split_latents(state, shapes)), pyro.plate("chains", 1, dim=-2):
        log_density = poutine.trace(guide).get_trace(x).log_prob_sum()
    jacobian = torch.autograd.functional.jacobian(latents_of, state)[:, 0, 0]
    log_start = path.density_for([x], 1)(state).log_start
    torch.testing.assert_close(log_start.squeeze(), log_density + jacobian.logdet())
    torch.testing.assert_close(path.state_of([x], latents_of(state)[None]), state[0])
    torch.testing.assert_close(*log_weights_of_draws(model, guide, torch.tensor(DATA), 4))


def masked(chain, guide):
    return (poutine.mask(program, mask=torch.tensor([True, False, True])) for program in (chain.model, guide))


def scaled(chain, guide):
    return (poutine.scale(program, scale=0.3) for program in (chain.model, guide))


@pytest.mark.parametrize("handled", [masked, scaled])
def test_weights_are_counted_as_handlers_count_them(handled):
    chain = Chain(2)
    model, guide = handled(chain, chain.wrong_guide("ladder"))
    torch.testing.assert_close(*log_weights_of_draws(model, guide, torch.tensor(DATA), 4))


def test_weights_under_a_subsampled_plate_are_those_of_the_examples_alone():
    def model(x):
        with pyro.plate("data", 1000, subsample=x):
            z = pyro.sample("z1", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).expand([*z.shape[:-1], 3]).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", 1000, subsample=x):
            pyro.sample("z1", dist.Normal(x[:, :2], 0.8).to_event(1))

    torch.testing.assert_close(*log_weights_of_draws(model, guide, torch.tensor(DATA), 4))


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_a_prior_that_is_shared_by_all_chunks_is_that_of_each(prior):
    """Log-weights of the same draws: the path's, under components that an earlier chunk encoded, and the programs' own."""
    sizes = {"latent_sizes": (4,), "hidden_sizes": (8,), "hidden_layers": 1, "num_components": 3}
    recipe = Recipe(guide="ladder", prior=prior, likelihood="bernoulli", batch_norm=True, **sizes)
    vae, x = assemble(recipe, (1, 2, 3)).double(), torch.bernoulli(torch.full((5, 6), 0.5))
    path = GeometricPath(vae.model, vae.guide)
    with evaluation_mode(), share_constants():
        for rows in (x[:3], x[3:], x[1:4]):
            density = path.density_for([rows], 4, calls_ahead=100)
            torch.manual_seed(1)
            point = density(path.draw([rows], 4))
            torch.manual_seed(1)
            torch.testing.assert_close(point.log_weight, log_weights(vae.model, vae.guide, rows, num_particles=4))
