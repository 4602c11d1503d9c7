"""Steps that once died or went wrong: each ends as plain Pyro's does, or in an error that names its cause."""

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from plain_pyro import OwnStore, PlainSVI, quiet
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import nn

from pyrovae.errors import CaptureError
from pyrovae.inference.objectives import ELBO
from pyrovae.inference.svi import CompiledSVI

ENGINES = ("graph", "auto", "eager")
X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
BITS = (X > 0).float()


class Autoencoder(nn.Module):
    """A small one, whose likelihood is given the decoder's output and the data."""

    def __init__(self, observe, inputs=6, outputs=6):
        super().__init__()
        self.encoder, self.decoder, self.observe = nn.Linear(inputs, 4), nn.Linear(2, outputs), observe

    def model(self, x, *rest):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            self.observe(self.decoder(z), x, *rest)

    def guide(self, x, *rest):
        pyro.module("encoder", self.encoder)
        loc, log_scale = self.features(x, *rest).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def features(self, x, *rest):
        return self.encoder(x.nan_to_num())


def gaussian(loc, x):
    pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def bernoulli(logits, x):
    pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def known_pixels(loc, x):
    known = ~x.isnan()
    pyro.factor("x", dist.Normal(loc[known], 1.0).log_prob(x[known]).sum())


def root_below_zero(loc, x):
    """Finite everywhere it is looked at, with gradients that are not."""
    scale = 1 + torch.where(loc > 100, (loc - 100).sqrt(), torch.zeros(()))
    pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)


class Recurrent(Autoencoder):
    def __init__(self):
        super().__init__(gaussian)
        self.lstm = nn.LSTM(1, 6, batch_first=True)

    def features(self, x):
        return self.encoder(self.lstm(x[..., None])[0][:, -1])


class Labelled(Autoencoder):
    def __init__(self):
        super().__init__(lambda loc, x, labels: gaussian(loc, x), inputs=16)

    def features(self, x, labels):
        return self.encoder(torch.cat([x, F.one_hot(labels, 10).float()], -1))


class Packed(Autoencoder):
    def __init__(self):
        super().__init__(lambda loc, x, lengths: gaussian(loc, x))
        self.gru = nn.GRU(1, 6, batch_first=True)

    def features(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x[..., None], lengths, batch_first=True)
        return self.encoder(self.gru(packed)[1][0])


def trained(make, engine, batches, loss=None, rate=0.01):
    """The losses of steps, and what is trained afterwards."""
    torch.manual_seed(1)
    with OwnStore(), quiet():
        programs = make()
        optim = torch.optim.Adam(programs.parameters(), lr=rate)
        options = {} if engine is None else {"engine": engine}
        svi = (PlainSVI if engine is None else CompiledSVI)(
            programs.model, programs.guide, optim, loss or Trace_ELBO(), **options
        )
        losses = []
        for batch in batches:
            torch.manual_seed(len(losses))
            losses.append(float(svi.step(*batch)))
    return losses, [each.detach() for each in programs.parameters()]


def missing(*places):
    x = X.clone()
    for row, column in places:
        x[row, column] = torch.nan
    return x


PROGRAMS = {
    "LSTM": (Recurrent, [(X,)] * 3),
    "boolean indexing": (
        lambda: Autoencoder(known_pixels),
        [(missing((0, 1)),), (missing((2, 2)),), (missing((0, 1), (3, 2)),)],
    ),
    "one-hot labels": (Labelled, [(X, torch.arange(16) % 10), (X, torch.arange(16) % 7), (X, torch.zeros(16).long())]),
    "packed sequences": (Packed, [(X, torch.tensor([6, 5] + [3] * 14)), (X, torch.tensor([4] * 8 + [2] * 8))] * 2),
}
TAKEN_BY_GRAPH = ("one-hot labels",)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_train_or_are_refused_at_the_first_step(name, engine):
    make, batches = PROGRAMS[name]
    right = trained(make, None, batches)
    if engine == "graph" and name not in TAKEN_BY_GRAPH:
        with pytest.raises(CaptureError, match="engine='eager'"):
            trained(make, engine, batches[:1])
        return
    losses, parameters = trained(make, engine, batches)
    assert losses == right[0]
    assert all(map(torch.equal, parameters, right[1]))


