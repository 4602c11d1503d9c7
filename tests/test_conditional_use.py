"""Conditional models at work: told of classes and of pixels, by people's own data or for all of them."""

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from click.testing import CliRunner
from own_files import png
from PIL import Image
from pyro.distributions import Normal
from pyrovae.cli import main

from pyrovae.data.preparation import Preparation
from pyrovae.errors import InputError
from pyrovae.evaluation import using
from pyrovae.evaluation.imputation import impute
from pyrovae.experiments.imputing import read_mask
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.training import train
from pyrovae.programs.distributions import GaussianMixture
from pyrovae.programs.likelihoods import Bernoulli
from pyrovae.programs.models import GenerativeModel
from pyrovae.programs.priors import MixtureOfGaussians

SMALL = {"latent_sizes": (2,), "hidden_sizes": (16,), "batch_size": 40, "learning_rate": 1e-2}
CITIES = {"Lima": -50.0, "Oslo": 0.0, "Rome": 50.0}


def towns(count=600, seed=0):
    generator = np.random.default_rng(seed)
    city = generator.choice(list(CITIES), count)
    place = np.array([CITIES[each] for each in city])
    return pd.DataFrame({"east": place + generator.normal(0, 5, count), "north": generator.normal(0, 3, count), "city": city})


@pytest.fixture(scope="module")
def told_city(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towns")
    towns().to_csv(folder / "towns.csv", index=False)
    recipe = Recipe(dataset=str(folder / "towns.csv"), label="city", condition="label", epochs=60, **SMALL)
    return train(recipe, folder / "run", engine="graph")


def test_samples_are_drawn_given_a_class(told_city):
    for city, place in CITIES.items():
        drawn = told_city.sample(400, class_name=city)
        assert drawn[:, 0].mean() == pytest.approx(place, abs=10), city
    again = told_city.sample(2, context=towns(3, seed=4))
    assert again.shape == (6, 2)


def test_encodings_are_coloured_by_the_names_of_classes(told_city):
    (axes,) = told_city.draw("encodings").axes
    assert sorted(text.get_text() for text in axes.texts) == sorted(CITIES)


def test_gaps_are_filled_given_a_class(told_city, tmp_path):
    new = towns(60, seed=5)
    holed = new.assign(east=np.nan)
    filled = told_city.impute(holed, draws=20, num_samples=50).mean(0)
    np.testing.assert_allclose(filled[:, 0], new["city"].map(CITIES), atol=12)
    named = told_city.impute(holed.drop(columns="city"), draws=20, num_samples=50, class_name="Rome").mean(0)
    np.testing.assert_allclose(named[:, 0], CITIES["Rome"], atol=12)
    holed.drop(columns="city").to_csv(tmp_path / "new.csv", index=False)
    command = ["impute", str(told_city.folder), str(tmp_path / "new.csv"), "-o", str(tmp_path / "f.csv"), "--class", "Lima"]
    result = CliRunner().invoke(main, [*command, "--samples", "50"])
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(pd.read_csv(tmp_path / "f.csv")["east"], CITIES["Lima"], atol=12)
    with pytest.raises(InputError, match="expected the class of each example"):
        told_city.impute(holed.drop(columns="city"))


def test_what_is_missing_is_drawn_given_the_context():
    """p(z | c) = N(c, 1), x = z weight + noise: 4,000 draws; five errors of 0.03 are tolerated."""
    weight, x = torch.tensor([1.0, -0.5, 0.8]), torch.tensor([[0.5, torch.nan, 1.0], [torch.nan, 0.3, torch.nan]])
    context = torch.tensor([[2.0], [-1.0]])

    def model(x=None, context=None, batch_size=1):
        with pyro.plate("data", len(context)):
            z = pyro.sample("z1", Normal(context, 1.0).to_event(1))
            entries = Normal(z * weight, 0.7)
            if x is None:
                return pyro.sample("x", entries.to_event(1))
            return pyro.sample("x", entries.mask(~x.isnan()).to_event(1), obs=x.nan_to_num())

    def guide(x, context):
        with pyro.plate("data", len(context)):
            pyro.sample("z1", Normal(context, 1.0).to_event(1))

    torch.manual_seed(0)
    filled = impute(model, guide, x, context=context, num_draws=4000, num_samples=20_000, num_steps=3)
    covariance = torch.outer(weight, weight) + 0.49 * torch.eye(3)
    for row, told in enumerate(context):
        gaps = x[row].isnan()
        slope = covariance[gaps][:, ~gaps] @ torch.linalg.inv(covariance[~gaps][:, ~gaps])
        exact = told * weight[gaps] + slope @ (x[row] - told * weight)[~gaps]
        torch.testing.assert_close(filled[:, row, gaps].mean(0), exact, rtol=0, atol=0.15)


def test_a_row_is_scored_given_its_class(told_city, tmp_path):
    new = towns(30, seed=5)
    right, wrong = told_city.score(new, num_samples=20), told_city.score(new.assign(city="Rome"), num_samples=20)
    elsewhere = (new["city"] != "Rome").to_numpy()
    assert (right["log_likelihood"] > wrong["log_likelihood"])[elsewhere].all()
    given = told_city.score(new.drop(columns="city"), num_samples=20, class_name="Rome")
    np.testing.assert_array_equal(given["log_likelihood"], wrong["log_likelihood"])
    assert told_city.encode(new).shape == (30, 4)
    assert np.abs(told_city.reconstruct(new)[:, 0] - new["east"]).mean() < 15
    new.to_csv(tmp_path / "new.csv", index=False)
    command = ["score", str(told_city.folder), str(tmp_path / "new.csv"), "-o", str(tmp_path / "s.csv"), "--class", "Oslo"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "percentile" in pd.read_csv(tmp_path / "s.csv").columns


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: run.sample(3), "expected the class to draw, --class NAME, out of Lima, Oslo, Rome"),
        (
            lambda run: run.sample(3, class_name="Roma"),
            "expected a class out of Lima, Oslo, Rome; got 'Roma'; did you mean 'Rome'?",
        ),
        (lambda run: run.sample(3, class_name="Rome", context=towns(3)), "expected one of --class and --context"),
        (lambda run: run.score(towns(3).drop(columns="city")), "expected the class of each example, on which this model is"),
        (lambda run: run.encode(towns(3).assign(city="Paris")), "expected one of 'Lima', 'Oslo', 'Rome' in column 'city'"),
    ],
)
def test_what_a_conditional_model_must_be_told_is_said(told_city, call, words):
    with pytest.raises(InputError) as refused:
        call(told_city)
    assert words in str(refused.value)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half")
    for number in range(40):
        png(folder / "images" / "ab"[number % 2] / f"{number:02}.png", mode="L", seed=number)
    recipe = Recipe(dataset=str(folder / "images"), condition="left-half", epochs=2, **(SMALL | {"batch_size": 8}))
    return train(recipe, folder / "run", engine="eager")


