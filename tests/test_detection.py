"""Scores of odd examples against closed forms, and areas under ROC curves against counts and simulations."""

import json
import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from linear_gaussian import Chain
from pyrovae.cli import main
from resumption import SMALL
from torch.distributions import Normal, kl_divergence

from pyrovae.errors import InputError
from pyrovae.evaluation.oddity import likelihood_ratios, likelihood_regret, negative_waic, oddity, typicality
from pyrovae.evaluation.ranking import auroc, auroc_difference
from pyrovae.experiments.building import assemble
from pyrovae.experiments.detecting import aurocs
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.training import train
from pyrovae.programs.guides import GUIDES
from pyrovae.programs.priors import PRIORS

# The scores of a linear-Gaussian chain.


def examples(chain, number=6):
    torch.manual_seed(0)
    return chain.model(batch_size=number).detach()


def exact_ratio(chain, x):
    """E KL(p(z1 | z2) || p(z1 | z2, x)) over p(z2 | x), for two layers: of Gaussians, whose locations are linear in z2."""
    slope, shift, scale = chain.slopes[0], chain.shifts[0], chain.scales[0]
    above, downward = chain.posterior(2)(x).base_dist, chain.downward(1)
    weight, variance = downward.weight[0].detach(), downward.log_scale.exp().item() ** 2
    # The difference of the two locations, a Gaussian: its mean and its variance over z2.
    difference = slope * above.mean[:, 0] + shift - x @ weight[:3] - weight[3] * above.mean[:, 0] - downward.bias.item()
    spread = (slope - weight[3]) ** 2 * above.variance[:, 0]
    ratio = scale**2 / variance
    return 0.5 * (ratio - 1 - math.log(ratio) + (difference.square() + spread) / variance).detach()


@pytest.mark.parametrize("family", ["top_down", "residual_top_down", "ladder"])
def test_ratios_of_exact_posteriors_are_divergences(family):
    """Six examples with 4,000 samples: one is off by more than five errors once in 300,000 runs."""
    chain = Chain(2)
    x = examples(chain)
    found = oddity(chain.model, chain.exact_guides()[family], x, num_samples=4000, num_steps=0)
    torch.testing.assert_close(found.log_likelihood.float(), chain.evidence(x), rtol=0, atol=1e-4)
    assert list(found.ratios) == ["z1"]
    assert ((found.ratios["z1"] - exact_ratio(chain, x)).abs() < 5 * found.ratio_errors["z1"]).all()


def test_a_bottom_up_guide_gives_a_bound_too():
    """Its upper layers were drawn given lower ones that are thrown away: below log p(x), by more than it has to be."""
    chain = Chain(3)
    x = examples(chain, 30)
    guides = chain.exact_guides()
    ratios = {name: likelihood_ratios(chain.model, each, x, num_samples=500) for name, each in guides.items()}
    assert set(ratios["bottom_up"]) == {"z1", "z2"}
    for layer in ("z1", "z2"):
        assert ratios["bottom_up"][layer].mean() > ratios["top_down"][layer].mean() > 0
    for each in ratios.values():
        assert each["z2"].mean() > each["z1"].mean()


def test_one_layer_has_no_ratio():
    chain = Chain(1)
    assert likelihood_ratios(chain.model, chain.exact_guides()["mean_field"], examples(chain)) == {}


@pytest.mark.parametrize("depth", [1, 2])
def test_there_is_no_regret_at_the_exact_posterior(depth):
    chain = Chain(depth)
    for guide in chain.exact_guides().values():
        regret, _ = likelihood_regret(chain.model, guide, examples(chain), num_samples=20, num_steps=20)
        torch.testing.assert_close(regret, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-5)


def test_the_regret_of_a_wrong_guide_is_its_divergence():
    """A hundred steps end within a tenth of a nat; 2,000 samples leave errors of about the same, five of which are allowed."""
    chain = Chain(1)
    x, guide = examples(chain), chain.wrong_guide("mean_field")
    regret, error = likelihood_regret(chain.model, guide, x, num_samples=2000)
    wrong, exact = (each(x).base_dist for each in (guide.encoder.heads[0], chain.posterior(1)))
    divergence = kl_divergence(Normal(wrong.loc, wrong.scale), Normal(exact.loc, exact.scale))[:, 0].detach()
    assert divergence.mean() > 1
    assert ((regret - divergence).abs() < 5 * error + 0.1).all()


