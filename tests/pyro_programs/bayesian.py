"""Bayesian models: parameters with priors, plates, reparameterizers, covariances, Gaussian processes."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from pyro.infer.reparam import LocScaleReparam, TransformReparam
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.distributions import constraints

from pyro_programs.parts import SIZES, network, pairs, rows, two_clusters


class Regression(PyroModule):
    """A Bayesian network: its weights are sites, the noise a constrained parameter."""

    def __init__(self):
        super().__init__()
        self.first = PyroModule[nn.Linear](3, 4)
        self.first.weight = PyroSample(dist.Normal(0.0, 1.0).expand([4, 3]).to_event(2))
        self.last = PyroModule[nn.Linear](4, 1)
        self.last.weight = PyroSample(lambda module: dist.Normal(0.0, module.width).expand([1, 4]).to_event(2))
        self.last.width = PyroParam(torch.tensor(1.0), constraint=constraints.positive)
        self.noise = PyroParam(lambda: torch.tensor(0.5), constraint=constraints.positive)

    def forward(self, x, y):
        mean = pyro.deterministic("mean", self.last(self.first(x).tanh()).squeeze(-1))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(mean, self.noise), obs=y)


def bayesian_network():
    model = Regression()
    return model, AutoDiagonalNormal(model), pairs(), Trace_ELBO()


def parameters():
    """Regression by ``pyro.param`` alone, one of them made of noise and one by a function."""

    def model(x, y):
        bias = pyro.sample("bias", dist.Normal(0.0, 1.0))
        weight = pyro.param("weight", torch.randn(3))
        noise = pyro.param("noise", lambda: torch.rand(()) + 0.5, constraint=constraints.greater_than(0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ weight + bias, noise), obs=y)

    def guide(x, y):
        loc = pyro.param("loc", 0.1 * torch.randn(()))
        pyro.sample(
            "bias", dist.Normal(loc, pyro.param("scale", torch.tensor(0.1), constraint=dist.constraints.softplus_positive))
        )

    return model, guide, pairs(), Trace_ELBO()


def factor():
    """A potential of one's own, and a density that a mask leaves out of the guide."""

    def model(x):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        pyro.factor("smooth", -loc.diff().square().sum())
        with pyro.plate("data", len(x)):
            pyro.factor("x", -(x - loc).abs().sum(-1))

    return model, AutoNormal(model), rows(), Trace_ELBO()


def inner_handlers():
    """Masks, scales, blocks and conditions inside the program."""
    inner = AutoNormal(lambda: pyro.sample("loc", dist.Normal(torch.zeros(6), 1.0).to_event(1)))

    def prior():
        pyro.sample("unused", dist.Normal(0.0, 1.0))
        return pyro.sample("loc", dist.Normal(torch.zeros(6), 1.0).to_event(1))

    def model(x):
        loc = poutine.block(poutine.condition(prior, data={"unused": torch.ones(())}), hide=["unused"])()
        with pyro.plate("data", len(x)), poutine.mask(mask=x[:, 0] > 0), poutine.scale(scale=100 / len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    return model, lambda x: inner(), rows(), Trace_ELBO()


def conditioned():
    """The data are put in by ``pyro.condition``; a step takes no argument."""
    data = {"x": torch.randn(8)}

    def model():
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 8):
            pyro.sample("x", dist.Normal(loc, 1.0))

    conditioned = pyro.condition(model, data=data)
    return conditioned, AutoNormal(conditioned), [()] * 4, Trace_ELBO()


def loc_scale_reparam():
    def model(y):
        mu, tau = pyro.sample("mu", dist.Normal(0.0, 5.0)), pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", 8):
            pyro.sample("y", dist.Normal(pyro.sample("theta", dist.Normal(mu, tau)), 10.0), obs=y)

    model = poutine.reparam(model, config={"theta": LocScaleReparam()})
    return model, AutoNormal(model), [(torch.randn(8) * 10,) for _ in SIZES], Trace_ELBO()


def transform_reparam():
    def model(y):
        mu, tau = pyro.sample("mu", dist.Normal(0.0, 5.0)), pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", 8):
            affine = dist.transforms.AffineTransform(mu, tau)
            theta = pyro.sample("theta", dist.TransformedDistribution(dist.Normal(0.0, 1.0), [affine]))
            pyro.sample("y", dist.Normal(theta, 10.0), obs=y)

    model = poutine.reparam(model, config={"theta": TransformReparam()})
    return model, AutoNormal(model), [(torch.randn(8) * 10,) for _ in SIZES], Trace_ELBO()


