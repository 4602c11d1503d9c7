import itertools

import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import Chain
from pyro import poutine

from pyrovae.data.batches import Batches, binarize
from pyrovae.errors import InputError
from pyrovae.evaluation.latents import kl_by_layer
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.inference.objectives import ELBO
from pyrovae.inference.state import MovingAverage
from pyrovae.inference.svi import CompiledSVI
from pyrovae.inference.training import EarlyStopping, Epoch, fit
from pyrovae.inference.warmup import WARMUPS, linear_warmup, scale_latents, scale_schedule
from pyrovae.inference.weights import log_weights


def rows(count):
    return torch.arange(float(count))[:, None].expand(count, 3)


def trained_chain(**options):
    chain = Chain(2)
    guide = chain.wrong_guide("ladder")
    optim = torch.optim.Adam(guide.parameters(), lr=0.02)
    batches = Batches(torch.randn(64, 3), 16)
    return chain, guide, fit(CompiledSVI(chain.model, guide, optim, ELBO(), engine="graph"), batches, **options)


def test_scaled_weights_are_those_of_the_equation():
    chain, x = Chain(2), torch.randn(4, 3)
    guide = chain.wrong_guide("ladder")
    torch.manual_seed(1)
    posterior = poutine.trace(guide).get_trace(x)
    posterior.compute_log_prob()
    joint = poutine.trace(poutine.replay(chain.model, trace=posterior)).get_trace(x)
    joint.compute_log_prob()
    log_prior, log_posterior = (sum(trace.nodes[site]["log_prob"] for site in ("z1", "z2")) for trace in (joint, posterior))
    torch.manual_seed(1)
    with scale_latents(0.3):
        weights = log_weights(chain.model, guide, x)[0]
    torch.testing.assert_close(weights, 0.3 * (log_prior - log_posterior) + joint.nodes["x"]["log_prob"])


@pytest.mark.parametrize("weight", [0, -1.0, torch.tensor(0.0)])
def test_a_weight_of_zero_is_refused(weight):
    with pytest.raises(ValueError, match="Expected scale > 0"):
        scale_latents(weight)


def test_analytic_divergence_is_scaled_too():
    chain, x = Chain(1), torch.randn(4, 3)
    guide = chain.wrong_guide("mean_field")
    _, divergences = ELBO(analytic_kl=True).terms(chain.model, guide, x)
    with scale_latents(0.25):
        _, scaled = ELBO(analytic_kl=True).terms(chain.model, guide, x)
    torch.testing.assert_close(scaled["z1"], 0.25 * divergences["z1"])


def test_warmup_starts_above_zero_and_ends_at_one():
    seen = []

    class Watching:
        def step(self, batch):
            probe = poutine.trace(lambda: _latent()).get_trace()
            probe.compute_log_prob()
            seen.append(probe.nodes["z"]["scale"])
            return 0.0

    fit(Watching(), Batches(rows(8), 2), epochs=3, kl_weight=linear_warmup(2))
    assert seen == pytest.approx([1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1, 1, 1, 1, 1])


def _latent():
    import pyro

    pyro.sample("z", dist.Normal(0.0, 1.0))


def test_a_warmup_longer_than_training_warns():
    with pytest.warns(UserWarning, match=r"ends at 0\.20, below one"):
        trained_chain(epochs=2, kl_weight=linear_warmup(10))


def test_training_reaches_the_posterior():
    chain, guide, history = trained_chain(epochs=150)
    assert [epoch.number for epoch in history] == list(range(1, 151))
    assert history[-1].loss < history[0].loss
    x = torch.randn(200, 3)
    gap = chain.evidence(x).mean().item() - log_likelihood(chain.model, guide, x, 100).elbo
    assert 0 <= gap < 0.1


def test_training_stops_when_a_callback_says_so_and_calls_the_others():
    called = []
    _, _, history = trained_chain(epochs=9, on_epoch=[lambda epoch: 1, lambda epoch: epoch.number == 2, called.append])
    assert len(history) == 2
    assert called == history


