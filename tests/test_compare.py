"""Runs compared: paired intervals, what is refused, and what the command line makes of it."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pyrovae.cli import main

from pyrovae.data.benchmarks import DATASETS
from pyrovae.errors import InputError
from pyrovae.evaluation.comparison import paired_difference
from pyrovae.experiments.comparison import compare, incomparable
from pyrovae.experiments.evaluations import Evaluation
from pyrovae.experiments.recipe import Recipe
from pyrovae.programs.likelihoods import LIKELIHOODS

TINY = ("--latent-sizes", "3", "--hidden-sizes", "8", "--epochs", "1", "--output-bias", "--samples", "4", "--json")
RESULTS = {
    "log_likelihood": -90.0,
    "standard_error": 1.0,
    "elbo": -95.0,
    "num_samples": 100,
    "num_images": 50,
    "share_of_heavy_tails": 0.05,
    "protocol": "digits, grey",
    "protocol_hash": "f4143bc9",
    "likelihood": "bernoulli",
    "discrete": True,
    "example": "image",
    "normalized": True,
    "model": "a model",
    "bits_per_dimension": 0.1,
    "sampling_error": 0.1,
    "effective_sample_size": 10.0,
    "curve": {"1": -95.0, "100": -90.0},
    "dataset": "digits",
    "values": "grey",
    "condition": "none",
    "epochs": 3,
    "kl_weight": 1.0,
    "kl_by_layer": {"z1": 3.0},
    "kl_by_unit": {},
    "activity_by_unit": {},
    "active_units": {},
    "seconds": 1.0,
}


def evaluation(**changes):
    return Evaluation(**(RESULTS | {"per_image": {}} | changes))


def invoked(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments])


def written(folder, seed, recipe=None, **results):
    """A folder with a recipe and an evaluation of 50 images, and nothing else."""
    generator = np.random.default_rng(0)
    images = generator.normal(-90, 30, 50)
    values = images + np.random.default_rng(seed).normal(-seed, 1, 50)
    folder.mkdir(exist_ok=True)
    per_image = {"log_likelihood": values, "elbo": values - 5}
    known = {"log_likelihood": values.mean(), "elbo": values.mean() - 5, "standard_error": values.std() / math.sqrt(50)}
    evaluation(**(known | {"per_image": per_image} | results)).save(folder, "test")
    (folder / "recipe.json").write_text(json.dumps({"recipe": asdict(recipe or Recipe())}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_intervals_hold_the_mean_as_often_as_they_say(kind):
    """1,000 trials of 200 images: 95%, within 2 points, of which 0.7 are the standard error of the count.

    Percentiles fall short of 95 by less than half a point at 200 images: a false alarm in 60 seeds, of which one is fixed.
    """
    generator = np.random.default_rng(1)
    draws = {"normal": generator.normal(size=(1000, 200)), "skewed": generator.gamma(4.0, size=(1000, 200)) - 4.0}[kind]
    common = generator.normal(scale=30.0, size=200)
    intervals = [paired_difference(common + draw, common, seed=number) for number, draw in enumerate(draws)]
    covered = np.mean([interval.lower <= 0 <= interval.upper for interval in intervals])
    assert 0.93 <= covered <= 0.97
    assert np.mean([not interval.is_clear for interval in intervals]) == covered


def test_what_both_share_cancels():
    """The spread over images is 30 nats, that of the difference 1: the interval is of the second."""
    generator = np.random.default_rng(2)
    images = generator.normal(scale=30.0, size=400)
    difference = paired_difference(images + generator.normal(1.0, 1.0, 400), images)
    width = difference.upper - difference.lower
    assert width == pytest.approx(2 * 1.96 / math.sqrt(400), rel=0.15)
    assert difference.is_clear
    assert paired_difference(images, images).mean == 0
    assert not paired_difference(images, images).is_clear


def test_intervals_are_the_same_for_the_same_seed_and_turn_with_the_sign():
    one, other = np.random.default_rng(3).normal(size=(2, 100))
    assert paired_difference(one, other) == paired_difference(one, other)
    forth, back = paired_difference(one, other), paired_difference(other, one)
    assert (forth.mean, forth.lower, forth.upper) == pytest.approx((-back.mean, -back.upper, -back.lower), abs=0.02)
    wider = paired_difference(one, other, confidence=0.99)
    assert wider.lower < forth.lower < forth.mean < forth.upper < wider.upper


@pytest.mark.parametrize("other", [np.zeros(3), np.zeros((4, 1))])
def test_values_of_other_images_are_refused(other):
    with pytest.raises(ValueError, match="expected values of the same images, at least two; got shapes"):
        paired_difference(np.zeros(4), other)


REASONS = {
    "protocol": ({"protocol_hash": "0", "protocol": "letters"}, "two protocols, 'digits, grey' [f4143bc9] and 'letters' [0]"),
    "images": ({"num_images": 49}, "50 test images and 49"),
    "kind": (
        {"discrete": False, "likelihood": "gaussian"},
        "probabilities and densities have no common unit: bernoulli, probabilities and gaussian, densities",
    ),
    "loss": ({"normalized": False}, "a model: a loss that is no density of the data has no log-likelihood"),
    "nothing": ({"model": "another", "likelihood": "discretized_logistic", "elbo": -80.0, "num_samples": 5}, ""),
}


@pytest.mark.parametrize("case", REASONS)
def test_what_is_not_comparable_is_said(case):
    changed, reason = REASONS[case]
    assert incomparable(evaluation(), evaluation(**changed)) == reason
    assert bool(incomparable(evaluation(**changed), evaluation())) == bool(reason)


# Columns of several kinds are no one thing: probabilities of some, densities of others.
@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name != "mixed"])
def test_the_probabilities_of_a_discrete_likelihood_sum_to_one_over_its_levels(name):
    of_kind = {("bits",): torch.arange(2.0), ("counts",): torch.arange(2000.0)}
    levels = of_kind.get(LIKELIHOODS[name].values, torch.arange(256) / 255)
    likelihood = LIKELIHOODS[name](2, 1)
    with torch.no_grad():
        total = likelihood(torch.randn(1, 2)).log_prob(levels[:, None]).exp().sum().item()
    assert LIKELIHOODS[name].discrete == (total == pytest.approx(1, abs=1e-4))


def test_what_a_reader_must_know_is_said_once_for_each_kind(tmp_path):
    """Of five runs, three of which have heavy tails, and which have three numbers of samples."""
    runs = [
        written(tmp_path / f"{seed}", seed, num_samples=samples, share_of_heavy_tails=share)
        for seed, (samples, share) in enumerate([(100, 0.96), (100, 0.5), (7, None), (5000, 0.2), (100, 0.05)])
    ]
    samples, tails = compare(*runs).remarks
    assert samples.startswith("7 and 100 and 5,000 importance samples: fewer make a looser bound")
    assert tails.startswith("weights of up to 96% of the images have heavy tails in 3 runs: such a figure may be too low")
    assert not compare(written(tmp_path / "one", 1), written(tmp_path / "other", 2)).remarks


def test_settings_that_differ_have_a_column_each(tmp_path):
    runs = [
        written(tmp_path / name, seed, recipe=Recipe(learning_rate=rate, seed=seed, guide="ladder"))
        for name, seed, rate in (("slow", 1, 1e-4), ("fast", 2, 1e-3))
    ]
    comparison = compare(*runs)
    assert comparison.rows[0].settings == {"learning_rate": 1e-4, "seed": 1}
    assert "learning_rate 0.0001, seed 1" in str(comparison)
    result = invoked("compare", *runs)
    assert all(each in result.stdout for each in ("learning rate", "seed", "0.0001", "0.001"))
    assert "guide" not in result.stdout


def test_runs_of_a_loss_are_compared_by_their_bound(tmp_path):
    loss = {"normalized": False, "likelihood": "cross_entropy", "log_likelihood": None, "standard_error": None}
    folders = [written(tmp_path / name, seed, **loss) for name, seed in (("worse", 5), ("better", 1))]
    comparison = compare(*folders)
    assert comparison.by == "elbo"
    assert [row.run.rsplit("/")[-1] for row in comparison.rows] == ["better", "worse"]
    assert "ELBO of the loss" in invoked("compare", *folders).stdout


def test_runs_are_listed_from_the_best(tmp_path):
    folders = [written(tmp_path / name, seed) for name, seed in (("third", 9), ("first", 1), ("second", 3))]
    result = invoked("compare", *folders, "--json")
    assert result.exit_code == 0, result.output
    compared = json.loads(result.stdout)
    assert [row["run"].rsplit("/")[-1] for row in compared["runs"]] == ["first", "second", "third"]
    assert compared["runs"][0]["difference"] is None
    difference = compared["runs"][1]["difference"]
    # A difference of two nats, whose spread is the root of two: five standard errors are one nat.
    assert -3 < difference["lower"] < difference["mean"] < difference["upper"] < -1
    assert compared["protocol_hash"] == "f4143bc9"
    assert compared["remarks"] == []


def test_the_table_flags_unequal_samples_and_unclear_differences(tmp_path):
    folders = written(tmp_path / "one", 1), written(tmp_path / "same", 1, num_samples=7, share_of_heavy_tails=0.5)
    result = invoked("compare", *folders)
    assert result.exit_code == 0, result.output
    assert "+0.00 [+0.00, +0.00], unclear" in result.stdout
    assert "50 test images; digits, grey [f4143bc9]" in result.stdout
    assert "7 and 100 importance samples: fewer make a looser bound" in result.stderr
    assert "weights of up to 50% of the images have heavy tails in one run" in result.stderr


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path):
    one, other = written(tmp_path / "one", 1), written(tmp_path / "other", 2, protocol="letters", protocol_hash="0")
    bare = written(tmp_path / "bare", 2)
    (bare / "evaluations/test.safetensors").unlink()
    mixed = written(tmp_path / "mixed", 2)
    (mixed / "evaluations/test.safetensors").write_bytes((one / "evaluations/test.safetensors").read_bytes())
    for folders, message in (
        ((one, other), "are not: two protocols, 'digits, grey' [f4143bc9] and 'letters' [0]"),
        ((one,), "expected at least two run folders to compare; got one"),
        ((one, bare), "expected an evaluation with values for each image: run 'pyrovae evaluate"),
        ((one, mixed), "test.json and test.safetensors of two evaluations"),
        ((one, tmp_path / "nowhere"), "nowhere: expected a run folder, as 'pyrovae fit' makes one"),
    ):
        result = invoked("compare", *folders)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert message in result.stderr


def _other(shape=(1, 28, 28), **changes):
    """Twenty images of noise."""
    stored = DATASETS["mnist-5k"]

    def load(options):
        images = torch.rand(20, math.prod(shape), generator=torch.Generator().manual_seed(5))
        digits = stored(options)
        protocol = replace(digits.protocol, dataset="noise", sizes=(20, 0, 20))
        return replace(
            digits,
            name="noise",
            train=images,
            valid=None,
            test=images,
            **{"labels": {}, "shape": shape, "protocol": protocol} | changes,
        )

    return replace(stored, load=load)


@pytest.mark.slow
def test_other_images_are_scored_beside_the_evaluation_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoked("fit", *TINY, "--output", "r").exit_code == 0
    own = (tmp_path / "r/evaluations/test.json").read_text()
    monkeypatch.setitem(DATASETS, "noise", _other())
    result = invoked("evaluate", "r", "--dataset", "noise", "--samples", "3", "--json")
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert scores["log_likelihood"] < json.loads(own)["log_likelihood"] - 1000, "noise is no digit"
    assert (tmp_path / "r/evaluations/test.json").read_text() == own
    evaluation = Evaluation.load(tmp_path / "r", "noise")
    assert evaluation.as_dict() == scores
    assert evaluation.per_image["log_likelihood"].shape == (20,)
    assert evaluation.per_image["log_likelihood"].mean() == pytest.approx(scores["log_likelihood"])
    for name in ("figures/log-likelihoods.png", "figures/log-likelihoods-noise.png", "figures/active-units.png"):
        assert (tmp_path / "r" / name).read_bytes().startswith(b"\x89PNG")
    assert "test set of noise" in invoked("evaluate", "r", "--dataset", "noise", "--samples", "3").stdout


@pytest.mark.slow
def test_images_of_another_shape_or_kind_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoked("fit", *TINY, "--output", "r").exit_code == 0
    before = sorted(path.name for path in (tmp_path / "r").iterdir())
    monkeypatch.setitem(DATASETS, "noise", _other((1, 4, 5)))
    monkeypatch.setitem(DATASETS, "real", _other(values="real"))
    for name, message in (
        ("noise", "expected images of shape (1, 28, 28), as 'mnist-5k' has; got (1, 4, 5) of 'noise'"),
        ("real", "expected grey values for the binarization 'dynamic'"),
        ("nothing", "expected a dataset out of"),
    ):
        result = invoked("evaluate", "r", "--dataset", name)
        assert result.exit_code == 2
        assert message in result.stderr
        assert sorted(path.name for path in (tmp_path / "r").iterdir()) == before


def test_contexts_of_another_size_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoked("fit", *TINY, "--condition", "label", "--output", "r").exit_code == 0
    labels = {"train": torch.arange(20) % 3, "test": torch.arange(20) % 3}
    monkeypatch.setitem(DATASETS, "noise", _other(labels=labels))
    result = invoked("evaluate", "r", "--dataset", "noise")
    assert result.exit_code == 2
    assert "expected contexts of 10 entries under the condition 'label'; got 3 of 'noise'" in result.stderr


def test_an_evaluation_without_a_likelihood_keeps_the_bound_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoked("fit", *TINY, "--likelihood", "cross_entropy", "--output", "r").exit_code == 0
    assert set(Evaluation.load("r").per_image) == {"elbo", "pareto_k"}
    assert not (tmp_path / "r/figures/log-likelihoods.png").exists()
    with pytest.raises(InputError, match="expected an evaluation with values for each image"):
        Evaluation.load("r", "noise")
