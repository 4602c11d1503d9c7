import functools
import gzip
import hashlib
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch

from pyrovae.data import benchmarks, sources
from pyrovae.data.benchmarks import DATASETS, MNIST
from pyrovae.data.loading import load_dataset
from pyrovae.data.readers import read_amat, read_idx
from pyrovae.data.sources import DATA_VARIABLE, Source, locate
from pyrovae.errors import InputError

REAL = os.environ.get(DATA_VARIABLE)
needs_real_files = pytest.mark.skipif(not REAL, reason=f"${DATA_VARIABLE} names no folder with the original files")
NOWHERE = "http://127.0.0.1:9"  # the discard port, where nothing listens: refused at once


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A root, a folder for the variable and a cache, all empty."""
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "variable"))
    monkeypatch.setattr(sources, "_cache", lambda: tmp_path / "cache")
    return tmp_path


def source(address=NOWHERE, **checksums):
    return Source("tiny", ("tiny", "Tiny/raw"), checksums or {"a.gz": "x", "b.gz": "y"}, address)


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"content of " + name.encode())


@pytest.mark.parametrize("folder", ["tiny", "Tiny/raw"])
def test_files_are_found_under_each_place_in_order(places, folder):
    for place in ("cache", "variable", "root"):
        put(places / place / folder, "a.gz", "b.gz")
        found = locate(source(), places / "root")
        assert found == {name: places / place / folder / name for name in ("a.gz", "b.gz")}


def test_decompressed_files_are_found(places):
    put(places / "root/tiny", "a", "b.gz")
    assert locate(source(), places / "root")["a.gz"] == places / "root/tiny/a"


def test_a_place_may_be_the_datasets_own_folder(places):
    put(places / "somewhere/tiny", "a.gz", "b.gz")
    assert locate(source(), places / "somewhere/tiny")["a.gz"].parent == places / "somewhere/tiny"


def test_files_of_that_name_in_another_datasets_folder_are_not_taken(places):
    put(places / "root/other", "a.gz", "b.gz")
    with pytest.raises(InputError, match="expected the files"):
        locate(source(), places / "root/other")


def test_an_incomplete_folder_is_passed_over(places):
    put(places / "root/tiny", "a.gz")
    put(places / "cache/tiny", "a.gz", "b.gz")
    assert locate(source(), places / "root")["a.gz"].parent == places / "cache/tiny"


def test_nothing_on_disk_and_no_network_names_places_files_and_the_way_out(places):
    with pytest.raises(InputError) as caught:
        locate(source(), places / "root")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("root/tiny", "variable/Tiny/raw", "cache/tiny", "a.gz, b.gz", "--dataset mnist-5k", "--root", DATA_VARIABLE):
        assert part in message
    assert not (places / "root").exists()


@pytest.fixture
def server(tmp_path):
    """A real server of the files in ``tmp_path/served``."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_download_goes_into_the_cache_once_verified(places, server):
    put(places / "served", "a.gz", "b.gz")
    checksums = {name: hashlib.md5((places / "served" / name).read_bytes()).hexdigest() for name in ("a.gz", "b.gz")}
    found = locate(source(server, **checksums), places / "root")
    assert found["b.gz"] == places / "cache/tiny/b.gz"
    assert found["b.gz"].read_bytes() == b"content of b.gz"
    assert sorted(path.name for path in (places / "cache/tiny").iterdir()) == ["a.gz", "b.gz"]
    assert not (places / "root").exists()
    assert locate(source(NOWHERE, **checksums)) == found


def test_a_corrupted_download_is_refused_and_leaves_nothing(places, server):
    put(places / "served", "a.gz", "b.gz")
    with pytest.raises(InputError, match="download failed"):
        locate(source(server), places / "root")
    assert list((places / "cache/tiny").iterdir()) == []


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


@needs_real_files
def test_mnist_in_torchvisions_layout_and_never_as_fashion(places):
    raw = places / "root/MNIST/raw"
    raw.mkdir(parents=True)
    for name in MNIST.checksums:
        with gzip.open(Path(REAL) / "mnist" / name) as packed, (raw / name[:-3]).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    before = sorted(raw.iterdir())
    assert len(load_dataset("mnist", places / "root").train) == 60_000
    assert sorted(raw.iterdir()) == before
    with pytest.raises(InputError, match="dataset 'fashion-mnist'"):
        locate(Source("fashion-mnist", benchmarks.FASHION_MNIST.folders, MNIST.checksums, NOWHERE), raw)


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