def failing(observe, engine, good, bad, message, error, loss=None):
    """A step that fails after good ones moves nothing, says why, and training goes on."""
    with quiet():
        programs = Autoencoder(observe)
        optim = torch.optim.Adam(programs.parameters(), lr=0.01)
        svi = CompiledSVI(programs.model, programs.guide, optim, loss or Trace_ELBO(), engine=engine)
        for batch in good:
            svi.step(batch)
        before = [each.clone() for each in programs.state_dict().values()]
        with pytest.raises(error, match=message):
            svi.step(bad)
        assert all(map(torch.equal, before, programs.state_dict().values()))
        assert svi.steps_taken == len(good)
        for batch in good:
            svi.step(batch)
        assert all(each.isfinite().all() for each in programs.parameters())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_that_is_not_finite_is_named_at_its_step(engine):
    message = r"step 1: the loss is [\d.]+, which is finite; its gradient by '.*(weight|bias)'"
    failing(root_below_zero, engine, [], X, message, FloatingPointError)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failure_of_one_particle_in_many_is_named(engine):
    def observe(loc, x):
        pyro.sample("fine", dist.Normal(loc.sum(-1), 1.0), obs=x[:, 1])
        pyro.sample("poisoned", dist.Normal(loc.sum(-1) / x[:, 0], 1.0), obs=x[:, 1])

    bad = X.clone()
    bad[3, 0] = 0
    message = "step 3: .*'poisoned' of the model, at row 3"
    failing(observe, engine, [X, X], bad, message, FloatingPointError, ELBO(4))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("late", [BITS * 0.5, BITS * 255, -BITS], ids=["grey", "bytes", "minus one"])
def test_a_later_batch_outside_the_support_is_refused(late, engine):
    failing(bernoulli, engine, [BITS, BITS], late, "support", ValueError)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_batch_of_which_nothing_is_observed_costs_nothing(engine):
    classifier = nn.Linear(6, 3)
    labels = F.one_hot(torch.arange(16) % 3, 3).float()

    def model(x, y=None):
        pyro.module("classifier", classifier)
        with pyro.plate("data", len(x)):
            if y is not None:
                pyro.sample("y", dist.OneHotCategorical(logits=classifier(x)), obs=y)

    def guide(x, y=None):
        pass

    svi = CompiledSVI(model, guide, pyro.optim.SGD({"lr": 0.1}), Trace_ELBO(), engine=engine)
    with quiet():
        svi.step(X, labels)
        before = classifier.weight.clone()
        assert float(svi.step(X)) == SVI(model, guide, pyro.optim.SGD({"lr": 0.1}), Trace_ELBO()).step(X) == 0
        assert torch.equal(before, classifier.weight)
        svi.step(X, labels)
    assert not torch.equal(before, classifier.weight)


class Sequential(nn.Module):
    """Every example a site of its own."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.1))

    def model(self, x):
        p = pyro.sample("p", dist.Normal(0.0, 1.0))
        for row in pyro.plate("rows", 4):
            pyro.sample(f"x{row}", dist.Normal(p, 1.0), obs=x[row, 0])

    def guide(self, x):
        pyro.sample("p", dist.Normal(self.loc, 0.5))


@pytest.mark.parametrize("engine", ENGINES)
def test_sequential_plates_are_taken(engine):
    assert trained(Sequential, engine, [(X,)] * 3)[0] == trained(Sequential, None, [(X,)] * 3)[0]


@pytest.mark.parametrize("engine", ["graph"])
def test_an_enumerated_guide_asks_for_its_loss_by_name(engine):
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(torch.tensor([-1.0, 0.0, 1.0])[k], 1.0), obs=x)

    @config_enumerate
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=pyro.param("logits", torch.zeros(4, 3))))

    x, adam = torch.randn(4), pyro.optim.Adam({"lr": 0.1})
    with quiet(), pytest.raises((ValueError, NotImplementedError), match="TraceEnum_ELBO"):
        CompiledSVI(model, guide, adam, Trace_ELBO(), engine=engine).step(x)
    assert CompiledSVI(model, guide, adam, TraceEnum_ELBO(max_plate_nesting=1), engine=engine).step(x).isfinite()


class Location(nn.Module):
    """A program that holds its data."""

    def __init__(self):
        super().__init__()
        self.loc, self.log_scale = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def model(self):
        mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
        with pyro.plate("data", len(X)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=X[:, 0] + 3)

    def guide(self):
        pyro.sample("mean", dist.Normal(self.loc, self.log_scale.exp()))


@pytest.mark.parametrize("engine", [*ENGINES, "compiled"])
def test_steps_without_arguments_are_taken(engine):
    losses, right = (trained(Location, each, [()] * 4)[0] for each in (engine, None))
    assert losses == (pytest.approx(right, rel=1e-4) if engine == "compiled" else right)


class RandomStarts(nn.Module):
    """Parameters of the store whose initial values are drawn at every run, and used at the first alone."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(6, 4)

    def model(self, x):
        weights = pyro.sample("weights", dist.Normal(0.0, 1.0).expand([2, 6]).to_event(2))
        with pyro.plate("data", 100, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weights, 0.5).to_event(1), obs=x)

    def guide(self, x):
        loc = pyro.param("loc", 0.1 * torch.randn(2, 6))
        pyro.sample("weights", dist.Normal(loc, 0.1).to_event(2))
        mean, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", 100, subsample_size=len(x)):
            pyro.sample("z", dist.Normal(mean, log_scale.exp()).to_event(1))


@pytest.mark.parametrize("engine", [*ENGINES, "compiled"])
def test_random_numbers_that_nothing_uses_are_drawn_too(engine):
    losses, right = (trained(RandomStarts, each, [(X,)] * 4, rate=0.0)[0] for each in (engine, None))
    assert losses == (pytest.approx(right, rel=1e-4) if engine == "compiled" else right)
