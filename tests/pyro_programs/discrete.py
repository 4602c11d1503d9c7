"""Autoencoders with classes: observed, summed out, relaxed, or drawn."""

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import nn

from pyro_programs.parts import network, normal, rows, standard_normal


class Mixture(nn.Module):
    """A VAE whose prior is a mixture of Gaussians: its class is summed out in model and guide."""

    def __init__(self):
        super().__init__()
        self.classify, self.encode, self.prior, self.decode = network(6, 3), network(9, 4), nn.Linear(3, 4), network(2, 6)

    def model(self, x):
        pyro.module("mixture", self)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(3) / 3))
            z = pyro.sample("z", normal(self.prior(y)))
            pyro.sample("x", dist.Normal(self.decode(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("mixture", self)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=self.classify(x)))
            pyro.sample("z", normal(self.encode(torch.cat([x.expand(*y.shape[:-1], 6), y], -1))))


def gaussian_mixture():
    vae = Mixture()
    return vae.model, config_enumerate(vae.guide, "parallel", expand=True), rows(), TraceEnum_ELBO(max_plate_nesting=1)


class SemiSupervised(nn.Module):
    """Kingma's M2 as in Pyro's example: labels are observed in some batches, and summed out in the others."""

    def __init__(self):
        super().__init__()
        self.classify, self.encode, self.decode = network(6, 3), network(9, 4), network(5, 6)

    def model(self, x, y=None):
        pyro.module("ss_vae", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(len(x), 2))
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(len(x), 3) / 3), obs=y)
            both = torch.cat([z.expand(*y.shape[:-1], 2), y.expand(*z.shape[:-1], 3) if y.dim() < z.dim() else y], -1)
            pyro.sample("x", dist.Bernoulli(logits=self.decode(both)).to_event(1), obs=x)

    def guide(self, x, y=None):
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=self.classify(x)))
            pyro.sample("z", normal(self.encode(torch.cat([x.expand(*y.shape[:-1], 6), y], -1))))

    def model_classify(self, x, y=None):
        """The auxiliary loss: classify where there are labels."""
        pyro.module("ss_vae", self)
        with pyro.plate("data", len(x)):
            if y is not None:
                with poutine.scale(scale=46.0):
                    pyro.sample("y_aux", dist.OneHotCategorical(logits=self.classify(x)), obs=y)

    def guide_classify(self, x, y=None):
        """Nothing is latent."""


def partly_labelled():
    """Labels in every second batch."""
    bits = [(x > 0).float() for (x,) in rows()]
    labels = [F.one_hot(torch.randint(3, (len(x),)), 3).float() for x in bits]
    return [(x, y) if number % 2 == 0 else (x,) for number, (x, y) in enumerate(zip(bits, labels, strict=True))]


def semi_supervised():
    vae = SemiSupervised()
    guide = config_enumerate(vae.guide, "parallel", expand=True)
    return vae.model, guide, partly_labelled(), TraceEnum_ELBO(max_plate_nesting=1)


def auxiliary_loss():
    vae = SemiSupervised()
    return vae.model_classify, vae.guide_classify, partly_labelled(), Trace_ELBO()


def gumbel_softmax():
    """A relaxed class, drawn by reparameterization."""
    classify, decoder = network(6, 3), network(3, 6)
    temperature = torch.tensor(0.7)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.RelaxedOneHotCategorical(temperature, probs=torch.ones(len(x), 3) / 3))
            pyro.sample("x", dist.Normal(decoder(y), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("classify", classify)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.RelaxedOneHotCategorical(temperature, logits=classify(x)))

    return model, guide, rows(), Trace_ELBO()


def score_function():
    """A discrete latent that nothing sums out: its gradient is the score's."""
    classify, decoder = network(6, 3), network(3, 6)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(len(x), 3) / 3))
            pyro.sample("x", dist.Normal(decoder(y), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("classify", classify)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.OneHotCategorical(logits=classify(x)))

    return model, guide, rows(), Trace_ELBO()
