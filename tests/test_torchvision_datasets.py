"""Datasets of torchvision, from small files in the formats that it reads."""

import bz2
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrovae.data.loading import load_dataset
from pyrovae.data.published_files import sources
from pyrovae.data.published_files.sources import DATA_VARIABLE
from pyrovae.data.published_files.torchvision_datasets import KNOWN, import_torchvision
from pyrovae.errors import InputError

datasets = import_torchvision().datasets
NOWHERE = "http://127.0.0.1:9/"  # the discard port, where nothing listens: refused at once


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A root, a folder for the variable and a cache, all empty; nothing to download from."""
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "variable"))
    monkeypatch.setattr(sources, "_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(datasets.KMNIST, "mirrors", [NOWHERE])
    monkeypatch.setattr(datasets.CIFAR10, "url", NOWHERE)
    return tmp_path


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


LETTER = np.zeros((28, 28), np.uint8)
LETTER[4:24, 6] = LETTER[23, 6:20] = 255


def write_idx(folder, train, test, image=LETTER, size=10):
    folder.mkdir(parents=True)
    for prefix in (train, test):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(np.repeat(image[None], size, 0)))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(size) % 10))


@pytest.mark.parametrize("place", ["root", "variable", "cache"])
def test_grey_images_in_each_place(places, place):
    write_idx(places / place / "KMNIST/raw", "train", "t10k")
    before = sorted(places.rglob("*"))
    dataset = load_dataset("torchvision:KMNIST", places / "root", validation=True)
    assert str(dataset.protocol).startswith(
        "torchvision:KMNIST, 9 / 1 / 10, 1 of training held out at random (seed 0), training binarized dynamically"
    )
    assert (dataset.shape, dataset.likelihood, dataset.num_classes) == ((1, 28, 28), "bernoulli", 10)
    assert dataset.test[3].view(28, 28).equal(torch.from_numpy(LETTER) / 255)
    assert sorted(places.rglob("*")) == before


def test_emnist_is_turned_upright(places):
    write_idx(places / "root/EMNIST/raw", "emnist-letters-train", "emnist-letters-test", LETTER.T)
    dataset = load_dataset("torchvision:EMNIST-letters", places / "root")
    assert dataset.test[0].view(28, 28).equal(torch.from_numpy(LETTER) / 255)


def test_usps(places):
    (places / "root").mkdir()
    line = "7 " + " ".join(f"{i + 1}:{1 if i < 16 else -1}" for i in range(256))
    for name in ("usps.bz2", "usps.t.bz2"):
        (places / "root" / name).write_bytes(bz2.compress(f"{line}\n{line}\n".encode()))
    dataset = load_dataset("torchvision:USPS", places / "root")
    assert dataset.test[0].view(16, 16)[0].eq(1).all()
    assert dataset.test[0].view(16, 16)[1:].eq(0).all()
    assert dataset.labels["train"].tolist() == [6, 6]


def write_cifar(folder, monkeypatch):
    """Pickles in the format of CIFAR-10, red at the top, with their checksums for those that torchvision knows."""
    folder.mkdir(parents=True)
    image = np.zeros((3, 32, 32), np.uint8)
    image[0, :8], image[1], image[2, :, :8] = 200, 10, 100
    contents = {name: {"data": np.repeat(image.reshape(1, -1), 4, 0), "labels": [0, 1, 2, 9]} for name in ("train", "test")}
    contents["meta"] = {"label_names": list("abcdefghij")}
    known = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        known[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["train", known["train"]]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test", known["test"]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "meta", "key": "label_names", "md5": known["meta"]})
    return torch.from_numpy(image)


def test_colour_images_are_channels_first(places, monkeypatch):
    image = write_cifar(places / "root/cifar-10-batches-py", monkeypatch)
    dataset = load_dataset("torchvision:CIFAR10", places / "root")
    assert (dataset.shape, dataset.likelihood, dataset.batch_values) == ((3, 32, 32), "discretized_logistic", "levels")
    assert str(dataset.protocol) == "torchvision:CIFAR10, 4 / none / 4, grey"
    assert (dataset.test * 255).round().view(-1, 3, 32, 32).eq(image).all()
    assert dataset.labels["test"].tolist() == [0, 1, 2, 9]


class RunsCode:
    """Whoever unpickles it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_pickle_of_another_checksum_is_never_loaded(places, monkeypatch, name):
    folder = places / "root/cifar-10-batches-py"
    write_cifar(folder, monkeypatch)
    (folder / name).write_bytes(pickle.dumps(RunsCode(places / "evil")))
    with pytest.raises(InputError, match="CIFAR10"):
        load_dataset("torchvision:CIFAR10", places / "root")
    assert not (places / "evil").exists()


def test_colours_of_house_numbers(places, monkeypatch):
    from scipy.io import savemat

    (places / "root").mkdir()
    known = {}
    for split in ("train", "test"):
        path = places / f"root/{split}_32x32.mat"
        images = np.zeros((32, 32, 3, 5), np.uint8)
        images[:8, :, 0] = 255
        savemat(path, {"X": images, "y": np.array([[1, 2, 3, 10, 5]]).T})
        known[split] = [NOWHERE, path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", known)
    dataset = load_dataset("torchvision:SVHN", places / "root")
    image = dataset.test[0].view(3, 32, 32)
    assert image[0, :8].eq(1).all()
    assert image.sum() == 8 * 32
    assert dataset.labels["train"].tolist() == [1, 2, 3, 0, 5]


def test_nothing_on_disk_and_no_network_is_one_line(places):
    with pytest.raises(InputError) as caught:
        load_dataset("torchvision:KMNIST", places / "root")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("'torchvision:KMNIST'", str(places / "root"), str(places / "cache"), "--root", DATA_VARIABLE, "refused"):
        assert part in message
    assert not (places / "root").exists()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", idx(np.zeros((10, 28, 28)))[:-9], idx(np.zeros(10))])
def test_damaged_files_are_refused(places, content):
    write_idx(places / "root/KMNIST/raw", "train", "t10k")
    (places / "root/KMNIST/raw/t10k-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(InputError, match="root: expected torchvision's KMNIST files; reading them failed") as caught:
        load_dataset("torchvision:KMNIST", places / "root")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "array"),
    [
        ("train-labels-idx1-ubyte", np.zeros(9)),
        ("t10k-images-idx3-ubyte", np.zeros((10, 14, 28))),
        ("t10k-images-idx3-ubyte", np.zeros((11, 28, 28))),
    ],
)
def test_files_that_do_not_fit_one_another_are_refused(places, file, array):
    write_idx(places / "root/KMNIST/raw", "train", "t10k")
    (places / "root/KMNIST/raw" / file).write_bytes(idx(array))
    with pytest.raises(InputError, match=r"expected images of one size, each with a label; got .* replace its files"):
        load_dataset("torchvision:KMNIST", places / "root")


@pytest.mark.parametrize("name", ["torchvision:CocoDetection", "torchvision:EMNIST", "torchvision:__name__", "torchvision:"])
def test_what_does_not_fit_is_refused_with_what_does(name):
    with pytest.raises(InputError, match=f"out of MNIST, FashionMNIST, KMNIST.*EMNIST-letters.*got '{name}'"):
        load_dataset(name)


def test_a_mirror_is_refused():
    with pytest.raises(InputError, match="expected no mirror for 'torchvision:KMNIST'"):
        load_dataset("torchvision:KMNIST", mirror="http://127.0.0.1:9")


@pytest.mark.parametrize("name", KNOWN)
def test_known_names_are_torchvisions(name):
    assert isinstance(getattr(datasets, name.split("-")[0]), type)
