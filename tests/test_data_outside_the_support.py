"""Data that the likelihood cannot have drawn are refused wherever they are measured, in whichever chunk, by site and row."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae.data.rows import Rows
from pyrovae.evaluation import gaps
from pyrovae.evaluation.annealing import annealed_log_likelihood
from pyrovae.evaluation.gaps import inference_gaps
from pyrovae.evaluation.latents import kl_by_layer
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.evaluation.support import SupportOfData
from pyrovae.evaluation.surgery import elbo_surgery
from pyrovae.experiments.building import assemble
from pyrovae.experiments.recipe import Recipe

ENCODER, DECODER = torch.nn.Linear(6, 4), torch.nn.Linear(2, 6)
SMALL = Recipe(guide="mean_field", likelihood="bernoulli", latent_sizes=(2,), hidden_sizes=(4,), hidden_layers=1)


def guide(x, *_):
    out = ENCODER(x.flatten(1).float())
    with pyro.plate("n", len(x)):
        pyro.sample("z", dist.Normal(out[:, :2], out[:, 2:].exp()).to_event(1))


def observing(likelihood, seen=lambda x: x):
    """A model of rows ``(B, 6)`` by a likelihood of logits, at a site ``pixels``."""

    def model(x, *_):
        with pyro.plate("n", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("pixels", likelihood(DECODER(z)), obs=seen(x))

    return model


def bernoulli(logits):
    return dist.Bernoulli(logits=logits).to_event(1)


def bits(count=230):
    return (torch.rand(count, 6) > 0.5).float()


def spoilt(row, value, count=230):
    x = bits(count)
    x[row, 4] = value
    return x


MEASURES = {
    "likelihood": lambda model, x: log_likelihood(model, guide, x, 40, engine="graph"),
    "likelihood, eager": lambda model, x: log_likelihood(model, guide, x, 2, engine="eager"),
    "divergence": lambda model, x: kl_by_layer(model, guide, x),
    "gaps": lambda model, x: inference_gaps(model, guide, x, num_samples=20, num_steps=1),
    "annealing": lambda model, x: annealed_log_likelihood(model, guide, x, num_temperatures=2, num_chains=1),
}


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("row", [3, 217])
@pytest.mark.parametrize("value", [0.5, 255.0, -1.0, float("nan")])
def test_a_row_outside_the_support_is_named(name, row, value, monkeypatch):
    monkeypatch.setattr(gaps, "IMAGES_AT_ONCE", 100)
    with pytest.raises(ValueError, match=rf"site 'pixels' can have drawn, .*Boolean.*; row {row} holds {value:g}: bring"):
        MEASURES[name](observing(bernoulli), spoilt(row, value))


@pytest.mark.parametrize("row", [3, 1217])
def test_surgery_and_divergences_of_our_own_models_name_it_too(row):
    vae = assemble(SMALL, (1, 2, 3))
    for measure in (elbo_surgery, kl_by_layer):
        with pytest.raises(ValueError, match=rf"site 'x' can have drawn, .*Boolean.*; row {row} holds 0.5"):
            measure(vae.model, vae.guide, spoilt(row, 0.5, count=1230))


@pytest.mark.parametrize(
    ("likelihood", "good", "bad", "message"),
    [
        (bernoulli, 1.0, 0.5, "Boolean.* of Bernoulli; row 217 holds 0.5"),
        (lambda logits: dist.Normal(logits, 1.0).to_event(1), 3.0, float("inf"), None),
        (lambda logits: dist.Normal(logits, 1.0).to_event(1), 3.0, float("nan"), "Real.* of Normal; row 217 holds nan"),
        (lambda logits: dist.Poisson(logits.exp()).to_event(1), 3.0, 2.5, "of Poisson; row 217 holds 2.5"),
        (lambda logits: dist.Binomial(255, logits=logits).to_event(1), 255.0, 256.0, "of Binomial; row 217 holds 256"),
        (lambda logits: dist.Uniform(-logits.exp() - 9, 9.0).to_event(1), 3.0, 9.5, "of Uniform; row 217 holds 9.5"),
        (lambda logits: dist.OneHotCategorical(logits=logits), None, 1.0, "of OneHotCategorical; row 217 is none"),
        (lambda logits: bernoulli(logits).mask(logits[:, 0] < 99), 1.0, 0.5, "Boolean.* of Bernoulli; row 217 holds 0.5"),
        (lambda logits: dist.Bernoulli(logits=logits, validate_args=False).to_event(1), 1.0, 0.5, None),
        (lambda logits: dist.LogNormal(logits, 1.0).to_event(1), 1.0, -1.0, "row 217 holds -1"),
    ],
    ids=["bits", "infinity", "nan", "counts", "binomial", "uniform", "one-hot", "masked", "not validated", "log-normal"],
)
def test_every_support_is_looked_at_as_pyro_looks_at_it(likelihood, good, bad, message):
    """Refused are the values that plain Pyro refuses, in whichever chunk they come."""
    x = torch.eye(6)[torch.arange(230) % 6] if good is None else torch.full((230, 6), good)
    model = observing(likelihood)
    check = SupportOfData(model)
    chunks = list(zip((0, 100, 200), x.split(100), strict=True))
    for first, rows in chunks:
        check([rows], first)
    x[217, 4 if good is not None else 217 % 6 - 1] = bad
    trace = pyro.poutine.trace(model).get_trace(x)
    if message is None:
        trace.compute_log_prob()
        check([chunks[-1][1]], 200)
        return
    with pytest.raises(ValueError, match="pixels"):
        trace.compute_log_prob()
    with pytest.raises(ValueError, match=message):
        check([chunks[-1][1]], 200)


@pytest.mark.parametrize(
    "seen",
    [lambda x: x.flatten(1), lambda x: x * 1.0, lambda x: x.flatten(1)[:, :6], lambda x: x.clone()],
    ids=["reshaped", "computed", "sliced", "copied"],
)
def test_what_a_site_observes_need_not_be_the_data_themselves(seen):
    model = observing(lambda logits: dist.Bernoulli(logits=logits).to_event(1), seen=lambda x: seen(x).reshape(len(x), 6))
    check, x = SupportOfData(model), spoilt(217, 0.5).reshape(230, 2, 3)
    check([x[:100]], 0)
    check([x[100:200]], 100)
    with pytest.raises(ValueError, match=r"row 217 holds 0\.5"):
        check([x[200:]], 200)


def test_a_model_does_not_run_again_for_data_that_it_observes_as_they_are():
    calls = []

    def counted(logits):
        calls.append(1)
        return bernoulli(logits)

    check = SupportOfData(observing(counted))
    for rows in bits().split(100):
        check([rows])
    assert len(calls) == 1


def test_rows_on_disk_and_labels_are_looked_at():
    stored = bits().numpy()
    stored[217, 2] = 7
    model, chosen = observing(bernoulli), np.arange(230)
    with pytest.raises(ValueError, match="row 217 holds 7"):
        log_likelihood(model, guide, Rows(stored, chosen, np.float32(0), np.float32(1)), 40)

    def labelled(x, label):
        with pyro.plate("labels", len(x)):
            pyro.sample("label", dist.Categorical(logits=torch.zeros(len(x), 3)), obs=label)
        observing(bernoulli)(x)

    labels = torch.arange(230) % 3
    labels[217] = 3
    with pytest.raises(ValueError, match=r"site 'label' .* of Categorical; row 217 holds 3"):
        log_likelihood(labelled, guide, bits(), 40, context=labels)


def test_looking_draws_nothing_from_the_generator():
    torch.manual_seed(3)
    SupportOfData(observing(bernoulli))([bits()])
    after = torch.rand(1)
    torch.manual_seed(3)
    bits()
    assert torch.equal(after, torch.rand(1))


def test_validation_turned_off_is_turned_off_here_too():
    with pyro.validation_enabled(False):
        log_likelihood(observing(bernoulli), guide, spoilt(3, 0.5, count=5), 2)


def test_a_model_that_observes_nothing_is_no_model_of_the_data():
    with pytest.raises(ValueError, match=r"expected a model that observes the data; no site of it has obs=.*in each other's"):
        log_likelihood(guide, observing(bernoulli), bits(3), 2)
