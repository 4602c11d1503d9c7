"""Columns of several kinds: found out, told, trained on, and given back under their own names."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from monte_carlo import without_rare
from pyro.distributions.testing import gof
from pyrovae.cli import main
from scipy import stats

from pyrovae.data.loading import load_dataset
from pyrovae.data.preparation import Preparation
from pyrovae.errors import InputError
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.experiments.building import build, columns_of
from pyrovae.experiments.exporting import as_table, summary_of
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.training import train
from pyrovae.programs.columns import Columns
from pyrovae.programs.likelihoods import MixedColumns

COLUMNS = Columns(("category", "real", "count", "category", "binary", "positive"), (3, 0, 0, 2, 0, 0))
SIZES = 36.0, 0.1 + 36.6
SMALL = {"latent_sizes": (2,), "hidden_sizes": (16,), "batch_size": 40, "learning_rate": 5e-3}


def shop(count=600, seed=0):
    """Two kinds of customers, who differ in every column."""
    generator = np.random.default_rng(seed)
    often = generator.random(count) < 0.4
    return pd.DataFrame(
        {
            "visits": generator.poisson(np.where(often, 12, 2)),
            "spent": np.exp(generator.normal(np.where(often, 5, 3), 0.7)).round(2),
            "height": generator.normal(170, 10, count).round(1) - 200,
            "city": np.where(often, generator.choice(["Rome", "Oslo"], count), generator.choice(["Lima", "Oslo"], count)),
            "member": generator.random(count) < np.where(often, 0.9, 0.1),
            "size": generator.choice(SIZES, count),
        }
    )


def points(kind, number):
    """Points that cover nearly all the mass of an entry, and what each counts for."""
    if kind == "real":
        return torch.linspace(-30, 30, 60_001), torch.full((60_001,), 1e-3)
    if kind == "positive":
        logarithms = torch.linspace(-30, 30, 60_001)
        return logarithms.exp(), 1e-3 * logarithms.exp()
    whole = torch.arange({"count": 3000.0, "binary": 2.0}.get(kind, number))
    return whole, torch.ones(len(whole))


def test_each_column_sums_or_integrates_to_one_and_columns_are_independent():
    torch.manual_seed(0)
    with torch.no_grad():
        joint = MixedColumns(4, 6, columns=COLUMNS)(2 * torch.randn(5, 4))
        for place, (kind, number) in enumerate(zip(COLUMNS.kinds, COLUMNS.num_categories, strict=True)):
            values, width = points(kind, number)
            x = torch.ones(len(values), 5, 6)
            x[..., place] = values[:, None]
            mass = joint.base_dist.log_prob(x)[..., place].double().exp() * width[:, None]
            torch.testing.assert_close(mass.sum(0), torch.ones(5).double(), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(joint.log_prob(x), joint.base_dist.log_prob(x).sum(-1))


def test_samples_of_each_column_agree_with_its_density():
    """Goodness of fit on 20,000 samples of each column; false alarms: one in a thousand each."""
    torch.manual_seed(0)
    with torch.no_grad():
        joint = MixedColumns(4, 6, columns=COLUMNS)(torch.randn(4))
        samples = joint.sample((20_000,))
        assert joint.base_dist.support.check(samples).all()
        each = joint.base_dist.log_prob(samples).exp()
        for place, (kind, number) in enumerate(zip(COLUMNS.kinds, COLUMNS.num_categories, strict=True)):
            if kind in ("real", "positive"):
                assert gof.auto_goodness_of_fit(samples[:, place], each[:, place]) > 1e-3, kind
                continue
            values, _ = points(kind, number)
            x = torch.ones(len(values), 6)
            x[:, place] = values
            probabilities = joint.base_dist.log_prob(x)[:, place].exp()
            counts, probabilities = without_rare(samples[:, place], values, probabilities)
            assert gof.multinomial_goodness_of_fit(probabilities, counts, total_count=20_000) > 1e-3, kind


def test_a_value_outside_its_columns_support_is_refused():
    joint = MixedColumns(4, 6, columns=COLUMNS)(torch.randn(2, 4))
    inside = torch.tensor([2.0, -1.0, 3.0, 1.0, 0.0, 0.5]).repeat(2, 1)
    assert joint.log_prob(inside).isfinite().all()
    for place, wrong in ((0, 3.0), (2, -1.0), (2, 0.5), (4, 2.0), (5, -0.5)):
        outside = inside.clone()
        outside[1, place] = wrong
        with pytest.raises(ValueError, match="within the support"):
            joint.log_prob(outside)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.random.default_rng(0).normal(5, 1, 200), "real"),
        (np.random.default_rng(0).normal(0, 1, 200), "real"),
        (np.random.default_rng(0).lognormal(0, 1, 200), "positive"),
        (np.random.default_rng(0).poisson(3.0, 200), "count"),
        (np.random.default_rng(0).integers(1990, 2020, 200), "real"),
        (np.random.default_rng(0).integers(1, 3, 200), "binary"),
        (np.random.default_rng(0).integers(0, 2, 200).astype(bool), "binary"),
        (np.random.default_rng(0).choice(["yes", "no"], 200), "binary"),
        (np.random.default_rng(0).choice(["a", "b", "c"], 200), "category"),
        (-np.random.default_rng(0).poisson(3.0, 200), "real"),
    ],
    ids=["numbers", "around zero", "skewed", "counts", "years", "two numbers", "truth", "two words", "words", "negative"],
)
def test_the_kind_of_a_column_is_found_out(tmp_path, values, kind):
    others = {"words": np.random.default_rng(1).choice(["u", "v", "w"], 200), "x": np.random.default_rng(2).normal(size=200)}
    pd.DataFrame({"found": values, **others}).to_csv(tmp_path / "a.csv", index=False)
    dataset = load_dataset(tmp_path / "a.csv")
    assert dict(zip(dataset.columns, dataset.kinds, strict=True)) == {"found": kind, "words": "category", "x": "real"}
    assert dataset.likelihood == "mixed"
    assert f"found {kind}" in dataset.description


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("visits=counts",), "expected NAME=KIND for a column, of a kind out of real, positive, count, binary, category; "),
        (("visit=count",), "expected a column of the table; got 'visit'; did you mean 'visits'?"),
        (("height=positive",), "expected numbers above zero in column 'height', a positive column; got "),
        (("spent=count",), "expected whole numbers from 0 to 16,777,216 in column 'spent', a count column; got "),
        (("city=binary",), "expected two different values in the binary column 'city'; got 3: say =category"),
        (("city=real",), "expected numbers; column 'city' holds "),
    ],
)
def test_a_kind_that_a_column_cannot_have_is_refused_in_a_line(tmp_path, settings, words):
    shop().to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(InputError, match=re.escape(words)):
        load_dataset(tmp_path / "a.csv", columns=settings)


def test_kinds_are_overridden(tmp_path):
    shop().to_csv(tmp_path / "a.csv", index=False)
    found = load_dataset(tmp_path / "a.csv")
    assert found.kinds == ("count", "positive", "real", "category", "binary", "binary")
    told = load_dataset(tmp_path / "a.csv", columns=("*=real", "city=category", "member=category"))
    assert told.kinds == ("real", "real", "real", "category", "category", "real")
    numbers = load_dataset(tmp_path / "a.csv", columns=("*=real",), drop=("city", "member"))
    assert (numbers.values, numbers.likelihood) == ("real", "gaussian")
    assert found.protocol.hash != told.protocol.hash


def test_whole_numbers_are_counts_unless_somebody_says_otherwise(tmp_path):
    counts = np.random.default_rng(0).poisson(4.0, (60, 3, 3))
    np.save(tmp_path / "a.npy", counts)
    dataset = load_dataset(tmp_path / "a.npy")
    assert (dataset.values, dataset.likelihood) == ("counts", "poisson")
    assert "counts 0 to " in dataset.description
    np.testing.assert_array_equal(np.sort(dataset.train.numpy(), 0)[-1] % 1, 0)
    assert load_dataset(tmp_path / "a.npy", columns=("*=real",)).likelihood == "gaussian"
    with pytest.raises(InputError, match="where columns have no names; got a=count"):
        load_dataset(tmp_path / "a.npy", columns=("a=count",))
    with pytest.raises(InputError, match=r"got 'gaussian': or use --columns '\*=real'"):
        build(Recipe(likelihood="gaussian", **SMALL), dataset)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
@pytest.mark.parametrize("network", ["mlp", "convolutional"])
def test_images_of_counts_train(tmp_path, likelihood, network):
    brightness = np.random.default_rng(1).gamma(2.0, 20.0, (80, 1, 1))
    np.save(tmp_path / "a.npy", np.random.default_rng(0).poisson(brightness, (80, 4, 4)))
    recipe = Recipe(
        dataset=str(tmp_path / "a.npy"), likelihood=likelihood, network=network, hidden_layers=1, epochs=30, **SMALL
    )
    run = train(recipe, tmp_path / "run", engine="eager")
    first, last = (run.history[place]["train_elbo_nats"] for place in (0, -1))
    assert last > first
    drawn = run.sample(50)
    assert drawn.shape == (50, 1, 4, 4)
    assert (drawn == np.rint(drawn)).all()
    assert drawn.mean() == pytest.approx(40, rel=0.5)


def test_the_density_is_that_of_the_original_values(tmp_path):
    """A likelihood that ignores its latent, beside scipy's densities of the values in the file."""
    table = shop()
    table.to_csv(tmp_path / "a.csv", index=False)
    dataset = load_dataset(tmp_path / "a.csv")
    vae = build(Recipe(hidden_layers=1, **SMALL), dataset)
    *_, likelihood = vae.model.likelihood.children()
    torch.nn.init.zeros_(likelihood.readout.weight)
    measured = log_likelihood(vae.model, vae.guide, dataset, num_samples=20_000)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0)).numpy()
    train_rows, test = table.iloc[order[120:]], table.iloc[order[60:120]]
    bias = likelihood.readout.bias.detach().double()
    softplus = torch.nn.functional.softplus(bias).numpy()
    bias = bias.numpy()
    # In the order of kinds: height, spent, visits, member, size, city, each with its parameters.
    height = stats.norm(
        train_rows["height"].mean() + bias[0] * train_rows["height"].std(ddof=0),
        softplus[1] ** 0.5 * train_rows["height"].std(ddof=0),
    )
    spent = stats.lognorm(softplus[3] ** 0.5, scale=np.exp(np.log(train_rows["spent"]).mean() + bias[2]))
    total, mean = 1 / (softplus[5] + 1e-3), np.exp(bias[4])
    visits = stats.nbinom(total, total / (total + mean))
    assert mean == pytest.approx(train_rows["visits"].mean(), rel=1e-3)
    member, size = 1 / (1 + np.exp(-bias[6])), 1 / (1 + np.exp(-bias[7]))
    city = np.exp(bias[8:]) / np.exp(bias[8:]).sum()
    exact = height.logpdf(test["height"]) + spent.logpdf(test["spent"]) + visits.logpmf(test["visits"])
    exact = exact + stats.bernoulli.logpmf(test["member"], member) + stats.bernoulli.logpmf(test["size"] == SIZES[1], size)
    exact = exact + np.log(city)[[["Lima", "Oslo", "Rome"].index(each) for each in test["city"]]]
    assert measured.mean == pytest.approx(exact.mean(), abs=0.02)