def test_what_is_far_from_the_data_is_odder_by_every_score():
    chain = Chain(2)
    x = examples(chain, 50)
    guide = chain.wrong_guide("ladder")
    near, far = (oddity(chain.model, guide, each, num_samples=50, num_steps=50) for each in (x, x + 6))
    assert far.log_likelihood.mean() < near.log_likelihood.mean() - 10
    assert far.regret.mean() > near.regret.mean() + 1
    assert far.ratios["z1"].mean() > near.ratios["z1"].mean() + 1
    known = near.log_likelihood
    assert (typicality(far.log_likelihood, known) > typicality(near.log_likelihood, known).max()).float().mean() > 0.9


def test_waic_of_trainings_that_agree_is_their_mean_whatever_the_noise():
    """20,000 examples, three trainings, noise of two nats: the covariance is off by more than four errors of 0.016 rarely."""
    generator = torch.Generator().manual_seed(0)
    one, other = (-90 + 2 * torch.randn(3, 20_000, generator=generator, dtype=torch.float64) for _ in range(2))
    assert negative_waic(one, other).mean().item() == pytest.approx(90, abs=0.1)
    apart = torch.tensor([-3.0, 0.0, 3.0])[:, None]
    assert negative_waic(one + apart, other + apart).mean().item() == pytest.approx(90 + 9, abs=0.2)


def test_waic_needs_trainings():
    with pytest.raises(ValueError, match="expected two trainings or more for a variance over them; got 1"):
        negative_waic(torch.zeros(1, 4), torch.zeros(1, 4))


POSSIBLE = [
    (guide, prior)
    for guide in GUIDES
    for prior in PRIORS
    # One of contexts, and one of a density that bottom-up guides have not.
    if prior != "conditional_gaussian" and not (guide == "bottom_up" and prior.startswith("vamp"))
]


@pytest.mark.parametrize(("guide", "prior"), POSSIBLE)
def test_every_guide_and_prior_scores(guide, prior):
    vae = assemble(SMALL.replace(guide=guide, prior=prior, num_components=3, skip_connections=True), (1, 1, 12), 0)
    found = oddity(vae.model, vae.guide, torch.bernoulli(torch.rand(5, 12)), num_samples=3, num_steps=2)
    assert list(found.ratios) == ["z1"]
    assert all(each.isfinite().all() and len(each) == 5 for each in (found.log_likelihood, found.ratios["z1"], found.regret))


def test_flows_have_no_regret_and_contexts_are_taken():
    settings = {"posterior": "flow", "condition": "left-half", "prior": "conditional_gaussian", "flow_transforms": 1}
    vae = assemble(SMALL.replace(**settings), (1, 2, 6), 0)
    contexts = torch.rand(5, vae.model.context_size).round()
    found = oddity(vae.model, vae.guide, torch.bernoulli(torch.rand(5, 12)), contexts, num_samples=3, num_steps=2)
    assert found.regret is None
    assert found.ratios["z1"].isfinite().all()


# Areas under ROC curves.


def counted(odd, normal):
    """The share of pairs in order."""
    return np.mean([(one > other) + (one == other) / 2 for one, other in product(odd, normal)])


def test_the_area_is_the_share_of_pairs_in_order():
    generator = np.random.default_rng(0)
    odd, normal = generator.integers(0, 8, 31) + 1.0, generator.integers(0, 8, 23)
    assert auroc(odd, normal).value == pytest.approx(counted(odd, normal), rel=1e-12)
    assert auroc(normal, odd).value == pytest.approx(1 - counted(odd, normal), rel=1e-12)


def gaussians(generator, number, shift):
    """A signal that both kinds of examples have, and two scores of it, of which the first is the better one."""
    signal = generator.normal(0, 1, number) + shift
    return signal + 0.3 * generator.normal(0, 1, number), signal + 1.5 * generator.normal(0, 1, number)


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_intervals_hold_the_truth_as_often_as_they_say(shift):
    """1,000 intervals of 95 %: by chance fewer than 93 % or more than 97 % hold it once in 200 tests, if all is right."""
    truth = [0.5 * (1 + math.erf(shift / math.sqrt(1 + noise**2) / 2)) for noise in (0.3, 1.5)]
    generator, held = np.random.default_rng(0), np.zeros(2)
    for _ in range(1000):
        odd, normal = gaussians(generator, 60, shift), gaussians(generator, 80, 0.0)
        area = auroc(odd[0], normal[0])
        gain = auroc_difference((odd[0], normal[0]), (odd[1], normal[1]))
        held += area.lower <= truth[0] <= area.upper, gain.lower <= truth[0] - truth[1] <= gain.upper
    assert (np.abs(held / 1000 - 0.95) < 0.02).all(), held


