"""Models of covariances, whose matrices are factorized or inverted at every step: Gaussian processes among them."""

import pyro
import pyro.contrib.gp as gp
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroSample
from torch import nn

from pyro_programs.parts import SIZES, network, rows


def lkj():
    """A covariance of standard deviations and correlations, as in Pyro's tutorial on LKJ."""

    def model(x):
        scale = pyro.sample("scale", dist.HalfCauchy(1.0).expand([6]).to_event(1))
        root = scale[:, None] * pyro.sample("correlation", dist.LKJCholesky(6, 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.MultivariateNormal(torch.zeros(6), scale_tril=root), obs=x)

    return model, AutoNormal(model), rows(), Trace_ELBO()


def cholesky():
    """A guide of full covariance, factorized at every step."""
    encoder, decoder = network(6, 6), nn.Linear(2, 6)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        loc, root = encoder(x)[:, :2], encoder(x)[:, 2:].reshape(-1, 2, 2)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, covariance_matrix=root @ root.mT + torch.eye(2)))

    return model, guide, rows(), Trace_ELBO()


def inverse():
    """A linear map that is inverted at every step, and its determinant."""

    def model(x):
        mix = pyro.param("mix", torch.eye(6) + 0.1 * torch.rand(6, 6))
        loc = pyro.sample("loc", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.factor("volume", torch.linalg.slogdet(mix)[1])
            pyro.sample("x", dist.Normal(loc @ torch.linalg.inv(mix), 1.0).to_event(1), obs=x)

    return model, AutoNormal(model), rows(), Trace_ELBO()


def curve(size=10):
    x = torch.linspace(0, 3, size)
    return x, x.sin() + 0.1 * torch.randn(size)


def gp_regression():
    """A Gaussian process with priors on its kernel; a step takes no argument."""
    kernel = gp.kernels.RBF(1)
    kernel.lengthscale = PyroSample(dist.LogNormal(0.0, 1.0))
    model = gp.models.GPRegression(*curve(), kernel, noise=torch.tensor(0.1), jitter=1e-4)
    kernel.autoguide("lengthscale", dist.Normal)
    return model.model, model.guide, [()] * 4, Trace_ELBO()


def sparse_gp():
    """A variational sparse process, which is given each batch by ``set_data``, as in Pyro's example of deep kernels."""
    x, y = curve()
    process = gp.models.VariationalSparseGP(
        x, y, gp.kernels.RBF(1), torch.linspace(0, 3, 4), gp.likelihoods.Gaussian(torch.tensor(0.1)), num_data=40, jitter=1e-4
    )

    def batches():
        for size in SIZES:
            process.set_data(*curve(size))
            yield ()

    return process.model, process.guide, batches(), Trace_ELBO()


def latent_gp():
    """A latent variable model of a process: the inputs themselves are sites."""
    y = torch.randn(3, 10)
    loc = torch.randn(10, 2)
    process = gp.models.SparseGPRegression(loc, y, gp.kernels.RBF(2, lengthscale=torch.ones(2)), loc[:4].clone(), jitter=1e-3)
    model = gp.models.GPLVM(process)
    return model.model, model.guide, [()] * 4, Trace_ELBO()
