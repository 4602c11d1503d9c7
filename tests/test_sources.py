"""Files are found, or downloaded whole or not at all: real servers, real processes."""

import gzip
import hashlib
import http.server
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyrovae.cli import main
from pyrovae.cli.console import DownloadBars, downloads
from rich.console import Console
from rich.progress import Progress

from pyrovae.data import downloads as downloading
from pyrovae.data import originals, sources
from pyrovae.data.benchmarks import DATASETS
from pyrovae.data.downloads import check_address
from pyrovae.data.loading import load_dataset
from pyrovae.data.sources import DATA_VARIABLE, Source, find, locate, verified
from pyrovae.errors import InputError

REAL = os.environ.get(DATA_VARIABLE)
needs_real_files = pytest.mark.skipif(not REAL, reason=f"${DATA_VARIABLE} names no folder with the original files")
NOWHERE = "http://127.0.0.1:9"  # the discard port, where nothing listens: refused at once
CONTENT = {name: f"content of {name} ".encode() * 60_000 for name in ("a.gz", "b.gz")}
CHECKSUMS = {name: hashlib.md5(content).hexdigest() for name, content in CONTENT.items()}
HALF = len(CONTENT["a.gz"]) // 2


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A root, a folder for the variable and a cache, all empty; impatient downloads."""
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "variable"))
    monkeypatch.setattr(sources, "_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(downloading, "PAUSES_SECONDS", (0.01, 0.01, 0.01))
    monkeypatch.setattr(downloading, "STALLED_AFTER_SECONDS", 0.2)
    return tmp_path


def source(address=NOWHERE, checksums=CHECKSUMS, **values):
    return Source("tiny", ("tiny", "Tiny/raw"), checksums, address, **values)


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"content of " + name.encode())


def whole(request, content):
    """The file, whatever range is asked for."""
    request.begin(200, len(content))
    request.wfile.write(content)


def ranged(request, content):
    """The file, or the range that is asked for."""
    start = request.start()
    if start is None:
        whole(request, content)
    elif start >= len(content):
        request.begin(416, 0)
    else:
        request.begin(206, len(content) - start, **{"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})
        request.wfile.write(content[start:])


def truncated(request, content):
    """Half of what is promised."""
    request.begin(200, len(content))
    request.wfile.write(content[: len(content) // 2])


def stalled(request, content):
    """Nothing, until the test is over."""
    request.server.over.wait(10)


def stalled_halfway(request, content):
    """Half of what is promised, and no more until the test is over."""
    truncated(request, content)
    request.wfile.flush()
    request.server.over.wait(10)


def refused(status):
    return lambda request, content: request.begin(status, 0)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requested.append((self.path, self.headers["Range"]))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self, CONTENT.get(Path(self.path).name, b""))

    def start(self):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        return int(asked[1]) if asked else None

    def begin(self, status, length, **headers):
        self.send_response(status)
        for name, value in ({"Content-Length": length} | headers).items():
            self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A real server of ``CONTENT`` that answers each request as ``answers`` say, the last of them for ever."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.answers, serving.requested, serving.over = [whole], [], threading.Event()
        serving.url = f"http://127.0.0.1:{serving.server_port}"
        threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
        yield serving
        serving.over.set()
        serving.shutdown()


def refusal(*arguments, **keywords):
    with pytest.raises(InputError) as caught:
        locate(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_whole(found, folder):
    assert found == {name: folder / name for name in CONTENT}
    assert {name: path.read_bytes() for name, path in found.items()} == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == [".lock", *CONTENT]


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


def test_a_download_goes_into_the_cache_and_says_nothing_by_itself(places, server, capfd):
    assert_whole(locate(source(server.url), places / "root"), places / "cache/tiny")
    assert not (places / "root").exists()
    assert len(locate(source(NOWHERE))) == 2, "they are found from now on"
    assert capfd.readouterr() == ("", "")


def test_progress_is_told_as_it_arrives(places, server):
    told = []
    locate(source(server.url), progress=lambda *each: told.append(each))
    for name, content in CONTENT.items():
        arrived = [done for file, done, total in told if file == name and total == len(content)]
        assert arrived == sorted(arrived)
        assert arrived[-1] == len(content)
        assert len(arrived) > 1


def test_a_corrupted_download_is_refused_and_leaves_nothing(places, server):
    message = refusal(source(server.url, CHECKSUMS | {"a.gz": "0" * 32}))
    assert f"{server.url}/a.gz: what came is damaged or another file: its checksum is not md5:000" in message
    assert [path.name for path in (places / "cache/tiny").iterdir()] == [".lock"]


def test_a_download_that_breaks_off_is_continued_at_once(places, server):
    server.answers = [truncated, ranged]
    assert_whole(locate(source(server.url)), places / "cache/tiny")
    assert server.requested == [("/a.gz", None), ("/a.gz", f"bytes={HALF}-"), ("/b.gz", None)]


def test_a_download_that_always_breaks_off_is_reported_and_continued_next_time(places, server):
    server.answers = [truncated]
    assert f"{server.url}/a.gz: the connection broke off after {HALF:,} bytes" in refusal(source(server.url))
    assert len(server.requested) == 4
    assert [path.name for path in sorted((places / "cache/tiny").iterdir())] == [".lock", "a.gz.part"]
    assert not find(source())
    server.answers, server.requested = [ranged], []
    assert_whole(locate(source(server.url)), places / "cache/tiny")
    assert server.requested[0] == ("/a.gz", f"bytes={HALF}-")


@pytest.mark.parametrize("partial", [CONTENT["a.gz"][:HALF], b"another file", CONTENT["a.gz"], CONTENT["a.gz"] * 2])
@pytest.mark.parametrize("answer", [whole, ranged])
def test_whatever_had_arrived_the_file_is_whole(places, server, partial, answer):
    server.answers = [answer]
    put(places / "cache/tiny")
    (places / "cache/tiny/a.gz.part").write_bytes(partial)
    assert_whole(locate(source(server.url)), places / "cache/tiny")


@pytest.mark.parametrize("answer", [stalled, stalled_halfway])
def test_a_server_that_stalls_is_not_waited_for(places, server, answer):
    server.answers = [answer]
    assert f"{server.url}/a.gz: no answer for 0.2 s" in refusal(source(server.url))
    assert not find(source())


@pytest.mark.parametrize(("status", "tries"), [(403, 1), (404, 1), (503, 4)])
def test_only_a_busy_server_is_asked_again(places, server, status, tries):
    server.answers = [refused(status)]
    assert f"{server.url}/a.gz: {status} {http.HTTPStatus(status).phrase}" in refusal(source(server.url))
    assert server.requested == [("/a.gz", None)] * tries


def test_a_server_that_was_busy_serves(places, server):
    server.answers = [refused(503), refused(503), whole]
    assert_whole(locate(source(server.url)), places / "cache/tiny")


def test_mirrors_are_tried_in_turn(places, server):
    server.answers = [refused(404), whole]
    assert_whole(locate(source(f"{server.url}/first", mirrors=(f"{server.url}/second",))), places / "cache/tiny")
    assert [path for path, _ in server.requested] == ["/first/a.gz", "/second/a.gz", "/first/b.gz"]


def test_what_happened_at_each_address_is_said(places, server):
    server.answers = [refused(403), truncated]
    message = refusal(source(f"{server.url}/first", mirrors=(f"{server.url}/second", NOWHERE)))
    assert f"{server.url}/first/a.gz: 403 Forbidden; {server.url}/second/a.gz: the connection broke off" in message
    assert f"; {NOWHERE}/a.gz: " in message


@pytest.mark.parametrize("mirror", ["", "/", "/tiny"])
def test_a_mirror_holds_the_files_or_their_folder(places, server, mirror):
    server.answers = [lambda request, content: (whole if "/tiny/" in request.path else refused(404))(request, content)]
    assert_whole(locate(source(), mirror=server.url + mirror), places / "cache/tiny")


def test_a_mirror_takes_the_place_of_the_authors(places, server):
    server.answers = [refused(404)]
    assert NOWHERE not in refusal(source(), mirror=server.url)


@pytest.mark.parametrize("folder", ["disk", "disk/tiny"])
def test_a_mirror_may_be_a_folder(places, folder):
    put(places / "disk/with a space" / folder)
    for name, content in CONTENT.items():
        (places / "disk/with a space" / folder / name).write_bytes(content)
    assert_whole(locate(source(), mirror=(places / "disk/with a space/disk").as_uri()), places / "cache/tiny")


def test_a_folder_without_the_files_is_no_mirror(places):
    mirror = (places / "disk").as_uri()
    assert f"{mirror}/tiny/a.gz: no such file; {mirror}/a.gz: no such file" in refusal(source(), mirror=mirror)


@pytest.mark.parametrize("mirror", ["ftp://there", "there/tiny", "/there", "file://there/tiny", "http:///there", ""])
def test_an_address_of_another_kind_is_no_mirror(places, mirror):
    assert f"expected a mirror as http://..., https://... or file:///FOLDER; got {mirror!r}" in refusal(source(), mirror=mirror)


def test_a_file_without_a_published_checksum_is_taken_as_it_comes_but_never_continued(places, server):
    server.answers = [truncated, ranged]
    unknown = source(server.url, dict.fromkeys(CONTENT))
    assert_whole(locate(unknown), places / "cache/tiny")
    assert [asked for _, asked in server.requested] == [None, None, None]
    assert verified(unknown, "a.gz", places / "cache/tiny/a.gz") is None


def test_checksums_may_be_sha256(places, server):
    checksums = {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in CONTENT.items()}
    assert_whole(locate(source(server.url, checksums)), places / "cache/tiny")
    assert "sha256:000" in refusal(source(server.url, {"a.gz": "sha256:" + "0" * 64, "c.gz": None}))


def test_a_file_is_stored_as_it_lies_on_the_server(places, server):
    """Servers that call a .gz an encoding of what is in it would have every client decompress it."""
    packed = gzip.compress(b"digits")

    def labelled(request, _):
        request.begin(200, len(packed), **{"Content-Encoding": "gzip"})
        request.wfile.write(packed)

    server.answers = [labelled]
    found = locate(source(server.url, {"a.gz": hashlib.md5(packed).hexdigest()}))
    assert found["a.gz"].read_bytes() == packed


def test_a_cache_that_cannot_be_made_is_named(places, server):
    (places / "cache").write_text("a file")
    message = refusal(source(server.url))
    assert f"Not a directory: '{places}/cache/tiny'" in message
    assert server.requested == []


@pytest.fixture
def somebody(monkeypatch):
    """A folder of its own that may be read and not written, seen by one who is not the administrator."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        administrator = os.geteuid() == 0
        if administrator:
            os.seteuid(65534)
        yield Path(folder)
        if administrator:
            os.seteuid(0)
        os.chmod(folder, 0o755)


