"""What gradients go through: every engine cuts them and leaves steps out alike."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from test_svi import X, make_vae, trained_with

from pyrovae.inference.clipping import Clipping
from pyrovae.inference.objectives import ELBO
from pyrovae.inference.svi import CompiledSVI

GRADIENTS = [torch.tensor([3.0, 0.0]), None, torch.tensor([[4.0]])]
HEALTHY = torch.tensor(True)


@pytest.mark.parametrize(("max_norm", "factor"), [(math.inf, 1.0), (10.0, 1.0), (1.0, 0.2)])
def test_a_gradient_is_cut_to_the_norm_over_all_parameters(max_norm, factor):
    clipped, taken = Clipping(max_norm)(GRADIENTS, HEALTHY)
    assert clipped[1] is None
    torch.testing.assert_close(clipped[0], factor * GRADIENTS[0])
    torch.testing.assert_close(clipped[2], factor * GRADIENTS[2])
    assert taken


@pytest.mark.parametrize(("skip_norm", "expected"), [(math.inf, True), (5.1, True), (4.9, False)])
def test_a_step_is_left_out_above_a_norm(skip_norm, expected):
    _, taken = Clipping(1.0, skip_norm)(GRADIENTS, HEALTHY)
    assert bool(taken) == expected
    assert not Clipping(1.0, skip_norm)(GRADIENTS, ~HEALTHY)[1]


@pytest.mark.parametrize("clipping", [Clipping(skip_norm=1e9), Clipping(max_norm=1.0)])
def test_a_gradient_that_is_not_finite_is_left_out(clipping):
    for bad in (math.nan, math.inf):
        assert clipping.skips
        assert not clipping([torch.tensor([bad])], HEALTHY)[1]


def test_the_scale_makes_gradients_those_of_the_mean():
    def gradients(**options):
        torch.manual_seed(3)
        vae = make_vae("mean_field", 1)
        svi = CompiledSVI(vae.model, vae.guide, torch.optim.SGD(vae.parameters(), lr=0.1), ELBO(), engine="graph", **options)
        torch.manual_seed(5)
        loss = svi.step(X)
        return loss, [parameter.grad for parameter in vae.parameters()]

    (total, of_sum), (same, of_mean) = gradients(), gradients(clipping=Clipping(scale=1 / len(X)))
    assert total == same
    for one, other in zip(of_sum, of_mean, strict=True):
        torch.testing.assert_close(one / len(X), other)


def norm_of_a_step():
    torch.manual_seed(3)
    vae = make_vae(hidden_layers=1)
    svi = CompiledSVI(vae.model, vae.guide, torch.optim.SGD(vae.parameters(), lr=0), ELBO(), engine="graph")
    torch.manual_seed(7)
    norms = []
    for _ in range(4):
        svi.step(X)
        norms.append(torch.cat([p.grad.flatten() for p in vae.parameters() if p.grad is not None]).norm().item())
    return norms


@pytest.mark.slow
# The learning rate moves whether or not a step is left out.
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_every_engine_cuts_and_leaves_out_alike(optimizer):
    """At a norm that some of the steps are above, and others below."""
    middle = sorted(norm_of_a_step())[1]
    for clipping in (Clipping(max_norm=middle / 2), Clipping(skip_norm=middle * 1.01)):
        expected, state = trained_with(optimizer, "eager", clipping=clipping)
        for engine in ("graph", "compiled"):
            losses, moved = trained_with(optimizer, engine, clipping=clipping)
            assert losses == pytest.approx(expected, rel=1e-5), (engine, clipping)
            for ours, theirs in zip(moved, state, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-3, msg=f"{engine} {clipping}")


@pytest.mark.parametrize("engine", ["eager", "graph", pytest.param("compiled", marks=pytest.mark.slow)])
def test_a_step_that_is_left_out_moves_nothing_and_is_counted(engine):
    vae = make_vae(hidden_layers=1)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    svi = CompiledSVI(vae.model, vae.guide, optimizer, ELBO(), engine=engine, clipping=Clipping(skip_norm=1e9))
    for _ in range(3):
        svi.step(X)
    assert svi.steps_skipped == 0
    strict = CompiledSVI(vae.model, vae.guide, optimizer, ELBO(), engine=engine, clipping=Clipping(skip_norm=1e-9))
    before = [value.clone() for value in (*vae.parameters(), *vae.buffers())]
    moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
    for _ in range(3):
        assert strict.step(X).isfinite()
    assert strict.steps_skipped == 3
    assert all(map(torch.equal, before, (*vae.parameters(), *vae.buffers())))
    assert all(map(torch.equal, moments, (state["exp_avg"] for state in optimizer.state.values())))


def test_clipping_goes_with_parameters_of_the_store():
    def model(x):
        loc = pyro.param("loc", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x[:, 0])

    svi = CompiledSVI(model, lambda x: None, pyro.optim.SGD({"lr": 1.0}), ELBO(), engine="graph", clipping=Clipping(0.5))
    svi.step(X + 10)
    assert pyro.param("loc").item() == pytest.approx(0.5)
