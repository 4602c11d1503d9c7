"""A real server of two small files that can misbehave, and the source that they are of."""

import hashlib
import http.server
import re
import threading
from pathlib import Path

import pytest

from pyrovae.data.published_files.sources import Source, locate
from pyrovae.errors import InputError

NOWHERE = "http://127.0.0.1:9"  # the discard port, where nothing listens: refused at once
CONTENT = {name: f"content of {name} ".encode() * 60_000 for name in ("a.gz", "b.gz")}
CHECKSUMS = {name: hashlib.md5(content).hexdigest() for name, content in CONTENT.items()}
HALF = len(CONTENT["a.gz"]) // 2


def source(address=NOWHERE, checksums=CHECKSUMS, **values):
    return Source("tiny", ("tiny", "Tiny/raw"), checksums, address, **values)


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"content of " + name.encode())


def refusal(*arguments, **keywords):
    with pytest.raises(InputError) as caught:
        locate(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


class FileServer(http.server.ThreadingHTTPServer):
    """Serves ``CONTENT`` at any path, on a thread of its own; answers each request as ``answers`` say, the last for ever."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requested, self.over = [whole], [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def __exit__(self, *error):
        self.over.set()
        self.shutdown()
        super().__exit__(*error)
