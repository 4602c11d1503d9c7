"""Training is the same to the last bit, whether anything is measured between its epochs or not: weights and buffers."""

import math
from dataclasses import replace

import numpy as np
import pytest
import resumption
import torch

from pyrovae.data.datasets import Dataset
from pyrovae.data.protocol import Protocol
from pyrovae.evaluation.annealing import bidirectional_bounds
from pyrovae.evaluation.calibration import calibrate
from pyrovae.evaluation.gaps import inference_gaps
from pyrovae.evaluation.latents import activity, kl_by_layer, kl_by_unit
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.evaluation.posterior import hamiltonian_posterior, resample_posterior
from pyrovae.evaluation.surgery import elbo_surgery
from pyrovae.experiments import checkpoints, tracking, training
from pyrovae.experiments.building import build
from pyrovae.experiments.methods import build_optimizer
from pyrovae.experiments.pictures.gallery import draw
from pyrovae.experiments.pictures.views import View
from pyrovae.experiments.run import Run
from pyrovae.experiments.training import train
from pyrovae.inference.objectives import ELBO
from pyrovae.inference.state import MovingAverage, preserved_module, recollect_statistics
from pyrovae.inference.svi import CompiledSVI
from pyrovae.inference.training import EarlyStopping, fit
from pyrovae.programs.guides import MeanField
from pyrovae.programs.models import GenerativeModel

SHAPE = (1, 3, 4)
GREY = torch.rand(160, 12, generator=torch.Generator().manual_seed(0))
SMALL = resumption.SMALL.replace(guide="ladder", num_components=5, batch_norm=True, batch_size=32, epochs=3)
RECIPES = {
    "vamp": replace(SMALL, prior="vamp"),
    "averaged and patient": replace(SMALL, prior="vamp", average_decay=0.9, patience=5),
    "convolutions": replace(SMALL, prior="vamp", guide="top_down", network="residual"),
}


def data():
    bits = (GREY > 0.5).float()
    return Dataset("grey", GREY, bits[:40], bits[:20], {}, SHAPE, Protocol(dataset="grey", sizes=(160, 40, 20)))


def state(*modules):
    return [each.detach().clone() for module in modules for each in (*module.parameters(), *module.buffers())]


def programs(recipe, engine="eager"):
    torch.manual_seed(1)
    vae = build(recipe, data()).train()
    torch.manual_seed(2)
    svi = CompiledSVI(vae.model, vae.guide, build_optimizer(recipe, vae), ELBO(), engine=engine, transform=data().draw)
    return vae, svi


def batches():
    return data().train_batches(32, drawn=False)


@pytest.mark.parametrize("name", RECIPES)
def test_what_the_library_measures_between_epochs_changes_no_training(name):
    """Statistics collected anew, bounds, gaps and all else, on which a VampPrior's next step would depend."""
    recipe, x = RECIPES[name], data().test

    def trained(measured):
        vae, svi = programs(recipe)
        average = MovingAverage(vae, recipe.average_decay)
        stopping = EarlyStopping(vae, lambda: log_likelihood(vae.model, vae.guide, x, 2).elbo, 5)

        def measure(epoch):
            with torch.random.fork_rng(), average.averaged_parameters(), preserved_module(vae):
                recollect_statistics(vae, data().train_batches(32).epoch(epoch.number))
                inference_gaps(vae.model, vae.guide, x[:4], num_samples=3, num_steps=2)
                for function in (kl_by_layer, kl_by_unit, elbo_surgery):
                    function(vae.model, vae.guide, x)
                activity(vae.guide, x)
                stopping(epoch)

        losses = [epoch.loss for epoch in fit(svi, batches(), epochs=3, on_step=[average], on_epoch=[measure] * measured)]
        return losses, state(vae)

    (losses, plain), (beside, same) = trained(False), trained(True)
    assert beside == losses
    assert all(map(torch.equal, plain, same))


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_what_is_followed_changes_no_training(name, tmp_path, monkeypatch):
    """Weights, moments and losses of three epochs, with all that is measured after each, and with nothing measured."""
    # Gaps at every epoch.
    for setting, value in {"EXAMPLES_PER_REFINEMENT": len(GREY), "NUM_SAMPLES": 20, "NUM_STEPS": 2}.items():
        monkeypatch.setattr(tracking, setting, value)
    recipe = replace(RECIPES[name], patience=0)
    followed = train(recipe, tmp_path / "followed", dataset=data(), engine="graph")
    history = followed.history
    assert len(history) == 3
    assert all({"surgery", "inference_gaps", "valid_elbo_nats"} <= set(row) for row in history)
    with monkeypatch.context() as patch:
        patch.setattr(tracking.TrainingTracker, "bounds", lambda self, stage: {"valid_elbo_nats": 0.0})
        patch.setattr(tracking.TrainingTracker, "latents", lambda self, epoch: {})
        patch.setattr(training, "recollect", lambda *args: None)
        plain = train(recipe, tmp_path / "plain", dataset=data(), engine="graph")
    (one, _), (other, _) = (checkpoint(run) for run in (followed, plain))
    assert one.keys() == other.keys()
    assert all(torch.equal(each, other[key]) for key, each in one.items())
    assert [row["loss_nats"] for row in history] == [row["loss_nats"] for row in plain.history]


