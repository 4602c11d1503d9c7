"""Batches, networks and the autoencoder around them that the programs have in common."""

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import nn

SIZES = (8, 8, 8, 5)


def rows(features=6):
    """Batches of one tensor, the last of them smaller."""
    return [(torch.randn(size, features),) for size in SIZES]


def two_clusters():
    """Batches of positive and of negative rows, each with more of the one."""
    return [(torch.randn(size, 2) + 2 * torch.randn(size, 1).sign(),) for size in SIZES]


def pairs(features=3):
    """Batches of inputs and of noisy sums of them."""
    return [(x, x.sum(-1) + 0.1 * torch.randn(len(x))) for (x,) in rows(features)]


def network(inputs, outputs, width=8):
    """One hidden layer."""
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))


def normal(output):
    """The normal distribution whose location and scale a network put beside each other."""
    loc, scale = output.chunk(2, -1)
    return dist.Normal(loc, F.softplus(scale) + 0.01).to_event(1)


def standard_normal(*shape):
    """A prior over vectors."""
    return dist.Normal(torch.zeros(*shape), 1.0).to_event(1)


def autoencoder(encoder, decoder, size=2):
    """A model and a guide around two networks, registered by ``pyro.module``."""

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), size), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(x.dim() - 1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(encoder(x)))

    return model, guide
