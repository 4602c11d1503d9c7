"""A trained model on new examples: the truth of a linear-Gaussian model, in original units, however they come."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from linear_gaussian import Chain
from PIL import Image
from pyrovae.cli import main
from resumption import SMALL
from sklearn import datasets as sklearn_tables

from pyrovae.data.loading import load_dataset
from pyrovae.data.preparation import Preparation
from pyrovae.errors import InputError
from pyrovae.evaluation import using
from pyrovae.evaluation.imputation import impute, log_density_of_missing
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.experiments.bounding import SUBSET_SEED
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.training import train
from pyrovae.programs.guides import GUIDES
from pyrovae.seeds import seed_of

NAMES = ["height", "weight", "age"]
SMALL_TABLE = {"latent_sizes": (2,), "hidden_sizes": (8,)}


# For any model and guide: a linear-Gaussian chain, whose posterior and evidence are known.


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_encoding_gives_the_moments_of_the_posterior(depth):
    """4,000 samples: a mean of them is off by more than five errors of 0.016 once in a million."""
    chain = Chain(depth)
    torch.manual_seed(0)
    x = chain.model(batch_size=6).detach()
    found = using.encode(chain.exact_guides()["top_down"], x, num_samples=4000)
    for layer in range(1, depth + 1):
        mean, variance = moments(chain, layer, x)
        torch.testing.assert_close(found[f"z{layer}"][0][:, 0], mean, rtol=0, atol=0.08)
        torch.testing.assert_close(found[f"z{layer}"][1][:, 0], variance.sqrt().expand(6), rtol=0, atol=0.08)


def moments(chain, layer, x):
    """The posterior of a layer, by conditioning the joint Gaussian of it and x."""
    slope, shift, covariance = chain.data_given(layer)
    mean, variance = chain.marginals()[layer - 1]
    cross = variance * slope
    precision = torch.linalg.inv(variance * torch.outer(slope, slope) + covariance)
    return mean + (x - slope * mean - shift) @ precision @ cross, variance - cross @ precision @ cross


def test_scores_are_the_evidence_and_its_parts():
    chain = Chain(2)
    torch.manual_seed(0)
    x = chain.model(batch_size=50).detach()
    found = using.score(chain.model, chain.exact_guides()["top_down"], x, num_samples=20)
    torch.testing.assert_close(found.log_likelihood.float(), chain.evidence(x), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.rate + found.distortion, -found.elbo)
    torch.testing.assert_close(found.by_entry.sum(1).double(), -found.distortion.double(), rtol=1e-5, atol=1e-5)
    assert found.by_entry.shape == x.shape


def test_a_temperature_scales_the_latents_alone():
    """20,000 draws: a standard deviation of them is off by more than five errors, 2.5 %, once in a million."""
    chain = Chain(1)
    torch.manual_seed(0)
    x = using.sample(chain.model, 20_000, temperature=0.5)
    expected = (0.25 * chain.weight**2 + 0.7**2).sqrt()
    torch.testing.assert_close(x.std(0), expected, rtol=0.025, atol=0)
    assert using.sample(chain.model, 5, means=True).shape == (5, 3)


# Runs of people's tables.


def people(count, seed=0):
    generator = np.random.default_rng(seed)
    height = generator.normal(170, 10, count)
    weight = 0.9 * height - 80 + generator.normal(0, 6, count)
    return pd.DataFrame({"height": height, "weight": weight, "age": generator.gamma(4, 10, count)})


@pytest.fixture(scope="module")
def tabled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    people(400).to_csv(folder / "people.csv", index=False)
    people_csv = str(folder / "people.csv")
    recipe = Recipe(dataset=people_csv, latent_sizes=(2,), hidden_sizes=(8,), epochs=40, batch_size=40, learning_rate=5e-3)
    return train(recipe, folder / "run", engine="eager")


def test_new_rows_go_through_what_the_training_did(tabled):
    new = people(7, seed=5)
    dataset = tabled.dataset()
    x = torch.from_numpy(((new.to_numpy() - dataset.shift) / dataset.scale).astype(np.float32))
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(0, 0, 1))
        right = using.score(tabled.vae.model, tabled.vae.guide, x, num_samples=50)
    found = tabled.score(new, num_samples=50)
    np.testing.assert_allclose(found["log_likelihood"], right.log_likelihood + dataset.log_jacobian, rtol=1e-12)
    np.testing.assert_allclose(found["rate"] + found["distortion"], -found["elbo"], rtol=1e-6)
    assert list(found.index) == list(range(7))


def test_rows_far_from_the_training_score_far_below(tabled):
    new = people(5, seed=5)
    near, far = (tabled.score(each, num_samples=50)["log_likelihood"] for each in (new, new + 5 * people(400).std()))
    assert (far < near - 15).all()


@pytest.mark.parametrize("number", [1, 5])
def test_columns_are_matched_by_their_names(tabled, number):
    new = people(number, seed=3)
    right = tabled.encode(new)
    shuffled = new[["age", "height", "weight"]]
    pd.testing.assert_frame_equal(tabled.encode(shuffled), right)
    with pytest.warns(UserWarning, match="columns that the model does not know are left out: 'city'"):
        pd.testing.assert_frame_equal(tabled.encode(new.assign(city="Rome")), right)
    with pytest.raises(InputError, match="expected the columns that it was trained on; 'weight' is missing"):
        tabled.encode(new.drop(columns="weight"))


def test_however_rows_come_they_are_the_same_rows(tabled, tmp_path):
    new = people(30, seed=2)
    right = tabled.score(new, num_samples=10)
    new.to_csv(tmp_path / "a.csv", index=False)
    new.to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    new.to_parquet(tmp_path / "a.parquet")
    np.save(tmp_path / "a.npy", new.to_numpy())
    for name in ("a.csv", "a.tsv", "a.parquet", "a.npy"):
        np.testing.assert_allclose(tabled.score(tmp_path / name, num_samples=10), right, rtol=1e-6)
    np.testing.assert_allclose(tabled.score(new.to_numpy(), num_samples=10), right)
    named = new.set_axis([f"person {number}" for number in range(30)])
    assert list(tabled.score(named, num_samples=10).index) == list(named.index)


def test_a_score_knows_its_place_among_the_data_and_the_oddest_column(tabled):
    new = people(20, seed=4)
    new.loc[0, "age"] = 150.0
    found = tabled.score(new, num_samples=20, reference=tabled.dataset())
    assert found["percentile"].between(0, 100).all()
    assert found.loc[0, "percentile"] < 10
    assert found.loc[0, "oddest"] == "age"
    assert found.loc[0, "oddest_by"] > found["oddest_by"].iloc[1:].max()


def test_samples_and_reconstructions_are_in_the_units_of_the_data(tabled):
    drawn = tabled.sample(2000)
    assert drawn.shape == (2000, 3)
    np.testing.assert_allclose(drawn.mean(0), people(400).mean(), rtol=0.15)
    made = tabled.reconstruct(people(9))
    assert made.shape == (9, 3)
    assert abs(made[:, 0].mean() - 170) < 20
    assert np.array_equal(tabled.sample(5, seed=3), tabled.sample(5, seed=3))
    assert not np.array_equal(tabled.sample(5, seed=3), tabled.sample(5, seed=4))


def test_another_process_scores_to_the_last_bit(tabled, tmp_path):
    people(12, seed=6).to_csv(tmp_path / "new.csv", index=False)
    scored = "Run.load(sys.argv[1]).score(sys.argv[2], num_samples=7).to_json(double_precision=15)"
    code = f"import sys; from pyrovae import Run; print({scored})"
    command = [sys.executable, "-c", code, str(tabled.folder), str(tmp_path / "new.csv")]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout
    here = Run.load(tabled.folder).score(tmp_path / "new.csv", num_samples=7)
    assert json.loads(found) == json.loads(here.to_json(double_precision=15))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((3, 2)), "expected 3 columns, as it was trained on; got 2 numbers in each example"),
        (np.array([["a", "b", "c"]]), "expected examples (N, ...) as numbers"),
        (pd.DataFrame({"height": ["tall"], "weight": [1.0], "age": [1.0]}), "expected numbers; column 'height' holds 'tall'"),
        (pd.DataFrame({"height": [np.nan], "weight": [1.0], "age": [1.0]}), "column 'height' has none"),
        ("nowhere.csv", "nowhere.csv"),
    ],
    ids=["too few", "text array", "text", "a gap", "no file"],
)
def test_what_a_model_cannot_take_is_said_in_a_line(tabled, data, words):
    with pytest.raises(InputError) as caught:
        tabled.score(data)
    assert words in str(caught.value)


# Runs of images.


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number in range(40):
        (folder / "scans").mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (6, 5), np.uint8)).save(folder / "scans" / f"{number:02d}.png")
    recipe = SMALL.replace(dataset=str(folder / "scans"), likelihood="auto", epochs=1, batch_size=10)
    return train(recipe, folder / "run", engine="eager"), folder / "scans"


def test_images_keep_the_names_of_their_files(pictured):
    run, folder = pictured
    found = run.encode(folder)
    assert list(found.index[:3]) == ["00.png", "01.png", "02.png"]
    assert len(found) == 40
    assert list(found.columns[:2]) == ["z1_1_mean", "z1_1_std"]
    assert run.sample(4).shape == (4, 1, 6, 5)
    assert 0 <= run.sample(4).min() <= run.sample(4).max() <= 255


def test_another_scale_is_refused(pictured):
    run, _ = pictured
    with pytest.raises(InputError, match=r"expected whole numbers from 0 to 255, as it was trained on; got 0.5 to 0.5: bring"):
        run.score(np.full((2, 6, 5), 0.5))


def test_a_preparation_survives_its_file():
    made = Preparation(shape=(1, 1, 2), values="real", columns=("a", "b"), shift=(1.0, 2.0), scale=(3.0, 4.0))
    assert Preparation.from_dict(json.loads(json.dumps(made.as_dict()))) == made
    x = np.array([[1.0, 5.0], [-2.0, 0.5]])
    np.testing.assert_allclose(made.restore(made.apply(x)), x, rtol=1e-6)
    damages = ({"scale": [0.0, 1.0]}, {"shift": [1.0]}, {"values": "odd"}, {"columns": ["a"]}, {"scale": [np.nan, 1.0]})
    for damage in damages:
        with pytest.raises(ValueError, match="do not fit"):
            Preparation.from_dict(made.as_dict() | damage)


def test_bits_are_drawn_of_new_grey_images_where_those_of_the_training_were():
    digits = Preparation.of(load_dataset("mnist-5k"))
    assert digits.binarize == "drawn"
    grey = np.full((1, 784), 127.0)
    once, again = digits.apply(grey, seed=1), digits.apply(grey, seed=1)
    assert torch.equal(once, again)
    assert set(once.unique().tolist()) == {0.0, 1.0}


# The command line.


def invoked(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments])


def test_commands_write_tables_by_their_endings(tabled, tmp_path):
    people(25, seed=1).to_csv(tmp_path / "new.csv", index=False)
    for ending in ("csv", "parquet", "npz", "npy"):
        result = invoked("encode", tabled.folder, tmp_path / "new.csv", "-o", tmp_path / f"z.{ending}")
        assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "z.csv", index_col="row")
    np.testing.assert_allclose(table, tabled.encode(tmp_path / "new.csv"), rtol=1e-6)
    np.testing.assert_allclose(pd.read_parquet(tmp_path / "z.parquet").set_index("row"), table, rtol=1e-6)
    with np.load(tmp_path / "z.npz") as arrays:
        np.testing.assert_allclose(arrays["z1_1_mean"], table["z1_1_mean"], rtol=1e-6)
    scored = invoked("score", tabled.folder, tmp_path / "new.csv", "-o", tmp_path / "s.csv", "--samples", 10, "--json")
    assert json.loads(scored.stdout) == {"output": str(tmp_path / "s.csv"), "rows": 25}
    assert {"log_likelihood", "pareto_k", "percentile", "oddest"} <= set(pd.read_csv(tmp_path / "s.csv").columns)
    sampled = invoked("sample", tabled.folder, "-n", 12, "-o", tmp_path / "new-people.csv")
    assert sampled.exit_code == 0, sampled.output
    assert list(pd.read_csv(tmp_path / "new-people.csv", index_col="row").columns) == NAMES
    made = invoked("reconstruct", tabled.folder, tmp_path / "new.csv", "-o", tmp_path / "r.csv")
    assert made.exit_code == 0, made.output
    assert list(pd.read_csv(tmp_path / "r.csv", index_col="row").columns) == NAMES


def test_commands_write_images(pictured, tmp_path):
    run, folder = pictured
    assert invoked("sample", run.folder, "-n", 9, "-o", tmp_path / "grid.png").exit_code == 0
    assert invoked("sample", run.folder, "-n", 9, "-o", tmp_path / "new", "--means").exit_code == 0
    assert len(list((tmp_path / "new").glob("*.png"))) == 9
    with Image.open(tmp_path / "new" / "000000.png") as image:
        assert image.size == (5, 6)
    assert invoked("reconstruct", run.folder, folder, "-o", tmp_path / "r.npz").exit_code == 0
    with np.load(tmp_path / "r.npz") as found:
        assert found["x"].shape == (40, 1, 6, 5)
        assert found["row"][0] == "00.png"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("encode", "RUN", "DATA", "-o", "z.txt"), "expected a file of .csv, .parquet, .npz, .npy; got .txt: name another"),
        (("encode", "RUN", "DATA", "-o", "z.csv", "--layer", "z7"), "expected a layer out of z1; got 'z7'"),
        (("encode", "RUN", "nowhere.csv", "-o", "z.csv"), "nowhere.csv"),
        (("encode", "RUN", "DATA", "-o", "no/such/z.csv"), "expected a folder that can be written to"),
        (("sample", "RUN", "-o", "new.png"), "expected a file of .npz, .npy, .csv, .parquet; got .png"),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else None,
)
def test_bad_input_is_refused_in_a_line(arguments, words, tabled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people(5).to_csv("new.csv", index=False)
    places = {"RUN": str(tabled.folder), "DATA": "new.csv"}
    result = invoked(*(places.get(each, each) for each in arguments))
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("z.*"))


# Gaps.


def conditional_moments(chain, x):
    """Mean and variance of the missing entries of one example given the others ``(D,)``, zero where nothing is missing."""
    mean, variance = chain.marginals()[0]
    loc = chain.weight * mean + chain.bias
    covariance = variance * torch.outer(chain.weight, chain.weight) + 0.7**2 * torch.eye(3)
    gaps = x.isnan()
    cross = covariance[gaps][:, ~gaps] @ torch.linalg.inv(covariance[~gaps][:, ~gaps])
    means, variances = x.clone(), torch.zeros(3)
    means[gaps] = loc[gaps] + cross @ (x - loc)[~gaps]
    variances[gaps] = (covariance[gaps][:, gaps] - cross @ covariance[~gaps][:, gaps]).diagonal()
    return means, variances


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("steps", [0, 20])
def test_what_is_missing_is_drawn_given_the_rest(depth, steps):
    """4,000 draws from 20,000 samples, of which some hundreds count: errors of 0.03, five of which are tolerated."""
    chain = Chain(depth)
    chain.model.incomplete = True
    guide = incomplete(chain.exact_guides()["top_down"])
    x = torch.tensor([[0.5, torch.nan, 1.0], [torch.nan, torch.nan, -0.4], [0.3, -0.2, 0.1]])
    torch.manual_seed(0)
    filled = impute(chain.model, guide, x, num_draws=4000, num_samples=20_000, num_steps=steps)
    assert filled.shape == (4000, 3, 3)
    for row in range(3):
        mean, variance = conditional_moments(chain, x[row])
        torch.testing.assert_close(filled[:, row].mean(0), mean, rtol=0, atol=0.15)
        torch.testing.assert_close(filled[:, row].std(0, correction=0), variance.sqrt(), rtol=0, atol=0.15)
    assert torch.equal(filled[:, 2], x[2].expand(4000, 3))


def test_the_truth_has_the_density_that_it_has_given_the_rest():
    """2,000 draws, chosen from 20,000: an error of a hundredth."""
    chain = Chain(2)
    chain.model.incomplete = True
    guide = incomplete(chain.exact_guides()["top_down"])
    truth = torch.tensor([[0.5, 0.7, 1.0], [0.2, -0.9, -0.4]])
    x = truth.masked_fill(torch.tensor([[False, True, False], [False, True, True]]), torch.nan)
    torch.manual_seed(0)
    found = log_density_of_missing(chain.model, guide, x, truth, num_draws=2000, num_samples=20_000)
    exact = chain.evidence(truth) - log_likelihood(chain.model, guide, x, 20_000).per_image
    torch.testing.assert_close(found.float(), exact.float(), rtol=0, atol=0.1)


def incomplete(guide):
    """The same guide, for which missing entries count as zero."""

    def with_zeros(x):
        return guide(x.nan_to_num())

    return with_zeros


def test_a_chain_finds_the_posterior_that_one_sample_misses():
    """With K = 1 nothing is chosen by weight; 200 steps of the chain make up for it."""
    chain = Chain(1)
    chain.model.incomplete = True
    guide = incomplete(chain.wrong_guide("mean_field"))
    x = torch.tensor([[0.5, torch.nan, 2.0]])
    mean, variance = conditional_moments(chain, x[0])
    torch.manual_seed(0)
    drawn = [impute(chain.model, guide, x, num_draws=4000, num_samples=1, num_steps=steps)[:, 0, 1] for steps in (0, 200)]
    errors = [abs(each.mean() - mean[1]) for each in drawn]
    assert errors[1] < 0.1 < errors[0]
    assert abs(drawn[1].std() - variance[1].sqrt()) < 0.05


def test_the_bound_with_gaps_is_that_of_the_entries_that_are_there():
    chain = Chain(1)
    chain.model.incomplete = True
    x = torch.tensor([[0.5, torch.nan, 2.0], [torch.nan, -0.3, torch.nan], [0.1, 0.2, 0.3]])
    torch.manual_seed(0)
    found = log_likelihood(chain.model, incomplete(chain.wrong_guide("mean_field")), x, 20_000)
    for row, value in zip(x, found.per_image, strict=True):
        known = ~row.isnan()
        covariance = torch.outer(chain.weight, chain.weight) + 0.7**2 * torch.eye(3)
        exact = torch.distributions.MultivariateNormal(chain.bias[known], covariance[known][:, known])
        assert abs(float(exact.log_prob(row[known])) - float(value)) < 0.05


def gapped(folder, **settings):
    table = people(600)
    table.mask(np.random.default_rng(1).random(table.shape) < 0.2).to_csv(folder / "people.csv", index=False)
    recipe = Recipe(dataset=str(folder / "people.csv"), missing=True, latent_sizes=(2,), hidden_sizes=(16,), batch_size=48)
    return train(recipe.replace(learning_rate=5e-3, **settings), folder / "run", engine="graph")


@pytest.mark.slow
def test_a_model_of_data_with_gaps_fills_them_better_than_means_do(tmp_path):
    run = gapped(tmp_path, epochs=150, objective="iwelbo", num_particles=10)
    whole = people(200, seed=7)
    holes = np.random.default_rng(2).random(200) < 0.5
    new = whole.assign(weight=whole["weight"].where(~holes))
    filled = run.impute(new, draws=50, num_samples=300)
    assert filled.shape == (50, 200, 3)
    np.testing.assert_array_equal(filled[0][~holes], whole[~holes])
    error = np.abs(filled.mean(0)[holes, 1] - whole["weight"][holes]).mean()
    assert error < 0.6 * np.abs(people(600)["weight"].mean() - whole["weight"][holes]).mean()
    low, high = np.quantile(filled[:, holes, 1], (0.05, 0.95), 0)
    inside = ((low <= whole["weight"][holes]) & (whole["weight"][holes] <= high)).mean()
    assert 0.75 < inside <= 1
    assert np.isfinite(run.score(new, num_samples=20)["log_likelihood"]).all()
    assert run.evaluate(20).log_likelihood > -40
    new.to_csv(tmp_path / "new.csv", index=False)
    result = invoked("impute", run.folder, tmp_path / "new.csv", "-o", tmp_path / "f.csv", "--draws", 5, "--samples", 50)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "f.csv", index_col="row")
    assert list(table.columns[:5]) == [*NAMES, "height_low", "height_high"]
    assert not table.isna().any().any()


@pytest.mark.parametrize("kind", ["bits", "grey", "counts", "real"])
def test_a_run_finds_its_data_with_gaps_again(kind, tmp_path):
    values = np.random.default_rng(0).random((60, 4))
    values = {"bits": (values > 0.5) * 1.0, "grey": values, "counts": np.rint(9 * values), "real": 9 * values - 3}[kind]
    values[::3, 1] = np.nan
    np.save(tmp_path / "a.npy", values)
    recipe = Recipe(
        dataset=str(tmp_path / "a.npy"), missing=True, latent_sizes=(2,), hidden_sizes=(8,), epochs=1, batch_size=20
    )
    run = train(recipe, tmp_path / "run", engine="eager")
    assert run.dataset().batch_values == kind
    assert run.evaluate(5).values == kind
    assert np.isfinite(run.impute(values, draws=2, num_samples=5)).all()


def test_a_unit_shifts_every_bound_of_data_with_gaps_by_the_entries_that_are_there(tmp_path):
    """Of each example its own: what is followed, what is measured, and the bounds from both sides."""
    figures = {}
    table = people(200)
    table = table.mask(np.random.default_rng(1).random(table.shape) < 0.3).dropna(how="all")
    for unit in (1.0, 1000.0):
        (folder := tmp_path / str(unit)).mkdir()
        (unit * table).to_csv(folder / "a.csv", index=False)
        recipe = Recipe(dataset=str(folder / "a.csv"), missing=True, epochs=1, batch_size=20, **SMALL_TABLE)
        run = train(recipe, folder / "run", engine="eager")
        last = run.history[-1]
        on_test = run.bounds(num_images=10, num_temperatures=5, num_samples=5).test
        followed = {
            name: sign * last[name] for name, sign in (("loss_nats", -1), ("train_elbo_nats", 1), ("valid_elbo_nats", 1))
        }
        figures[unit] = followed | {
            "evaluated": run.evaluate(5).log_likelihood,
            "sampled": on_test.importance_sampled,
            "annealed": on_test.annealed,
        }
    dataset = run.dataset()
    entries = {name: (~getattr(dataset, name)[:].isnan()).sum(1).double() for name in ("train", "valid", "test")}
    assert entries["test"].mean() < 2.9
    chosen = torch.randperm(len(dataset.test), generator=torch.Generator().manual_seed(SUBSET_SEED))[:10]
    there = dict.fromkeys(("loss_nats", "train_elbo_nats"), entries["train"]) | {
        "valid_elbo_nats": entries["valid"],
        "evaluated": entries["test"],
        "sampled": entries["test"][chosen],
        "annealed": entries["test"][chosen],
    }
    for name, some in there.items():
        shift = figures[1000.0][name] - figures[1.0][name]
        assert shift == pytest.approx(-np.log(1000) * some.mean().item(), abs=2e-3), name


@pytest.mark.parametrize(
    "objective",
    [
        {"objective": "elbo"},
        {"objective": "iwelbo", "gradient": "doubly_reparameterized"},
        {"objective": "renyi"},
    ],
    ids=lambda settings: settings["objective"],
)
@pytest.mark.parametrize("guide", GUIDES)
def test_every_guide_and_objective_trains_on_gaps_whatever_lies_under_them(guide, objective, tmp_path):
    """Whole rows, rows with gaps, and one that is empty but for one number; the gradient is finite everywhere."""
    table = people(60)
    table = table.mask(np.random.default_rng(1).random(table.shape) < 0.3)
    table.loc[3] = [np.nan, np.nan, 7.0]
    table.dropna(how="all").to_csv(tmp_path / "a.csv", index=False)
    sizes = {"latent_sizes": (2, 2), "hidden_sizes": (4, 4), "num_particles": 1 if objective["objective"] == "elbo" else 3}
    recipe = Recipe(dataset=str(tmp_path / "a.csv"), missing=True, guide=guide, epochs=2, batch_size=20, **sizes, **objective)
    run = train(recipe, tmp_path / "run", engine="graph")
    assert all(each.isfinite().all() for each in run.vae.parameters())
    assert np.isfinite([each["train_elbo_nats"] for each in run.history]).all()


def test_what_is_observed_stays_to_the_last_digit(tmp_path):
    run = gapped(tmp_path, epochs=1)
    new = people(50, seed=3).round(2).assign(age=np.nan)
    new.to_csv(tmp_path / "new.csv", index=False)
    result = invoked("impute", run.folder, tmp_path / "new.csv", "-o", tmp_path / "f.csv", "--draws", 7, "--samples", 10)
    assert result.exit_code == 0, result.output
    filled = pd.read_csv(tmp_path / "f.csv")
    pd.testing.assert_frame_equal(filled[["height", "weight"]], new[["height", "weight"]], check_exact=True)


def test_gaps_are_refused_by_a_model_that_was_trained_without(tabled, tmp_path):
    run = gapped(tmp_path, epochs=1)
    new = people(3).assign(age=[1.0, np.nan, 3.0])
    with pytest.raises(
        InputError, match="column 'age' has none in line 1: fill it in, leave the row out, or train with --missing"
    ):
        tabled.score(new)
    assert run.impute(new, draws=2, num_samples=10).shape == (2, 3, 3)
    assert tabled.impute(new, draws=2, num_samples=10, num_steps=3).shape == (2, 3, 3)
    assert not tabled.vae.model.incomplete
    with pytest.raises(InputError, match="leave the row out, or train with --missing"):
        load_dataset(run.recipe.dataset)


# What odd data do.


def test_slices_of_a_table_keep_their_index(tabled):
    new = people(30, seed=3)
    right = tabled.encode(new)
    assert list(tabled.encode(new.iloc[3:8]).index) == [3, 4, 5, 6, 7]
    np.testing.assert_allclose(tabled.encode(new.iloc[::10]), right.iloc[::10], rtol=1e-4)


@pytest.mark.parametrize(
    "images", [np.ones((2, 6, 5), bool), np.ones((2, 6, 5)), np.eye(6, 5)[None]], ids=["bool", "ones", "eye"]
)
def test_bits_are_no_levels(pictured, images):
    with pytest.raises(InputError, match="expected whole numbers from 0 to 255, as it was trained on; got 0 to 1: multiply"):
        pictured[0].score(images)


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 2, 15), (2, 1, 5, 6)])
def test_images_of_another_shape_are_refused(pictured, shape):
    with pytest.raises(InputError, match="expected images of 1 x 6 x 5, as it was trained on; got"):
        pictured[0].encode(np.full(shape, 7))


@pytest.mark.parametrize("data", [people(0), np.zeros((0, 3))], ids=["table", "array"])
def test_no_rows_are_refused(tabled, data):
    with pytest.raises(InputError, match="expected at least one example; got none"):
        tabled.encode(data)


def test_what_is_far_beyond_all_scales_is_refused(tabled):
    with pytest.raises(InputError, match="expected values within 1,000,000 standard deviations of those of the training"):
        tabled.score(people(2) * 1e12)


def test_seeds_are_replicates(tabled):
    """A block of one seed is no block of another."""
    new = people(40, seed=1)
    one, other = (tabled.score(new, seed=seed, num_samples=5)["log_likelihood"] for seed in (0, 1))
    assert not np.isclose(one, other).any()


def test_a_rate_of_a_model_is_no_noise(tabled):
    """A divergence is never below zero but for its noise, which is that of 20 draws."""
    rates = tabled.score(people(200, seed=9), num_samples=5)["rate"]
    assert rates.mean() > 0
    assert (rates > -1).all()


@pytest.mark.parametrize("command", ["encode", "score", "reconstruct"])
def test_the_file_that_is_read_is_not_written(command, tabled, tmp_path):
    people(5).to_csv(tmp_path / "new.csv", index=False)
    result = invoked(command, tabled.folder, tmp_path / "new.csv", "-o", tmp_path / "new.csv")
    assert result.exit_code == 2
    assert "expected another file than the one that is read" in result.stderr
    assert len(pd.read_csv(tmp_path / "new.csv")) == 5


def test_nothing_is_left_of_a_file_that_is_not_finished_and_no_link_is_followed(tabled, tmp_path):
    people(3).assign(age=["1", "2", "old"]).to_csv(tmp_path / "new.csv", index=False)
    (tmp_path / "victim.txt").write_text("mine")
    (tmp_path / ".z.csv.new").symlink_to(tmp_path / "victim.txt")
    result = invoked("encode", tabled.folder, tmp_path / "new.csv", "-o", tmp_path / "z.csv")
    assert result.exit_code == 2
    assert "column 'age' holds 'old' in line 4" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "victim.txt"]
    people(3).to_csv(tmp_path / "new.csv", index=False)
    (tmp_path / ".z.csv.new").symlink_to(tmp_path / "victim.txt")
    assert invoked("encode", tabled.folder, tmp_path / "new.csv", "-o", tmp_path / "z.csv").exit_code == 0
    assert (tmp_path / "victim.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "damage",
    [
        {"binarize": "drawn"},
        {"scale": [1e-320] * 3},
        {"shift": [1e308] * 3},
        {"columns": [["x"], {"a": 2}, None]},
        {"columns": ["a", "a", "b"]},
        {"missing": "yes"},
        {"unknown": 1},
        {"shape": [1, 1, "3"]},
    ],
    ids=str,
)
def test_a_preparation_of_a_stranger_is_checked(damage, tabled, tmp_path):
    shutil.copytree(tabled.folder, tmp_path / "run")
    values = json.loads((tmp_path / "run" / "recipe.json").read_text())
    values["preparation"] |= damage
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="expected a run folder"):
        Run.load(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["wine", *(pytest.param(name, marks=pytest.mark.hours) for name in ("diabetes", "breast_cancer"))]
)
def test_gaps_of_real_tables_are_filled_better_than_by_means(name, tmp_path):
    """A fifth of the fields of tables of scikit-learn's; the errors beside nearest neighbours are in benchmarks/RESULTS.md."""
    table = getattr(sklearn_tables, f"load_{name}")(as_frame=True).data.astype(float)
    holed = table.mask(np.random.default_rng(0).random(table.shape) < 0.2)
    holed.to_csv(tmp_path / "holed.csv", index=False)
    recipe = Recipe(dataset=str(tmp_path / "holed.csv"), missing=True, objective="iwelbo", num_particles=5)
    sizes = {"latent_sizes": (5,), "hidden_sizes": (32,), "batch_size": 64, "epochs": 250, "learning_rate": 3e-3}
    run = train(recipe.replace(**sizes), tmp_path / "run", engine="graph")
    gaps, scale = holed.isna().to_numpy(), table.std(ddof=0).to_numpy()
    errors = [
        np.sqrt((((np.asarray(filled) - table) / scale).to_numpy()[gaps] ** 2).mean())
        for filled in (run.impute(holed, draws=50, num_samples=300).mean(0), holed.fillna(holed.mean()))
    ]
    assert errors[0] < 0.9 * errors[1]
    scores = run.score(holed, num_samples=20)
    assert np.isfinite(scores["log_likelihood"]).all()
    assert run.encode(holed).shape == (len(holed), 10)