def positive(name, *shape):
    return pyro.param(name, 1 + torch.rand(shape), constraint=constraints.positive)


def dirichlet():
    def model(x):
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(4)))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Categorical(weights), obs=x)

    return (
        model,
        lambda x: pyro.sample("weights", dist.Dirichlet(positive("concentration", 4))),
        [(torch.randint(4, (size,)),) for size in SIZES],
        Trace_ELBO(),
    )


def beta():
    def model(x):
        fairness = pyro.sample("fairness", dist.Beta(10.0, 10.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(fairness), obs=x)

    def guide(x):
        pyro.sample("fairness", dist.Beta(positive("heads"), positive("tails")))

    return model, guide, [(torch.bernoulli(torch.full((size,), 0.4)),) for size in SIZES], Trace_ELBO()


def gamma():
    """Rates of one's own for each row, drawn from Gamma distributions of which an encoder speaks."""
    encoder = network(6, 4)

    def model(x):
        shape = pyro.param("shape", torch.ones(2), constraint=constraints.positive)
        loadings = pyro.param("loadings", torch.rand(2, 6), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(shape, 1.0).to_event(1))
            pyro.sample("x", dist.Poisson(rate @ loadings).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            concentration, rate = nn.functional.softplus(encoder(x)).add(0.1).chunk(2, -1)
            pyro.sample("rate", dist.Gamma(concentration, rate).to_event(1))

    return model, guide, [(torch.poisson(torch.full((size, 6), 2.0)),) for size in SIZES], Trace_ELBO()


def subsampled_plate():
    """Pyro draws the rows of a minibatch itself; a step takes no argument."""
    x = torch.randn(20, 6)

    def model():
        loc = pyro.sample("loc", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        with pyro.plate("data", 20, subsample_size=5) as rows:
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x[rows])

    return model, AutoNormal(model), [()] * 4, Trace_ELBO()


def local_parameters():
    """Each row has parameters of its own, of which a step sees those in its batch."""
    x = torch.randn(20, 6)

    def model(rows):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        with pyro.plate("data", 20, subsample=rows):
            z = pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=pyro.subsample(x, event_dim=1))

    def guide(rows):
        pyro.sample("loc", dist.Delta(pyro.param("centre", torch.zeros(6)), event_dim=1))
        with pyro.plate("data", 20, subsample=rows):
            z = pyro.param("z_loc", torch.randn(20, 6), event_dim=1)
            pyro.sample("z", dist.Normal(z, pyro.param("width", torch.ones(20, 6), event_dim=1).exp()).to_event(1))

    return model, guide, [(torch.randperm(20)[:size],) for size in SIZES], Trace_ELBO()


def nested_plates():
    """A hierarchy over rows and columns."""

    def model(x):
        with pyro.plate("columns", 6, dim=-1):
            centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
            with pyro.plate("rows", len(x), dim=-2):
                pyro.sample("x", dist.StudentT(5.0, centre, 1.0), obs=x)

    return model, AutoNormal(model), rows(), Trace_ELBO(2, vectorize_particles=True, max_plate_nesting=2)


@config_enumerate
def clusters(x):
    """Pyro's tutorial on Gaussian mixtures: the clusters of the rows are summed out."""
    weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(2)))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        cluster = pyro.sample("cluster", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(locs[cluster], scale), obs=x[:, 0])


def mixture():
    guide = AutoDelta(poutine.block(clusters, expose=["weights", "locs", "scale"]))
    return clusters, guide, two_clusters(), TraceEnum_ELBO(max_plate_nesting=1)


class Easy(EasyGuide):
    """One normal distribution over two sites together, a point for the third."""

    def guide(self, x):
        group = self.group(match="weight|bias")
        loc = pyro.param("group_loc", torch.zeros(group.event_shape))
        group.sample("group", dist.Normal(loc, 0.1).to_event(1))
        self.map_estimate("scale")


def easyguide():
    def model(x):
        weight = pyro.sample("weight", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        bias, scale = pyro.sample("bias", dist.Normal(0.0, 1.0)), pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(weight + bias, scale).to_event(1), obs=x)

    return model, Easy(model), rows(), Trace_ELBO()
