"""What a conditional model is told, in training and in evaluation."""

import pytest
import torch
from pyro import poutine

from pyrovae.data.benchmarks import DATASETS
from pyrovae.data.conditions import CONDITIONS
from pyrovae.data.datasets import Dataset
from pyrovae.data.loading import load_dataset
from pyrovae.data.protocol import Protocol
from pyrovae.errors import InputError
from pyrovae.experiments.building import build
from pyrovae.experiments.recipe import Recipe
from pyrovae.programs.likelihoods import Bernoulli
from pyrovae.programs.models import GenerativeModel

SHAPE = (2, 3, 4)
# Many pixels are certain, the others anything between.
IMAGES = (3 * torch.rand(50, 24, generator=torch.Generator().manual_seed(5)) - 1).clamp(0, 1)
PROTOCOL = Protocol(dataset="grey", sizes=(50, 0, 50))
LABELS = torch.arange(50) % 7
NAMED = [name for name in CONDITIONS if name != "none"]


def drawn(name, seed=0):
    """Bits, and what is told of them."""
    dataset = Dataset("grey", IMAGES, None, IMAGES, {}, SHAPE, PROTOCOL, True, CONDITIONS[name](SHAPE, 7))
    return dataset.draw(IMAGES, LABELS, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMED)
def test_a_context_has_the_size_that_it_says_and_can_be_pictured(name):
    condition = CONDITIONS[name](SHAPE, 7)
    x, context = drawn(name)
    assert set(x.unique().tolist()) == {0, 1}
    assert context.shape == (50, condition.size)
    assert condition.pixels(context).shape == (50, 24)
    assert all(torch.equal(one, other) for one, other in zip(drawn(name), drawn(name), strict=True)), "not the generator's"


def test_the_middle_column_is_drawn_apart_from_the_data():
    x, context = drawn("middle-column")
    column = torch.zeros(SHAPE, dtype=torch.bool)
    column[..., 2] = True
    assert set(context.unique().tolist()) == {0, 1}
    assert not torch.equal(context, x[:, column.flatten()])
    # Where a pixel is certain both draws agree.
    certain = (IMAGES[:, column.flatten()] - 0.5).abs() == 0.5
    assert torch.equal(context[certain], x[:, column.flatten()][certain])
    assert not torch.equal(drawn("middle-column", seed=1)[1], context), "resampled at every pass"
    assert torch.equal(CONDITIONS["middle-column"](SHAPE, 0).pixels(context)[:, column.flatten()], context)


def test_the_left_half_is_that_of_the_data():
    x, context = drawn("left-half")
    left = torch.zeros(SHAPE, dtype=torch.bool)
    left[..., :2] = True
    assert torch.equal(context, x[:, left.flatten()])
    pictured = CONDITIONS["left-half"](SHAPE, 0).pixels(context)
    assert torch.equal(pictured[:, left.flatten()], context)
    assert (pictured[:, ~left.flatten()] == 0.5).all()


def test_a_mask_tells_pixels_of_the_data_and_which_they_are():
    x, context = drawn("mask")
    pixels, told = context.chunk(2, -1)
    assert torch.equal(pixels, x * told)
    shares = told.mean(1)
    assert shares.min() < 0.2 < 0.8 < shares.max(), "between nothing and everything"
    pictured = CONDITIONS["mask"](SHAPE, 0).pixels(context)
    assert torch.equal(pictured[told == 1], x[told == 1])
    assert (pictured[told == 0] == 0.5).all()


def test_a_label_is_one_entry_out_of_the_classes():
    _, context = drawn("label")
    assert torch.equal(context.argmax(1), LABELS)
    assert (context.sum(1) == 1).all()


@pytest.mark.parametrize("name", ["left-half", "mask"])
def test_pixels_that_are_given_away_are_not_scored(name):
    condition = CONDITIONS[name](SHAPE, 0)
    data = Dataset("grey", IMAGES, None, IMAGES, {}, SHAPE, PROTOCOL, True, condition)
    model = build(Recipe(condition=name, latent_sizes=(2,), hidden_sizes=(8,)), data).model
    x, context = drawn(name)
    told = condition.observed_mask(context)
    assert 0.2 < told.float().mean() < 0.8
    assert torch.equal(condition.pixels(context)[told], x[told])

    def score(x):
        trace = poutine.trace(poutine.condition(model, {"z1": torch.zeros(50, 2)})).get_trace(x, context)
        likelihood = trace.nodes["x"]["fn"]
        return trace.nodes["x"]["fn"].log_prob(x), likelihood.mean

    whole, means = score(x)
    assert torch.equal(score(torch.where(told, 1 - x, x))[0], whole)
    densities = torch.distributions.Bernoulli(means).log_prob(x)
    torch.testing.assert_close(whole, densities.where(~told, 0.0).sum(-1), rtol=1e-4, atol=1e-4)
    assert all(CONDITIONS[each](SHAPE, 7).observed_mask(context) is None for each in ("label", "middle-column"))


