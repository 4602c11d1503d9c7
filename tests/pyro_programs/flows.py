"""Guides and priors that are normalizing flows: Pyro's own and zuko's."""

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import torch
import zuko
from pyro.contrib.zuko import ZukoToPyro
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_programs.parts import network, rows, standard_normal


def flow_guide(flow, decoder):
    """A program whose latent vector is shared by the rows, with a flow of Pyro's as guide."""

    def model(x):
        pyro.module("decoder", decoder)
        z = pyro.sample("z", standard_normal(2))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("flow", nn.ModuleList(flow))
        pyro.sample("z", dist.TransformedDistribution(standard_normal(2), list(flow)))

    return model, guide, rows(), Trace_ELBO()


def planar():
    return flow_guide([transforms.planar(2), transforms.planar(2)], nn.Linear(2, 6))


def inverse_autoregressive():
    return flow_guide([transforms.affine_autoregressive(2, [4])], nn.Linear(2, 6))


def spline():
    return flow_guide([transforms.Spline(2, count_bins=4, bound=1.0)], nn.Linear(2, 6))


def conditional_flow():
    """A flow of Pyro's under what an encoder says of each row."""
    encoder, decoder = network(6, 3), network(2, 6)
    flow = transforms.conditional_affine_autoregressive(2, 3, [4])

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(len(x), 2))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(len(x), 2), 1.0)
            pyro.sample("z", dist.TransformedDistribution(base, [flow.condition(encoder(x))]))

    return model, guide, rows(), Trace_ELBO()


def zuko_guide(flow):
    """A flow of zuko's under the row itself as guide."""
    decoder = network(2, 6)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(len(x), 2))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("z", ZukoToPyro(flow(x)))

    return model, guide, rows(), Trace_ELBO()


def zuko_coupling():
    return zuko_guide(zuko.flows.NICE(2, 6, transforms=2, hidden_features=(8,)))


def zuko_spline():
    return zuko_guide(zuko.flows.NSF(2, 6, bins=4, transforms=1, hidden_features=(8,)))


def zuko_prior():
    """A flow of zuko's as prior, as in Pyro's tutorial."""
    flow, encoder, decoder = zuko.flows.MAF(2, transforms=1, hidden_features=(8,)), network(6, 4), network(2, 6)

    def model(x):
        pyro.module("flow", flow)
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", ZukoToPyro(flow()))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide, rows(), Trace_ELBO()
