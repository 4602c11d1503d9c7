"""Exact truths: linear-Gaussian models, whose evidence and posterior are known in closed form.

Statistical checks allow five standard errors: a false alarm in 1.7 million, for seeds that are fixed anyway.
"""

import math

import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import BIAS, NOISE, Chain, LinearGaussian, Several
from monte_carlo import five_standard_errors
from pyro.infer import TraceMeanField_ELBO

from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE, log_likelihood
from pyrovae.inference.objectives import ELBO, IWELBO
from pyrovae.inference.weights import log_mean_exp, log_weights
from pyrovae.programs.architecture import Architecture
from pyrovae.programs.guides import GUIDES, BottomUp, Ladder, MeanField
from pyrovae.programs.models import GenerativeModel
from pyrovae.programs.priors import ConditionalGaussian

pytestmark = pytest.mark.usefixtures("float64")

DEPTHS = (1, 2, 5)
DATA = [[0.5, -1.0, 0.2], [2.0, 0.3, -0.7], [-1.5, 0.8, 0.0]]


@pytest.mark.parametrize("depth", DEPTHS)
def test_weights_under_the_exact_posterior_are_the_evidence(depth):
    chain, x = Chain(depth), torch.tensor(DATA)
    for family, guide in chain.exact_guides().items():
        weights = log_weights(chain.model, guide, x, num_particles=7)
        torch.testing.assert_close(weights, chain.evidence(x).expand(7, 3), rtol=0, atol=1e-10, msg=family)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("family", GUIDES)
def test_bounds_rise_with_particles_to_the_evidence(family, depth):
    chain = Chain(depth)
    guide = chain.wrong_guide(family)
    x = torch.tensor(DATA[:1])
    evidence = chain.evidence(x).item()
    weights = log_weights(chain.model, guide, x.expand(4096, 3), num_particles=64)
    bounds = [log_mean_exp(weights[:size]) for size in (1, 2, 8, 64)]
    for tighter, looser in zip(bounds[1:], bounds, strict=False):
        gain = tighter - looser
        assert gain.mean().item() > -five_standard_errors(gain), family
    assert bounds[0].mean().item() < evidence - 0.01, "the guide is not wrong enough to show anything"
    total = bounds[-1] - bounds[0]
    assert total.mean().item() > five_standard_errors(total), family
    assert bounds[-1].mean().item() < evidence + five_standard_errors(bounds[-1]), family


def test_elbo_is_the_evidence_less_the_divergence_from_the_posterior():
    chain, x = Chain(1), torch.tensor(DATA[:1])
    guide = chain.wrong_guide("mean_field")
    gap = torch.distributions.kl_divergence(guide.encoder(x)[0], chain.posterior(1)(x))
    truth = (chain.evidence(x) - gap).item()
    weights = log_weights(chain.model, guide, x.expand(4096, 3), num_particles=16)
    assert abs(weights.mean().item() - truth) < five_standard_errors(weights)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("family", ["mean_field", "ladder"])
def test_analytic_and_sampled_divergences_agree(family, depth):
    chain = Chain(depth)
    guide = chain.wrong_guide(family)
    x = torch.tensor(DATA[:1]).expand(100, 3)
    sampled = torch.stack([ELBO().bound(chain.model, guide, x) for _ in range(100)])
    analytic = torch.stack([ELBO(analytic_kl=True).bound(chain.model, guide, x) for _ in range(100)])
    difference = sampled.mean() - analytic.mean()
    assert abs(difference.item()) < math.hypot(five_standard_errors(sampled), five_standard_errors(analytic))


def test_analytic_divergence_is_refused_for_a_bottom_up_hierarchy():
    chain, x = Chain(2), torch.tensor(DATA)
    guide = chain.exact_guides()["bottom_up"]
    with pytest.raises(ValueError, match="expected a guide that declares analytic_kl; BottomUp does not"):
        ELBO(analytic_kl=True).bound(chain.model, guide, x)
    # What the refusal is for: Pyro's own estimator only warns, and is wrong by far more than its spread.
    with pytest.warns(UserWarning, match="mean field restriction"):
        stock = torch.tensor([-TraceMeanField_ELBO().loss(chain.model, guide, x) for _ in range(100)])
    assert abs(stock.mean().item() - chain.evidence(x).sum().item()) > five_standard_errors(stock)


