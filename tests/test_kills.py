"""A real ``pyrovae fit`` is killed at random moments, again and again, and ends as if it had not been."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from resumption import assert_same, remains

FIT = [sys.executable, "-c", "from pyrovae.cli import main; main()", "fit"]
SETTINGS = {
    "ladder": "--guide ladder --prior vamp --num-components 5 --latent-sizes 3,2 --hidden-sizes 16,8 --average-decay 0.9 "
    "--engine graph",
    "iwae": "--objective iwelbo --num-particles 3 --latent-sizes 3 --hidden-sizes 16 --engine graph",
    "compiled": "--latent-sizes 3 --hidden-sizes 16 --batch-size 250 --engine compiled",
}


def fit(folder, name, epochs=5):
    """A process that trains, with a checkpoint after every step."""
    arguments = f"{SETTINGS[name]} --epochs {epochs} --samples 2 --checkpoint-every 0 --json --output {folder}".split()
    return subprocess.Popen(
        [*FIT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def ended(process):
    out, error = process.communicate(timeout=600)
    assert process.returncode == 0, error.decode()
    return out


def begun(folder, process):
    """Wait until the folder is there: what comes before it writes nothing."""
    while process.poll() is None and not (folder / "recipe.json").exists():
        time.sleep(0.02)


def killed(name, kills, tmp_path):
    """Kill at moments that are random between the first write and the time that the rest would have taken."""
    ended(fit(tmp_path / "straight", name))
    start, folder, done = time.monotonic(), tmp_path / "killed", 0
    generator, length = random.Random(0), 4.0
    while done < kills:
        process = fit(folder, name)
        begun(folder, process)
        time.sleep(generator.uniform(0, length))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            done += 1
        process.communicate()
        if process.returncode == 0:
            # Ended between two kills: from the start again, after a comparison.
            assert_same(remains(folder), remains(tmp_path / "straight"), f"{name} after {done} kills")
            folder = tmp_path / f"killed-{done}"
    ended(fit(folder, name))
    assert_same(remains(folder), remains(tmp_path / "straight"), f"{name} after {done} kills")
    print(f"{name}: {done} kills in {time.monotonic() - start:.0f} s")


@pytest.mark.slow
def test_a_training_that_is_killed_ends_as_if_it_had_not_been(tmp_path):
    killed("ladder", 2, tmp_path)


@pytest.mark.hours
@pytest.mark.parametrize(("name", "kills"), [("ladder", 40), ("iwae", 40), ("compiled", 20)])
def test_a_training_that_is_killed_a_hundred_times_ends_as_if_it_had_not_been(name, kills, tmp_path):
    killed(name, kills, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_end_that_is_asked_for_is_an_exit_code_and_a_way_on(number, code, tmp_path):
    """While it trains: what comes before a checkpoint and after the last epoch has nothing to save."""
    folder = tmp_path / "run"
    process = fit(folder, "ladder", epochs=200)
    while not list(folder.glob("checkpoints/0*")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == code, error.decode()
    assert f"go on with 'pyrovae fit --resume {folder}'" in error.decode()
    assert "Traceback" not in error.decode()
