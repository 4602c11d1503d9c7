"""Unused latents and their reasons, planted in linear-Gaussian models, and figures that are known in closed form."""

import json
import math

import numpy
import pandas
import pyro.distributions as dist
import pytest
import torch
from click.testing import CliRunner
from linear_gaussian import Chain, LinearGaussian, Several
from pyrovae.cli import main
from resumption import SMALL
from torch import nn
from torch.distributions import kl_divergence

from pyrovae.evaluation.diagnosis import LEAST_RATE, diagnose, unit_information
from pyrovae.evaluation.latents import activity, kl_by_unit
from pyrovae.experiments.building import assemble
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.training import train
from pyrovae.programs.guides import GUIDES, MeanField, TopDown
from pyrovae.programs.models import GenerativeModel
from pyrovae.programs.priors import PRIORS, StandardNormal

NOISE = 0.5
# Orthogonal columns: the posterior is a product over units.
WEIGHTS = torch.tensor([[1.0, 0.0], [0.0, 0.8], [0.5, 0.0]])


def pair(weights=WEIGHTS, *, guide_weights=None):
    """Two units below a standard normal prior, and the guide that is exact for ``guide_weights``, by default the same."""
    model = GenerativeModel(StandardNormal(2), LinearGaussian(weights, [0.0] * 3, NOISE))
    known = weights if guide_weights is None else guide_weights
    return model, MeanField(Several(Exact(known)))


