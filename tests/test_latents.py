"""What the latents do, held against linear-Gaussian models.

Statistical checks allow five standard errors: a false alarm in 1.7 million, for seeds that are fixed anyway.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import NOISE, Chain, LinearGaussian, Several
from monte_carlo import five_standard_errors
from pyro import poutine

from pyrovae.evaluation.gaps import GapEstimator, inference_gaps
from pyrovae.evaluation.latents import active_units, activity, kl_by_layer, kl_by_unit
from pyrovae.evaluation.surgery import elbo_surgery
from pyrovae.inference.weights import log_weights
from pyrovae.programs.architecture import Architecture
from pyrovae.programs.guides import GUIDES, MeanField
from pyrovae.programs.models import GenerativeModel
from pyrovae.programs.priors import ConditionalGaussian, MixtureOfGaussians, PriorSettings, StandardNormal, VampPrior

pytestmark = pytest.mark.usefixtures("float64")

WEIGHTS, BIASES, SCALE = [[0.5, 0.1, -0.2], [0.0, 0.0, 0.0], [-0.3, 0.8, 0.4]], [0.3, 0.0, -0.1], 0.7


def drawn(model, count):
    with torch.no_grad():
        return model(batch_size=count)


def three_units():
    """A model of three units, a linear guide, and data."""
    model = GenerativeModel(StandardNormal(3), LinearGaussian(torch.eye(3), [0.0, 0.0, 0.0], 0.5))
    return model, MeanField(Several(LinearGaussian(WEIGHTS, BIASES, SCALE))), drawn(model, 2100)


def divergence(mean, variance):
    """KL(N(mean, variance), N(0, 1))."""
    return (mean**2 + variance - 1 - math.log(variance)) / 2


def test_divergences_of_units_are_the_closed_form_and_sum_to_the_layer():
    model, guide, x = three_units()
    means = x @ torch.tensor(WEIGHTS).T + torch.tensor(BIASES)
    units = kl_by_unit(model, guide, x)["z1"]
    torch.testing.assert_close(units, divergence(means, SCALE**2).mean(0))
    assert kl_by_layer(model, guide, x)["z1"] == pytest.approx(units.sum().item())


@pytest.mark.parametrize("family", GUIDES)
def test_divergences_of_units_sum_to_the_rate(family):
    """Also where they are sampled: expectations of the same sum, within five standard errors."""
    chain = Chain(2)
    guide, x = chain.wrong_guide(family), drawn(chain.model, 50)
    sums = torch.tensor([sum(float(each.sum()) for each in kl_by_unit(chain.model, guide, x).values()) for _ in range(60)])
    weights = log_weights(chain.model, guide, x, num_particles=200)
    likelihood = torch.stack([_distortion(chain, guide, x) for _ in range(60)])
    rate = -weights.mean(1) - likelihood.mean()
    allowed = math.hypot(five_standard_errors(sums), five_standard_errors(rate), five_standard_errors(likelihood))
    assert abs((sums.mean() - rate.mean()).item()) < allowed


def _distortion(chain, guide, x):
    with torch.no_grad():
        posterior = poutine.trace(guide).get_trace(x)
        model = poutine.trace(poutine.replay(chain.model, trace=posterior)).get_trace(x)
        return -model.nodes["x"]["fn"].log_prob(x).mean()


def test_a_site_of_the_guide_alone_is_its_own_layer():
    model, guide, x = three_units()

    def with_another(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z1", guide.encoder(x)[0])
            own = dist.Uniform(torch.zeros(len(x), 2), 0.5).to_event(1)
            pyro.sample("another", own, infer={"is_auxiliary": True})

    layers = kl_by_layer(model, with_another, x)
    assert layers["another"] == pytest.approx(2 * math.log(2))
    assert list(kl_by_unit(model, with_another, x)) == ["z1"]
    sampled = torch.tensor([kl_by_layer(model, with_another, x)["z1"] for _ in range(40)])
    assert abs(sampled.mean().item() - kl_by_layer(model, guide, x)["z1"]) < five_standard_errors(sampled)


def test_a_collapsed_unit_is_seen():
    """It says nothing of the data and costs nothing: the middle one, as the prior has it."""
    model, _, x = three_units()
    head = LinearGaussian(WEIGHTS, BIASES, 1.0)
    guide = MeanField(Several(head))
    moved, costs = activity(guide, x)["z1"], kl_by_unit(model, guide, x)["z1"]
    assert moved[1].item() == costs[1].item() == 0
    assert (moved[[0, 2]] > 0.1).all()
    assert (costs[[0, 2]] > 0.1).all()
    assert active_units({"z1": moved}) == active_units({"z1": moved}, 0.1) == {"z1": 2}


def test_activity_of_a_linear_guide_is_its_weights_on_the_covariance_of_the_data():
    _, guide, x = three_units()
    weight = torch.tensor(WEIGHTS)
    exact = (weight @ x.T.cov() @ weight.T).diagonal()
    torch.testing.assert_close(activity(guide, x)["z1"], exact)
    torch.testing.assert_close(activity(guide, x, num_samples=None)["z1"], exact)


def test_activity_of_a_hierarchy_by_locations_and_by_samples():
    """E[z1 | x] = (w + a v) x + c under q(z1 | x, z2) q(z2 | x); the noise of z2 adds nothing, averaged over or left out."""
    chain = Chain(2)
    guide, x = chain.wrong_guide("top_down"), drawn(chain.model, 100)
    (lower, upper) = guide.conditionals
    weight = lower.weight[:, :3] + lower.weight[:, 3:] @ upper.weight
    exact = (weight @ x.T.cov() @ weight.T).item()
    assert activity(guide, x, num_samples=None)["z1"].item() == pytest.approx(exact)
    sampled = torch.stack([activity(guide, x, num_samples=2)["z1"] for _ in range(400)])
    assert abs(sampled.mean().item() - exact) < five_standard_errors(sampled)
    noise = (lower.weight[0, 3] * upper.log_scale.exp()[0]).item() ** 2 / 2
    assert noise > 2 * five_standard_errors(sampled), "left in, it would not be seen"


class Cosine(torch.nn.Module):
    """N(cos z2, 1), called with (x, z2) side by side."""

    def forward(self, rows):
        return dist.Normal(rows[..., 3:].cos(), 1.0).to_event(1)


def test_averaging_over_the_layer_above_smooths():
    """E[cos z] = exp(-s^2 / 2) cos m under N(m, s^2): the mean of z1 moves by that much less than where z2 stands still."""
    chain = Chain(2)
    upper, x = LinearGaussian([[1.0, 0.5, -0.5]], [0.0], 0.8), drawn(chain.model, 200)
    guide = chain.top_down(Cosine(), upper)
    still = activity(guide, x, num_samples=None)["z1"].item()
    assert still == pytest.approx(upper(x).mean.cos().var().item())
    averaged = torch.stack([activity(guide, x)["z1"] for _ in range(200)])
    assert abs(averaged.mean().item() - math.exp(-(0.8**2)) * still) < five_standard_errors(averaged)


def test_activity_asks_for_a_variance():
    _, guide, x = three_units()
    with pytest.raises(ValueError, match="expected at least two images for a variance over images; got 1"):
        activity(guide, x[:1])
    with pytest.raises(ValueError, match="expected at least two samples, or None for locations; got num_samples=1"):
        activity(guide, x, num_samples=1)


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_units_under_a_mixture_have_no_divergence_of_their_own(prior):
    chain = Chain(2)
    guide, x = chain.wrong_guide("top_down"), drawn(chain.model, 20)
    settings = PriorSettings(num_components=4, posterior=guide.top_posterior, examples=x[:4])
    sizes = Architecture(shape=(1, 1, 3), latent_sizes=(1, 1), hidden_sizes=(1, 1))
    chain.model.prior = {"mixture": MixtureOfGaussians, "vamp": VampPrior}[prior].of(sizes, settings)
    assert list(kl_by_unit(chain.model, guide, x)) == ["z1"]
    assert list(kl_by_layer(chain.model, guide, x)) == ["z1", "z2"]
    surgery = elbo_surgery(chain.model, guide, x)
    assert surgery.mutual_information + surgery.marginal_kl == pytest.approx(surgery.rates["z2"])


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("family", ["mean_field", "top_down", "ladder"])
def test_rate_and_distortion_are_the_bound_of_the_same_samples(family, depth):
    chain = Chain(depth)
    guide, x = chain.wrong_guide(family), drawn(chain.model, 300)
    torch.manual_seed(2)
    surgery = elbo_surgery(chain.model, guide, x)
    torch.manual_seed(2)
    assert surgery.elbo == pytest.approx(log_weights(chain.model, guide, x).mean().item(), rel=1e-10)
    top = surgery.rates[f"z{depth}"]
    assert surgery.mutual_information + surgery.marginal_kl == pytest.approx(top, rel=1e-10)
    assert surgery.rate == pytest.approx(sum(surgery.rates.values()))


def test_surgery_of_gaussians_is_their_closed_form():
    """x Gaussian, q(z | x) linear: q(z) is Gaussian too; 20 sets of 1,000 images, whose own bias is below a thousandth."""
    chain = Chain(1)
    guide = chain.wrong_guide("mean_field")
    head = guide.encoder.heads[0]
    covariance = torch.outer(chain.weight, chain.weight) + NOISE**2 * torch.eye(3)
    mean = (head.weight @ chain.bias + head.bias).item()
    noise, signal = head.log_scale.exp().item() ** 2, (head.weight @ covariance @ head.weight.T).item()
    results = [elbo_surgery(chain.model, guide, drawn(chain.model, 1000)) for _ in range(20)]
    marginal = torch.tensor([result.marginal_kl for result in results])
    information = torch.tensor([result.mutual_information for result in results])
    assert abs(marginal.mean().item() - divergence(mean, signal + noise)) < five_standard_errors(marginal)
    assert abs(information.mean().item() - math.log(1 + signal / noise) / 2) < five_standard_errors(information)


def test_the_aggregate_of_exact_posteriors_is_the_prior():
    chain = Chain(1)
    guide = chain.exact_guides()["mean_field"]
    marginal = torch.tensor([elbo_surgery(chain.model, guide, drawn(chain.model, 1000)).marginal_kl for _ in range(20)])
    assert abs(marginal.mean().item()) < five_standard_errors(marginal)


def test_information_is_at_most_the_logarithm_of_the_number_of_images():
    chain = Chain(1)
    guide = MeanField(Several(LinearGaussian([[100.0, 0.0, 0.0]], [0.0], 0.01)))
    x = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert elbo_surgery(chain.model, guide, x).mutual_information == pytest.approx(math.log(3))


def test_surgery_is_refused_where_there_is_no_such_top_layer():
    chain, x = Chain(2), torch.zeros(3, 3)
    with pytest.raises(ValueError, match="that of BottomUp is an integral over the layers below"):
        elbo_surgery(chain.model, chain.wrong_guide("bottom_up"), x)
    with pytest.raises(ValueError, match="expected a model with latent layers"):
        elbo_surgery(GenerativeModel(None, chain.model.likelihood), MeanField(Several()), x, torch.zeros(3, 1))
    model = GenerativeModel(ConditionalGaussian(LinearGaussian([[1.0]], [0.0], 1.0)), chain.model.likelihood)
    with pytest.raises(ValueError, match="expected a prior that depends on no context"):
        elbo_surgery(model, Chain(1).wrong_guide("mean_field"), x, torch.zeros(3, 1))


@pytest.mark.parametrize("depth", [1, 2])
def test_the_exact_posterior_has_no_gap(depth):
    chain = Chain(depth)
    x = drawn(chain.model, 4)
    for family, guide in chain.exact_guides().items():
        gaps = inference_gaps(chain.model, guide, x, num_samples=5, num_steps=5)
        assert gaps.amortization.mean == pytest.approx(0, abs=1e-9), family
        assert gaps.approximation.mean == pytest.approx(0, abs=1e-9), family
        torch.testing.assert_close(gaps.log_likelihood, chain.evidence(x))


def test_the_gap_of_a_wrong_guide_is_its_amortization_and_closes():
    """With one Gaussian unit the family holds the posterior: what is lost is KL(q, posterior), all of it to amortization."""
    chain = Chain(1)
    guide, x = chain.wrong_guide("mean_field"), drawn(chain.model, 10)
    gaps = inference_gaps(chain.model, guide, x, num_samples=2000, num_steps=300, learning_rate=0.05)
    lost = torch.distributions.kl_divergence(guide.encoder(x)[0], chain.posterior(1)(x)).mean().item()
    weights = log_weights(chain.model, guide, x, num_particles=2000)
    assert lost > 0.5
    assert gaps.approximation.mean == pytest.approx(0, abs=1e-6)
    # The spread of the bound is that of the guide as it is.
    assert abs(gaps.amortization.mean - lost) < 5 * weights.std(0).mean().item() / math.sqrt(2000 * 10) + 1e-6


@pytest.mark.parametrize("family", GUIDES)
def test_the_gap_of_a_wrong_hierarchy_is_split(family):
    chain = Chain(2)
    guide, x = chain.wrong_guide(family), drawn(chain.model, 5)
    gaps = inference_gaps(chain.model, guide, x, num_samples=500, num_steps=200, learning_rate=0.05)
    assert gaps.amortization.mean > 0.3
    assert gaps.approximation.mean > 1e-3, "of the wrong dependence between layers, no Gaussians are the exact posterior"


def test_refined_independent_layers_lose_what_correlates_them():
    """The best product of Gaussians has the posterior's mean and the diagonal of its precision; five standard errors."""
    chain = Chain(2)
    (slope,), (scale,) = chain.slopes, chain.scales
    precision = torch.tensor([[1.0, -slope], [-slope, scale**2 + slope**2]]) / scale**2
    precision[0, 0] += (chain.weight @ chain.weight) / NOISE**2
    exact = (precision.diagonal().log().sum() - precision.logdet()).item() / 2
    x = drawn(chain.model, 5)
    gaps = inference_gaps(chain.model, chain.wrong_guide("mean_field"), x, num_samples=5000, num_steps=400, learning_rate=0.05)
    error = 1 / math.sqrt(5 * 5000)  # The log-weights of such a product vary by less than one.
    assert gaps.approximation.mean == pytest.approx(exact, abs=5 * error)
    torch.testing.assert_close(gaps.refined_elbo, chain.evidence(x) - exact, rtol=0, atol=5 / math.sqrt(5000))