@pytest.fixture(scope="module")
def shopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    table = shop()
    table.mask(np.random.default_rng(1).random(table.shape) < 0.1).to_csv(folder / "shop.csv", index=False)
    recipe = Recipe(dataset=str(folder / "shop.csv"), missing=True, epochs=60, **SMALL)
    return train(recipe, folder / "run", engine="eager")


def test_samples_have_the_names_and_the_dependence_of_the_data(shopped):
    drawn = as_table(shopped.required_preparation, shopped.sample(4000), range(4000))
    assert list(drawn.columns) == list(shop().columns)
    assert set(drawn["city"]) == {"Rome", "Oslo", "Lima"}
    assert set(drawn["size"]) == set(SIZES)
    real = shop(4000, seed=5)
    for name in ("visits", "spent"):
        difference = drawn.groupby("city")[name].median()["Rome"] - drawn.groupby("city")[name].median()["Lima"]
        expected = real.groupby("city")[name].median()["Rome"] - real.groupby("city")[name].median()["Lima"]
        assert difference > 0.4 * expected


def test_new_rows_come_in_any_order_and_a_word_that_is_not_known_is_named(shopped, tmp_path):
    new = shop(5, seed=3)
    scores = shopped.score(new, num_samples=20)
    new[sorted(new.columns)].to_csv(tmp_path / "new.csv")
    again = Run.load(shopped.folder).score(tmp_path / "new.csv", num_samples=20)
    np.testing.assert_array_equal(again["log_likelihood"], scores["log_likelihood"])
    with pytest.raises(InputError, match=r"in column 'city', as in the training; got 'Rom' in line 0; did you mean 'Rome'\?"):
        shopped.score(new.assign(city=["Rom", "Rome", "Oslo", "Oslo", "Lima"]))
    with pytest.raises(InputError, match="expected numbers above zero in column 'spent', a positive column; got -3"):
        shopped.score(new.assign(spent=-3.0))
    odd = new.assign(visits=[0, 0, 0, 0, 900])
    assert shopped.score(odd, num_samples=20, reference=shopped.dataset())["oddest"].iloc[-1] == "visits"


