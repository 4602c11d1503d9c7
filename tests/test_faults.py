"""Every call by which a run reaches the disk fails in turn, in a process of its own; what is left is gone on with.

The processes are forks of one that has trained once: what a first training imports is imported once.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from resumption import assert_same, remains

# From places on the standard input, a short training each whose so many-th call of the system ends the process, fails, or is
# torn; then the same folder once more without a fault. A line of JSON for each: exit codes, and what was said.
FAULTS = """
import errno, json, os, sys, tempfile
sys.path.insert(0, {tests!r})
from pathlib import Path
from pyrovae.errors import InputError
from pyrovae.experiments import files
from pyrovae.experiments.training import train
from resumption import FAULTY, grey

class Faulty(files.SystemCalls):
    def __init__(self, way, place):
        self._way, self._place, self._made = way, place, 0

    def __getattribute__(self, name):
        call = super().__getattribute__(name)
        return call if name.startswith("_") else lambda *args: self._fault(name, call, *args)

    def _fault(self, name, call, *args):
        self._made += 1
        if self._made != self._place:
            return call(*args)
        if self._way == "tear" and name == "write":
            descriptor, content = args
            os.write(descriptor, bytes(content)[: len(content) // 2])
        if self._way in ("die", "tear"):
            os._exit(7)
        raise OSError(getattr(errno, self._way), os.strerror(getattr(errno, self._way)))

def forked(folder, way, place):
    said = tempfile.TemporaryFile("w+")
    if (child := os.fork()) == 0:
        files.calls = Faulty(way, place)
        code = 0
        try:
            train(FAULTY, folder, dataset=grey(), engine="eager", checkpoint_every=0.0)
            said.write(str(files.calls._made))
        except InputError as error:
            code = 2
            said.write(str(error))
        except BaseException as error:
            code = 1
            said.write(repr(error))
        said.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said.seek(0)
    return code, said.read()

with tempfile.TemporaryDirectory() as once:
    train(FAULTY, Path(once) / "run", dataset=grey(), engine="eager")
for line in sys.stdin:
    folder, way, place = json.loads(line)
    first = forked(Path(folder), way, place)
    print(json.dumps([first, forked(Path(folder), "none", 0)]), flush=True)
"""
WAYS = ("die", "tear", "ENOSPC", "EIO")


@pytest.fixture(scope="module")
def trained():
    """Trains in a folder with a fault at a call, and once more without; the exit codes, and what was said."""
    code, environment = FAULTS.format(tests=str(Path(__file__).parent)), os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) as process:

        def train(folder, way="none", place=0):
            print(json.dumps([str(folder), way, place]), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield train
        process.stdin.close()


@pytest.fixture(scope="module")
def straight(trained, tmp_path_factory):
    """What an undisturbed training leaves, and by how many calls."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    (code, said), _ = trained(folder)
    assert code == 0, said
    return remains(folder), int(said)


def survives(trained, way, place, expected, folder):
    """The training goes on to the same end; a fault that does not kill is told in one line."""
    (code, said), again = trained(folder, way, place)
    assert code == (7 if way in ("die", "tear") else 2), (way, place, said)
    if code == 2:
        assert "expected a folder to write the run into; got " in said, (way, place)
        assert len(said.splitlines()) == 1, (way, place, said)
    assert again[0] == 0, (way, place, again)
    assert_same(remains(folder), expected, f"{way} at call {place}")


@pytest.mark.slow
def test_a_training_makes_many_calls(straight):
    assert straight[1] > 100


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_each_call_fails_in_one_way_and_is_survived(way, trained, straight, tmp_path):
    expected, calls = straight
    for place in range(1 + list(WAYS).index(way), calls + 1, len(WAYS)):
        survives(trained, way, place, expected, tmp_path / f"{place}")


@pytest.mark.hours
@pytest.mark.parametrize("way", WAYS)
def test_each_call_fails_in_every_way_and_is_survived(way, trained, straight, tmp_path):
    expected, calls = straight
    for place in range(1, calls + 1):
        survives(trained, way, place, expected, tmp_path / f"{place}")