@pytest.mark.parametrize("context_size", [0, 2])
def test_gaps_leave_programs_as_they_were(context_size):
    """In training mode, with batch norm, under a VampPrior, given a context."""
    sizes = Architecture(shape=(1, 2, 3), latent_sizes=(4, 2), hidden_sizes=(8, 6), batch_norm=True, context_size=context_size)
    model = GenerativeModel.of(sizes)
    guide = GUIDES["ladder"].of(model, sizes)
    rows = torch.bernoulli(torch.full((5, 6 + context_size), 0.5))
    x, context = (rows[:, :6], rows[:, 6:]) if context_size else (rows, None)
    model.prior = VampPrior.of(sizes, PriorSettings(num_components=5, posterior=guide.top_posterior, examples=rows))
    before = {name: value.clone() for name, value in torch.nn.ModuleList([model, guide]).state_dict().items()}
    gaps = inference_gaps(model, guide, x, context, num_samples=100, num_steps=30, learning_rate=0.1)
    assert (gaps.refined_elbo > gaps.elbo).all()
    for program in (model, guide):
        assert program.training
        assert all(parameter.grad is None for parameter in program.parameters())
    torch.testing.assert_close(torch.nn.ModuleList([model, guide]).state_dict(), before, rtol=0, atol=0)


