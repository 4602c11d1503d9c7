"""Files are found, judged by their checksums, listed and fetched."""

import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from file_server import CHECKSUMS, CONTENT, NOWHERE, put, refusal, refused, source
from pyrovae.cli import main
from pyrovae.cli.console import DownloadBars, downloads
from rich.console import Console
from rich.progress import Progress

from pyrovae.data.benchmarks import DATASETS
from pyrovae.data.loading import load_dataset
from pyrovae.data.published_files import addresses
from pyrovae.data.published_files.downloads import check_address
from pyrovae.data.published_files.sources import DATA_VARIABLE, Source, find, is_original, locate
from pyrovae.errors import InputError

REAL = os.environ.get(DATA_VARIABLE)
needs_real_files = pytest.mark.skipif(not REAL, reason=f"${DATA_VARIABLE} names no folder with the original files")


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
    assert "expected the files" in refusal(source(), places / "root/other")


def test_an_incomplete_folder_is_passed_over(places):
    put(places / "root/tiny", "a.gz")
    put(places / "cache/tiny", "a.gz", "b.gz")
    assert locate(source(), places / "root")["a.gz"].parent == places / "cache/tiny"


def test_nothing_on_disk_and_no_network_names_places_files_and_the_ways_out(places):
    message = refusal(source(), places / "root")
    for part in ("root/tiny", "variable/Tiny/raw", "cache/tiny", "a.gz, b.gz", f"{NOWHERE}/a.gz: ", "Connection refused"):
        assert part in message
    for way_out in ("--dataset mnist-5k", "--root", DATA_VARIABLE, "--mirror"):
        assert way_out in message
    assert not (places / "root").exists()


def md5(content):
    return hashlib.md5(content).hexdigest()


STATES = {
    # name as published, its checksum, that of what is in it; name on disk, content on disk; whether it is whole
    "as published": ("x.gz", md5(b"packed"), None, "x.gz", b"packed", True),
    "capitals": ("x.gz", md5(b"packed").upper(), None, "x.gz", b"packed", True),
    "damaged": ("x.gz", md5(b"packed"), None, "x.gz", b"peckad", False),
    "empty": ("x.gz", md5(b"packed"), None, "x.gz", b"", False),
    "no checksum": ("x.gz", None, None, "x.gz", b"packed", None),
    "empty checksum": ("x.gz", "", None, "x.gz", b"packed", None),
    "sha256": ("x", "sha256:" + hashlib.sha256(b"plain").hexdigest(), None, "x", b"plain", True),
    "compressed since": ("x", md5(b"plain"), None, "x.gz", gzip.compress(b"plain"), True),
    "compressed since, another": ("x", md5(b"plain"), None, "x.gz", gzip.compress(b"another"), False),
    "compressed since, truncated": ("x", md5(b"plain"), None, "x.gz", gzip.compress(b"plain")[:-6], False),
    "compressed since, no gzip": ("x", md5(b"plain"), None, "x.gz", b"<html>", False),
    "compressed since, damaged": ("x", md5(b"plain"), None, "x.gz", gzip.compress(b"plain")[:10] + b"\xff" * 20, False),
    "decompressed": ("x.gz", md5(b"packed"), None, "x", b"plain", None),
    "decompressed, known": ("x.gz", md5(b"packed"), md5(b"plain"), "x", b"plain", True),
    "decompressed, damaged": ("x.gz", md5(b"packed"), md5(b"plain"), "x", b"plane", False),
}


@pytest.mark.parametrize("state", STATES)
def test_what_is_found_is_judged_as_it_lies_there(tmp_path, state):
    name, checksum, decompressed, on_disk, content, whole = STATES[state]
    (tmp_path / on_disk).write_bytes(content)
    published = source(checksums={name: checksum}, decompressed={name: decompressed} if decompressed else {})
    assert is_original(published, name, tmp_path / on_disk) is whole


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match=f"{tmp_path}/x: expected a file that can be read; got Is a directory"):
        is_original(source(checksums={"x": "0" * 32}), "x", tmp_path / "x")


SOURCES = [each for each in vars(addresses).values() if isinstance(each, Source)]


@pytest.mark.parametrize("each", SOURCES, ids=lambda each: each.name)
def test_the_entries_of_the_originals_are_well_formed(each):
    for address in (each.address, *each.mirrors):
        check_address(address)
        assert not address.endswith("/")
    for checksum in filter(None, (*each.checksums.values(), *each.decompressed.values())):
        assert re.fullmatch(r"(md5:)?[0-9a-f]{32}|sha256:[0-9a-f]{64}", checksum)
    assert set(each.decompressed) <= {name for name in each.checksums if name.endswith(".gz")}
    assert each.licence


@needs_real_files
@pytest.mark.parametrize("each", [each for each in SOURCES if each.decompressed], ids=lambda each: each.name)
def test_checksums_of_the_decompressed_originals(each, tmp_path):
    for name, path in find(each).items():
        assert is_original(each, name, path)
        plain = tmp_path / Path(name).stem
        plain.write_bytes(gzip.decompress(path.read_bytes()))
        assert is_original(each, name, plain)


@needs_real_files
def test_mnist_in_torchvisions_layout_and_never_as_fashion(places):
    raw = places / "root/MNIST/raw"
    raw.mkdir(parents=True)
    for name in addresses.MNIST.checksums:
        with gzip.open(Path(REAL) / "mnist" / name) as packed, (raw / name[:-3]).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    before = sorted(raw.iterdir())
    assert len(load_dataset("mnist", places / "root").train) == 60_000
    assert sorted(raw.iterdir()) == before
    with pytest.raises(InputError, match="dataset 'fashion-mnist'"):
        locate(replace(addresses.FASHION_MNIST, address=NOWHERE, mirrors=()), raw)