def test_analytic_divergence_is_right_for_one_bottom_up_layer():
    chain, x = Chain(1), torch.tensor(DATA)
    guide = chain.wrong_guide("bottom_up")
    torch.manual_seed(3)
    ours = ELBO(analytic_kl=True).loss(chain.model, guide, x)
    torch.manual_seed(3)
    assert ours == pytest.approx(TraceMeanField_ELBO().loss(chain.model, guide, x), rel=1e-12)


def test_iwelbo_reports_the_log_mean_exp_of_its_weights():
    chain, x = Chain(2), torch.tensor(DATA)
    guide = chain.wrong_guide("ladder")
    torch.manual_seed(1)
    weights = log_weights(chain.model, guide, x, num_particles=5)
    torch.manual_seed(1)
    bound = IWELBO(5).bound(chain.model, guide, x)
    torch.testing.assert_close(bound, (weights.exp().mean(0)).log().sum())


def test_iwelbo_gradient_favours_the_best_particles():
    """A sign slip that favours the worst ones trains quietly to something mediocre."""
    chain, x = Chain(1), torch.tensor(DATA)
    guide = chain.wrong_guide("mean_field")
    bias = guide.encoder.heads[0].bias
    torch.manual_seed(1)
    (gradient,) = torch.autograd.grad(IWELBO(5).bound(chain.model, guide, x), bias)
    torch.manual_seed(1)
    weights = log_weights(chain.model, guide, x, num_particles=5)
    (expected,) = torch.autograd.grad((weights.softmax(0).detach() * weights).sum(), bias)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("objective", [ELBO(), ELBO(2), IWELBO(3)], ids=["elbo", "elbo-2", "iwelbo-3"])
@pytest.mark.parametrize("family", GUIDES)
def test_every_parameter_gets_a_gradient(family, objective, depth):
    sizes = Architecture(shape=(1, 2, 3), latent_sizes=(4, 3, 2)[:depth], hidden_sizes=(8, 7, 6)[:depth], batch_norm=True)
    model = GenerativeModel.of(sizes)
    guide = GUIDES[family].of(model, sizes)
    objective.differentiable_loss(model, guide, torch.bernoulli(torch.full((5, 6), 0.5))).backward()
    for program in (model, guide):
        for name, parameter in program.named_parameters():
            assert parameter.grad is not None, f"{family}: {name} has no gradient"
            assert parameter.grad.isfinite().all(), f"{family}: the gradient of {name} is not finite"
            assert (parameter.grad != 0).any(), f"{family}: the gradient of {name} is zero"


def test_skip_connections_add_the_upper_layers_to_the_mean_of_the_data():
    """x = W (z1, z2) + c + noise: the evidence from the joint covariance, and nothing but its weights from the sampler."""
    chain = Chain(2)
    weight = torch.tensor([[1.0, 0.4], [-0.5, 0.2], [0.3, -0.7]])
    model = GenerativeModel(
        chain.model.prior, LinearGaussian(weight, BIAS, NOISE), chain.model.conditionals, skip_connections=True
    )
    (slope,), (shift,), (scale,) = chain.slopes, chain.shifts, chain.scales
    latent = torch.tensor([[slope**2 + scale**2, slope], [slope, 1.0]])
    mean = weight @ torch.tensor([shift, 0.0]) + torch.tensor(BIAS)
    with torch.no_grad():
        x = model(batch_size=40)
        exact = dist.MultivariateNormal(mean, weight @ latent @ weight.T + NOISE**2 * torch.eye(3)).log_prob(x)
        estimate = log_likelihood(model, chain.wrong_guide("top_down"), x, 20_000)
    error = (1 / estimate.effective_sample_size - 1 / 20_000).clamp(min=1e-6).sqrt()
    assert ((estimate.per_image - exact).abs() < 5 * error).all()


TOLD = torch.tensor([[0.4, -0.3], [0.2, 0.9], [-0.6, 0.1]], dtype=torch.float64)


