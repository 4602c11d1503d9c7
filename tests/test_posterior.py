"""Draws of the posterior: moments of an exact one, weights of two modes, what ArviZ makes of them, refusals."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import Chain
from pictured import dataset, trained
from pyro.distributions import MixtureSameFamily

from pyrovae.errors import InputError
from pyrovae.evaluation.calibration import calibrate
from pyrovae.evaluation.paths import simulate
from pyrovae.evaluation.posterior import (
    METHODS,
    PosteriorDraws,
    _independent_draws,
    hamiltonian_posterior,
    import_arviz,
    resample_posterior,
)
from pyrovae.evaluation.weighing import heavy_tail
from pyrovae.experiments.building import assemble
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.training import train
from pyrovae.programs.guides import GUIDES
from pyrovae.programs.priors import PRIORS


def exact_moments(chain, x):
    """Means ``(B, 2)`` and covariance of z1 and z2 given data, by conditioning their joint Gaussian."""
    (first, var_1), (top, var_2) = chain.marginals()
    joint = torch.tensor([[var_1, chain.slopes[0] * var_2], [chain.slopes[0] * var_2, var_2]])
    cross = joint[:, :1] * chain.weight
    seen = var_1 * torch.outer(chain.weight, chain.weight) + 0.7**2 * torch.eye(3)
    gain = cross @ torch.linalg.inv(seen)
    mean = torch.tensor([first, top]) + (x - chain.weight * first - chain.bias) @ gain.T
    return mean, joint - gain @ cross.T


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("method", "family"),
    [(resample_posterior, "ladder"), (resample_posterior, "bottom_up"), (hamiltonian_posterior, "ladder")],
)
def test_draws_have_the_moments_of_the_exact_posterior_of_two_layers(method, family):
    """From a wrong guide: means and covariances within five standard errors, by the effective sample size."""
    chain = Chain(2)
    x = chain.model(batch_size=8).detach()
    how = {"num_proposals": 40_000} if method is resample_posterior else {"num_warmup": 60, "num_leapfrog": 4}
    number = 8000 if method is resample_posterior else 300
    found = method(chain.model, chain.wrong_guide(family), x, number, **how)
    draws = torch.cat([found.draws["z1"], found.draws["z2"]], -1).flatten(0, 1)
    mean, covariance = exact_moments(chain, x)
    size = found.by_example["effective_sample_size"][:, None]
    assert size.min() > 150
    error = covariance.diagonal().sqrt() / size.sqrt()
    assert ((draws.mean(0) - mean).abs() < 5 * error).all()
    centred = draws - mean
    products = (centred[..., None] * centred[..., None, :]).mean(0)
    # The variance of a product of two normal numbers: var_1 var_2 + cov^2.
    spread = (torch.outer(covariance.diagonal(), covariance.diagonal()) + covariance**2).sqrt() / size[..., None].sqrt()
    # Squares are less correlated along a chain than numbers, or as much.
    assert ((products - covariance).abs() < 5 * spread).all()
    assert (draws.mean(0).std(0) > 3 * error.mean(0)).all(), "examples differ: a mean over them would not do"


def two_modes(x=None, batch_size=1):
    """z is near 2 with probability 0.7 and near -2 else, and x says nothing of it."""
    modes = dist.Normal(torch.tensor([[2.0], [-2.0]]), 0.3).to_event(1)
    with pyro.plate("data", batch_size if x is None else len(x)):
        pyro.sample("z1", MixtureSameFamily(dist.Categorical(torch.tensor([0.7, 0.3])), modes))
        return pyro.sample("x", dist.Normal(torch.zeros(1), 1.0).to_event(1), obs=x)


def at(loc, scale):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(torch.full((1,), loc), scale).to_event(1))

    return guide


def test_resampling_recovers_the_weights_of_both_modes_from_a_guide_that_reaches_both():
    """20,000 draws of 60,000 proposals: five errors of the share are tolerated."""
    found = resample_posterior(two_modes, at(0.5, 2.0), torch.zeros(4, 1), 20_000, num_proposals=60_000)
    assert found.by_example["reliable"].all()
    size = found.by_example["effective_sample_size"]
    share = (found.draws["z1"] < 0).double().mean((0, 1))[:, 0]
    assert ((share - 0.3).abs() < 5 * (0.3 * 0.7 / size) ** 0.5).all()


def test_the_pareto_k_shows_that_a_guide_reaches_a_mode_too_seldom():
    """Six proposals of 10,000 are near the other mode."""
    found = resample_posterior(two_modes, at(2.0, 1.2), torch.zeros(20, 1), 100, num_proposals=10_000)
    assert (found.by_example["pareto_k"] > heavy_tail(10_000)).all()
    assert not found.by_example["reliable"].any()
    assert "0 of 20 examples reliable" in repr(found)


def test_a_mode_that_no_proposal_reaches_is_shown_by_nothing():
    """The limit that the documentation states."""
    found = resample_posterior(two_modes, at(2.0, 0.3), torch.zeros(20, 1), 100, num_proposals=10_000)
    assert found.by_example["reliable"].all()
    assert (found.draws["z1"] > 0).all()


def test_chains_that_do_not_agree_are_not_reliable():
    """Chains that start in either mode stay there."""
    found = hamiltonian_posterior(two_modes, at(0.0, 2.0), torch.zeros(5, 1), 50, num_chains=8, num_warmup=50, num_leapfrog=5)
    assert not found.by_example["reliable"].any()


@pytest.mark.parametrize("guide", GUIDES)
def test_resampled_draws_of_every_guide_are_of_the_posterior(guide):
    """The latents that made an example rank uniformly among them, and not among draws of the guide: five standard errors."""
    chain = Chain(2)
    wrong = chain.wrong_guide(guide)
    assert calibrate(chain.model, wrong, 300, num_draws=19, num_samples=10).verdicts()["z1"].faults
    with torch.no_grad():
        x, truth = simulate(chain.model, 1000)
    found = resample_posterior(chain.model, wrong, x, 19, num_proposals=1000)
    for number, name in enumerate(("z1", "z2")):
        below = (found.draws[name][0, :, :, 0] < truth[:, number]).sum(0).double()
        assert (below.mean() - 9.5).abs() < 5 * (399 / 12 / 1000) ** 0.5
        assert (below.var() / (399 / 12) - 1).abs() < 5 * (0.8 / 1000) ** 0.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prior", [*PRIORS, "posterior flow"])
def test_every_prior_and_posterior_is_drawn_from(prior, method):
    sizes = {"latent_sizes": (3, 2), "hidden_sizes": (4, 4), "hidden_layers": 1, "num_components": 3}
    how = {"prior": prior} if prior in PRIORS else {"posterior": "flow", "flow_transforms": 1}
    told = prior == "conditional_gaussian"
    recipe = Recipe(guide="ladder", likelihood="bernoulli", condition="label" if told else "none", **sizes, **how)
    vae = assemble(recipe, (1, 2, 3), 3)
    x, context = torch.ones(5, 6), torch.eye(3)[torch.arange(5) % 3] if told else None
    how = {"num_proposals": 50} if method == "resampling" else {"num_warmup": 2, "num_leapfrog": 1}
    found = METHODS[method](vae.model, vae.guide, x, 6, context=context, **how)
    chains = 1 if method == "resampling" else 4
    assert {name: each.shape for name, each in found.draws.items()} == {"z1": (chains, 6, 5, 3), "z2": (chains, 6, 5, 2)}
    assert all(each.isfinite().all() for each in found.draws.values())
    assert all(each.shape == (chains, 6, 5) for each in found.by_draw.values())
    assert all(each.shape == (5,) for each in found.by_example.values())


def test_rows_do_not_depend_on_their_neighbours_in_memory():
    """Chunks of a few rows, whose numbers differ: each row is of its own example."""
    chain = Chain(2)
    x = torch.linspace(-3, 3, 23)[:, None] * torch.tensor([1.0, -0.5, 0.3])
    found = resample_posterior(chain.model, chain.exact_guides()["ladder"], x, 400, num_proposals=2000)
    mean, covariance = exact_moments(chain, x)
    drawn = torch.cat([found.draws["z1"], found.draws["z2"]], -1)[0].mean(0)
    assert ((drawn - mean).abs() < 5 * covariance.diagonal().sqrt() / 300**0.5).all()


# ArviZ.


def test_arviz_sees_the_same_draws_and_a_like_sample_size():
    chain = Chain(2)
    x = chain.model(batch_size=3).detach()
    found = hamiltonian_posterior(chain.model, chain.exact_guides()["ladder"], x, 100, num_warmup=30, num_leapfrog=4)
    seen = found.to_arviz(["a", "b", "c"])
    assert seen.posterior["z1"].dims == ("chain", "draw", "example", "z1_dim")
    assert list(seen.posterior["example"].values) == ["a", "b", "c"]
    torch.testing.assert_close(torch.from_numpy(seen.posterior["z2"].values), found.draws["z2"])
    assert seen.sample_stats["acceptance_rate"].dims == ("chain", "draw", "example")
    assert seen.sample_stats["r_hat"].dims == ("example",)
    torch.testing.assert_close(torch.from_numpy(seen.observed_data["x"].values), x)
    worst = import_arviz().ess(seen, method="mean").to_array().min(("variable", "z1_dim", "z2_dim"))
    for ours, theirs in zip(found.by_example["effective_sample_size"].tolist(), worst.values.tolist(), strict=True):
        assert ours == pytest.approx(theirs, rel=0.3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained("ladder-2", tmp_path_factory.mktemp("ladder") / "run", latent_sizes=(4, 2), hidden_sizes=(8, 8))


def test_a_run_draws_from_the_posterior_of_new_examples_the_same_each_time(run):
    ladder, data = run
    before, images = torch.get_rng_state(), 255 * data.test[:3].numpy().reshape(3, 1, 6, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        one, other = (ladder.posterior(images, 20, seed=2) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.posterior.equals(other.posterior)
    assert one.posterior["z1"].shape == (1, 20, 3, 4)
    with pytest.warns(UserWarning, match=r"the draws of \d of 3 examples are not reliable, as sample_stats says: more draws"):
        chains = ladder.posterior(images, 4, method="hmc")
    assert chains.posterior["z2"].shape == (4, 4, 3, 2)


def test_a_conditional_run_is_told_the_class(tmp_path):
    data = dataset("label")
    recipe = Recipe(dataset="grey", condition="label", latent_sizes=(2,), hidden_sizes=(8,), batch_size=30, epochs=1)
    told = train(recipe.replace(likelihood="bernoulli"), tmp_path / "run", dataset=data, engine="eager")
    images = 255 * data.test[:3].numpy().reshape(3, 1, 6, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        one, other = (told.posterior(images, 500, class_name=name) for name in ("0", "2"))
    assert one.posterior["z1"].shape == (1, 500, 3, 2)
    assert not one.posterior.equals(other.posterior)
    with pytest.raises(InputError, match="expected the class of each example"):
        told.posterior(images, 5)


def test_what_is_unknown_is_refused(run):
    ladder, data = run
    images = 255 * data.test[:1].numpy().reshape(1, 1, 6, 6)
    with pytest.raises(InputError, match="expected a method out of resampling, hmc; got 'hcm'; did you mean 'hmc'"):
        ladder.posterior(images, method="hcm")
    with pytest.raises(InputError, match="expected num_samples of at least 4; got 3"):
        ladder.posterior(images, 3, method="hmc")
    with pytest.raises(ValueError, match="expected num_proposals of at least 1; got 0"):
        resample_posterior(ladder.vae.model, ladder.vae.guide, data.test[:1], num_proposals=0)
    with pytest.raises(ValueError, match="expected a model with latents"):
        resample_posterior(no_latents, lambda x: None, torch.zeros(2, 1), 5, num_proposals=5)


def no_latents(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(torch.zeros(1), 1.0).to_event(1), obs=x)


def test_the_sample_size_of_short_chains_that_alternate_is_bounded():
    """Pyro's estimate for a chain of 1, -1, 1, ... is below zero or boundless."""
    alternating = torch.tensor([1.0, -1.0]).repeat(10) + 0.1 * torch.randn(4, 20)
    found = _independent_draws(alternating[..., None, None].double())
    assert found.item() == pytest.approx(80 * math.log10(80))


def test_draws_say_what_they_are():
    each = torch.ones(2)
    found = PosteriorDraws(
        torch.zeros(2, 3),
        {"z1": torch.zeros(1, 4, 2, 3)},
        {"log_weight": torch.zeros(1, 4, 2)},
        {"effective_sample_size": 3 * each, "reliable": each.bool()},
    )
    assert repr(found) == ("PosteriorDraws(1 x 4 draws of z1; median effective sample size 3; 2 of 2 examples reliable)")