def test_batches_depend_on_seed_and_epoch_alone():
    grey = torch.full((10, 5), 0.5)
    first, again, other_seed = (Batches(grey, 4, seed=seed, draw=binarize) for seed in (1, 1, 2))
    list(again.epoch(1))
    assert all(torch.equal(a, b) for a, b in zip(first.epoch(2), again.epoch(2), strict=True))
    assert not torch.equal(torch.cat(list(first.epoch(2))), torch.cat(list(first.epoch(3))))
    assert not torch.equal(torch.cat(list(first.epoch(2))), torch.cat(list(other_seed.epoch(2))))


def test_an_epoch_serves_each_example_once_and_drops_the_rest():
    batches = Batches(rows(10), 4)
    served = torch.cat(list(batches.epoch(1)))[:, 0].tolist()
    assert len(batches) == 2
    assert len(set(served)) == 8
    everything = itertools.chain.from_iterable(torch.cat(list(batches.epoch(n)))[:, 0].tolist() for n in range(1, 9))
    assert set(everything) == set(range(10))


def test_binarization_has_the_grey_value_as_its_mean():
    """With 4,000 bits a pixel: five standard errors."""
    grey = torch.tensor([0.0, 0.2, 0.9, 1.0]).expand(4000, 4)
    bits = torch.cat(list(Batches(grey, 1000, draw=binarize).epoch(1)))
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    assert ((bits.mean(0) - grey[0]).abs() <= 5 * (grey[0] * (1 - grey[0]) / 4000).sqrt()).all()


@pytest.mark.parametrize("size", [0, 11])
def test_impossible_batch_sizes_are_refused(size):
    with pytest.raises(InputError, match=f"expected a batch size from 1 to the 10 examples at hand; got {size}"):
        Batches(rows(10), size)


def test_evaluation_leaves_the_mode_of_modules_as_it_was():
    chain = Chain(2)
    guide = chain.wrong_guide("ladder")
    guide.encoder.eval()
    log_likelihood(chain.model, guide, torch.randn(2, 3), 2)
    assert chain.model.training
    assert guide.training
    assert not guide.encoder.training


def test_standard_error_is_over_images():
    chain, x = Chain(1), torch.randn(50, 3)
    result = log_likelihood(chain.model, chain.exact_guides()["mean_field"], x, 3)
    truth = chain.evidence(x)
    assert result.mean == pytest.approx(truth.mean().item(), abs=1e-5)
    assert result.standard_error == pytest.approx(truth.std().item() / 50**0.5, abs=1e-5)
    assert result.elbo <= result.mean + 1e-6


def test_no_samples_are_refused():
    chain = Chain(1)
    with pytest.raises(ValueError, match="expected at least one sample; got num_samples=0"):
        log_likelihood(chain.model, chain.exact_guides()["mean_field"], torch.randn(2, 3), 0)


def test_layers_are_measured_by_their_divergence():
    """A top layer equal to its prior, whatever the data, measures zero; the exact posterior more."""
    chain, x = Chain(2), torch.randn(100, 3)
    guide = chain.exact_guides()["ladder"]
    measured = kl_by_layer(chain.model, guide, x)
    assert list(measured) == ["z1", "z2"]
    assert all(value > 0.01 for value in measured.values())
    torch.nn.init.zeros_(guide.encoder.heads[1].weight)
    torch.nn.init.zeros_(guide.encoder.heads[1].bias)
    torch.nn.init.zeros_(guide.encoder.heads[1].log_scale)
    assert kl_by_layer(chain.model, guide, x)["z2"] == 0


def test_training_stops_where_the_bound_no_longer_grows_and_the_best_weights_come_back():
    """Never during warm-up, however good a bound that was not trained may look."""
    module = torch.nn.Linear(1, 1)
    bounds = iter([9.0, 8.0, 1.0, 3.0, 2.0, 2.5, 2.9])
    current = [0.0]
    stopping = EarlyStopping(module, lambda: current[0], patience=3)
    answers = []
    for number, weight in enumerate([0.5, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0], start=1):
        current[0] = next(bounds)
        torch.nn.init.constant_(module.weight, number)
        answers.append(stopping(Epoch(number, 0.0, weight, 0.0)))
    assert answers == [False, False, False, False, False, False, True]
    assert (stopping.best_epoch, stopping.best_bound) == (4, 3.0)
    stopping.restore()
    assert module.weight.item() == 4
    with pytest.raises(ValueError, match="expected a patience of at least one epoch; got 0"):
        EarlyStopping(module, lambda: 0.0, patience=0)


