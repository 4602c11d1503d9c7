"""Autoencoders whose latents are written by hand, with networks of every make."""

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.contrib.gp.kernels import RBF
from pyro.infer import Trace_ELBO, Trace_MMD, TraceMeanField_ELBO, TraceTMC_ELBO, config_enumerate
from torch import nn

from pyro_programs.parts import SIZES, autoencoder, network, normal, rows, standard_normal


class Tutorial(nn.Module):
    """The class of Pyro's tutorial: model and guide are methods of one module."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = network(6, 4), network(2, 6)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("latent", dist.Normal(x.new_zeros(x.shape[0], 2), x.new_ones(x.shape[0], 2)).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=self.decoder(z), validate_args=False).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("latent", normal(self.encoder(x)))


def bits():
    return [((x > 0).float(),) for (x,) in rows()]


def tutorial():
    vae = Tutorial()
    return vae.model, vae.guide, bits(), Trace_ELBO()


def grey_pixels():
    """Pyro's tutorial trains on grey pixels, under a Bernoulli that is told not to validate them."""
    vae = Tutorial()
    return vae.model, vae.guide, [(x.sigmoid(),) for (x,) in rows()], Trace_ELBO()


def analytic_kl():
    vae = Tutorial()
    return vae.model, vae.guide, bits(), TraceMeanField_ELBO()


def vectorized_particles():
    vae = Tutorial()
    return vae.model, vae.guide, bits(), Trace_ELBO(3, vectorize_particles=True, max_plate_nesting=1)


def particles_in_turn():
    vae = Tutorial()
    return vae.model, vae.guide, bits(), Trace_ELBO(2)


def tensor_monte_carlo():
    """Several draws of a latent at once, along a dimension of their own."""
    vae = Tutorial()
    guide = config_enumerate(vae.guide, "parallel", num_samples=3, expand=False)
    return vae.model, guide, bits(), TraceTMC_ELBO(max_plate_nesting=1)


def maximum_mean_discrepancy():
    """A loss that is no bound: it compares draws of the prior with draws of the guide."""
    vae = Tutorial()
    loss = Trace_MMD(
        kernel=RBF(2, lengthscale=torch.tensor(1.0)), num_particles=3, vectorize_particles=True, max_plate_nesting=1
    )
    return vae.model, vae.guide, bits(), loss


def double_precision():
    model, guide = autoencoder(network(6, 4).double(), network(2, 6).double())
    return model, guide, [(x.double(),) for (x,) in rows()], Trace_ELBO()


def weight_tying():
    encoder, bias = nn.Linear(6, 4), torch.zeros(6)

    def model(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(len(x), 2))
            loc = F.linear(z, encoder.weight[:2].T, pyro.param("bias", bias))
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    return model, autoencoder(encoder, encoder)[1], rows(), Trace_ELBO()


def convolutions():
    encoder = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(64, 4)
    )
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(-1, (4, 4, 4)), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4, 2, 1))
    return *autoencoder(encoder, decoder), [(torch.randn(size, 1, 8, 8),) for size in SIZES], Trace_ELBO()


def spectral_norm():
    decoder = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(2, 8)),
        nn.Tanh(),
        nn.utils.parametrizations.weight_norm(nn.Linear(8, 6)),
    )
    return *autoencoder(network(6, 4), decoder), rows(), Trace_ELBO()


def one_hot_labels():
    encoder, decoder = network(9, 4), network(5, 6)

    def model(x, y):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(len(x), 2))
            loc = decoder(torch.cat([z, F.one_hot(y, 3).float()], -1))
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x, y):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(encoder(torch.cat([x, F.one_hot(y, 3).float()], -1))))

    return model, guide, [(x, torch.randint(3, (len(x),))) for (x,) in rows()], Trace_ELBO()


