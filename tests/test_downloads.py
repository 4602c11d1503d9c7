"""Files are downloaded whole or not at all: real servers, real processes."""

import gzip
import hashlib
import http
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from file_server import (
    CHECKSUMS,
    CONTENT,
    HALF,
    NOWHERE,
    put,
    ranged,
    refusal,
    refused,
    source,
    stalled,
    stalled_halfway,
    truncated,
    whole,
)

from pyrovae.data.published_files import sources
from pyrovae.data.published_files.sources import DATA_VARIABLE, find, is_original, locate


def assert_whole(found, folder):
    assert found == {name: folder / name for name in CONTENT}
    assert {name: path.read_bytes() for name, path in found.items()} == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == [".lock", *CONTENT]


def test_a_download_goes_into_the_cache_and_says_nothing_by_itself(places, server, capfd):
    assert_whole(locate(source(server.url), places / "root"), places / "cache/tiny")
    assert not (places / "root").exists()
    assert len(locate(source(NOWHERE))) == 2, "they are found from now on"
    assert capfd.readouterr() == ("", "")


def test_progress_is_told_as_it_arrives(places, server):
    told = []
    server.answers = [truncated, ranged]
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


def range_unasked(request, content):
    request.begin(206, len(content), **{"Content-Range": f"bytes 5-{len(content) + 4}/{len(content) + 5}"})
    request.wfile.write(content)


def test_a_range_that_does_not_continue_the_file_is_not_taken(places, server):
    server.answers = [range_unasked]
    assert "the file there does not continue what had arrived" in refusal(source(server.url))
    server.answers = [truncated, range_unasked, whole]
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
    assert is_original(unknown, "a.gz", places / "cache/tiny/a.gz") is None


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
from pyrovae.data.published_files.sources import Source, locate
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