def test_words_are_filled_in_and_written_back(shopped, tmp_path):
    new = shop(40, seed=4).astype(object).mask(np.random.default_rng(2).random((40, 6)) < 0.2)
    new.to_csv(tmp_path / "gaps.csv", index=False)
    command = ("impute", shopped.folder, tmp_path / "gaps.csv", "-o", tmp_path / "filled.csv", "--samples", 50)
    result = CliRunner().invoke(main, list(map(str, command)))
    assert result.exit_code == 0, result.output
    filled = pd.read_csv(tmp_path / "filled.csv", index_col="row")
    assert not filled.isna().any().any()
    known = ~new["city"].isna().to_numpy()
    assert (filled["city"][known] == new["city"][known]).all()
    assert (filled["city_share"][known] == 1).all()
    assert set(filled["city"]) <= {"Rome", "Oslo", "Lima"}
    np.testing.assert_allclose(filled["spent"][~new["spent"].isna()], new["spent"].dropna().astype(float))


@pytest.mark.parametrize(
    "damage",
    [
        {"kinds": ["real"]},
        {"kinds": ["real"] * 6},
        {"kinds": ["imaginary"] * 6},
        {"categories": [[]] * 6},
        {"categories": [["a", "a"]] * 6},
        {"values": "real"},
        {"columns": []},
        {"classes": [3]},
    ],
    ids=str,
)
def test_kinds_of_a_stranger_are_checked(shopped, damage):
    told = shopped.required_preparation.as_dict() | damage
    with pytest.raises(ValueError, match="whose parts do not fit together"):
        Preparation.from_dict(told)