def test_pixels_that_are_told_stay_in_samples_and_reconstructions(half):
    images = half.dataset().test
    grey = np.rint(images[:3].numpy() * 255).reshape(3, 1, 4, 6).astype(np.uint8)
    for made in (half.sample(2, context=grey)[::2], half.reconstruct(grey)):
        np.testing.assert_allclose(made[..., :3], grey[..., :3], atol=1e-3)
    assert half.required_preparation.classes == ("a", "b")
    with pytest.raises(
        InputError,
        match="expected examples as contexts, since the model is conditioned on 'left-half': name them with --context",
    ):
        half.sample(3)
    with pytest.raises(InputError, match="expected a model conditioned on classes for --class a"):
        half.score(grey, class_name="a")
    with pytest.raises(InputError, match="expected a model with latents and without a condition on pixels"):
        half.impute(grey)


def test_images_are_filled_behind_a_mask(tmp_path):
    for number in range(40):
        png(tmp_path / "images" / f"{number:02}.png", mode="1", seed=number)
    run = train(
        Recipe(dataset=str(tmp_path / "images"), epochs=2, **(SMALL | {"batch_size": 8})), tmp_path / "run", engine="eager"
    )
    mask = np.zeros((4, 6), bool)
    mask[2:] = True
    np.save(tmp_path / "mask.npy", mask)
    filled = run.impute(tmp_path / "images", mask=mask, draws=3, num_samples=20, num_steps=2)
    whole = run.dataset()
    assert filled.shape == (3, 40, 1, 4, 6)
    assert set(np.unique(filled)) == {0.0, 1.0}
    assert (filled[0, :, :, :2] == filled[1, :, :, :2]).all()
    assert (filled[0, :, :, 2:] != filled[1, :, :, 2:]).any()
    assert len(whole.train) == 32
    command = ["impute", run.folder, tmp_path / "images", "-o", tmp_path / "f.npz", "--mask", tmp_path / "mask.npy"]
    result = CliRunner().invoke(main, list(map(str, (*command, "--draws", 2, "--samples", 10, "--steps", 1))))
    assert result.exit_code == 0, result.output
    with pytest.raises(InputError, match="expected a mask of 1 x 4 x 6 entries, or one for each example; got \\(5,\\)"):
        run.impute(tmp_path / "images", mask=np.ones(5))