def test_a_score_that_separates_everything_is_not_certain():
    """All of eleven pairs in order: a probability of 0.715 does that once in 40 times."""
    found = auroc(np.arange(11) + 100.0, np.arange(30))
    assert (found.value, found.upper) == (1, 1)
    assert found.lower**11 == pytest.approx(0.025)
    reverse = auroc(np.arange(30), np.arange(11) + 100.0)
    assert (reverse.value, reverse.lower, reverse.upper) == (0, 0, pytest.approx(1 - found.lower))


@pytest.mark.parametrize(
    ("odd", "words"), [([1.0], "two odd and two normal examples or more"), ([1.0, math.nan], "some are NaN")]
)
def test_scores_without_an_order_are_refused(odd, words):
    with pytest.raises(ValueError, match=words):
        auroc(odd, [0.0, 1.0])


# Runs.


def people(count, seed=0):
    generator = np.random.default_rng(seed)
    height = generator.normal(170, 10, count)
    return pd.DataFrame({"height": height, "weight": 0.9 * height - 80 + generator.normal(0, 6, count)})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    people(300).to_csv(folder / "people.csv", index=False)
    recipe = Recipe(dataset=str(folder / "people.csv"), latent_sizes=(1, 1), hidden_sizes=(8, 8), epochs=5, batch_size=30)
    return [train(recipe.replace(seed=seed, learning_rate=5e-3), folder / f"run-{seed}", engine="graph") for seed in (0, 1)]


FEW = {"num_samples": 10, "num_steps": 10}


def test_scores_of_a_run_are_in_original_units_and_repeatable(runs):
    run, other = runs
    state = torch.get_rng_state()
    found = run.detect(people(20, seed=3), reference=run.dataset(), also=[other], **FEW)
    assert torch.equal(torch.get_rng_state(), state)
    pd.testing.assert_frame_equal(run.detect(people(20, seed=3), reference=run.dataset(), also=[other], **FEW), found)
    scores = ["negative_log_likelihood", "ratio_above_z1", "regret", "typicality", "negative_waic"]
    assert [name for name in found.columns if not name.endswith("_error")] == scores
    scored = run.score(people(20, seed=3), num_samples=10)
    np.testing.assert_allclose(-found["negative_log_likelihood"], scored["log_likelihood"], rtol=1e-6)


def test_the_odd_are_told_from_the_normal(runs):
    run, _ = runs
    odd, normal = (run.detect(each, **FEW) for each in (people(40, seed=3) * [1.0, 0.3], people(40, seed=4)))
    areas = aurocs(odd, normal)
    assert areas["negative_log_likelihood"][0].lower > 0.9
    assert areas["negative_log_likelihood"][1].value == 0


def test_the_command_writes_a_table_and_areas(runs, tmp_path):
    run, other = runs
    people(20, seed=5).to_csv(tmp_path / "normal.csv", index=False)
    (people(15, seed=6) * [1.0, 0.3]).to_csv(tmp_path / "odd.csv", index=False)
    files = [str(run.folder), str(tmp_path / "odd.csv"), "-o", str(tmp_path / "scores.csv")]
    arguments = ["detect", *files, "--against", str(tmp_path / "normal.csv"), "--samples", "10", "--steps", "5"]
    found = CliRunner().invoke(main, [*arguments, "--also", str(other.folder), "--json"])
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert answer["rows"] == len(pd.read_csv(tmp_path / "scores.csv")) == 15
    assert answer["scores"]["negative_log_likelihood"]["auroc"]["value"] > 0.9
    assert "negative_waic" in answer["scores"]
    shown = CliRunner().invoke(main, arguments)
    assert "area under the ROC curve" in shown.stdout


def test_runs_that_cannot_be_averaged_are_refused(runs, tmp_path):
    run, _ = runs
    people(100, seed=9).to_csv(tmp_path / "others.csv", index=False)
    recipe = Recipe(dataset=str(tmp_path / "others.csv"), latent_sizes=(1,), hidden_sizes=(4,), epochs=1, batch_size=20)
    stranger = train(recipe, tmp_path / "stranger", engine="eager")
    with pytest.raises(InputError, match="stranger: expected a training on the data of"):
        run.detect(people(3), also=[Run.load(stranger.folder)])
    data = str(tmp_path / "others.csv")
    arguments = ["detect", str(run.folder), data, "-o", str(tmp_path / "s.csv"), "--also", str(stranger.folder)]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 2
    assert "expected a training on the data of" in refused.stderr