def test_patience_counts_measured_epochs_alone():
    """Under a cyclical weight nine epochs in ten say nothing."""
    stopping = EarlyStopping(torch.nn.Linear(1, 1), iter([1.0, 0.5, 0.6]).__next__, patience=2)
    schedule = WARMUPS["cyclical"](10)
    answers = [stopping(Epoch(number, 0.0, 1.0 if number % 10 == 0 else schedule(number) / 2, 0.0)) for number in range(1, 31)]
    assert answers.index(True) == 29


def test_a_moving_average_leaves_the_buffers_that_are_trained_and_begins_anew():
    module = torch.nn.BatchNorm1d(1)
    average = MovingAverage(module, 0.5)
    average()
    with average.averaged_parameters():
        module.running_mean.fill_(7.0)
    assert module.running_mean.item() == 0
    torch.nn.init.constant_(module.weight, 5.0)
    average.restart()
    with average.averaged_parameters():
        assert module.weight.item() == 5


@pytest.mark.parametrize("decay", [0.2, 0.3, 0.9])
def test_the_moving_average_is_that_of_its_equation(decay):
    """Of a decay that is reached at the third step, at the fourth, and not at all; another goes on from its state."""
    module = torch.nn.Linear(2, 1, bias=False)
    average = MovingAverage(module, decay)
    values = torch.randn(6, 1, 2)
    expected = values[0]
    for step, value in enumerate(values, 1):
        torch.nn.init.zeros_(module.weight).data.add_(value)
        average()
        now = min(decay, step / (step + 9))
        expected = value if step == 1 else now * expected + (1 - now) * value
        if step == 4:
            state = {name: each.clone() for name, each in average.state_dict().items()}
            average = MovingAverage(module, decay)
            average.load_state_dict(state)
    with average.averaged_parameters():
        torch.testing.assert_close(module.weight.data, expected)
    torch.testing.assert_close(module.weight.data, values[-1])
    average.adopt()
    torch.testing.assert_close(module.weight.data, expected)


@pytest.mark.parametrize("engine", ["eager", "graph", "compiled"])
def test_every_engine_trains_on_beside_the_moving_average(engine):
    """Averaging is seen by no step, also where a compiled one holds the parameters."""

    def outcome(averaged):
        torch.manual_seed(0)
        chain = Chain(1)
        guide = chain.wrong_guide("mean_field")
        average = MovingAverage(guide, 0.5)
        swaps = []

        def measure(epoch):
            with average.averaged_parameters():
                swaps.append([parameter.detach().clone() for parameter in guide.parameters()])

        svi = CompiledSVI(chain.model, guide, torch.optim.Adam(guide.parameters(), lr=0.02), ELBO(), engine=engine)
        extra = {"on_step": [average], "on_epoch": [measure]} if averaged else {}
        fit(svi, Batches(torch.randn(64, 3), 16), epochs=2, **extra)
        return [parameter.detach().clone() for parameter in guide.parameters()], swaps

    (plain, _), (beside, swaps) = outcome(False), outcome(True)
    assert all(map(torch.equal, plain, beside))
    assert not all(map(torch.equal, swaps[-1], beside))


def test_stages_count_their_epochs_on():
    """One training of four epochs sees what two of two see, the second of which starts at two; schedules begin anew."""

    class Watching:
        def __init__(self):
            self.seen = []

        def step(self, batch):
            self.seen.append(batch)
            return 0.0

    batches, whole, staged = Batches(rows(8), 2), Watching(), Watching()
    fit(whole, batches, epochs=4)
    first = fit(staged, batches, epochs=2)
    second = fit(staged, batches, epochs=2, start=2, kl_weight=linear_warmup(2))
    assert [epoch.number for epoch in (*first, *second)] == [1, 2, 3, 4]
    assert [epoch.kl_weight for epoch in second] == [0.5, 1.0]
    assert all(map(torch.equal, whole.seen, staged.seen))


@pytest.mark.parametrize("name", WARMUPS)
def test_every_warmup_stays_above_zero_and_ends_at_one(name):
    schedule = WARMUPS[name](10)
    weights = [schedule(step / 37) for step in range(1, 371)]
    assert all(0 < weight <= 1 for weight in weights)
    assert schedule(10) == 1
    assert WARMUPS[name](0)(0.1) == 1
    assert scale_schedule(schedule, 0.25)(10) == 0.25
