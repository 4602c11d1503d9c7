"""What is kept between processes: bounded, whole or not there, trusted only where nobody else can write. Real processes."""

import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from pyrovae.engine import compilation, matmul_kernels
from pyrovae.engine.cache import DEFAULT_LIMIT, LIMIT_VARIABLE, SharedFolder, limit_in_bytes, processor
from pyrovae.engine.capture import capture
from pyrovae.engine.compilation import compile_graph, time_to_compile

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives files to another user")
HEAD = "import sys; from pathlib import Path; from pyrovae.engine.cache import SharedFolder; "


def process(code, *arguments, **options):
    """Started, not waited for."""
    command = [sys.executable, "-c", HEAD + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def output(started):
    out, error = started.communicate(timeout=300)
    assert started.returncode == 0, error
    return out.strip()


@pytest.fixture
def folder(tmp_path):
    return SharedFolder(tmp_path / "kept", limit=10_000)


def names(folder):
    return sorted(path.name for path in folder.path.iterdir())


def test_what_is_written_is_read_by_the_next_process_and_by_nobody_else(folder):
    folder.write("a", b"content")
    assert output(process("print(SharedFolder(Path(sys.argv[1]), 10_000).read('a'))", folder.path)) == "b'content'"
    assert (folder.path.stat().st_mode & 0o777, (folder.path / "a").stat().st_mode & 0o777) == (0o700, 0o600)
    assert folder.holds("a")
    assert not folder.holds("b")
    assert folder.read("b") is None


def test_the_least_recently_used_goes_first(folder):
    for number, name in enumerate("abcd"):
        folder.write(name, bytes(2400))
        os.utime(folder.path / name, (number, number))
    folder.read("a")
    folder.write("e", bytes(2400))
    assert names(folder) == ["a", "c", "d", "e"]
    folder.write("f", bytes(9000))
    assert names(folder) == ["f"]
    folder.write("g", bytes(10_001))
    assert names(folder) == ["f"], "what is larger than all together is not kept"


def test_nothing_is_kept_where_nothing_may_be(tmp_path):
    folder = SharedFolder(tmp_path / "kept", limit=0)
    folder.write("a", b"content")
    assert not folder.path.exists()
    assert (folder.read("a"), folder.holds("a")) == (None, False)


HAMMER = """
import random
folder, seed = SharedFolder(Path(sys.argv[1]), 50_000), int(sys.argv[2])
random.seed(seed)
for _ in range(150):
    name = random.choice('abcdefgh')
    if random.random() < 0.5:
        folder.write(name, (name + str(seed)).encode() * random.randint(1, 5000))
    elif (content := folder.read(name)) is not None:
        first = content[:2].decode()
        assert first[0] == name and content == first.encode() * (len(content) // 2), content[:99]
"""


def test_many_processes_at_once_read_whole_files_and_stay_within_the_limit(folder):
    running = [process(HAMMER, folder.path, seed) for seed in range(1, 7)]
    assert [output(each) for each in running] == [""] * 6
    folder = SharedFolder(folder.path, 50_000)
    folder.write("a", b"a1")
    assert sum(path.stat().st_size for path in folder.path.iterdir()) <= 50_000
    assert not any(name.startswith(".") for name in names(folder))


def test_a_process_that_is_killed_leaves_whole_files_and_its_remains_are_removed(folder):
    """At five random moments, of which the seed is fixed and the moment is not."""
    random.seed(0)
    endless = (
        "folder = SharedFolder(Path(sys.argv[1]), 10**8)\nprint('', flush=True)\nwhile True: folder.write('a', bytes(10**6))"
    )
    folder = SharedFolder(folder.path, 10**8)
    for _ in range(5):
        writing = process("\n" + endless, folder.path)
        writing.stdout.readline()
        time.sleep(random.uniform(0.02, 0.2))
        writing.send_signal(signal.SIGKILL)
        writing.communicate()
        assert folder.read("a") in (None, bytes(10**6))
    remains = folder.path / ".writing-of-the-dead"
    remains.write_bytes(b"half")
    folder.write("b", b"now")
    assert remains.exists(), "another process may be writing it"
    os.utime(remains, (0, 0))
    folder.write("b", b"later")
    assert not remains.exists()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_that_others_can_write_to_is_not_used(folder, mode, caplog):
    folder.write("a", b"content")
    folder.path.chmod(mode)
    assert (folder.read("a"), folder.holds("a")) == (None, False)
    folder.write("b", b"content")
    assert names(folder) == ["a"]
    told = [record.message for record in caplog.records]
    assert told == [f"nothing is kept in {folder.path}, to which other users could write: 'chmod 700' it, or delete it"]
    folder.path.chmod(0o755)
    assert folder.read("a") == b"content"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_to_is_not_read(folder, mode, caplog):
    folder.write("a", b"content")
    (folder.path / "a").chmod(mode)
    assert (folder.read("a"), folder.holds("a")) == (None, False)
    assert f"not read: another user could have written {folder.path / 'a'}: delete it" in caplog.text
    folder.write("a", b"ours")
    assert folder.read("a") == b"ours"


@AS_ROOT
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_belongs_to_another_user_is_not_read(folder, what):
    folder.write("a", b"content")
    os.chown(folder.path if what == "folder" else folder.path / "a", NOBODY, NOBODY)
    assert (folder.read("a"), folder.holds("a")) == (None, False)


def test_links_are_not_followed(folder, tmp_path):
    folder.write("a", b"content")
    (folder.path / "b").symlink_to(folder.path / "a")
    assert (folder.read("b"), folder.holds("b")) == (None, False)
    (tmp_path / "link").symlink_to(folder.path)
    assert SharedFolder(tmp_path / "link", 10_000).read("a") is None


def test_damage_of_every_kind_is_seen(folder):
    folder.write("a", b"some content of a file")
    path = folder.path / "a"
    whole = path.read_bytes()
    damaged = [whole[:end] for end in range(len(whole))] + [whole + b"\0", b"\0" * len(whole), b"{}" * 99]
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    for content in damaged:
        path.write_bytes(content)
        assert folder.read("a") is None
    folder.write("a", b"anew")
    assert folder.read("a") == b"anew"


@pytest.mark.parametrize("place", ["file", "/proc/pyrovae", "/dev/null/kept"])
def test_a_place_that_cannot_be_written_to_stops_nothing(place, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    folder = SharedFolder(tmp_path / place / "kept", 10_000)
    folder.write("a", b"content")
    assert "is not kept for the next process: " in caplog.text
    assert (folder.read("a"), folder.holds("a")) == (None, False)


def test_a_full_disk_stops_nothing_and_keeps_no_part(folder):
    """A limit of the size of files fails a write in its middle, as a full disk does."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
    code += "folder = SharedFolder(Path(sys.argv[1]), 10_000); folder.write('a', bytes(5000)); print(folder.read('a'))"
    full = process(code, folder.path)
    out, error = full.communicate(timeout=60)
    assert (full.returncode, out.strip()) == (0, "None"), error
    assert "a is not kept for the next process: [Errno 27] File too large" in error
    assert names(folder) == []


@AS_ROOT
def test_a_cache_of_roots_that_can_only_be_read_serves_others(folder, tmp_path):
    folder.write("a", b"content")
    for path in (tmp_path, *[each for each in tmp_path.parents if Path(tempfile.gettempdir()) in each.parents], folder.path):
        path.chmod(0o755)
    (folder.path / "a").chmod(0o644)
    source = Path(matmul_kernels.__file__).parent / "cache.py"
    code = f"import os; os.setuid({NOBODY}); folder = SharedFolder(Path(sys.argv[1]), 10_000); folder.write('b', b'c'); "
    assert source.exists()
    assert output(process(code + "print(folder.read('a'), folder.holds('b'))", folder.path)) == "b'content' False"


@pytest.mark.parametrize(
    ("told", "limit"), [("", DEFAULT_LIMIT), ("0", 0), ("123", 123), ("1 GB", DEFAULT_LIMIT), ("-1", DEFAULT_LIMIT)]
)
def test_the_limit_is_a_variable(told, limit, monkeypatch, caplog):
    monkeypatch.setenv(LIMIT_VARIABLE, told)
    assert limit_in_bytes() == limit
    assert (f"expected a number of bytes in {LIMIT_VARIABLE}; got {told!r}" in caplog.text) == (told in ("1 GB", "-1"))


def test_keys_differ_by_processor_and_by_the_number_of_threads(home):
    graph, x = capture(lambda x: [x + 1], [torch.zeros(3)]), [torch.zeros(3)]
    one = compilation._fingerprint(graph.module, x)
    assert compilation._fingerprint(graph.module, x) == one
    assert processor() in matmul_kernels.machine()
    if Path("/proc/cpuinfo").exists():
        assert "flags" in processor() or "Features" in processor()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert compilation._fingerprint(graph.module, x) != one
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("medium")
        assert compilation._fingerprint(graph.module, x) != one
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
    assert compilation._fingerprint(graph.module, x) == one


def test_answers_of_two_processes_are_both_kept_and_nonsense_is_not_believed(home):
    folder = SharedFolder(home / "products", 2**20)
    one, other = matmul_kernels._Answers(folder), matmul_kernels._Answers(folder)
    one.prefer_onednn(((4, 4), (4, 1)), ((4, 4), (4, 1)))
    other.prefer_onednn(((8, 4), (4, 1)), ((4, 4), (4, 1)))
    one.save()
    other.save()
    (name,) = names(folder)
    assert len(matmul_kernels._Answers(folder)._known) == 2
    for nonsense in (b"[]", b"{", b"\xff", b"null"):
        folder.write(name, nonsense)
        answers = matmul_kernels._Answers(folder)
        assert answers.prefer_onednn(((4, 4), (4, 1)), ((4, 4), (4, 1))) in (True, False)


COMPILE = """
import os, torch
from pyrovae.engine.capture import capture
from pyrovae.engine.compilation import compile_graph, time_to_compile
x = torch.linspace(-1, 1, 12).reshape(3, 4)
graph = capture(lambda x: [torch.tanh(x @ x.t()) + 1], [x])
settings = [torch.distributions.Distribution._validate_args, torch.get_num_threads(), torch.is_grad_enabled()]
print(time_to_compile(graph, [x])[1])
torch.testing.assert_close(compile_graph(graph, [x])([x])[0], graph([x])[0])
assert settings == [torch.distributions.Distribution._validate_args, torch.get_num_threads(), torch.is_grad_enabled()]
"""


@pytest.mark.slow
def test_a_graph_is_compiled_once_for_all_processes(tmp_path):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    told = [output(process("\n" + COMPILE, env=environment)) for _ in range(2)]
    assert told == ["compile", "load what an earlier process compiled"]
    assert len(list((tmp_path / "pyrovae/compiled").iterdir())) == 1


def test_what_is_damaged_or_not_trusted_is_compiled_anew(home):
    x = torch.randn(3, 4)
    graph = capture(lambda x: [torch.tanh(x) + 3], [x])

    def holds():
        torch.testing.assert_close(compile_graph(graph, [x])([x])[0], graph([x])[0])
        return time_to_compile(graph, [x])[1]

    assert holds().startswith("load")
    (path,) = (home / "compiled").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert holds().startswith("load")
    assert len(path.read_bytes()) >= len(whole) - 1
    assert compilation._cache().read(path.name) is not None, "what was damaged was written anew"
    # Whole as a file, and nothing that torch could load.
    compilation._cache().write(path.name, b"nonsense")
    assert holds().startswith("load")
    assert compilation._cache().read(path.name) != b"nonsense"
    path.parent.chmod(0o777)
    assert holds() == "compile"


def test_a_compilation_tells_how_long_the_next_one_takes_on_this_machine(home, monkeypatch):
    x = torch.randn(3, 4)
    graphs = [capture(function, [x]) for function in (lambda x: [torch.tanh(x) + 4], lambda x: [x.exp() + 5])]
    expected = compilation.time_to_compile_anew(graphs[1])
    compile_graph(graphs[0], [x])
    assert time_to_compile(graphs[1], [x]) == (expected, "compile"), "too short to say"
    monkeypatch.setattr(compilation, "LEAST_SECONDS", 0.0)
    (home / "compiled").rename(home / "elsewhere")
    start = time.perf_counter()
    compile_graph(graphs[0], [x])
    seconds = time.perf_counter() - start
    assert 0.2 * seconds < time_to_compile(graphs[1], [x])[0] <= seconds
    compilation._paces().write(compilation._name_of_pace([x]), b"nonsense")
    assert time_to_compile(graphs[1], [x])[0] == expected


def test_what_cannot_be_kept_is_compiled_all_the_same(home, caplog):
    home.write_text("no folder")
    x = torch.randn(3, 4)
    graph = capture(lambda x: [torch.tanh(x) + 2], [x])
    assert time_to_compile(graph, [x])[1] == "compile"
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(compile_graph(graph, [x])([x])[0], graph([x])[0])
    assert "is not kept for the next process" in caplog.text


def test_operations_that_torch_cannot_write_down_are_compiled_all_the_same(home, caplog):
    x = torch.eye(3) * 4
    graph = capture(lambda x: [torch.linalg.cholesky(x) + 1], [x])
    for _ in range(2):
        torch.testing.assert_close(compile_graph(graph, [x])([x])[0], graph([x])[0])
    assert "the compiled graph is not kept for the next process" in caplog.text


@pytest.mark.parametrize("words", ["file too short", "invalid ELF header"])
def test_a_library_that_is_not_whole_yet_is_waited_for_and_a_torn_one_is_removed(words, tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, "PAUSES_SECONDS", (0.0, 0.0))
    library = tmp_path / "code.main.so"

    def linked_at_call(number):
        tries = iter(range(1, 10))

        def make():
            if next(tries) < number and library.exists():
                raise RuntimeError(f"ImportError: {library}: {words}")
            return "loaded"

        return make

    library.write_bytes(b"to")
    assert compilation._with_whole_libraries(linked_at_call(2)) == "loaded"
    assert library.exists(), "another process was writing it"
    assert compilation._with_whole_libraries(linked_at_call(9)) == "loaded"
    assert not library.exists(), "nobody was"
    with pytest.raises(ZeroDivisionError):
        compilation._with_whole_libraries(lambda: 1 / 0)


TORN = """
import torch
from pathlib import Path
from torch._inductor.codecache import cache_dir
from pyrovae.engine.capture import capture
from pyrovae.engine.compilation import compile_graph
x = torch.linspace(-1, 1, 12).reshape(3, 4)
graph = capture(lambda x: [torch.tanh(x + 4) * 2], [x])
torch.testing.assert_close(compile_graph(graph, [x])([x])[0], graph([x])[0])
print(*Path(cache_dir()).rglob("*.main.so"), sep=";")
"""


@pytest.mark.slow
def test_a_library_that_a_death_left_torn_is_compiled_anew(tmp_path):
    """Torch's own cache keeps it under a name that it trusts."""
    homes = [
        os.environ | {"XDG_CACHE_HOME": str(tmp_path / name), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "torch")}
        for name in "ab"
    ]
    libraries = [Path(each) for each in output(process("\n" + TORN, env=homes[0])).split(";")]
    assert libraries
    for each in libraries:
        each.write_bytes(each.read_bytes()[:10])
    assert output(process("\n" + TORN, env=homes[1]))
