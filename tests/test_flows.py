"""Normalizing flows as priors and posteriors: densities, exact oracles, engines, measurements, refusals."""

import math
import sys
from functools import partial
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import Chain
from monte_carlo import five_standard_errors
from resumption import grey
from torch.distributions import Distribution

from pyrovae.errors import InputError
from pyrovae.evaluation.annealing import annealed_log_likelihood
from pyrovae.evaluation.gaps import inference_gaps
from pyrovae.evaluation.latents import active_units, activity
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.evaluation.surgery import elbo_surgery
from pyrovae.evaluation.using import encode, sample, score
from pyrovae.experiments.building import assemble
from pyrovae.experiments.exploring.explorer import Explorer
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.training import train
from pyrovae.inference.objectives import ELBO, IWELBO
from pyrovae.inference.svi import CompiledSVI
from pyrovae.programs.flows import FLOWS, FlowPosterior
from pyrovae.programs.guides import GUIDES
from pyrovae.programs.priors import FlowPrior

pytest.importorskip("zuko", reason='zuko is not installed: pip install "pyrovae[flows]"')

X = torch.bernoulli(torch.full((20, 12), 0.4), generator=torch.Generator().manual_seed(0))
SMALL = Recipe(
    hidden_layers=1, latent_sizes=(3, 2), hidden_sizes=(8, 6), prior="flow", posterior="flow", likelihood="bernoulli"
)
every_order = pytest.mark.parametrize("order", FLOWS)
every_size = pytest.mark.parametrize("size", [1, 2, 3])


