"""Annealed bounds against models whose evidence is known, and their transitions against Gaussians.

Statistical checks allow five standard errors: a false alarm in 1.7 million, for seeds that are fixed anyway.
"""

import math
from functools import partial
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import BIAS, NOISE, WEIGHT, Chain, LinearGaussian, Several
from monte_carlo import five_standard_errors

from pyrovae.engine.repeated import RepeatedFunction
from pyrovae.evaluation import annealing, paths
from pyrovae.evaluation.annealing import annealed_log_likelihood, bidirectional_bounds, temperatures
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.evaluation.paths import GeometricPath
from pyrovae.inference.weights import log_mean_exp, log_weights
from pyrovae.programs.architecture import Architecture
from pyrovae.programs.distributions import GaussianMixture
from pyrovae.programs.guides import GUIDES, MeanField
from pyrovae.programs.models import GenerativeModel
from pyrovae.programs.priors import ConditionalGaussian

pytestmark = pytest.mark.usefixtures("float64")


DATA = [[0.5, -1.0, 0.2], [2.0, 0.3, -0.7], [-1.5, 0.8, 0.0]]
NARROW = 0.12


def test_the_schedule_rises_from_zero_to_one_and_is_slow_at_both_ends():
    schedule = torch.tensor(temperatures(100))
    rise = schedule.diff()
    assert (schedule[0].item(), schedule[-1].item()) == pytest.approx((0.0, 1.0), abs=1e-12)
    torch.testing.assert_close(schedule, 1 - schedule.flip(0))
    assert (rise > 0).all()
    assert rise[0] < rise[50] / 10


@pytest.mark.parametrize("start", ["guide", "prior"])
def test_units_of_the_latents_change_nothing(start):
    """The same bounds for the same seed, with latents a thousand times as large or small."""

    def bounds(unit):
        model = GenerativeModel(FixedGaussian(unit), LinearGaussian(torch.tensor(WEIGHT) / unit, BIAS, NOISE))
        guide = MeanField(Several(LinearGaussian(unit * torch.tensor([[0.5, 0.1, -0.2]]), [0.3 * unit], 0.9 * unit)))
        torch.manual_seed(0)
        arguments = {"num_temperatures": 5, "num_chains": 3, "num_leapfrog": 2, "start": start}
        return annealed_log_likelihood(model, guide, torch.tensor(DATA), **arguments).per_image

    for unit in (1e3, 1e-3):
        torch.testing.assert_close(bounds(unit), bounds(1.0), rtol=0, atol=1e-8, msg=f"units of {unit}")


@pytest.mark.parametrize("depth", [1, 2])
def test_chains_from_the_exact_posterior_weigh_the_evidence(depth, monkeypatch):
    """Zero variance, whatever the transitions, the chunks of two images and the family."""
    chain, x = Chain(depth), torch.randn(4, 3)
    monkeypatch.setattr(annealing, "STATES_AT_ONCE", {"cpu": 10})
    for family, guide in chain.exact_guides().items():
        result = annealed_log_likelihood(chain.model, guide, x, num_temperatures=3, num_chains=5, num_leapfrog=1)
        torch.testing.assert_close(result.per_image, chain.evidence(x), rtol=0, atol=1e-10, msg=family)


def test_one_temperature_is_importance_sampling(monkeypatch):
    chain, x = Chain(2), torch.tensor(DATA)
    guide = chain.wrong_guide("ladder")
    states = []
    draw = GeometricPath.draw
    monkeypatch.setattr(GeometricPath, "draw", lambda *args: states.append(torch.get_rng_state()) or draw(*args))
    result = annealed_log_likelihood(chain.model, guide, x, num_temperatures=1, num_chains=20)
    torch.set_rng_state(states[-1])
    torch.testing.assert_close(result.per_image, log_mean_exp(log_weights(chain.model, guide, x, num_particles=20)))
    assert result.acceptance_rate.isnan().all(), "there was no transition"


