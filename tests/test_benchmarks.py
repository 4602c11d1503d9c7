"""Each dataset: the sizes and contents of its paper's split, upright, with ink as 1."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from pyrovae.data import benchmarks, objects, omniglot
from pyrovae.data.archives import read_npz
from pyrovae.data.benchmarks import DATASETS
from pyrovae.data.datasets import Options
from pyrovae.data.loading import load_dataset
from pyrovae.data.matlab import read_mat
from pyrovae.data.sources import DATA_VARIABLE
from pyrovae.errors import InputError

REAL = os.environ.get(DATA_VARIABLE)
needs_real_files = pytest.mark.skipif(not REAL, reason=f"${DATA_VARIABLE} names no folder with the original files")

# Sizes of the splits and checksums of their contents, without validation images held out of training, and with.
CONTENTS = {
    "mnist": ((60_000, 0, 10_000), "6c53f9b4d4e45bb4 - b4b20a078d39c634"),
    "mnist+": ((50_000, 10_000, 10_000), "6d2cd78783420da8 265d543dd1618f36 b4b20a078d39c634"),
    "static-mnist": ((50_000, 10_000, 10_000), "fe91f2517ebcd795 7bc473abc7517f33 522d8dbe4d48fa7b"),
    "fashion-mnist": ((60_000, 0, 10_000), "63b5e8e02d76704d - 1760c7dd7166d8ac"),
    "omniglot-28": ((19_280, 0, 13_180), "86d8852ff73f83dc - 4032243cca476ce7"),
    "caltech101-silhouettes": ((4_100, 2_264, 2_307), "97f1e04a1c295470 8bf5bdcca527b55d 9b8cebba7f4c986c"),
    "freyfaces": ((1_900, 0, 65), "8f05b985fa76fe54 - eea0c1a9a8043110"),
    "freyfaces+": ((1_565, 200, 200), "66a805a82c11575a d9e93ca195868e58 68261da558adec1e"),
    "mnist-5k": ((4_000, 500, 500), "68f91c1243d10ce5 3a714ba0e7a9be83 2302997ec4cab8cf"),
}


@pytest.fixture(scope="module", params=CONTENTS)
def name(request):
    if request.param != "mnist-5k" and not REAL:
        pytest.skip(f"${DATA_VARIABLE} names no folder with the original files")
    return request.param


@pytest.fixture(scope="module")
def stored(name):
    return DATASETS[name.removesuffix("+")](Options(root=REAL, validation=name.endswith("+")))


def splits(dataset):
    return {split: images for split in ("train", "valid", "test") if (images := getattr(dataset, split)) is not None}


def test_splits_are_those_of_the_paper(name, stored):
    sizes, checksums = CONTENTS[name]
    assert stored.protocol.sizes == sizes == tuple(len(splits(stored).get(split, ())) for split in ("train", "valid", "test"))
    assert {split: stored.protocol.checksums.get(split, "-") for split in ("train", "valid", "test")} == dict(
        zip(("train", "valid", "test"), checksums.split(), strict=True)
    )


def test_what_is_said_beforehand_is_what_comes(name, stored):
    benchmark = DATASETS[name.removesuffix("+")]
    assert stored.name == stored.protocol.dataset == name.removesuffix("+")
    assert stored.shape == benchmark.shape
    if not name.endswith("+"):
        assert stored.protocol.sizes == benchmark.sizes


def test_images_and_labels_are_whole(name, stored):
    classes = {"static-mnist": 0, "freyfaces": 0, "omniglot-28": 1623, "caltech101-silhouettes": 101}
    assert stored.num_classes == classes.get(name.removesuffix("+"), 10)
    for split, images in splits(stored).items():
        assert images.dtype == torch.float32
        assert images.shape[1] == torch.Size(stored.shape).numel()
        assert images.min() >= 0
        assert images.max() <= 1
        assert ((images == 0) | (images == 1)).all() == (stored.values == "bits")
        assert split not in stored.labels or len(stored.labels[split]) == len(images)
    assert len(stored.labels) in (0, len(splits(stored)))


def test_the_object_is_one_and_in_the_middle(name, stored):
    if name.startswith("freyfaces"):
        pytest.skip("a face fills its image")
    mean = stored.train.mean(0).view(stored.shape[1:])
    corners = torch.stack([mean[:4, :4], mean[:4, -4:], mean[-4:, :4], mean[-4:, -4:]])
    assert mean[7:21, 7:21].mean() > 3 * corners.mean()


def halves(dataset, label):
    """The mean over the images of a class of the top, bottom, left and right half."""
    mean = dataset.train[dataset.labels["train"] == label].mean(0).view(dataset.shape[1:])
    return [part.mean().item() for part in (mean[:14], mean[14:], mean[:, :14], mean[:, 14:])]


def elongation(dataset, label):
    """The variance of the ink of a class along columns over that along rows."""
    mean = dataset.train[dataset.labels["train"] == label].mean(0).view(dataset.shape[1:])
    place = torch.arange(28.0)
    down, across = (each / each.sum() for each in (mean.sum(1), mean.sum(0)))
    variances = [(each * (place - (each * place).sum()) ** 2).sum() for each in (down, across)]
    return (variances[0] / variances[1]).item()


# The digit one, trousers, and the letter l in Lake's order of Latin.
TALL = {"mnist": 1, "mnist-5k": 1, "fashion-mnist": 1, "omniglot-28": 682 + 11}


def test_what_is_tall_stands(name, stored):
    if (label := TALL.get(name)) is None:
        pytest.skip("tested otherwise")
    assert elongation(stored, label) > 4


@needs_real_files
def test_silhouettes_stand_on_their_feet():
    silhouettes = DATASETS["caltech101-silhouettes"](Options(root=REAL))
    pyramid, umbrella = 74, 93
    top, bottom, left, right = halves(silhouettes, pyramid)
    assert bottom > 2 * top
    assert left == pytest.approx(right, rel=0.1)
    top, bottom, left, right = halves(silhouettes, umbrella)
    assert top > 3 * bottom
    assert left == pytest.approx(right, rel=0.1)


@needs_real_files
def test_static_digits_are_those_of_mnist():
    means = {name: DATASETS[name](Options(root=REAL)).train.mean(0).view(28, 28) for name in ("mnist", "static-mnist")}
    torch.testing.assert_close(means["static-mnist"], means["mnist"], rtol=0, atol=0.02)
    assert (means["static-mnist"].T - means["mnist"]).abs().max() > 0.2


@needs_real_files
def test_static_digits_are_the_same_from_text_and_packed(monkeypatch):
    packed = DATASETS["static-mnist"](Options(root=REAL))
    monkeypatch.setattr(benchmarks, "PACKED_STATIC_MNIST", "missing.npz")
    assert DATASETS["static-mnist"](Options(root=REAL)).protocol == packed.protocol


@needs_real_files
def test_every_frame_is_in_one_split_and_upright():
    faces, others = (DATASETS["freyfaces"](Options(root=REAL, validation=True, split_seed=seed)) for seed in (0, 1))
    frames = read_mat(Path(REAL) / "freyfaces/frey_rawface.mat", {"ff": (560, 1965)})["ff"].T.float() / 255
    for each in (faces, others):
        together = torch.cat(list(splits(each).values()))
        assert sorted(together.double().sum(1).tolist()) == sorted(frames.double().sum(1).tolist())
    assert "(seed 1)" in str(others.protocol)
    assert faces.protocol.hash != others.protocol.hash
    assert not faces.test.equal(others.test)
    # Read with rows for columns, neighbours below one another differ as much as strangers.
    upright, misread = faces.train.view(-1, 28, 20), faces.train.view(-1, 20, 28)
    assert 2 * upright.diff(dim=1).abs().mean() < misread.diff(dim=1).abs().mean()


@needs_real_files
def test_ink_of_omniglot_is_the_mean_over_its_area():
    stored = read_npz(Path(REAL) / "omniglot_original/images_evaluation.npz", {"images": (torch.bool, (659, 20, 105, 105))})
    ink = (~stored["images"]).flatten(0, 1)
    reduced = DATASETS["omniglot-28"](Options(root=REAL)).test
    torch.testing.assert_close(reduced.mean(1), ink.flatten(1).float().mean(1), rtol=0, atol=1e-3)
    assert ink.float().mean() < 0.1


def chardata(folder, **changes):
    """A file like Burda's with twelve and six images of the letter L."""
    letter = np.zeros((28, 28))
    letter[4:24, 6] = letter[23, 6:20] = 0.75
    generator = np.random.default_rng(0)
    matrices = {}
    for prefix, size in (("", 12), ("test", 6)):
        alphabets = generator.integers(0, 50, size)
        matrices[f"{prefix}data"] = np.repeat(letter.T.reshape(-1, 1), size, 1)
        matrices[f"{prefix}target"] = np.eye(50)[:, alphabets]
        matrices[f"{prefix}targetchar"] = generator.integers(1, 56, (1, size))
    (folder / "omniglot").mkdir()
    scipy.io.savemat(folder / "omniglot/chardata.mat", matrices | changes)
    return letter, matrices