def invoked(*arguments):
    return CliRunner().invoke(main, ["datasets", *arguments])


@pytest.fixture
def tiny(places, server, monkeypatch):
    """The tiny source in place of MNIST's."""
    monkeypatch.setitem(DATASETS, "mnist", replace(DATASETS["mnist"], source=source(server.url)))
    return places


def test_the_list_says_what_there_is_and_where(tiny):
    for part in ("MNIST digits", "1 x 28 x 28; 60,000 / none / 10,000; licence: none stated", "'pyrovae datasets fetch tiny'"):
        assert part in invoked().stdout
    put(tiny / "root/tiny", *CONTENT)
    assert "'pyrovae datasets fetch tiny'" in invoked().stdout
    assert "root/tiny" in invoked("--root", str(tiny / "root")).stdout.replace(" │\n│               │ ", "")
    assert "MIT" in invoked().stdout


def test_the_list_says_which_files_cannot_be_verified(tiny, monkeypatch):
    unknown = source(checksums=CHECKSUMS | {"a.gz": None})
    monkeypatch.setitem(DATASETS, "mnist", replace(DATASETS["mnist"], source=unknown))
    assert "'pyrovae datasets fetch tiny' (no published checksum of a.gz)" in invoked().stdout


def test_the_list_waits_for_neither_torch_nor_pooch():
    code = "import atexit, sys; from pyrovae.cli import main; atexit.register(lambda: print(*sys.modules)); main(['datasets'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mnist-5k" in result.stdout
    modules = result.stdout.splitlines()[-1].split()
    assert "pyrovae.data.published_files.sources" in modules
    assert not {"torch", "pooch", "requests", "numpy"} & set(modules)


def test_fetch_downloads_and_prints_paths_alone(tiny):
    result = invoked("fetch", "mnist")
    assert result.stdout.split() == [str(tiny / "cache/tiny" / name) for name in CONTENT]
    assert result.stderr.splitlines() == ["downloading a.gz, 960.0 kB", "downloading b.gz, 960.0 kB"]
    again = invoked("fetch", "mnist")
    assert (again.stdout, again.stderr) == (result.stdout, "")


def test_fetch_looks_under_root_first_and_downloads_from_a_mirror(tiny, server):
    put(tiny / "root/tiny", *CONTENT)
    assert "root/tiny/a.gz" in invoked("fetch", "mnist", "--root", str(tiny / "root")).stdout
    assert server.requested == []
    invoked("fetch", "mnist", "--mirror", f"{server.url}/elsewhere")
    assert server.requested == [("/elsewhere/tiny/a.gz", None), ("/elsewhere/tiny/b.gz", None)]


def test_data_that_ship_with_a_package_are_not_fetched():
    result = invoked("fetch", "mnist-5k")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "there is nothing to fetch" in result.stderr


def test_verify_judges_every_file_that_is_found(tiny):
    assert invoked("verify", "mnist").stdout == "tiny: not found: fetch with 'pyrovae datasets fetch tiny'\n"
    invoked("fetch", "mnist")
    put(tiny / "variable/tiny", "b")
    result = invoked("verify", "mnist")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"tiny: {tiny}/variable/tiny/b: present, unverifiable (decompressed)",
        f"tiny: {tiny}/cache/tiny/a.gz: verified",
        f"tiny: {tiny}/cache/tiny/b.gz: verified",
    ]
    put(tiny / "cache/tiny", "a.gz")
    assert "Tiny/raw" not in invoked("verify").stdout
    put(tiny / "root/Tiny/raw", "a.gz")
    for arguments in (("verify", "--root", str(tiny / "root")), ("--root", str(tiny / "root"), "verify")):
        assert f"{tiny}/root/Tiny/raw/a.gz: damaged" in invoked(*arguments).stdout
    result = invoked("verify")
    assert result.exit_code == 1
    assert f"tiny: {tiny}/cache/tiny/a.gz: damaged: delete it, then 'pyrovae datasets fetch tiny'" in result.stdout.splitlines()


@pytest.mark.parametrize("command", [("fit", "--dataset", "mnist"), ("datasets", "fetch", "mnist")])
def test_commands_download_from_a_mirror(places, server, command, monkeypatch):
    monkeypatch.chdir(places)
    server.answers = [refused(403)]
    result = CliRunner().invoke(main, [*command, "--mirror", server.url])
    assert result.exit_code == 2
    assert f"{server.url}/train-images-idx3-ubyte.gz: 403 Forbidden" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", [name for name, each in DATASETS.items() if each.source])
def test_every_loader_hands_its_mirror_on(places, server, name):
    server.answers = [refused(403)]
    with pytest.raises(InputError, match=f"{server.url}/.*: 403 Forbidden"):
        load_dataset(name, mirror=server.url)


def test_bars_for_people_show_how_much_has_arrived():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with Progress(console=console) as progress:
        bars = DownloadBars(progress)
        for done in (1, 2, 4):
            bars("a.gz", done, 4)
    assert re.search("a.gz.*100%", console.file.getvalue())
    with downloads(quiet=True) as quiet:
        assert quiet is None


def test_a_packed_copy_stands_for_all_files(places):
    whole = replace(source(), packed={"all.npz": "md5:x"})
    put(places / "root/tiny", "all.npz")
    assert locate(whole, places / "root") == {"all.npz": places / "root/tiny/all.npz"}
    put(places / "cache/tiny", "a.gz", "b.gz")
    assert set(locate(whole)) == {"a.gz", "b.gz"}