def contextual():
    """z | c ~ N(m c, s^2) and x | z, c ~ N(W z + b, r^2 I): model, a guide that is too wide, contexts and the evidence."""
    slope, scale = torch.tensor([[0.8, -0.5]]), 0.6
    weight, bias = torch.tensor(WEIGHT), torch.tensor(BIAS)
    likelihood = LinearGaussian(torch.cat([weight[:, None], torch.zeros(3, 2)], 1), BIAS, NOISE)
    model = GenerativeModel(ConditionalGaussian(LinearGaussian(slope, [0.2], scale)), likelihood)
    guide = MeanField(Several(LinearGaussian([[0.4, -0.2, 0.1, 0.4, -0.2]], [0.1], 0.8)))
    context = torch.randn(60, 2)
    covariance = scale**2 * torch.outer(weight, weight) + NOISE**2 * torch.eye(3)
    return (
        model,
        guide,
        context,
        lambda x: dist.MultivariateNormal((context @ slope.T + 0.2) * weight + bias, covariance).log_prob(x),
    )


class FixedGaussian(torch.nn.Module):
    """A prior N(0, scale^2)."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, context):
        return dist.Normal(torch.zeros(1), torch.full((1,), self.scale)).to_event(1)


def mixed():
    """Under a mixture of three Gaussians, with a guide that knows the middle one alone."""
    means, scales = torch.tensor([[-2.0], [0.5], [3.0]]), torch.tensor([[0.3], [1.0], [0.5]])

    class Fixed(torch.nn.Module):
        def forward(self, context):
            return GaussianMixture(means, scales)

    weight = torch.tensor(WEIGHT)
    covariances = scales[:, :, None] ** 2 * torch.outer(weight, weight) + NOISE**2 * torch.eye(3)
    parts = dist.MultivariateNormal(means * weight + torch.tensor(BIAS), covariances)
    model = GenerativeModel(Fixed(), LinearGaussian(WEIGHT, BIAS, NOISE))
    guide = MeanField(Several(LinearGaussian([[0.5, -0.2, 0.1]], [0.0], 1.0)))
    return model, guide, None, lambda x: parts.log_prob(x[:, None]).logsumexp(1) - math.log(3)


def chain(depth, family, **settings):
    truth = Chain(depth, **settings)
    return truth.model, truth.wrong_guide(family), None, truth.evidence


CASES = {
    "five layers, ladder": lambda: chain(5, "ladder"),
    "five layers": lambda: chain(5, "mean_field"),
    "a narrow valley": lambda: chain(2, "ladder", scales=(0.01,)),
    "one layer": lambda: chain(1, "mean_field"),
    "conditional": contextual,
    "mixture": mixed,
}


@pytest.mark.slow
# From the prior, nothing depends on the guide's family.
@pytest.mark.parametrize(
    ("case", "start"), [*((case, "guide") for case in CASES), *((case, "prior") for case in list(CASES)[1:])]
)
def test_the_evidence_is_between_the_bounds(case, start):
    """In the mean over 60 images, and less than a tenth of a nat from either."""
    model, guide, context, evidence = CASES[case]()
    result = bidirectional_bounds(
        model, guide, 60, num_temperatures=40, num_chains=10, num_leapfrog=4, num_samples=10, start=start, context=context
    )
    truth = evidence(result.x)
    below, above = truth - result.lower.per_image, result.upper - truth
    assert below.mean().item() > -five_standard_errors(below)
    assert above.mean().item() > -five_standard_errors(above)
    assert below.mean().item() < 0.1 + five_standard_errors(below)
    assert above.mean().item() < 0.1 + five_standard_errors(above)
    torch.testing.assert_close(result.gap, below + above)
    assert 0.5 < result.lower.acceptance_rate.mean() < 0.85
    assert result.importance_sampled.per_image.shape == (60,)


def test_both_weights_are_unbiased():
    """E w / p(x) = 1 forward and E p(x) / w' = 1 in reverse, with chains that are refused often: 3000 weights."""
    truth = Chain(1)
    result = bidirectional_bounds(
        truth.model, truth.wrong_guide("mean_field"), 3000, num_temperatures=4, num_chains=1, num_leapfrog=2, num_samples=1
    )
    for log_ratio in (result.lower.per_image - truth.evidence(result.x), truth.evidence(result.x) - result.upper):
        ratio = log_ratio.exp()
        assert ratio.std() > 0.1, "no spread: nothing was tested"
        assert abs(ratio.mean().item() - 1) < five_standard_errors(ratio)