@pytest.fixture
def few_characters(monkeypatch):
    monkeypatch.setattr(omniglot, "BURDA_SIZES", {"train": 12, "test": 6})
    monkeypatch.setattr(omniglot, "HELD_OUT", 3)


def test_omniglot_is_upright_grey_and_labelled_by_alphabet(tmp_path, few_characters):
    letter, matrices = chardata(tmp_path)
    dataset = load_dataset("omniglot", tmp_path, binarization="none")
    assert str(dataset.protocol) == "omniglot, 12 / none / 6, grey"
    torch.testing.assert_close(dataset.test, torch.from_numpy(letter).float().flatten().expand(6, -1))
    assert dataset.labels["train"].tolist() == matrices["target"].argmax(0).tolist()
    held_out = load_dataset("omniglot", tmp_path, validation=True, split_seed=7)
    assert held_out.protocol.sizes == (9, 3, 6)
    assert "3 of training held out at random (seed 7)" in str(held_out.protocol)


def test_omniglots_paper_held_out_1345():
    assert (omniglot.BURDA_SIZES, omniglot.HELD_OUT) == ({"train": 23_000 + 1_345, "test": 8_070}, 1_345)


@pytest.mark.parametrize("bad", [np.nan, 255.0])
def test_omniglot_with_anything_but_grey_is_refused(tmp_path, few_characters, bad):
    chardata(tmp_path, testdata=np.full((784, 6), bad))
    with pytest.raises(InputError, match=r"omniglot/chardata.mat: expected 'testdata' from 0 to 1; got values from (nan|255)"):
        load_dataset("omniglot", tmp_path)