def bent(module):
    """The same module with other parameters than it starts with, so that its maps bend."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return module


def prior_of(order, size):
    return bent(FlowPrior(size, FLOWS[order](size)))()


def posterior_of(order, size, rows=1):
    loc, scale = torch.linspace(-1, 1, rows * size).reshape(rows, size), torch.linspace(0.5, 2, rows * size).reshape(rows, size)
    return bent(FlowPosterior(FLOWS[order](size, 2 * size)))(dist.Normal(loc, scale).to_event(1))


@every_order
@every_size
def test_a_flow_starts_at_its_gaussian(order, size, float64):
    z = torch.randn(7, size)
    prior = FlowPrior(size, FLOWS[order](size))()
    torch.testing.assert_close(prior.log_prob(z), dist.Normal(0.0, 1.0).log_prob(z).sum(-1))
    gaussian = dist.Normal(torch.randn(7, size), torch.rand(7, size) + 0.1).to_event(1)
    posterior = FlowPosterior(FLOWS[order](size, 2 * size))(gaussian)
    torch.testing.assert_close(posterior.log_prob(z), gaussian.log_prob(z))
    assert (posterior.batch_shape, posterior.event_shape) == ((7,), (size,))


@every_order
@pytest.mark.parametrize("make", [prior_of, posterior_of])
def test_densities_integrate_to_one(make, order, float64):
    """By the trapezoidal rule in two dimensions; splines bend within five standard deviations, and the tails are Gaussian."""
    flow = make(order, 2)
    with torch.no_grad():
        axis = torch.linspace(-12, 12, 401)
        grid = torch.cartesian_prod(axis, axis)
        density = flow.log_prob(grid).exp()
    plain = dist.Normal(flow.base.loc, flow.base.scale).to_event(1).log_prob(grid).exp()
    assert (density - plain).abs().max() > 0.01
    assert density.sum().item() * (24 / 400) ** 2 == pytest.approx(1, abs=5e-3)


@every_order
@every_size
@pytest.mark.parametrize("make", [prior_of, partial(posterior_of, rows=5)])
def test_noise_and_value_are_one_to_one_and_the_volume_is_that_of_the_jacobian(make, order, size, float64):
    flow = make(order, size).expand((5,)).at_temperature(0.8)
    noise = torch.randn(5, size)
    value, log_volume = flow.value_of(noise)
    back, same_volume = flow.noise_of(value)
    torch.testing.assert_close(back, noise, rtol=0, atol=1e-6)
    torch.testing.assert_close(same_volume, log_volume, rtol=0, atol=1e-6)
    jacobian = torch.autograd.functional.jacobian(lambda u: flow.value_of(u)[0].sum(0), noise)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian.transpose(0, 1))[1], log_volume)
    drawn = flow.rsample((4,))
    assert drawn.shape == (4, 5, size)
    torch.testing.assert_close(flow.log_prob(drawn), flow.log_prob(drawn.clone()), rtol=0, atol=1e-5)


@every_order
def test_samples_have_the_density(order, float64):
    """The mean of f(z) over 40,000 draws and by the density, within five standard errors."""
    torch.manual_seed(3)
    for make in (prior_of, posterior_of):
        flow = make(order, 1)
        with torch.no_grad():
            axis = torch.linspace(-14, 14, 20_001)[:, None]
            weights = flow.log_prob(axis).exp() * 28 / 20_000
            drawn = flow.sample((40_000,)).flatten()
        for moment in (torch.sin, torch.square, torch.abs):
            error = moment(drawn).mean() - (weights * moment(axis[:, 0])).sum()
            assert abs(error.item()) < five_standard_errors(moment(drawn)), (make, moment)


def small(guide, **settings):
    torch.manual_seed(2)
    return assemble(SMALL.replace(guide=guide, **settings), (1, 3, 4))


def steps_of(guide, order, engine):
    """The losses of some steps, and the parameters after them."""
    vae = small(guide, flow=order, flow_transforms=2)
    bent(vae.guide.posteriors)
    svi = CompiledSVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), 1e-3), IWELBO(2), engine=engine)
    torch.manual_seed(5)
    return [svi.step(X).item() for _ in range(4)], list(vae.parameters())


@every_order
@pytest.mark.parametrize("guide", GUIDES)
def test_a_graph_takes_the_steps_of_plain_pyro_to_the_last_bit(guide, order):
    (eager, expected), (graph, got) = (steps_of(guide, order, engine) for engine in ("eager", "graph"))
    assert graph == eager, guide
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True)), guide


@pytest.mark.slow
@every_order
@pytest.mark.parametrize("guide", GUIDES)
def test_a_compiled_graph_takes_the_steps_of_plain_pyro(guide, order):
    assert steps_of(guide, order, "compiled")[0] == pytest.approx(steps_of(guide, order, "eager")[0], rel=1e-4), guide


def with_flows(guide, depth):
    guide.posteriors.extend(FlowPosterior(FLOWS["coupling"](1, 2)) for _ in range(depth))
    return guide


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_at_the_exact_posterior_no_noise_is_left_in_the_flow(depth, float64):
    chain, x = Chain(depth), torch.randn(30, 3)
    for family, guide in chain.exact_guides().items():
        parameters = list(with_flows(guide, depth).posteriors.parameters())
        for still, moving in (
            (ELBO(gradient="sticking_the_landing"), ELBO()),
            (IWELBO(3, gradient="doubly_reparameterized"), IWELBO(3)),
        ):
            quiet, noisy = (
                torch.autograd.grad(each.bound(chain.model, guide, x), parameters, allow_unused=True)
                for each in (still, moving)
            )
            assert all(each is None or each.abs().max() < 1e-8 for each in quiet), family
            assert any(each is not None and each.abs().max() > 1e-3 for each in noisy), family


def test_the_evidence_under_a_flow_prior_is_the_integral(float64):
    """A latent of one dimension, whose evidence is a sum over a grid; the estimate within five standard errors."""
    torch.manual_seed(1)
    chain, x = Chain(1), torch.randn(4, 3)
    chain.model.prior = bent(FlowPrior(1, FLOWS["coupling"](1)))
    axis = torch.linspace(-14, 14, 20_001)[:, None]
    with torch.no_grad():
        log_joint = chain.model.prior().log_prob(axis) + chain.model.likelihood(axis).log_prob(x[:, None])
        exact = (log_joint + math.log(28 / 20_000)).logsumexp(1)
    guide = with_flows(chain.wrong_guide("mean_field"), 1)
    bent(guide.posteriors)
    found = log_likelihood(chain.model, guide, x, 20_000)
    assert ((found.per_image - exact).abs() < 5 * found.standard_error_per_image.clamp(min=1e-3)).all()


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("start", ["guide", "prior"])
def test_annealing_corrects_a_flow(depth, start, float64):
    """The evidence of a linear Gaussian chain from a bent flow; the ratio within five standard errors of one."""
    torch.manual_seed(2)
    chain, x = Chain(depth), torch.randn(1, 3)
    guide = with_flows(chain.wrong_guide("mean_field"), depth)
    bent(guide.posteriors)
    settings = {"num_temperatures": 20, "num_chains": 8, "num_leapfrog": 5, "start": start}
    found = annealed_log_likelihood(chain.model, guide, x.expand(100, 3), **settings)
    ratio = (found.per_image - chain.evidence(x)).exp()
    assert abs(ratio.mean().item() - 1) < five_standard_errors(ratio)


def test_the_density_of_a_draw_is_known_only_while_it_is_that(float64):
    flow = posterior_of("coupling", 2, rows=5)
    with torch.no_grad():
        drawn = flow.sample()
    assert flow.log_prob(drawn).requires_grad
    drawn = flow.rsample()
    density = flow.log_prob(drawn)
    moved = drawn.detach().clone() + 3
    with torch.no_grad():
        drawn += 3
    torch.testing.assert_close(flow.log_prob(drawn), flow.log_prob(moved))
    assert not torch.equal(flow.log_prob(drawn), density)
    torch.testing.assert_close(flow.at_temperature(0.5).at_temperature(0.5).value_of(moved)[0], flow.value_of(0.25 * moved)[0])


def test_idle_units_of_a_flow_are_not_active():
    """Fifty units that the data say nothing of, among 500 images, as histories measure them."""
    vae = assemble(SMALL.replace(latent_sizes=(50,), hidden_sizes=(8,), prior="standard_normal"), (1, 3, 4))
    for head in vae.guide.encoder.heads:
        torch.nn.init.zeros_(head.readout.weight)
    x = torch.rand(500, 12).round()
    assert active_units(activity(vae.guide, x)) == {"z1": 0}


def test_gaps_of_a_flow_are_refused(float64):
    """Moves of its Gaussian alone would call all that is left the cost of the family."""
    chain = Chain(1)
    with pytest.raises(ValueError, match="expected a guide of Gaussian latents to refine; site 'z1' is drawn from Normalizing"):
        inference_gaps(chain.model, with_flows(chain.wrong_guide("mean_field"), 1), torch.randn(4, 3), num_samples=5)


def test_moments_without_a_closed_form_are_those_of_samples(float64):
    """An unbent flow has the Gaussian's moments: those of 500 samples are within five standard errors of these."""
    torch.manual_seed(0)
    chain, x = Chain(1), torch.randn(50, 3)
    exact = chain.exact_guides()["mean_field"]
    expected = encode(exact, x)["z1"]
    plain = activity(exact, x)["z1"]
    with_flows(exact, 1)
    mean, deviation = encode(exact, x, num_samples=500)["z1"]
    assert ((mean - expected[0]).abs() < 5 * expected[1] / math.sqrt(500)).all()
    assert ((deviation / expected[1] - 1).abs() < 5 / math.sqrt(1000)).all()
    noise = expected[1].square().mean() / 200
    assert abs(activity(exact, x, num_samples=200)["z1"] - plain) < 5 * (plain * noise / 50).sqrt() * 2


