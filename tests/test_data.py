import functools
import gzip
import hashlib
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest

from pyrovae.data import benchmarks, sources
from pyrovae.data.benchmarks import MNIST
from pyrovae.data.loading import load_dataset
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