@pytest.mark.slow
def test_the_gap_closes_as_temperatures_are_added():
    truth = Chain(3)
    guide, gaps = truth.wrong_guide("mean_field"), []
    for number in (1, 4, 16):
        result = bidirectional_bounds(
            truth.model, guide, 60, num_temperatures=number, num_chains=5, num_leapfrog=4, num_samples=1
        )
        gaps.append(result.gap)
    for wider, narrower in pairwise(gaps):
        assert (wider.mean() - narrower.mean()).item() > 0
    assert gaps[0].mean().item() > 1
    assert gaps[-1].mean().item() < gaps[0].mean().item() / 5


def test_annealing_reaches_what_a_guide_that_is_far_too_narrow_misses():
    """Importance sampling is low by far more than its spread over images; the chains find the rest of the posterior."""
    truth = Chain(1)
    guide = truth.exact_guides()["mean_field"]
    with torch.no_grad():
        guide.encoder.heads[0].log_scale += math.log(NARROW)
        guide.encoder.heads[0].bias += 0.3
        x = truth.model(batch_size=60)
    missed = truth.evidence(x) - log_likelihood(truth.model, guide, x, 100).per_image
    left = (
        truth.evidence(x)
        - annealed_log_likelihood(truth.model, guide, x, num_temperatures=50, num_chains=5, num_leapfrog=5).per_image
    )
    assert missed.mean().item() > five_standard_errors(missed)
    assert left.mean().item() < missed.mean().item() / 3


def test_the_cut_into_chunks_moves_the_bound_by_no_more_than_chance(monkeypatch):
    """50 copies of an image are one chunk, or chunks of 15 and a rest, each with its own steps."""
    truth, x = Chain(1), torch.tensor(DATA[:1]).expand(50, 3)
    guide, means = truth.wrong_guide("top_down"), []
    for states in (100, 30):
        monkeypatch.setattr(annealing, "STATES_AT_ONCE", {"cpu": states})
        means.append(
            annealed_log_likelihood(truth.model, guide, x, num_temperatures=10, num_chains=2, num_leapfrog=2).per_image
        )
    assert len(means[0]) == len(means[1]) == 50
    error = math.hypot(*map(five_standard_errors, means))
    assert abs((means[0].mean() - means[1].mean()).item()) < error


@pytest.mark.slow
def test_chains_that_are_compiled_end_where_others_do(monkeypatch):
    """The same random numbers, and rounding alone between them."""
    truth, x = Chain(3), torch.tensor(DATA)
    bounds = []
    for engine in ("eager", "graph", "compiled"):
        monkeypatch.setattr(paths, "RepeatedFunction", partial(RepeatedFunction, engine=engine))
        torch.manual_seed(0)
        arguments = {"num_temperatures": 5, "num_chains": 3, "num_leapfrog": 2}
        bounds.append(annealed_log_likelihood(truth.model, truth.wrong_guide("ladder"), x, **arguments).per_image)
    for bound in bounds[1:]:
        torch.testing.assert_close(bound, bounds[0], rtol=0, atol=1e-8)


def test_a_seed_brings_the_same_bounds_back():
    truth, x = Chain(1), torch.tensor(DATA)
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        results.append(
            annealed_log_likelihood(
                truth.model, truth.wrong_guide("ladder"), x, num_temperatures=3, num_chains=3, num_leapfrog=2
            )
        )
    assert torch.equal(results[0].per_image, results[1].per_image)
    assert not torch.equal(results[0].per_image, results[2].per_image)
    assert repr(results[0]).endswith("nats; 3 images, 3 chains of 3 temperatures each)")