def test_a_temperature_is_that_of_the_noise():
    vae = small("ladder", posterior="gaussian")
    torch.manual_seed(1)
    cold = vae.model.prior().at_temperature(1e-4).sample((50,))
    assert cold.std(0).max() < 1e-3
    assert sample(vae.model, 7, temperature=0.5).shape == (7, 12)


def test_a_prior_of_a_conditional_model_depends_on_its_context():
    vae = small("mean_field", condition="left-half")
    bent(vae.model.prior)
    contexts = torch.rand(3, vae.model.context_size)
    assert vae.model.prior(contexts).batch_shape == (3,)
    at_zero = vae.model.prior(contexts).log_prob(torch.zeros(3, 2))
    assert len(at_zero.unique()) == 3


def test_a_run_with_flows_is_used_like_any_other(tmp_path):
    """Opened, encoded, scored, drawn from, measured, drawn and reported on as the command line does; explored it is not."""
    recipe = SMALL.replace(dataset="grey", epochs=2, batch_size=30, guide="residual_top_down")
    train(recipe, tmp_path / "run", dataset=grey(), engine="eager")
    run = Run.load(tmp_path / "run")
    data = grey()
    assert run.evaluate(5, dataset=data).model.startswith("residual_top_down guide of flows over 3-2, flow prior")
    run.bounds(3, num_temperatures=3, num_chains=2, num_samples=5, dataset=data)
    assert (tmp_path / "run" / "bounds.json").exists()
    assert encode(run.vae.guide, data.test)["z1"][0].shape == (20, 3)
    assert score(run.vae.model, run.vae.guide, data.test, num_samples=3).log_likelihood.isfinite().all()
    assert Path(run.report(dataset=data)).exists()
    with pytest.raises(InputError, match="whole images with latents; its posteriors are flows, whose means are not known"):
        Explorer(run, data)