@pytest.mark.parametrize("epochs", [1, 2, 20, 21, 99, 100, 101, 450, 2000])
@pytest.mark.parametrize("num_examples", [160, 60_000])
def test_a_long_training_is_measured_at_some_epochs(epochs, num_examples):
    """The first, the last, and some between, evenly spread; the guide is refined at some of these."""
    examples = replace(data(), train=torch.zeros(num_examples, 12))
    tracker = tracking.TrainingTracker.of(programs(SMALL)[0], examples, epochs)
    measured = [epoch for epoch in range(1, epochs + 1) if tracker.measures(epoch)]
    assert {1, epochs} <= set(measured)
    assert len(measured) == epochs if epochs <= tracking.MEASURED_EPOCHS else len(measured) <= tracking.MEASURED_EPOCHS + 2
    assert max(np.diff(measured), default=1) <= -(-epochs // tracking.MEASURED_EPOCHS)
    refined = [epoch for epoch in range(1, epochs + 1) if tracker._refines(epoch)]
    assert set(refined) <= set(measured)
    assert len(refined) <= tracking.REFINED_EPOCHS + 1
    assert epochs in refined or epochs * num_examples < tracking.EXAMPLES_PER_REFINEMENT


def test_epochs_between_measurements_hold_their_loss_and_pictures_leave_them_out(tmp_path, monkeypatch):
    recipe = replace(SMALL, epochs=7, average_decay=0.9)
    whole = train(recipe, tmp_path / "whole", dataset=data(), engine="graph")
    monkeypatch.setattr(tracking, "MEASURED_EPOCHS", 3)
    some = train(recipe, tmp_path / "some", dataset=data(), engine="graph")
    assert all(torch.equal(*pair) for pair in zip(state(whole.vae), state(some.vae), strict=True))
    losses = [[row["loss_nats"] for row in run.history] for run in (whole, some)]
    assert losses[0] == losses[1]
    view = View(some, "some", data())
    assert [row["epoch"] for row in view.measured] == [1, 3, 6, 7]
    measured = [row["train_elbo_nats"] for row in whole.history if row["epoch"] in (1, 3, 6, 7)]
    assert view.over_epochs("train_elbo_nats").tolist() == measured
    for kind in ("learning-curves", "kl-heat-map", "activity-heat-map"):
        assert draw(kind, [view]).axes


def test_pseudo_inputs_are_not_tracked_more_than_other_images():
    """Chosen by the same numbers, half of the tracked images were pseudo-inputs, which the guide encodes otherwise."""
    marked = torch.zeros(20_000, 12)
    marked[:, 0] = torch.arange(20_000.0)
    examples = replace(data(), train=marked, binarize=False)
    torch.manual_seed(0)
    chosen = set(
        build(replace(SMALL, prior="vamp_data", num_components=500, likelihood="gaussian"), examples)
        .model.prior.pseudo_inputs()[:, 0]
        .tolist()
    )
    tracked = set(tracking.Images.of(examples)["train"].x[:, 0].tolist())
    assert len(chosen & tracked) < 50


def checkpoint(run):
    found = checkpoints.latest(run.folder, run.num_bytes)
    return found.tensors, found.values


def test_the_weights_that_are_saved_have_statistics_to_match(tmp_path):
    """Those of the run folder are collected anew from all training data, although the training went on with its own."""
    recipe = RECIPES["averaged and patient"].replace(patience=0)
    run = train(recipe, tmp_path / "run", dataset=data(), engine="graph")
    saved = Run.load(run.folder).vae
    trained = checkpoint(run)[0]
    for name, each in saved.named_parameters():
        assert torch.equal(each, trained[f"average.module.{name}"])
    before = [each.clone() for each in saved.buffers()]
    recollect_statistics(saved, data().train_batches(32).epoch(4))
    for name, buffer in saved.named_buffers():
        torch.testing.assert_close(buffer, before.pop(0), rtol=0.5, atol=0.2, msg=name)


class Counting(torch.nn.Module):
    """Counts its calls in buffers, in place and anew, whatever mode it is in."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("average", torch.zeros(()))

    def forward(self, *args):
        self.calls += 1
        self.average = self.average + 1
        return self.inner(*args)


def counted():
    vae = build(replace(SMALL, guide="mean_field", latent_sizes=(2,), hidden_sizes=(8,)), data())
    model = GenerativeModel(vae.model.prior, Counting(vae.model.likelihood))
    return model, MeanField(Counting(vae.guide.encoder))


X = (GREY[:6] > 0.5).float()
MEASUREMENTS = {
    "likelihood": lambda model, guide: log_likelihood(model, guide, X, 50, engine="graph"),
    "gaps": lambda model, guide: inference_gaps(model, guide, X, num_samples=30, num_steps=2),
    "layers": lambda model, guide: kl_by_layer(model, guide, X),
    "units": lambda model, guide: kl_by_unit(model, guide, X),
    "activity": lambda model, guide: activity(guide, X),
    "bounds": lambda model, guide: bidirectional_bounds(model, guide, 2, num_temperatures=3, num_chains=2, num_samples=5),
    "calibration": lambda model, guide: calibrate(model, guide, 100, num_draws=19, num_samples=5),
    "resampling": lambda model, guide: resample_posterior(model, guide, X, 5, num_proposals=10),
    "chains": lambda model, guide: hamiltonian_posterior(model, guide, X, 4, num_warmup=2, num_leapfrog=2),
    "surgery": lambda model, guide: elbo_surgery(model, guide, X),
}


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_measuring_leaves_every_buffer_as_it_was(name):
    model, guide = counted()
    before = state(model, guide)
    MEASUREMENTS[name](model, guide)
    assert all(map(torch.equal, before, state(model, guide)))


class Noisy(torch.nn.Module):
    """Batch norm beside a buffer of its own and a part that is kept in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(2, momentum=0.25)
        self.kept = torch.nn.Dropout()
        self.kept.eval()
        self.codebook = Counting(torch.nn.Identity())

    def forward(self, x):
        return self.codebook(self.kept(self.norm(x)))


def test_recollecting_moves_the_statistics_of_batch_norm_alone():
    module, x = Noisy(), torch.randn(12, 2, dtype=torch.float32)
    recollect_statistics(module, x.split(4))
    torch.testing.assert_close(module.norm.running_mean, x.mean(0))
    assert module.norm.momentum == 0.25
    assert (module.training, module.norm.training, module.kept.training) == (True, True, False)
    assert (module.codebook.calls, module.codebook.average) == (0, 0)


def test_a_recollection_that_breaks_off_leaves_everything_as_it_was():
    module = Noisy()
    module(torch.randn(4, 2))
    before = state(module)
    with pytest.raises(RuntimeError):
        recollect_statistics(module, [torch.randn(4, 2), torch.randn(4, 3)])
    assert all(map(torch.equal, before, state(module)))
    assert module.norm.momentum == 0.25
    assert not module.kept.training


def test_a_recollection_from_nothing_is_refused():
    module = Noisy()
    module(torch.randn(4, 2))
    before = state(module)
    with pytest.raises(ValueError, match="expected at least one batch to collect the statistics of batch norm from; got none"):
        recollect_statistics(module, iter([]))
    assert all(map(torch.equal, before, state(module)))


def test_a_preserved_module_gets_back_what_was_replaced():
    module = Noisy()
    places = dict(module.named_buffers()) | dict(module.named_parameters())
    before = state(module)

    def fails():
        with preserved_module(module), torch.no_grad():
            module.codebook.average = torch.ones(())
            module.eval().norm.weight.fill_(math.pi)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert all(map(torch.equal, before, state(module)))
    assert all(each is places[name] for name, each in (*module.named_buffers(), *module.named_parameters()))
    assert (module.training, module.kept.training) == (True, False)


def test_the_average_is_kept_beside_a_program_that_replaces_buffers():
    module = Counting(torch.nn.Linear(1, 1))
    average = MovingAverage(module, 0.5)
    average()
    with average.averaged_parameters():
        module(torch.ones(1))
    assert (module.calls, module.average) == (0, 0)