def test_a_read_only_cache_is_named(somebody, server, monkeypatch):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(sources, "_cache", lambda: somebody / "cache")
    assert f"Permission denied: '{somebody}/cache" in refusal(source(server.url))
    monkeypatch.setattr(sources, "_cache", lambda: somebody)
    assert f"Permission denied: '{somebody}/tiny" in refusal(source(server.url))
    assert server.requested == []


LOCATE = """
from pyrovae.data.sources import Source, locate
source = Source("tiny", ("tiny",), {checksums!r}, {url!r})
print("ready", flush=True)
print(*locate(source).values())
"""


def process(server, home):
    """A process that wants the files, with a cache of its own below its home."""
    environment = {key: value for key, value in os.environ.items() if key not in (DATA_VARIABLE, "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", LOCATE.format(checksums=CHECKSUMS, url=server.url)]
    return subprocess.Popen(command, env=environment | {"HOME": str(home)}, stdout=subprocess.PIPE, text=True)


def test_of_two_processes_that_want_the_same_files_one_downloads_them(tmp_path, server):
    both_ready = threading.Event()

    def slow(request, content):
        request.begin(200, len(content))
        request.wfile.write(content[:HALF])
        request.wfile.flush()
        both_ready.wait(60)
        server.over.wait(0.2)
        request.wfile.write(content[HALF:])

    server.answers = [slow]
    with process(server, tmp_path) as first, process(server, tmp_path) as second:
        assert [each.stdout.readline() for each in (first, second)] == ["ready\n"] * 2
        both_ready.set()
        printed = [each.communicate(timeout=60)[0] for each in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert printed[0] == printed[1]
    paths = [Path(path) for path in printed[0].split()]
    assert_whole({path.name: path for path in paths}, paths[0].parent)
    assert tmp_path in paths[0].parents
    assert [path for path, _ in server.requested] == ["/a.gz", "/b.gz"]


def test_a_killed_process_leaves_nothing_that_is_found_and_the_next_one_goes_on(places, server, monkeypatch):
    server.answers = [stalled_halfway, ranged]
    with process(server, places) as killed:
        while not (arrived := [path for path in places.rglob("a.gz.part") if path.stat().st_size]):
            assert killed.poll() is None
        killed.kill()
        killed.communicate()
    monkeypatch.setattr(sources, "_cache", lambda: arrived[0].parent.parent)
    assert not find(source())
    found = locate(source(server.url))
    assert {name: path.read_bytes() for name, path in found.items()} == CONTENT
    assert server.requested[1][0] == "/a.gz"
    assert server.requested[1][1].startswith("bytes=")


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
    assert verified(published, name, tmp_path / on_disk) is whole


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match=f"{tmp_path}/x: expected a file that can be read; got Is a directory"):
        verified(source(checksums={"x": "0" * 32}), "x", tmp_path / "x")


SOURCES = [each for each in vars(originals).values() if isinstance(each, Source)]


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
        assert verified(each, name, path)
        plain = tmp_path / Path(name).stem
        plain.write_bytes(gzip.decompress(path.read_bytes()))
        assert verified(each, name, plain)


@needs_real_files
def test_mnist_in_torchvisions_layout_and_never_as_fashion(places):
    raw = places / "root/MNIST/raw"
    raw.mkdir(parents=True)
    for name in originals.MNIST.checksums:
        with gzip.open(Path(REAL) / "mnist" / name) as packed, (raw / name[:-3]).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    before = sorted(raw.iterdir())
    assert len(load_dataset("mnist", places / "root").train) == 60_000
    assert sorted(raw.iterdir()) == before
    with pytest.raises(InputError, match="dataset 'fashion-mnist'"):
        locate(replace(originals.FASHION_MNIST, address=NOWHERE, mirrors=()), raw)


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
