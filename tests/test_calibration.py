"""The calibration of a guide: uniform ranks under exact posteriors, planted faults by their names, the command line.

Verdicts have a false-alarm rate of 1 % over all units of a model; seeds are fixed.
"""

import json

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from click.testing import CliRunner
from linear_gaussian import Chain
from pictured import dataset as pictured_dataset
from pictured import trained
from pyro.poutine.messenger import Messenger
from pyrovae.cli import main
from scipy.stats import chisquare, norm

from pyrovae.evaluation.calibration import (
    Calibration,
    binomial_band,
    calibrate,
    expected_coverage,
    shift_score,
    spread_score,
)
from pyrovae.evaluation.likelihood import LogLikelihood
from pyrovae.experiments.building import assemble, load_data
from pyrovae.experiments.calibrating import calibration_figures, calibration_record, calibration_rows
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.training import train
from pyrovae.programs.guides import GUIDES
from pyrovae.programs.priors import PRIORS


class Distorted(Messenger):
    """A handler that moves and rescales the Gaussian of a latent, by unit, in standard deviations."""

    def __init__(self, name, shift=0.0, scale=1.0):
        super().__init__()
        self.name, self.shift, self.scale = name, shift, scale

    def _pyro_sample(self, msg):
        if msg["name"] == self.name:
            exact = msg["fn"].base_dist
            msg["fn"] = dist.Normal(exact.loc + self.shift * exact.scale, exact.scale * self.scale).to_event(1)


def faults(found):
    return {name: each.faults for name, each in found.verdicts().items()}


# Statistics of ranks that are uniform.


def uniform(count, units, num_draws):
    return torch.randint(num_draws + 1, (count, units))


def of_ranks(ranks, num_draws):
    """A calibration without a likelihood."""
    nothing = torch.zeros(len(ranks))
    return Calibration({"z1": ranks}, num_draws, LogLikelihood(*[nothing] * 5, nothing[None], 1), nothing)


@pytest.mark.parametrize("num_draws", [19, 99])
@pytest.mark.parametrize("score", [shift_score, spread_score])
def test_scores_of_uniform_ranks_are_standard_normal(score, num_draws):
    """20,000 scores of 100 ranks each: mean and variance within five standard errors."""
    scores = score(uniform(100, 20_000, num_draws), num_draws)
    assert scores.mean().abs() < 5 / 20_000**0.5
    assert (scores.var() - 1).abs() < 5 * (2 / 20_000) ** 0.5 * 1.1


def test_an_exact_guide_is_said_to_have_a_fault_as_rarely_as_is_said():
    """Of 2,000 guides of twenty units, 1 % or fewer: more than 36 would be so once in a thousand."""
    alarms = sum(bool(faults(of_ranks(uniform(200, 20, 99), 99))["z1"]) for _ in range(2000))
    assert 4 <= alarms <= 36


def test_coverage_has_its_share_of_ranks_and_its_band():
    found = of_ranks(torch.arange(20).repeat(10)[:, None], 19)
    assert found.coverage(0.9)["z1"].item() == expected_coverage(19, 0.9) == 0.9
    assert found.coverage(0.5)["z1"].item() == expected_coverage(19, 0.5) == 0.5
    low, high = found.coverage_band(0.9)
    assert 0.8 < low < 0.9 < high < 1.0


@pytest.mark.parametrize("probability", [0.05, 0.5, 0.9])
def test_a_band_is_left_as_rarely_as_is_said(probability):
    """100,000 counts: five standard errors above the rate."""
    low, high = binomial_band(500, probability, 0.01)
    counts = np.random.default_rng(0).binomial(500, probability, 100_000)
    assert 0.003 < ((counts < low) | (counts > high)).mean() < 0.01 + 5 * (0.01 / 100_000) ** 0.5


# Guides that are exact, and guides that are not.


@pytest.mark.parametrize("family", sorted(GUIDES.keys() - {"mean_field"}))
def test_ranks_under_the_exact_posterior_of_two_layers_are_uniform(family):
    """Chi-square of ten bins for each layer: a p-value below 0.0005 in one of eight would be so once in 250."""
    chain = Chain(2)
    found = calibrate(chain.model, chain.exact_guides()[family], 2000, num_draws=19, num_samples=10)
    assert faults(found) == {"z1": {}, "z2": {}}
    for ranks in found.ranks.values():
        assert chisquare(np.histogram(ranks[:, 0], 10, (0, 20))[0]).pvalue > 0.0005
    assert found.gap.mean == pytest.approx(0.0, abs=1e-4)
    assert found.largest_gap.mean == pytest.approx(0.0, abs=1e-4)
    assert f"{found!r}".startswith("Calibration(z1 calibrated; z2 calibrated; gap")


