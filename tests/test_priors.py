"""Every prior samples and scores with one density, in every pair with a guide that makes sense."""

import math
from dataclasses import replace

import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import BIAS, NOISE, WEIGHT, LinearGaussian, Several
from pyro.distributions.testing import gof
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pyrovae.data.conditions import CONDITIONS
from pyrovae.data.datasets import Dataset
from pyrovae.data.protocol import Protocol
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.experiments.building import build
from pyrovae.experiments.recipe import Recipe
from pyrovae.programs.conditionals import DiagonalGaussian
from pyrovae.programs.distributions import GaussianMixture
from pyrovae.programs.guides import MeanField
from pyrovae.programs.models import GenerativeModel
from pyrovae.programs.priors import PRIORS, ChosenInputs, VampPrior

GREY = torch.rand(64, 12, generator=torch.Generator().manual_seed(0))
DATA = Dataset("grey", GREY, None, GREY.round(), {}, (1, 3, 4), Protocol(dataset="grey", sizes=(64, 0, 64)))
SMALL = Recipe(hidden_layers=1, num_components=5, batch_norm=True, batch_size=64)


def recipe(prior, guide, depth):
    return replace(SMALL, prior=prior, guide=guide, latent_sizes=(4, 3, 2, 3, 2)[:depth], hidden_sizes=(8, 7, 6, 5, 4)[:depth])


@pytest.mark.parametrize("prior", PRIORS)
def test_a_prior_samples_from_the_density_that_it_scores_with(prior):
    """A goodness of fit on 20,000 samples, which is exact in one dimension; false alarms: one in a thousand."""
    torch.manual_seed(1)
    needs_context = prior == "conditional_gaussian"
    data = replace(DATA, condition=CONDITIONS["left-half"](DATA.shape, 0)) if needs_context else DATA
    condition = "left-half" if needs_context else "none"
    vae = build(replace(SMALL, prior=prior, latent_sizes=(1,), hidden_sizes=(8,), condition=condition), data).eval()
    with torch.no_grad():
        distribution = vae.model.prior(GREY[0, :6] if needs_context else None)
        samples = distribution.sample((20_000,))
        densities = distribution.log_prob(samples).exp()
    assert gof.auto_goodness_of_fit(samples, densities) > 1e-3


def test_a_mixture_of_gaussians_equals_torchs():
    torch.manual_seed(0)
    loc, scale = 3 * torch.randn(7, 4, dtype=torch.float64) + 50, torch.rand(7, 4, dtype=torch.float64) + 0.1
    z = 50 + 3 * torch.randn(2, 9, 4, dtype=torch.float64)
    theirs = MixtureSameFamily(Categorical(torch.ones(7, dtype=torch.float64)), Independent(Normal(loc, scale), 1))
    torch.testing.assert_close(GaussianMixture(loc, scale).log_prob(z), theirs.log_prob(z), rtol=1e-10, atol=1e-10)
    for moment in ("mean", "variance"):
        torch.testing.assert_close(getattr(GaussianMixture(loc, scale), moment), getattr(theirs, moment))
    single = GaussianMixture(loc.float(), scale.float()).log_prob(z.float()).double()
    torch.testing.assert_close(single, theirs.log_prob(z), rtol=1e-4, atol=1e-3)


def test_a_mixture_draws_anew_for_each_entry_of_a_batch():
    mixture = GaussianMixture(torch.tensor([[-9.0, 0.0], [9.0, 0.0]]), torch.full((2, 2), 0.1)).expand([200])
    drawn = mixture.sample((3,))
    assert drawn.shape == (3, 200, 2)
    assert mixture.batch_shape == (200,)
    assert set(drawn[0, :, 0].sign().tolist()) == {-1.0, 1.0}
    assert mixture.mean.shape == (200, 2)