def test_a_temperature_narrows_the_components_of_a_mixture():
    torch.manual_seed(0)
    prior = MixtureOfGaussians(1, 2)
    with torch.no_grad():
        prior.loc.copy_(torch.tensor([[-3.0], [3.0]]))
    model = GenerativeModel(prior, Bernoulli(1, 2))
    latents = {}
    for temperature in (1.0, 0.1):
        with using.at_temperature(temperature), torch.no_grad():
            trace = using.poutine.trace(model).get_trace(batch_size=4000)
        assert isinstance(trace.nodes["z1"]["fn"], GaussianMixture)
        latents[temperature] = trace.nodes["z1"]["value"][:, 0]
    assert latents[1.0].abs().mean() == pytest.approx(3.0, abs=0.1)
    assert (latents[0.1].abs() - 3).std() == pytest.approx(0.1, rel=0.1)


def test_a_mask_is_no_other_shape_and_its_transparency_hides_nothing(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 3], rgba[1, 2, :3] = 255, 255
    Image.fromarray(rgba).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", Preparation(shape=(1, 4, 4), values="bits")).nonzero() == (0, 6)
    with pytest.raises(InputError, match=r"expected a mask of 1 x 1 x 100 entries, or one for each example; got \(5, 200\)"):
        read_mask(np.zeros((5, 200)), Preparation(shape=(1, 1, 100), values="real"))
    with pytest.raises(InputError, match="expected a mask of 1 x 1 x 5 entries"):
        read_mask(np.zeros((5, 100)), Preparation(shape=(1, 1, 5), values="real"))


def test_a_mask_may_have_its_channels_last_or_none():
    preparation = Preparation(shape=(3, 2, 4), values="levels")
    corner = np.zeros((2, 4), bool)
    corner[0, 1] = True
    expected = np.broadcast_to(corner, (3, 2, 4)).reshape(1, 24)
    for mask in (corner, np.repeat(corner[..., None], 3, 2), np.repeat(corner[None], 3, 0)):
        np.testing.assert_array_equal(read_mask(mask, preparation), expected)


def test_labels_are_read_by_models_that_are_told_them_alone(told_city):
    unknown = towns(3).assign(city=["Paris", None, "Rome"])
    assert told_city.encode(unknown, class_name="Rome").shape == (3, 4)
    with pytest.raises(InputError, match="column 'city' has none in line 0"):
        told_city.encode(unknown.assign(city=[None, "Rome", "Rome"]))
