"""The loop of training takes what people have: data loaders, lists of batches, dictionaries; and counts what it saw."""

import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import Chain
from pyro.infer import SVI, Trace_ELBO
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pyrovae.data.batches import Batches, binarize
from pyrovae.inference.objectives import ELBO
from pyrovae.inference.svi import CompiledSVI
from pyrovae.inference.training import fit
from pyrovae.inference.warmup import linear_warmup


class Watching:
    """Takes no step: keeps what it is given, and returns the sum of the first column."""

    def __init__(self):
        self.seen = []

    def step(self, *args):
        self.seen.append(args)
        return args[0].sum() if isinstance(args[0], torch.Tensor) else 0.0


def rows(count):
    return torch.arange(float(count))[:, None]


def svi_of(chain, guide, engine="graph"):
    return CompiledSVI(chain.model, guide, torch.optim.Adam(guide.parameters(), lr=0.02), ELBO(), engine=engine)


def test_batches_serve_what_they_were_given():
    """Counts stay counts, and reals reals, until somebody asks for bits."""
    counts = torch.poisson(torch.full((100, 5), 3.0))
    served = torch.cat(list(Batches(counts, 50).epoch(1)))
    assert torch.equal(served.sort(0).values, counts.sort(0).values)
    bits = torch.cat(list(Batches(counts, 50, draw=binarize).epoch(1)))
    assert bits.unique().tolist() == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("drop_last", [True, False])
def test_a_data_loader_is_trained_on(drop_last):
    """As plain Pyro does in a loop over it, whose loss per example counts the examples of the last, smaller batch."""
    x = torch.randn(70, 3)

    def trained(train):
        torch.manual_seed(0)
        chain = Chain(2)
        guide = chain.wrong_guide("ladder")
        generator = torch.Generator().manual_seed(0)
        losses = train(
            svi_of(chain, guide), DataLoader(TensorDataset(x), 16, shuffle=True, drop_last=drop_last, generator=generator)
        )
        return losses, [each.detach().clone() for each in guide.parameters()]

    def by_hand(svi, loader):
        epochs = [[(float(svi.step(x)), len(x)) for (x,) in loader] for _ in range(2)]
        return [sum(loss for loss, _ in epoch) / sum(size for _, size in epoch) for epoch in epochs]

    def by_fit(svi, loader):
        return [epoch.loss for epoch in fit(svi, loader, epochs=2)]

    (expected, one), (losses, other) = trained(by_hand), trained(by_fit)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert all(map(torch.equal, one, other))


@pytest.mark.parametrize(
    ("batches", "seen"),
    [
        (lambda: [rows(4), rows(3)], [(4,), (3,)]),
        (lambda: ((rows(4), rows(4)), [rows(3), rows(3)]), [(4, 4), (3, 3)]),
        (lambda: DataLoader(rows(7), 4), [(4,), (3,)]),
        (lambda: DataLoader(TensorDataset(rows(7), rows(7)), 4), [(4, 4), (3, 3)]),
        (lambda: DataLoader([(row, 1.0) for row in rows(7)], 4), [(4, 4), (3, 3)]),
        (lambda: Batches(rows(8), 4), [(4,), (4,)]),
        (lambda: Batches(rows(8), 4, labels=torch.arange(8)), [(4, 4), (4, 4)]),
    ],
)
def test_a_tensor_is_one_argument_and_a_list_or_tuple_several(batches, seen):
    watching = Watching()
    fit(watching, batches(), epochs=1)
    assert [tuple(map(len, args)) for args in watching.seen] == seen


def test_the_mean_loss_is_that_of_the_examples_seen():
    """Of 0 to 6 it is 3, whatever the batches; the first batch has four of them, the last three."""
    for batches in ([rows(7)[:4], rows(7)[4:]], DataLoader(rows(7), 4), DataLoader(TensorDataset(rows(7), rows(7)), 5)):
        (epoch,) = fit(Watching(), batches, epochs=1)
        assert epoch.loss == 3


def test_a_dictionary_is_one_argument_and_its_examples_are_counted():
    encoder, decoder = torch.nn.Linear(3, 4), torch.nn.Linear(2, 3)

    def model(batch):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(batch["x"])):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).expand([len(batch["x"]), 2]).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=batch["x"])

    def guide(batch):
        pyro.module("encoder", encoder)
        loc, scale = encoder(batch["x"]).chunk(2, -1)
        with pyro.plate("data", len(batch["x"])):
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.0}), Trace_ELBO())
    batches = [{"weight": torch.tensor(2.0), "x": x} for x in torch.randn(40, 3).split(16)]
    pyro.set_rng_seed(1)
    (epoch,) = fit(svi, batches, epochs=1)
    pyro.set_rng_seed(1)
    assert epoch.loss == pytest.approx(sum(svi.evaluate_loss(batch) for batch in batches) / 40, rel=1e-6)


def test_a_warmup_counts_the_batches_of_a_loader():
    history = fit(Watching(), DataLoader(rows(7), 4), epochs=3, kl_weight=linear_warmup(2))
    assert [epoch.kl_weight for epoch in history] == [0.5, 1.0, 1.0]


class Endless(IterableDataset):
    def __iter__(self):
        return iter(rows(4))


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (rows(8), r"expected batches .* got an object of type Tensor.*use Batches\(x, batch_size\)"),
        (rows(8).numpy(), r"expected batches .* got an object of type ndarray.*use Batches\(x, batch_size\)"),
        ({"x": rows(8)}, r"expected batches .* got an object of type dict"),
        (
            (batch for batch in [rows(4)]),
            r"expected batches .* got an object of type generator, which has no length: make a list of it",
        ),
        (DataLoader(Endless(), 2), r"expected batches .* got an object of type DataLoader, which has no length"),
        ([], r"expected at least one batch in an epoch; got none"),
        (DataLoader(rows(3), 4, drop_last=True), r"expected at least one batch in an epoch; got none"),
        (3, r"expected batches .* got an object of type int"),
    ],
)
def test_what_is_no_epoch_of_batches_is_refused_in_words(batches, message):
    with pytest.raises(ValueError, match=message):
        fit(Watching(), batches, epochs=1)


def test_fit_tells_the_engine_how_many_steps_are_to_come():
    """Measured on five steps, it decides with the others of fit's in sight."""
    chain = Chain(1)
    guide = chain.wrong_guide("mean_field")
    svi = svi_of(chain, guide, "auto")
    fit(svi, Batches(torch.randn(64, 3), 16), epochs=4)
    told = re.match(r"engine graph: (\d+) calls", svi.decision)
    assert told, svi.decision
    assert 16 - 8 <= int(told[1]) <= 16


def test_fit_is_told_of_steps_after_its_own():
    """A training in stages is one for the engine."""
    chain = Chain(1)
    guide = chain.wrong_guide("mean_field")
    svi = svi_of(chain, guide, "auto")
    fit(svi, Batches(torch.randn(64, 3), 16), epochs=4, steps_ahead=100)
    told = re.match(r"engine graph: (\d+) calls", svi.decision)
    assert told, svi.decision
    assert 100 - 8 <= int(told[1]) <= 100