def norb_files(folder, size):
    """Files in the layout of small NORB: the left camera sees a bright bar at the top, the right camera nothing."""
    (folder / "small_norb").mkdir()
    toys = np.zeros((size, 2, 96, 96), np.uint8)
    toys[:, 0, 3:9, 30:60] = 255
    for part in ("46789x9x18x6x2x96x96-training", "01235x9x18x6x2x96x96-testing"):
        stem = folder / "small_norb" / f"smallnorb-5x{part}"
        Path(f"{stem}-dat.mat").write_bytes(struct.pack("<6I", 0x1E3D4C55, 4, *toys.shape) + toys.tobytes())
        categories = np.arange(size, dtype="<i4") % 5
        Path(f"{stem}-cat.mat").write_bytes(struct.pack("<5I", 0x1E3D4C54, 1, size, 1, 1) + categories.tobytes())


def test_small_norb_is_one_camera_reduced(tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "NORB_SIZE", 20)
    norb_files(tmp_path, 20)
    dataset = load_dataset("small-norb", tmp_path, validation=True)
    assert dataset.protocol.sizes == (18, 2, 20)
    assert (dataset.likelihood, dataset.served_values, dataset.shape) == ("gaussian", "grey", (1, 32, 32))
    expected = torch.zeros(32, 32)
    expected[1:3, 10:20] = 1
    assert dataset.test.view(-1, 32, 32).eq(expected).all()
    assert dataset.labels["test"].tolist() == [0, 1, 2, 3, 4] * 4


@needs_real_files
@pytest.mark.parametrize(
    ("dataset", "likelihood", "values"),
    [
        ("freyfaces", "discretized_logistic", "grey"),
        ("caltech101-silhouettes", "bernoulli", "bits"),
        ("mnist", "bernoulli", "bits"),
    ],
)
def test_the_likelihood_suits_the_data(dataset, likelihood, values):
    loaded = load_dataset(dataset, REAL)
    assert (loaded.likelihood, loaded.served_values) == (likelihood, values)
    assert torch.equal(loaded.test, load_dataset(dataset, REAL).test), "test images are drawn once and for all"


def test_grey_images_stay_grey_everywhere():
    dataset = load_dataset("mnist-5k", binarization="none")
    assert len(dataset.test.unique()) > 100
    assert str(dataset.protocol) == "mnist-5k, 4,000 / 500 / 500, grey"
    assert len(next(dataset.train_batches(100).epoch(1)).unique()) > 100


@needs_real_files
def test_bits_alone_are_no_grey_images():
    with pytest.raises(InputError, match="expected grey values for the binarization 'none'; 'static-mnist' holds bits"):
        load_dataset("static-mnist", REAL, binarization="none")


def test_unknown_dataset():
    with pytest.raises(InputError, match=f"expected a dataset out of {', '.join(DATASETS)}; got 'mnits'"):
        load_dataset("mnits")
