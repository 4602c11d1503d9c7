"""Programs over time: recurrent networks and attention, deep Markov models, hidden Markov models."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import nn
from torch.distributions import constraints

from pyro_programs.parts import SIZES, autoencoder, network, normal, standard_normal

LENGTH = 3


class Last(nn.Module):
    """What a recurrent network puts out last, through a linear layer."""

    def __init__(self, recurrent):
        super().__init__()
        self.recurrent, self.head = recurrent(3, 4, batch_first=True), nn.Linear(4, 4)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


class Attention(nn.Module):
    """Self-attention over time, averaged."""

    def __init__(self, attention):
        super().__init__()
        self.embed, self.attention, self.head = nn.Linear(3, 4), attention, nn.Linear(4, 4)

    def forward(self, x):
        x = self.embed(x)
        x = self.attention(x, x, x)[0] if isinstance(self.attention, nn.MultiheadAttention) else self.attention(x)
        return self.head(x.mean(1))


def series():
    return [(torch.randn(size, LENGTH, 3),) for size in SIZES]


def around(encoder):
    decoder = nn.Sequential(nn.Linear(2, LENGTH * 3), nn.Unflatten(-1, (LENGTH, 3)))
    return *autoencoder(encoder, decoder), series(), Trace_ELBO()


def gru():
    return around(Last(nn.GRU))


def lstm():
    return around(Last(nn.LSTM))


def multihead_attention():
    return around(Attention(nn.MultiheadAttention(4, 2, batch_first=True)))


def transformer():
    return around(Attention(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)))


def lengths():
    """Batches of series with how long each is, the longest first."""
    return [(x, torch.randint(1, LENGTH + 1, (len(x),)).sort(descending=True)[0]) for (x,) in series()]


def packed_sequences():
    rnn, head, decoder = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 4), nn.Linear(2, LENGTH * 3)

    def model(x, length):
        pyro.module("decoder", decoder)
        mask = torch.arange(LENGTH) < length[:, None]
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(len(x), 2))
            likelihood = dist.Normal(decoder(z).reshape(-1, LENGTH, 3), 1.0).mask(mask[..., None])
            pyro.sample("x", likelihood.to_event(2), obs=x)

    def guide(x, length):
        pyro.module("rnn", rnn)
        pyro.module("head", head)
        packed = nn.utils.rnn.pack_padded_sequence(x, length, batch_first=True)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(head(rnn(packed)[1][0])))

    return model, guide, lengths(), Trace_ELBO()


class DeepMarkov(nn.Module):
    """Pyro's deep Markov model: what lies behind a series' end is masked, and the latents are annealed."""

    def __init__(self):
        super().__init__()
        self.transition, self.emit, self.combine = network(2, 4), network(2, 3), network(6, 4)
        self.rnn = nn.GRU(3, 4, batch_first=True)
        self.start, self.start_q = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))

    def model(self, x, length, factor):
        pyro.module("dmm", self)
        mask = (torch.arange(LENGTH) < length[:, None]).float()
        with pyro.plate("data", len(x)):
            z = self.start.expand(len(x), 2)
            for t in pyro.markov(range(LENGTH)):
                with poutine.scale(scale=factor):
                    z = pyro.sample(f"z_{t}", normal(self.transition(z)).mask(mask[:, t] > 0))
                likelihood = dist.Bernoulli(logits=self.emit(z)).mask(mask[:, t : t + 1] > 0).to_event(1)
                pyro.sample(f"x_{t}", likelihood, obs=x[:, t])

    def guide(self, x, length, factor):
        pyro.module("dmm", self)
        mask = (torch.arange(LENGTH) < length[:, None]).float()
        hidden = self.rnn(x.flip(1))[0].flip(1)
        with pyro.plate("data", len(x)):
            z = self.start_q.expand(len(x), 2)
            for t in pyro.markov(range(LENGTH)):
                with poutine.scale(scale=factor):
                    z = pyro.sample(f"z_{t}", normal(self.combine(torch.cat([z, hidden[:, t]], -1))).mask(mask[:, t] > 0))


def deep_markov():
    dmm = DeepMarkov()
    batches = [((x > 0).float(), length, 0.1 * number + 0.2) for number, (x, length) in enumerate(lengths())]
    return dmm.model, dmm.guide, batches, Trace_ELBO()


def hidden_markov():
    """A hidden Markov model as in Pyro's tutorial: the states are summed out along ``pyro.markov``."""

    @config_enumerate
    def model(x):
        transition = pyro.param("transition", torch.rand(3, 3), constraint=constraints.simplex)
        loc = pyro.param("loc", torch.randn(3))
        with pyro.plate("data", len(x), dim=-1):
            state = 0
            for t in pyro.markov(range(LENGTH)):
                state = pyro.sample(f"state_{t}", dist.Categorical(transition[state]))
                pyro.sample(f"x_{t}", dist.Normal(loc[state], 1.0), obs=x[:, t, 0])

    return model, lambda x: None, series(), TraceEnum_ELBO(max_plate_nesting=1)


def gaussian_hidden_markov():
    """A linear dynamical system whose states are integrated out by ``GaussianHMM``."""

    def model(x):
        transition = pyro.param("transition", 0.5 * torch.eye(2))
        emit = pyro.param("emit", torch.randn(2, 3))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        unit = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        noise = dist.Normal(torch.zeros(3), scale).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.GaussianHMM(unit, transition, unit, emit, noise, duration=LENGTH), obs=x)

    def guide(x):
        pyro.sample("scale", dist.LogNormal(pyro.param("loc", torch.tensor(0.1)), 0.3))

    return model, guide, series(), Trace_ELBO()


def sequential_plate():
    """A plate that is looped over."""

    def model(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        for number in pyro.plate("columns", 3):
            pyro.sample(f"x_{number}", dist.Normal(loc, 1.0).expand([len(x)]).to_event(1), obs=x[:, 0, number])

    def guide(x):
        pyro.sample("loc", dist.Normal(pyro.param("centre", torch.tensor(0.1)), 0.5))

    return model, guide, series(), Trace_ELBO()
