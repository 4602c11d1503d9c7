"""Each dataset: the sizes and contents of its paper's split, upright, with ink as 1."""

import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from pyrovae.data import benchmarks
from pyrovae.data.benchmarks import DATASETS
from pyrovae.data.datasets import Options
from pyrovae.data.loading import load_dataset
from pyrovae.data.published_files import objects, omniglot
from pyrovae.data.published_files.archives import read_npz
from pyrovae.data.published_files.matlab import read_mat
from pyrovae.data.published_files.resizing import area_mean
from pyrovae.data.published_files.sources import DATA_VARIABLE
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


def mean_image(dataset, label=None):
    images = dataset.train if label is None else dataset.train[dataset.labels["train"] == label]
    return images.mean(0).view(dataset.shape[1:])


def stands(label):
    """The images of a class are taller than wide, by far."""

    def check(dataset):
        mean, place = mean_image(dataset, label), torch.arange(28.0)
        down, across = (each / each.sum() for each in (mean.sum(1), mean.sum(0)))
        height, width = ((each * (place - (each * place).sum()) ** 2).sum() for each in (down, across))
        assert height > 4 * width

    return check


def pyramids_stand_on_their_base_and_umbrellas_on_their_stick(dataset):
    pyramid, umbrella = mean_image(dataset, 74), mean_image(dataset, 93)
    assert pyramid[14:].mean() > 2 * pyramid[:14].mean()
    assert umbrella[:14].mean() > 3 * umbrella[14:].mean()
    for mean in (pyramid, umbrella):
        assert mean[:, 14:].mean().item() == pytest.approx(mean[:, :14].mean().item(), rel=0.1)


def looks_like_other_digits(dataset):
    expected = mean_image(DATASETS["mnist-5k"](Options()))
    torch.testing.assert_close(mean_image(dataset), expected, rtol=0, atol=0.05)
    assert (mean_image(dataset).T - expected).abs().max() > 0.2


def two_dark_eyes_below_a_bright_forehead(dataset):
    mean = mean_image(dataset)
    forehead, left, right = mean[:3, 7:15], mean[6:9, 4:8], mean[6:9, 12:16]
    assert forehead.min() > 2 * max(left.mean(), right.mean())
    assert mean[6:9, 9:11].min() > left.max()


# The digit one, trousers, and the letter l in Lake's order of Latin.
UPRIGHT = {
    "mnist": stands(1),
    "static-mnist": looks_like_other_digits,
    "fashion-mnist": stands(1),
    "omniglot-28": stands(682 + 11),
    "caltech101-silhouettes": pyramids_stand_on_their_base_and_umbrellas_on_their_stick,
    "freyfaces": two_dark_eyes_below_a_bright_forehead,
    "mnist-5k": stands(1),
}


def test_images_are_upright(name, stored):
    UPRIGHT[name.removesuffix("+")](stored)


def test_the_object_is_one_and_in_the_middle(name, stored):
    mean = mean_image(stored)
    corners = torch.stack([mean[:4, :4], mean[:4, -4:], mean[-4:, :4], mean[-4:, -4:]])
    # A face fills its image, and is bright.
    assert mean[7:21, 7:21].mean() > (0.5 if name.startswith("freyfaces") else 3 * corners.mean())


@needs_real_files
def test_static_digits_are_the_same_from_text_and_packed(monkeypatch):
    packed = DATASETS["static-mnist"](Options(root=REAL))
    monkeypatch.setattr(benchmarks, "STATIC_MNIST", replace(benchmarks.STATIC_MNIST, packed={}))
    assert DATASETS["static-mnist"](Options(root=REAL)).protocol == packed.protocol


@needs_real_files
def test_every_frame_is_in_one_split():
    faces, others = (DATASETS["freyfaces"](Options(root=REAL, validation=True, split_seed=seed)) for seed in (0, 1))
    frames = read_mat(Path(REAL) / "freyfaces/frey_rawface.mat", {"ff": (560, 1965)})["ff"].T.float() / 255
    for each in (faces, others):
        together = torch.cat(list(splits(each).values()))
        assert sorted(together.double().sum(1).tolist()) == sorted(frames.double().sum(1).tolist())
    assert "(seed 1)" in str(others.protocol)
    assert faces.protocol.hash != others.protocol.hash
    assert not faces.test.equal(others.test)


@needs_real_files
def test_ink_of_omniglot_is_the_mean_over_its_area():
    reduced = DATASETS["omniglot-28"](Options(root=REAL))
    path = Path(REAL) / "omniglot_original/images_evaluation.npz"
    paper = read_npz(path, {"images": (torch.bool, (659, 20, 105, 105))})["images"].view(torch.uint8).view(-1, 105 * 105)
    ink = 1 - paper.count_nonzero(1) / 105**2
    torch.testing.assert_close(reduced.test.mean(1), ink, rtol=0, atol=1e-3)
    assert ink.mean() < 0.1


def test_area_means_against_numerical_integration():
    levels = torch.randint(256, (3, 105, 105), dtype=torch.uint8)
    fine = levels.double().repeat_interleave(4, 1).repeat_interleave(4, 2)
    expected = torch.nn.functional.avg_pool2d(fine[:, None], 15)[:, 0].round().byte()
    assert area_mean(levels, 28).equal(expected)
    assert area_mean(torch.full((1, 105, 105), 255, dtype=torch.uint8), 28).eq(255).all()


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
    assert (dataset.likelihood, dataset.batch_values, dataset.shape) == ("gaussian", "levels", (1, 32, 32))
    expected = torch.zeros(32, 32)
    expected[1:3, 10:20] = 1
    assert dataset.test.view(-1, 32, 32).eq(expected).all()
    assert dataset.labels["test"].tolist() == [0, 1, 2, 3, 4] * 4


@needs_real_files
@pytest.mark.parametrize(
    ("dataset", "likelihood", "values"),
    [
        ("freyfaces", "discretized_logistic", "levels"),
        ("caltech101-silhouettes", "bernoulli", "bits"),
        ("mnist", "bernoulli", "bits"),
    ],
)
def test_the_likelihood_suits_the_data(dataset, likelihood, values):
    loaded = load_dataset(dataset, REAL)
    assert (loaded.likelihood, loaded.batch_values) == (likelihood, values)
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