class Exact(nn.Module):
    """p(z | x) of weights with orthogonal columns."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, x):
        precision = 1 + self.weights.square().sum(0) / NOISE**2
        return dist.Normal(x @ self.weights / NOISE**2 / precision, precision.rsqrt().expand(*x.shape[:-1], 2)).to_event(1)


def data(model, number=300):
    with torch.no_grad():
        return model(batch_size=number)


def verdicts(found):
    return {(each.layer, each.unit): each.verdict for each in found}


def by_place(found):
    return {(each.layer, each.unit): each for each in found}


def without(unit):
    weights = WEIGHTS.clone()
    weights[:, unit] = 0
    return weights


def test_a_healthy_model_is_not_accused():
    model, guide = pair()
    found = diagnose(model, guide, data(model))
    assert verdicts(found) == dict.fromkeys([("z1", None), ("z1", 0), ("z1", 1)], "used")


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_exact_posteriors_of_a_hierarchy_are_not_accused(depth):
    chain = Chain(depth)
    for name, guide in chain.exact_guides().items():
        found = diagnose(chain.model, guide, data(chain.model))
        assert set(verdicts(found).values()) == {"used"}, (name, verdicts(found))


def test_a_unit_that_nobody_uses_is_the_decoders():
    model, guide = pair(without(1))
    found = by_place(diagnose(model, guide, data(model)))
    assert verdicts(found.values()) == {("z1", None): "used", ("z1", 0): "used", ("z1", 1): "decoder"}
    unused = found["z1", 1]
    assert unused.rate.mean == unused.change.mean == unused.response.mean == 0
    assert abs(unused.gain.mean) < LEAST_RATE


def test_a_decoder_that_ignores_what_the_guide_pays_for():
    model, guide = pair(without(1), guide_weights=WEIGHTS)
    unused = by_place(diagnose(model, guide, data(pair()[0])))["z1", 1]
    assert unused.verdict == "decoder"
    assert unused.rate.mean > 0.3
    assert unused.information.mean > 0.3
    assert unused.response.mean == 0


def test_a_guide_that_gives_no_unit_of_what_the_decoder_uses():
    model, guide = pair(guide_weights=without(1))
    found = by_place(diagnose(model, guide, data(model)))
    assert verdicts(found.values()) == {("z1", None): "used", ("z1", 0): "used", ("z1", 1): "guide"}
    assert found["z1", 1].rate.mean == 0
    # Among posteriors of one example alone the best is the exact one: the gain is its divergence.
    precision = 1 + 0.8**2 / NOISE**2
    x = data(model, 100_000)
    loc = 0.8 * x[:, 1] / NOISE**2 / precision
    divergence = kl_divergence(dist.Normal(torch.zeros(()), 1.0), dist.Normal(loc, precision**-0.5)).mean().item()
    gain = found["z1", 1].gain
    assert abs(gain.mean - divergence) < 4 * gain.standard_error


def test_a_layer_that_the_one_above_it_tells_is_the_priors():
    """z1 is z2 but for a thousandth: given z2, the data say nothing more of z1."""
    chain = Chain(2, scales=(1e-3,))
    found = by_place(diagnose(chain.model, chain.exact_guides()["top_down"], data(chain.model)))
    assert verdicts(found.values())["z1", 0] == verdicts(found.values())["z1", None] == "prior"
    assert found["z1", 0].prior_width.mean < 1e-4
    assert found["z1", 0].activity.mean > 0.1
    assert found["z2", 0].verdict == "used"
    # In nats of the data: those of z1 given z2, whose deviation is a thousandth, would be millions.
    assert found["z2", 0].response.mean < 30


def layered(slope, *, top):
    """z2 above z1, and a guide of z2 that is exact or its prior."""
    conditional = LinearGaussian([[slope]], [0.0], 0.6)
    model = GenerativeModel(StandardNormal(1), LinearGaussian([1.0, -0.5, 0.3], [0.0] * 3, 0.3), [conditional])
    below = LinearGaussian([[0.7, -0.35, 0.2, 0.1]], [0.0], 0.25)
    above = LinearGaussian([[0.5, -0.25, 0.15]] if top else [[0.0] * 3], [0.0], 0.6 if top else 1.0)
    return model, TopDown(Several(nn.Identity(), nn.Identity()), [below, above])


@pytest.mark.parametrize(
    ("slope", "top", "verdict"),
    [(0.9, True, "used"), (0.0, False, "decoder"), (0.9, False, "guide")],
    ids=lambda each: str(each),
)
def test_a_top_layer_that_is_not_used(slope, top, verdict):
    model, guide = layered(slope, top=top)
    found = verdicts(diagnose(model, guide, data(model)))
    assert found["z2", 0] == found["z2", None] == verdict
    assert found["z1", 0] == found["z1", None] == "used"


def test_the_figures_of_an_exact_posterior():
    """4,000 images: each figure within four of its standard errors."""
    model, guide = pair()
    x = data(model, 4000)
    found = by_place(diagnose(model, guide, x, num_steps=0))
    for unit, signal in enumerate((1.25, 0.64)):
        each, variance = found["z1", unit], 1 / (1 + signal / NOISE**2)
        # A unit of an exact model has a marginal that is its prior: its rate is the information, -1/2 log of the variance.
        exact = {"rate": -0.5 * math.log(variance), "information": -0.5 * math.log(variance), "activity": 1 - variance}
        # KL(q || p) + KL(p || q) for q = N(m, v), where m has the variance 1 - v.
        exact["loss"] = 0.5 * (variance + (1 - variance) - 1 + (1 + 1 - variance) / variance - 1)
        for name, value in exact.items():
            figure = getattr(each, name)
            assert abs(figure.mean - value) < 4 * figure.standard_error, (unit, name)
        assert abs(each.prior_width.mean - 1) < 0.1
        assert each.gain is None
    torch.testing.assert_close(torch.tensor(found["z1", 0].activity.mean), activity(guide, x)["z1"][0], rtol=1e-4, atol=0)
    torch.testing.assert_close(
        torch.tensor([found["z1", unit].rate.mean for unit in (0, 1)]), kl_by_unit(model, guide, x)["z1"], rtol=1e-4, atol=0
    )
    # The mean of x moves by the column times the difference of two draws.
    anew = 0.8 * math.sqrt(2 / 3 / math.pi) * math.sqrt(2 - 1 / (1 + 0.64 / NOISE**2) + 1 / (1 + 0.64 / NOISE**2))
    assert abs(found["z1", 1].change.mean - anew) < 4 * found["z1", 1].change.standard_error


def test_the_information_of_a_unit_is_between_nothing_and_the_logarithm_of_the_images():
    torch.manual_seed(0)
    mean = torch.stack([torch.zeros(50), 1000.0 * torch.arange(50)], 1)
    found = unit_information(mean, torch.ones(50, 2)).mean(0)
    torch.testing.assert_close(found, torch.tensor([0.0, math.log(50)], dtype=torch.float64), rtol=0, atol=1e-9)


def test_units_without_an_effect_are_rarely_said_to_gain():
    """20 models of a unit that nothing depends on: no gain of any is clear, which by chance one in 740 would be."""
    model, guide = pair(without(1))
    for seed in range(20):
        torch.manual_seed(seed)
        assert verdicts(diagnose(model, guide, data(model, 60), num_steps=10))["z1", 1] == "decoder"


POSSIBLE = [
    (guide, prior)
    for guide in GUIDES
    for prior in PRIORS
    # One of contexts, and one of a density that bottom-up guides have not.
    if prior != "conditional_gaussian" and not (guide == "bottom_up" and prior.startswith("vamp"))
]


@pytest.mark.parametrize(("guide", "prior"), POSSIBLE)
def test_every_guide_and_prior_is_diagnosed(guide, prior):
    vae = assemble(SMALL.replace(guide=guide, prior=prior, num_components=3), (1, 1, 12), 0)
    found = diagnose(vae.model, vae.guide, torch.bernoulli(torch.rand(20, 12)), num_steps=3)
    places = [("z1", None), ("z1", 0), ("z1", 1), ("z1", 2), ("z2", None), ("z2", 0), ("z2", 1)]
    assert [(each.layer, each.unit) for each in found] == places
    assert all(math.isfinite(figure.mean) for each in found for figure in each.figures.values() if figure is not None)


def test_flows_and_conditions_are_diagnosed_too():
    settings = {"posterior": "flow", "condition": "left-half", "prior": "conditional_gaussian", "flow_transforms": 1}
    vae = assemble(SMALL.replace(**settings), (1, 2, 6), 0)
    x = torch.bernoulli(torch.rand(20, 12))
    found = diagnose(vae.model, vae.guide, x, torch.rand(20, vae.model.context_size).round(), num_steps=3)
    assert all(each.gain is None and each.rate is None for each in found if each.unit is not None)
    assert all(math.isfinite(each.response.mean) for each in found)


def test_a_regressor_and_scalars_are_refused():
    vae = assemble(SMALL.replace(latent_sizes=(), hidden_sizes=(4,), condition="left-half"), (1, 2, 6), 0)
    with pytest.raises(ValueError, match="expected a model with latents that its guide draws; got none"):
        diagnose(vae.model, vae.guide, torch.ones(3, 12), torch.ones(3, vae.model.context_size))


# Runs.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(300, 1, generator=generator)
    x = z @ torch.tensor([[1.0, -2.0, 0.5]]) + 0.3 * torch.randn(300, 3, generator=generator)
    numpy.save(folder / "data.npy", x.numpy())
    recipe = Recipe(dataset=str(folder / "data.npy"), latent_sizes=(3,), hidden_sizes=(8,), epochs=60, batch_size=30)
    return train(recipe.replace(learning_rate=5e-3), folder / "run", engine="graph")


def test_a_run_of_one_factor_uses_one_unit(run):
    """Data of one factor and noise: a second unit would cost what it does not earn."""
    state = torch.get_rng_state()
    found = run.diagnose(num_images=30, num_steps=20)
    assert torch.equal(torch.get_rng_state(), state)
    assert (found.table["verdict"] == "used").sum() == 2
    assert found.summary[0].startswith("z1: 1 of 3 units are used, for ")
    again = run.diagnose(num_images=30, num_steps=20)
    assert again.as_dict() == found.as_dict()


def test_the_command_says_the_same(run, tmp_path):
    arguments = ["diagnose", str(run.folder), "--images", "30", "--steps", "5"]
    shown = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "units.csv")])
    assert shown.exit_code == 0, shown.output
    assert "z1: 1 of 3 units are used" in shown.stdout
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    table = pandas.read_csv(tmp_path / "units.csv")
    assert [each["verdict"] for each in found["units"]] == list(table["verdict"])
    assert found["images"] == 30
    refused = CliRunner().invoke(main, ["diagnose", str(run.folder), "-o", "units.txt"])
    assert refused.exit_code == 2
    assert "expected a file of .csv, .parquet, .npz, .npy; got .txt" in refused.stderr