def test_log_likelihood_under_a_mixture_prior_is_the_closed_form():
    """x is a mixture of Gaussians too. With the posterior of the wrong prior as proposal: four standard errors."""
    torch.manual_seed(0)
    means, scales = torch.tensor([[-2.0], [0.5], [3.0]]), torch.tensor([[0.3], [1.0], [0.5]])

    class Fixed(torch.nn.Module):
        def forward(self, context):
            return GaussianMixture(means, scales)

    model = GenerativeModel(Fixed(), LinearGaussian(WEIGHT, BIAS, NOISE))
    guide = MeanField(Several(LinearGaussian([[0.5, -0.2, 0.1]], [0.0], 1.5)))
    with torch.no_grad():
        x = model(batch_size=50)
        weight = torch.tensor(WEIGHT)
        covariances = scales[:, :, None] ** 2 * torch.outer(weight, weight) + NOISE**2 * torch.eye(3)
        parts = dist.MultivariateNormal(means * weight + torch.tensor(BIAS), covariances).log_prob(x[:, None])
        exact = parts.logsumexp(1) - math.log(3)
        estimate = log_likelihood(model, guide, x, 20_000)
    error = (1 / estimate.effective_sample_size - 1 / 20_000).clamp(min=1e-6).sqrt()
    assert ((estimate.per_image - exact).abs() < 4 * error).all()


def test_a_vamp_prior_is_the_mixture_of_posteriors_at_its_pseudo_inputs():
    head = DiagonalGaussian(12, 3)
    z = torch.randn(6, 3)
    prior = VampPrior(head, ChosenInputs(GREY[:4]))
    mean_density = torch.stack([head(row).log_prob(z) for row in GREY[:4]]).logsumexp(0) - math.log(4)
    torch.testing.assert_close(prior().log_prob(z), mean_density, rtol=1e-4, atol=1e-4)
    assert not list(prior.parameters()), "the posterior's parameters stay the guide's"


def test_pseudo_inputs_leave_the_statistics_of_the_data_alone():
    vae = build(replace(recipe("vamp", "ladder", 2), dropout=0.5), DATA)
    vae.train()
    before = [buffer.clone() for buffer in vae.guide.buffers()]
    vae.model.prior()
    assert all(torch.equal(old, new) for old, new in zip(before, vae.guide.buffers(), strict=True))
    with torch.no_grad():
        trained = vae.model.prior().loc
        assert torch.equal(vae.eval().model.prior().loc, trained)


def test_pseudo_inputs_stay_in_the_range_of_the_data_and_chosen_ones_are_images():
    learned = build(recipe("vamp", "ladder", 1), DATA).model.prior.pseudo_inputs
    with torch.no_grad():
        learned.free.add_(torch.linspace(-2, 2, 12))
    assert 0 <= learned().min() <= learned().max() <= 1
    chosen = build(recipe("vamp_data", "ladder", 1), DATA).model.prior.pseudo_inputs()
    assert all(any(torch.equal(row, image) for image in GREY) for row in chosen)
    assert len(chosen.unique(dim=0)) == 5


def test_pseudo_inputs_may_start_from_training_images_and_carry_a_context():
    started = build(replace(recipe("vamp", "ladder", 1), pseudo_inputs="images"), DATA).model.prior.pseudo_inputs
    assert all(any(torch.equal(row, image) for image in GREY) for row in started())
    assert started.free.requires_grad
    conditional = replace(DATA, condition=CONDITIONS["left-half"](DATA.shape, 0))
    for prior in ("vamp", "vamp_data"):
        start = "images" if prior == "vamp" else "noise"
        chosen = replace(recipe(prior, "ladder", 1), pseudo_inputs=start, condition="left-half")
        rows = build(chosen, conditional).model.prior.pseudo_inputs()
        assert rows.shape == (5, 12 + 6)
        assert torch.equal(rows[:, 12:], rows[:, :12].view(-1, 3, 4)[..., :2].flatten(1)), "contexts of other draws"


@pytest.mark.slow
def test_components_are_encoded_once_for_a_whole_test_set():
    vae, calls = build(recipe("vamp", "ladder", 2), DATA), []
    vae.model.prior.pseudo_inputs.register_forward_hook(lambda *_: calls.append(1))
    with_sharing = log_likelihood(vae.model, vae.guide, GREY.round().repeat(4, 1), 300)
    encoded = len(calls)
    calls.clear()
    log_likelihood(vae.model, vae.guide, GREY.round().repeat(16, 1), 3000)
    assert len(calls) <= 2 * encoded, "however many images and samples there are"
    calls.clear()
    with torch.no_grad():
        vae.guide.encoder.heads[-1].readout.bias.add_(1.0)
    moved = log_likelihood(vae.model, vae.guide, GREY.round().repeat(4, 1), 300)
    assert calls, "parameters moved between the two"
    assert with_sharing.mean != moved.mean
