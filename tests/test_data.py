import gzip
import os

import pytest
import torch

from pyrovae.data.benchmarks import DATASETS
from pyrovae.data.loading import load_dataset
from pyrovae.data.readers import read_amat, read_idx
from pyrovae.data.sources import DATA_VARIABLE
from pyrovae.errors import InputError

REAL = os.environ.get(DATA_VARIABLE)
needs_real_files = pytest.mark.skipif(not REAL, reason=f"${DATA_VARIABLE} names no folder with the original files")


def idx(*shape, kind=8):
    header = bytes([0, 0, kind, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    return header + bytes(torch.arange(torch.Size(shape).numel()).remainder(256).tolist())


@pytest.mark.parametrize("compressed", [True, False])
def test_idx_files_are_read(tmp_path, compressed):
    path = tmp_path / ("images.gz" if compressed else "images")
    path.write_bytes(gzip.compress(idx(2, 3, 4)) if compressed else idx(2, 3, 4))
    torch.testing.assert_close(read_idx(path, (2, 3, 4)), torch.arange(24, dtype=torch.uint8).view(2, 3, 4))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


DAMAGED = {
    "truncated": (lambda: gzip.compress(idx(2, 3, 4))[:-12], "expected a whole idx file"),
    "no gzip": (lambda: b"<html>404</html>", "expected a whole idx file"),
    "empty": (lambda: b"", "expected a whole idx file"),
    "short": (lambda: gzip.compress(idx(2, 3, 4)[:-5]), "expected a whole idx file"),
    "wrong magic": (lambda: gzip.compress(b"\x01" * 40), "expected a whole idx file"),
    "wrong shape": (lambda: gzip.compress(idx(2, 4, 3)), r"expected bytes of shape \(2, 3, 4\)"),
    "labels": (lambda: gzip.compress(idx(24)), r"expected bytes of shape \(2, 3, 4\)"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files_are_refused_with_file_reason_and_remedy(tmp_path, damage):
    content, message = DAMAGED[damage]
    path = tmp_path / "images.gz"
    path.write_bytes(content())
    with pytest.raises(InputError, match=message) as caught:
        read_idx(path, (2, 3, 4))
    assert str(path) in str(caught.value)


def check_contract(dataset, name):
    assert dataset.name == name
    assert dataset.train.dtype == torch.float32
    assert dataset.train.min() == 0
    assert dataset.train.max() == 1
    assert len(dataset.train.unique()) > 100, "training images are grey"
    for split in ("valid", "test"):
        images = getattr(dataset, split)
        if images is not None:
            assert set(images.unique().tolist()) == {0.0, 1.0}, split
            assert images.shape[1] == torch.Size(dataset.shape).numel()
            assert len(dataset.labels[split]) == len(images)
    assert len(dataset.labels["train"]) == len(dataset.train)
    assert torch.equal(dataset.test, load_dataset(name, REAL).test), "test images are binarized once and for all"


@needs_real_files
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_files(name):
    dataset = load_dataset(name, REAL)
    check_contract(dataset, name)
    assert (len(dataset.train), dataset.valid, len(dataset.test)) == (60_000, None, 10_000)


def test_grey_images_stay_grey_everywhere():
    dataset = load_dataset("mnist-5k", binarization="none")
    assert len(dataset.test.unique()) > 100
    assert str(dataset.protocol) == "mnist-5k, 4,000 / 500 / 500, grey"
    assert len(next(dataset.train_batches(100).epoch(1)).unique()) > 100


@needs_real_files
def test_bits_alone_are_no_grey_images():
    with pytest.raises(InputError, match="expected grey values for the binarization 'none'; 'static-mnist' holds bits"):
        load_dataset("static-mnist", REAL, binarization="none")


def test_embedded_digits():
    dataset = load_dataset("mnist-5k")
    check_contract(dataset, "mnist-5k")
    assert [len(split) for split in (dataset.train, dataset.valid, dataset.test)] == [4000, 500, 500]
    assert all(count > 25 for count in dataset.labels["test"].bincount())


@needs_real_files
def test_static_mnist_is_larochelles_sample():
    dataset = load_dataset("static-mnist", REAL)
    means = {split: round(getattr(dataset, split).mean().item(), 5) for split in ("train", "valid", "test")}
    assert means == {"train": 0.13056, "valid": 0.13113, "test": 0.13251}
    assert [len(split) for split in (dataset.train, dataset.valid, dataset.test)] == [50_000, 10_000, 10_000]
    assert set(dataset.train.unique().tolist()) == {0.0, 1.0}


AMAT = b"0 1 1\n1 0 0\n"


@pytest.mark.parametrize("compressed", [True, False])
def test_amat_files_are_read(tmp_path, compressed):
    path = tmp_path / ("bits.amat.gz" if compressed else "bits.amat")
    path.write_bytes(gzip.compress(AMAT) if compressed else AMAT)
    assert read_amat(path, (2, 3)).tolist() == [[0, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(AMAT)[:-9], "expected a whole amat file"),
        (b"<html>404</html>", "expected a whole amat file"),
        (gzip.compress(b""), "expected 2 lines of 3 digits"),
        (gzip.compress(AMAT + b"1 1 1\n"), "expected 2 lines of 3 digits"),
        (gzip.compress(AMAT.replace(b"1", b"2")), "expected 2 lines of 3 digits"),
        (gzip.compress(b"0 " * 10**7), "expected 2 lines of 3 digits"),
    ],
)
def test_damaged_amat_files_are_refused(tmp_path, content, message):
    path = tmp_path / "bits.amat.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path}: {message}"):
        read_amat(path, (2, 3))


def test_unknown_dataset():
    with pytest.raises(InputError, match=f"expected a dataset out of {', '.join(DATASETS)}; got 'mnits'"):
        load_dataset("mnits")