def dictionaries():
    model, guide = autoencoder(network(6, 4), network(2, 6))

    def pixels(batch):
        return torch.where(batch["observed"], batch["x"], batch["x"].new_zeros(()))

    batches = [({"x": x, "observed": x > -1, "names": ["a", "b"]},) for (x,) in rows()]
    return lambda batch: model(pixels(batch)), lambda batch: guide(pixels(batch)), batches, Trace_ELBO()


def annealing_factor():
    """KL annealing as in Pyro's deep Markov model: a number among the arguments, another one at each step."""
    encoder, decoder = network(6, 4), network(2, 6)

    def model(x, factor):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=factor):
                z = pyro.sample("z", standard_normal(len(x), 2))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x, factor):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)), poutine.scale(scale=factor):
            pyro.sample("z", normal(encoder(x)))

    return model, guide, [(x, (number + 1) / 10) for number, (x,) in enumerate(rows())], Trace_ELBO()


def topics():
    """ProdLDA as in Pyro's tutorial, its counts told how many words there are at most."""
    encoder = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Dropout(0.2), nn.Linear(8, 4), nn.BatchNorm1d(4, affine=False))
    decoder = nn.Sequential(nn.Dropout(0.2), nn.Linear(2, 6, bias=False), nn.BatchNorm1d(6, affine=False), nn.Softmax(-1))
    return topic_model(encoder, decoder, lambda words: 40)


def counted_topics():
    """The same as the tutorial writes it: the largest number of words is read from the batch."""
    return topic_model(network(6, 4), nn.Sequential(nn.Linear(2, 6), nn.Softmax(-1)), lambda words: int(words.sum(-1).max()))


def topic_model(encoder, decoder, total):
    _, guide = autoencoder(encoder, decoder)

    def model(words):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(words)):
            theta = pyro.sample("z", standard_normal(len(words), 2)).softmax(-1)
            pyro.sample("words", dist.Multinomial(total(words), decoder(theta)), obs=words)

    return model, guide, [(torch.poisson(torch.full((size, 6), 2.0)),) for size in SIZES], Trace_ELBO()


def counts():
    """Zero-inflated negative binomial counts, as of genes in single cells, with a size factor for each cell."""
    encoder, decoder = network(6, 4), network(2, 12)

    def model(x):
        pyro.module("decoder", decoder)
        dispersion = pyro.param("dispersion", torch.ones(6), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(len(x), 2))
            gate, rate = decoder(z).chunk(2, -1)
            mean = rate.softmax(-1) * x.sum(-1, keepdim=True)
            likelihood = dist.ZeroInflatedNegativeBinomial(
                dispersion, logits=(mean + 1e-4).log() - dispersion.log(), gate_logits=gate, validate_args=False
            )
            pyro.sample("x", likelihood.to_event(1), obs=x)

    guide = autoencoder(encoder, decoder)[1]
    return model, lambda x: guide((1 + x).log()), [(torch.poisson(torch.full((n, 6), 3.0)),) for n in SIZES], Trace_ELBO()


def missing_by_index():
    """Missing pixels are left out by boolean indexing: how many are left depends on values."""
    encoder, decoder = network(6, 4), network(2, 6)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(len(x), 2))
        known = ~x.isnan()
        pyro.factor("x", dist.Normal(decoder(z)[known], 1.0).log_prob(x[known]).sum())

    guide = autoencoder(encoder, decoder)[1]
    return model, lambda x: guide(x.nan_to_num()), with_holes(), Trace_ELBO()


def missing_by_mask():
    """Missing pixels are left out by a mask."""
    encoder, decoder = network(6, 4), network(2, 6)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(len(x), 2))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).mask(~x.isnan()).to_event(1), obs=x.nan_to_num())

    guide = autoencoder(encoder, decoder)[1]
    return model, lambda x: guide(x.nan_to_num()), with_holes(), Trace_ELBO()


def with_holes():
    return [(x.masked_fill(x > 1, float("nan")),) for (x,) in rows()]