class Untold(torch.nn.Module):
    """A conditional of (x - TOLD c, z), called with (x, c, z) side by side."""

    def __init__(self, conditional):
        super().__init__()
        self.conditional = conditional

    def forward(self, rows):
        x, context, rest = rows[..., :3], rows[..., 3:5], rows[..., 5:]
        return self.conditional(torch.cat([x - context @ TOLD.T, rest], -1))


def under_a_context(guide):
    """The same guide where the data are those of the chain and TOLD c."""
    seen = "encoder" if isinstance(guide, Ladder | MeanField) else "conditionals"
    heads = getattr(guide, seen)
    heads = heads if seen == "conditionals" else heads.heads
    for number in range(1 if isinstance(guide, BottomUp) else len(heads)):
        heads[number] = Untold(heads[number])
    return guide


@pytest.mark.parametrize("depth", DEPTHS)
def test_conditional_weights_under_the_exact_posterior_are_the_evidence(depth):
    """x = W z1 + TOLD c + noise: given c, the chain's evidence at x - TOLD c."""
    chain, x, context = Chain(depth), torch.tensor(DATA), torch.tensor([[1.0, -2.0], [0.3, 0.7], [-1.1, 0.0]])
    likelihood = LinearGaussian(torch.cat([chain.weight[:, None], TOLD], 1), BIAS, NOISE)
    model = GenerativeModel(chain.model.prior, likelihood, chain.model.conditionals)
    for family, guide in chain.exact_guides().items():
        weights = log_weights(model, under_a_context(guide), x, context, num_particles=7)
        exact = chain.evidence(x - context @ TOLD.T)
        torch.testing.assert_close(weights, exact.expand(7, 3), rtol=0, atol=1e-10, msg=family)
        measured = log_likelihood(model, guide, x, 3, context=context)
        torch.testing.assert_close(measured.per_image, exact, rtol=0, atol=1e-10, msg=family)


def test_a_prior_that_depends_on_the_context_moves_the_evidence():
    """z | c ~ N(m c, s^2) and x | z ~ N(W z + b, r^2 I), with a guide that is too wide: five standard errors."""
    chain, slope, scale = Chain(1), torch.tensor([[0.8, -0.5]]), 0.6
    prior = ConditionalGaussian(LinearGaussian(slope, [0.2], scale))
    likelihood = LinearGaussian(torch.cat([chain.weight[:, None], torch.zeros(3, 2)], 1), BIAS, NOISE)
    model = GenerativeModel(prior, likelihood)
    context = torch.randn(2 * IMAGES_AT_ONCE + 1, 2)
    guide = MeanField(Several(LinearGaussian([[0.4, -0.2, 0.1, 0.4, -0.2]], [0.1], 0.8)))
    with torch.no_grad():
        x = model(context=context)
        means = (context @ slope.T + 0.2) * chain.weight + chain.bias
        covariance = scale**2 * torch.outer(chain.weight, chain.weight) + NOISE**2 * torch.eye(3)
        exact = dist.MultivariateNormal(means, covariance).log_prob(x)
        estimate = log_likelihood(model, guide, x, 2000, context=context)
    error = (1 / estimate.effective_sample_size - 1 / 2000).clamp(min=1e-6).sqrt()
    assert ((estimate.per_image - exact).abs() < 5 * error).all()
    with pytest.raises(ValueError, match="expected a context for each image; got 201 of them for 3 images"):
        log_likelihood(model, guide, x[:3], 2, context=context)
    with pytest.raises(ValueError, match="expected a context for a prior that depends on it; got none"):
        model(batch_size=3)


def test_a_regressor_weighs_by_its_likelihood_alone():
    model = GenerativeModel(None, LinearGaussian(TOLD, BIAS, NOISE))
    x, context = torch.tensor(DATA), torch.randn(3, 2)
    weights = log_weights(model, MeanField(Several()), x, context, num_particles=4)
    torch.testing.assert_close(weights, model.likelihood(context).log_prob(x).expand(4, 3))
    assert ELBO().bound(model, MeanField(Several()), x, context).item() == pytest.approx(weights[0].sum().item())