@pytest.mark.parametrize("family", ["bottom_up", "ladder"])
def test_trained_programs_keep_their_modes_buffers_and_gradients(family):
    """Networks with batch norm, in single precision: run in evaluation mode, and left as they were."""
    torch.set_default_dtype(torch.float32)
    sizes = Architecture(shape=(1, 2, 3), latent_sizes=(4, 3), hidden_sizes=(8, 7), batch_norm=True)
    model = GenerativeModel.of(sizes)
    guide = GUIDES[family].of(model, sizes)
    before = [buffer.clone() for program in (model, guide) for buffer in program.buffers()]
    x = torch.tensor([[1.0, 0.0, 0.0, 1.0, 1.0, 0.0]])
    result = annealed_log_likelihood(model, guide, x.expand(50, 6), num_temperatures=10, num_chains=4, num_leapfrog=4)
    sampled = log_likelihood(model, guide, x, 50_000)
    ratio = (result.per_image - sampled.per_image).exp()
    error = (1 / sampled.effective_sample_size - 1 / 50_000).sqrt().item()
    assert abs(ratio.mean().item() - 1) < math.hypot(five_standard_errors(ratio), 5 * error)
    after = [buffer for program in (model, guide) for buffer in program.buffers()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(module.training for program in (model, guide) for module in program.modules())
    assert all(parameter.grad is None for program in (model, guide) for parameter in program.parameters())


def test_what_cannot_be_annealed_is_refused():
    truth, x = Chain(1), torch.tensor(DATA)
    guide = truth.wrong_guide("mean_field")

    def positive(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z1", dist.LogNormal(torch.zeros(len(x), 1), 1.0).to_event(1))

    cases = [
        ((guide, {"start": "posterior"}), "expected a start out of guide, prior; got 'posterior'"),
        ((guide, {"num_temperatures": 0}), "expected num_temperatures of at least one; got 0"),
        ((guide, {"num_chains": 0}), "expected num_chains of at least one; got 0"),
        ((guide, {"num_leapfrog": 0}), "expected num_leapfrog of at least one; got 0"),
        ((guide, {"x": x[:0]}), "expected at least one image; got none"),
        ((guide, {"context": x[:2]}), "expected a context for each image; got 2 of them for 3 images"),
        ((Chain(2).wrong_guide("mean_field"), {}), r"expected the same latents in model and guide; got \['z1'\] and"),
        ((positive, {}), "expected latents over all real numbers, where gradients lead; site 'z1' is a"),
    ]
    for (proposal, arguments), message in cases:
        with pytest.raises(ValueError, match=message):
            annealed_log_likelihood(truth.model, proposal, **{"x": x} | arguments)


def test_a_program_that_cannot_be_captured_is_annealed_all_the_same():
    """One that looks at a value, for its own reasons."""
    truth, x = Chain(1), torch.tensor(DATA)
    guide = truth.exact_guides()["mean_field"]

    def curious(x):
        return guide(x if x.sum() < 100 else -x)

    result = annealed_log_likelihood(truth.model, curious, x, num_temperatures=2, num_chains=3, num_leapfrog=1)
    torch.testing.assert_close(result.per_image, truth.evidence(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_images", [2, 5])
def test_every_transition_is_tracked(num_images, monkeypatch):
    """In chunks of two images, the last of one; the end of the last transition included."""
    monkeypatch.setattr(annealing, "STATES_AT_ONCE", {"cpu": 6})
    truth, ended = Chain(1), []

    def track(transitions):
        for number in transitions:
            yield number
            ended.append(number)
        ended.append(len(transitions))

    arguments = {"num_temperatures": 4, "num_chains": 3, "num_leapfrog": 1, "track": track}
    guide = truth.wrong_guide("mean_field")
    annealed_log_likelihood(truth.model, guide, torch.randn(num_images, 3), **arguments)
    assert ended == list(range(len(ended)))
    one_way = len(ended)
    bidirectional_bounds(truth.model, guide, num_images, num_samples=1, **arguments)
    assert len(ended) - 2 * one_way == 4 * -(-num_images // 2)