@pytest.mark.parametrize("layer", ["z1", "z2"])
@pytest.mark.parametrize(
    ("distortion", "fault"),
    [({"scale": 0.7}, "too narrow"), ({"scale": 1.5}, "too wide"), ({"shift": 0.3}, "shifted"), ({"shift": -0.3}, "shifted")],
)
def test_a_planted_fault_is_named_in_its_layer(layer, distortion, fault):
    """z1 is drawn given z2, and z2 given the data: a fault of z1 stays there, one of z2 is weaker in z1."""
    chain = Chain(2)
    guide = Distorted(layer, **distortion)(chain.exact_guides()["top_down"])
    found = calibrate(chain.model, guide, 1000, num_samples=200)
    assert faults(found)[layer] == {fault: [1]}
    assert layer == "z2" or faults(found)["z2"] == {}
    assert found.gap.mean > 5 * found.gap.standard_error
    if fault == "shifted":
        assert (found.verdicts()[layer].shift > 0).item() == (distortion["shift"] < 0), "draws too low: the truth ranks high"


def independent_units(x=None, batch_size=1):
    """z ~ N(0, I), x ~ N(z, 0.7^2 I) of eight units, whose posteriors are N(x / 1.49, 0.49 / 1.49)."""
    with pyro.plate("data", batch_size if x is None else len(x)):
        z = pyro.sample("z1", dist.Normal(torch.zeros(8), 1.0).to_event(1))
        return pyro.sample("x", dist.Normal(z, 0.7).to_event(1), obs=x)


def test_planted_faults_are_named_by_unit_and_their_gap_is_their_divergence():
    scale = torch.tensor([1.0, 0.6, 1.0, 1.6, 1.0, 1.0, 0.6, 1.0])
    shift = torch.tensor([0.0, 0.0, 0.4, 0.0, 0.0, -0.4, 0.4, 0.0])

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(x / 1.49, (0.49 / 1.49) ** 0.5).to_event(1))

    found = calibrate(independent_units, Distorted("z1", shift, scale)(guide), 1500, num_samples=2000)
    assert faults(found)["z1"] == {"too narrow": [2, 7], "too wide": [4], "shifted": [3, 6, 7]}
    divergence = (0.5 * (scale**2 + shift**2 - 1) - scale.log()).sum().item()
    assert found.gap.mean == pytest.approx(divergence, abs=0.15)
    # KL(q || p) + KL(p || q), within four standard errors.
    largest = divergence + (0.5 * ((1 + shift**2) / scale**2 - 1) + scale.log()).sum().item()
    assert abs(found.largest_gap.mean - largest) < 4 * found.largest_gap.standard_error
    covered = found.coverage(0.9)["z1"]
    # The interval is 0.6 or 1.6 times as wide as it should be.
    assert covered[1].item() == pytest.approx(2 * norm.cdf(0.6 * norm.ppf(0.95)) - 1, abs=0.06)
    assert covered[3].item() == pytest.approx(2 * norm.cdf(1.6 * norm.ppf(0.95)) - 1, abs=0.02)


def test_a_model_that_draws_no_data_and_too_few_examples_are_refused():
    chain = Chain(1)
    with pytest.raises(ValueError, match="expected at least 100 examples"):
        calibrate(chain.model, chain.exact_guides()["mean_field"], 99)
    with pytest.raises(ValueError, match="expected at least 19 draws"):
        calibrate(chain.model, chain.exact_guides()["mean_field"], num_draws=18)
    with pytest.raises(ValueError, match=r"expected a guide that draws latents of the model, \['z1'\]"):
        calibrate(chain.model, lambda x: None, 100)


# Runs.


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("prior", [*PRIORS, "posterior flow"])
def test_every_guide_prior_and_posterior_is_calibrated(guide, prior):
    sizes = {"latent_sizes": (3, 2), "hidden_sizes": (4, 4), "hidden_layers": 1, "num_components": 3}
    how = {"prior": prior} if prior in PRIORS else {"posterior": "flow", "flow_transforms": 1}
    told = prior == "conditional_gaussian"
    if guide == "bottom_up" and prior in ("vamp", "vamp_data"):
        pytest.skip("a mixture of posteriors needs q(z2 | x), which a bottom-up guide has not")
    recipe = Recipe(guide=guide, likelihood="bernoulli", condition="label" if told else "none", **sizes, **how)
    vae = assemble(recipe, (1, 2, 3), 3)
    contexts = torch.eye(3)[torch.arange(100) % 3] if told else None
    found = calibrate(vae.model, vae.guide, 100, num_draws=19, num_samples=20, context=contexts)
    assert {name: each.shape for name, each in found.ranks.items()} == {"z1": (100, 3), "z2": (100, 2)}
    assert all(each.min() >= 0 and each.max() <= 19 for each in found.ranks.values())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained("ladder-2", tmp_path_factory.mktemp("ladder") / "run", latent_sizes=(4, 2), hidden_sizes=(8, 8))[0]