@pytest.mark.slow
def test_gaps_are_those_of_the_parameters_of_now():
    """Captured once, and measured again after training: as plain Pyro measures them, for the same seed."""
    chain = Chain(2)
    guide, x = chain.wrong_guide("ladder"), drawn(chain.model, 3)
    settings = {"num_samples": 40, "num_steps": 20, "learning_rate": 0.1}
    estimators = [GapEstimator(chain.model, guide, **settings, times=1, engine=engine) for engine in ("graph", "eager")]
    for _ in range(2):
        measured = []
        for estimator in estimators:
            torch.manual_seed(3)
            measured.append(estimator([x]))
        for name, value in vars(measured[0]).items():
            torch.testing.assert_close(value, getattr(measured[1], name), msg=name)
        with torch.no_grad():
            for parameter in (*guide.parameters(), *chain.model.parameters()):
                parameter += 0.3


@pytest.mark.parametrize("event", [(), (2, 3)])
def test_gaps_of_latents_of_any_shape(event):
    """z ~ N(0, I) and x | z ~ N(sum z, I) under a guide that is off centre and too wide: the whole gap but for correlations."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z1", dist.Normal(torch.zeros(event), 1.0).to_event(len(event)))
            pyro.sample("x", dist.Normal(z.reshape(*z.shape[: z.dim() - len(event)], -1).sum(-1), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z1", dist.Normal(torch.full(event, 0.7).expand(len(x), *event), 2.0).to_event(len(event)))

    x, size = torch.tensor([0.5, -1.0]), math.prod(event)
    gaps = inference_gaps(model, guide, x, num_samples=2000, num_steps=200, learning_rate=0.05)
    evidence = dist.Normal(0.0, math.sqrt(1 + size)).log_prob(x)
    # The best product of Gaussians has the posterior's mean and the diagonal of its precision 1 + 1.
    exact = evidence - 0.5 * (size * math.log(2) - math.log(1 + size))
    torch.testing.assert_close(gaps.refined_elbo, exact, rtol=0, atol=5 * math.sqrt(size / 2000) if size > 1 else 1e-3)
    assert (gaps.refined_elbo - gaps.elbo > 0.5).all()


def test_gaps_ask_for_samples_and_images():
    chain = Chain(1)
    for arguments in ({"num_samples": 0}, {"num_steps": -1}):
        with pytest.raises(ValueError, match="expected at least one sample, and steps; got"):
            inference_gaps(chain.model, chain.wrong_guide("mean_field"), torch.zeros(2, 3), **arguments)
    for measure in (inference_gaps, elbo_surgery, kl_by_unit):
        with pytest.raises(ValueError, match="expected at least one image; got none"):
            measure(chain.model, chain.wrong_guide("mean_field"), torch.zeros(0, 3))


def test_gaps_ask_for_gaussians():
    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z1", dist.Laplace(torch.zeros(len(x), 1), 1.0).to_event(1))

    with pytest.raises(ValueError, match="expected a guide of Gaussian latents to refine; site 'z1' is drawn from Independent"):
        inference_gaps(Chain(1).model, guide, torch.zeros(2, 3))