def test_importing_zuko_leaves_validation_as_it_is(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "zuko"]:
        monkeypatch.delitem(sys.modules, name)
    assert Distribution._validate_args
    FLOWS["coupling"](2)
    assert Distribution._validate_args


def test_what_makes_no_sense_is_refused(monkeypatch):
    cases = [
        ({"prior": "vamp"}, "expected the posterior 'gaussian' for the prior 'vamp', a mixture of .*use the prior 'flow'"),
        ({"analytic_kl": True}, "expected the posterior 'gaussian' with analytic_kl; got 'flow'.*use --no-analytic-kl"),
        (
            {"prior": "mixture", "posterior": "gaussian", "flow": "autoregressive"},
            "expected a prior or a posterior 'flow' with",
        ),
        ({"prior": "mixture", "posterior": "gaussian", "flow_transforms": 5}, "'flow' with flow_transforms; got 5 and neither"),
        ({"latent_sizes": (), "hidden_sizes": (8,), "condition": "label"}, "of a regressor, which has no latent; got"),
    ]
    for settings, message in cases:
        with pytest.raises(InputError, match=message):
            SMALL.replace(**settings)
    for settings, message in (
        ({"flow": "couplings"}, "expected a flow out of coupling, autoregressive; got 'couplings'; did you mean 'coupling'"),
        ({"posterior": "flows"}, "expected a posterior out of gaussian, flow; got 'flows'; did you mean 'flow'"),
    ):
        with pytest.raises(InputError, match=message):
            assemble(SMALL.replace(**settings), (1, 3, 4))
    with pytest.raises(InputError, match="expected at most 1,024 units in a layer with a flow; got 5,000"):
        assemble(SMALL.replace(latent_sizes=(5000, 2)), (1, 3, 4))
    vae = small("ladder")
    with pytest.raises(ValueError, match=r"expected a Gaussian q\(z_L \| x\).*train with the posterior 'gaussian'"):
        elbo_surgery(vae.model, vae.guide, X)
    with pytest.raises(ValueError, match="expected a guide that declares analytic_kl"):
        ELBO(analytic_kl=True).bound(vae.model, vae.guide, X)
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(InputError, match=r'expected the package zuko for normalizing flows.*pip install "pyrovae\[flows\]"'):
        small("ladder")