def test_labels_are_asked_for():
    with pytest.raises(InputError, match="expected data with labels for the condition 'label'; these have none"):
        CONDITIONS["label"](SHAPE, 0)
    with pytest.raises(ValueError, match="expected the classes of the images beside them for the condition 'label'; got none"):
        CONDITIONS["label"](SHAPE, 7)(IMAGES, IMAGES, None, None)


@pytest.fixture
def small(monkeypatch):
    """A dataset of its own, loaded as every other."""
    labels = {"train": LABELS, "valid": LABELS[:20], "test": LABELS[20:40]}
    dataset = Dataset("small", IMAGES, IMAGES[:20], IMAGES[20:40], labels, SHAPE, PROTOCOL)
    monkeypatch.setitem(DATASETS, "small", lambda root: dataset)
    return "small"


@pytest.mark.parametrize("name", NAMED)
def test_contexts_of_what_is_held_out_are_drawn_once(name, small):
    first, again = load_dataset(small, condition=name), load_dataset(small, condition=name)
    for split, images in (("valid", first.valid), ("test", first.test)):
        assert first.contexts[split].shape == (len(images), first.condition.size)
        assert torch.equal(first.contexts[split], again.contexts[split])
        told = first.condition.observed_mask(first.contexts[split])
        if told is not None:
            assert torch.equal(first.condition.pixels(first.contexts[split])[told], images[told]), "of other images"
        if name == "label":
            assert torch.equal(first.contexts[split].argmax(1), first.labels[split])
    assert torch.equal(first.test, load_dataset(small).test), "the test images are those of every other protocol"
    assert str(first.protocol).endswith(f", given {name} (seed 1)")
    assert next(first.train_batches(7).epoch(1))[1].shape == (7, first.condition.size)
    moved = first.to("cpu")
    assert torch.equal(moved.contexts["test"], first.contexts["test"])


def test_training_images_and_labels_stay_together(small):
    digits = load_dataset(small, condition="label")
    images, labels = next(digits.train_batches(30, drawn=False).epoch(1))
    known = {image.numpy().tobytes(): label for image, label in zip(digits.train, digits.labels["train"], strict=True)}
    assert all(known[image.numpy().tobytes()] == label for image, label in zip(images, labels, strict=True))


def test_an_unknown_condition():
    with pytest.raises(InputError, match=r"expected a condition out of none, middle-column, .*; got 'right-half'"):
        load_dataset("mnist-5k", condition="right-half")


def test_data_without_labels_cannot_be_conditioned_on_them(small, monkeypatch):
    monkeypatch.setitem(DATASETS, small, lambda options: Dataset(small, IMAGES, None, IMAGES, {}, SHAPE, PROTOCOL))
    with pytest.raises(InputError, match="these have none: use another condition"):
        load_dataset(small, condition="label")


def test_the_protocol_holds_what_is_measured(monkeypatch):
    """Classes and contexts are part of log p(x | c): others are another protocol."""
    hashes = set()
    for labels in (LABELS, LABELS.flip(0)):
        small = Dataset("small", IMAGES, None, IMAGES, {"train": labels, "test": labels}, SHAPE, PROTOCOL)
        monkeypatch.setitem(DATASETS, "small", lambda options, small=small: small)
        hashes |= {load_dataset("small", condition=name).protocol.hash for name in ("none", "label", "mask")}
    assert len(hashes) == 6


def test_what_a_model_draws_is_completed_by_what_its_context_gives_away():
    x, context = drawn("left-half")
    condition = CONDITIONS["left-half"](SHAPE, 7)
    model = GenerativeModel(None, Bernoulli(1, 24), observed_mask=condition.observed_mask)
    model.pixels = condition.pixels
    other = 1 - x
    told = condition.observed_mask(context)
    assert torch.equal(model.complete(other, context), torch.where(told, x, other))
    assert torch.equal(model.complete(other, None), other)