def test_a_run_is_calibrated_the_same_each_time_and_the_generator_stays(run):
    before = torch.get_rng_state()
    one, other = (run.calibrate(150, num_draws=19, num_samples=20, seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert calibration_record(one) == calibration_record(other)
    assert calibration_record(one) != calibration_record(run.calibrate(150, num_draws=19, num_samples=20, seed=4))


def test_a_conditional_model_takes_contexts_of_the_test(tmp_path):
    data = pictured_dataset("label")
    recipe = Recipe(dataset="grey", condition="label", latent_sizes=(2,), hidden_sizes=(8,), batch_size=30, epochs=1)
    run = train(recipe.replace(likelihood="bernoulli"), tmp_path / "run", dataset=data, engine="eager")
    found = run.calibrate(150, num_draws=19, num_samples=20, dataset=data)
    assert found.ranks["z1"].shape == (150, 2)


def test_the_command_line_prints_verdicts_and_draws_pictures(run, tmp_path):
    arguments = ["calibrate", str(run.folder), "--examples", "200", "--draws", "19", "--samples", "50", "-o", str(tmp_path)]
    first, second = (CliRunner().invoke(main, [*arguments, "--json"]) for _ in range(2))
    assert first.exit_code == 0, first.output
    assert first.stdout == second.stdout, "the same seed"
    record = json.loads(first.stdout)
    assert record["figures"] == [str(tmp_path / f"calibration-{name}.png") for name in ("ranks", "coverage")]
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("calibration-ranks.png", "calibration-coverage.png"))
    assert [len(record["layers"][name]["shift"]) for name in ("z1", "z2")] == [4, 2]
    assert record["false_alarm_rate"] == 0.01
    table = CliRunner().invoke(main, arguments).stdout
    for part in ("z1", "coverage of 90%", "gap of the ELBO, nats per example", "200 that the model drew, 19 draws"):
        assert part in table


def test_rows_name_the_units_of_a_fault():
    chain = Chain(2)
    found = calibrate(chain.model, Distorted("z1", scale=0.5)(chain.exact_guides()["top_down"]), 500, num_samples=50)
    rows = calibration_rows(found)
    assert rows["z1"] == "too narrow: 1 of 1 units (1)"
    assert rows["z2"] == "calibrated: 1 units"


def test_pictures_show_which_units_leave_their_bands():
    ranks = torch.cat([uniform(1000, 3, 99), torch.cat([uniform(500, 1, 9), 99 - uniform(500, 1, 9)])], 1)
    histograms, coverages = calibration_figures(of_ranks(ranks, 99)).values()
    (axes,) = histograms.axes
    assert axes.get_title() == "z1: 1 of 4 units outside"
    _, *lines = axes.patches
    assert len(lines) == 4
    assert lines[-1].get_data().values[[0, -1]] == pytest.approx(5.0, rel=0.2), "half of the ranks in the first tenth"
    assert lines[-1].get_edgecolor() != lines[0].get_edgecolor() == lines[1].get_edgecolor()
    (axes,) = coverages.axes
    middle, wide = (line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 4)
    np.testing.assert_allclose(middle, [0.5, 0.5, 0.5, 0.0], atol=0.08)
    np.testing.assert_allclose(wide, [0.9, 0.9, 0.9, 0.5], atol=0.08)


def test_the_command_line_calibrates_a_conditional_model(tmp_path):
    untrained(tmp_path / "run", latent_sizes=(2,), condition="middle-column")
    command = ["calibrate", str(tmp_path / "run"), "--examples", "100", "--draws", "19", "--samples", "2", "--json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["layers"]["z1"]["shift"]) == 2


def untrained(folder, **settings):
    """A run folder as it is before the first epoch."""
    recipe = Recipe(hidden_sizes=(8,), hidden_layers=1, **settings)
    Run.create(folder, recipe, load_data(recipe)).save_weights()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"latent_sizes": (), "condition": "middle-column"}, "expected latents; a regressor has none"),
        (
            {"likelihood": "cross_entropy", "latent_sizes": (2,)},
            "expected a likelihood that is a density; 'cross_entropy' is a loss",
        ),
    ],
)
def test_what_has_no_posterior_is_refused_in_a_line(settings, words, tmp_path):
    untrained(tmp_path / "run", **settings)
    result = CliRunner().invoke(main, ["calibrate", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert words in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_the_command_line_refuses_a_folder_that_is_no_run(tmp_path):
    result = CliRunner().invoke(main, ["calibrate", str(tmp_path)])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "expected a run folder with recipe.json and weights.safetensors" in line