def test_a_preparation_of_kinds_survives_its_file(shopped):
    again = Preparation.from_dict({name: _lists(value) for name, value in shopped.required_preparation.as_dict().items()})
    assert again == shopped.required_preparation
    assert columns_of(again) == Columns(("count", "positive", "real", "category", "binary", "binary"), (0, 0, 0, 3, 0, 0))


def _lists(value):
    return list(map(_lists, value)) if isinstance(value, tuple) else value


def test_numbers_that_stand_for_categories_come_and_go_as_numbers(shopped):
    assert set(np.unique(shopped.sample(200)[:, 5])) == set(SIZES)
    between = shopped.reconstruct(shop(20, seed=8))[:, 5]
    assert ((between >= SIZES[0]) & (between <= SIZES[1])).all()
    holed = shop(20, seed=9).assign(size=np.nan)
    assert set(np.unique(shopped.impute(holed, draws=5, num_samples=20)[:, :, 5])) <= set(SIZES)
    with pytest.raises(InputError, match=r"expected one of 36, 36.7 in column 'size', as in the training; got 38, row 1"):
        shopped.score(shop(2).assign(size=38))


def test_intervals_overwrite_no_column_of_the_table(tmp_path):
    values = np.random.default_rng(0).normal(size=(60, 3))
    table = pd.DataFrame(values, columns=["t", "t_low", "t_high"]).mask(values > 1.5)
    table.to_csv(tmp_path / "a.csv", index=False)
    run = train(Recipe(dataset=str(tmp_path / "a.csv"), missing=True, epochs=1, **SMALL), tmp_path / "run", engine="eager")
    with pytest.raises(InputError, match="expected a table without 't_high', 't_low', which intervals are named"):
        summary_of(run.required_preparation, run.impute(table, draws=2, num_samples=5), range(60))


def test_the_density_of_a_row_with_gaps_is_that_of_what_is_there(tmp_path):
    """In other units each value that is there moves it by the logarithm of the unit, and no gap does."""
    values = np.random.default_rng(0).normal(size=(60, 3))
    table = pd.DataFrame(values, columns=list("abc")).mask(np.random.default_rng(1).random((60, 3)) < 0.3)
    found = []
    for scale in (1.0, 1000.0):
        (scale * table).to_csv(tmp_path / f"{scale}.csv", index=False)
        recipe = Recipe(dataset=str(tmp_path / f"{scale}.csv"), missing=True, epochs=1, **SMALL)
        run = train(recipe, tmp_path / f"run{scale}", engine="eager")
        found.append((run.score(scale * table, num_samples=20)["log_likelihood"].to_numpy(), run.evaluate(20).log_likelihood))
    moved = -np.log(1000) * (~table.isna()).to_numpy().sum(1)
    np.testing.assert_allclose(found[1][0] - found[0][0], moved, atol=1e-2)
    test = torch.randperm(60, generator=torch.Generator().manual_seed(0)).numpy()[6:12]
    assert found[1][1] - found[0][1] == pytest.approx(moved[test].mean(), abs=1e-2)


def test_digits_as_text_stay_text(tmp_path):
    table = pd.DataFrame({"z": ["01", "02", "03"] * 20, "x": np.random.default_rng(0).normal(size=60)})
    table.to_parquet(tmp_path / "a.parquet")
    recipe = Recipe(dataset=str(tmp_path / "a.parquet"), columns=("z=category",), epochs=1, **SMALL)
    run = train(recipe, tmp_path / "run", engine="eager")
    assert np.isfinite(run.score(table, num_samples=5)["log_likelihood"]).all()
    assert set(as_table(run.required_preparation, run.sample(50), range(50))["z"]) <= {"01", "02", "03"}


def test_large_counts_are_told(tmp_path):
    counts = np.random.default_rng(0).integers(900, 6000, (60, 3))
    np.save(tmp_path / "a.npy", counts)
    assert load_dataset(tmp_path / "a.npy").values == "real"
    assert load_dataset(tmp_path / "a.npy", columns=("*=count",)).values == "counts"
