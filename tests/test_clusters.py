"""A sweep on engines that others keep: a real Ray cluster on the loopback interface, and SLURM's array as submitit makes it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrovae.errors import InputError
from pyrovae.experiments.run import Run
from pyrovae.experiments.sweeping import backends
from pyrovae.experiments.sweeping.grid import Grid
from pyrovae.experiments.sweeping.sweep import sweep

pytestmark = pytest.mark.hours


@pytest.fixture
def grid(tmp_path):
    bits = np.random.default_rng(0).random((150, 3, 3)) > np.linspace(0.2, 0.8, 9).reshape(3, 3)
    np.savez(tmp_path / "a.npz", train=bits[:100], test=bits[100:])
    small = {"latent_sizes": (2,), "hidden_sizes": (4,), "batch_size": 50, "warmup_epochs": 0.0, "epochs": 60}
    return Grid(
        recipe="activity-vae",
        settings={"dataset": str(tmp_path / "a.npz"), **small},
        vary={"learning_rate": (1e-3, 1e-2)},
        seeds=2,
    )


def assert_equal(one, other):
    for ours, theirs in zip(one.members, other.members, strict=True):
        states = [Run.load(each.folder).vae.state_dict() for each in (ours, theirs)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), ours.folder.name


def begun(folder):
    """The first run folder that has an epoch in its history."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if found := list(folder.glob("*/history.jsonl")):
            return found[0].parent
        time.sleep(0.05)
    raise AssertionError("no member has begun")


def started(*arguments):
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        *arguments,
        "--block",
        "--disable-usage-stats",
        "--num-cpus=1",
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


@pytest.fixture
def ray_cluster(monkeypatch):
    """A head and a worker with one processor each, as processes of their own."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install ray")
    address = "127.0.0.1:26379"
    head = started(
        "--head", "--port=26379", "--node-ip-address=127.0.0.1", "--include-dashboard=false", "--min-worker-port=27000"
    )
    time.sleep(15)
    worker = started(f"--address={address}", "--node-ip-address=127.0.0.1")
    monkeypatch.setenv("RAY_ADDRESS", address)
    deadline = time.monotonic() + 60
    ray.init(address=address, log_to_driver=False)
    while len([each for each in ray.nodes() if each["Alive"]]) < 2 and time.monotonic() < deadline:
        time.sleep(1)
    assert len([each for each in ray.nodes() if each["Alive"]]) == 2
    yield head, worker
    ray.shutdown()
    for process in (worker, head):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def test_a_sweep_on_ray_ends_though_a_worker_dies(grid, ray_cluster, tmp_path):
    _, worker = ray_cluster

    def kill():
        begun(tmp_path / "ray")
        os.killpg(worker.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = sweep(grid, tmp_path / "ray", num_samples=5, backend="ray", workers=2, engine="graph")
    killer.join()
    assert not found.failures
    assert_equal(found, sweep(grid, tmp_path / "here", num_samples=5, workers=2, engine="graph"))


def test_a_sweep_by_submitit_is_requeued_by_a_signal(grid, monkeypatch, tmp_path):
    """Its local executor in place of a scheduler: SIGUSR2 is what a cluster sends before it stops a job."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install submitit")
    monkeypatch.setitem(backends.BACKENDS, "slurm", partial(backends._slurm, cluster="local"))

    def interrupt():
        os.kill(json.loads((begun(tmp_path / "slurm") / ".lock.json").read_text())["process"], signal.SIGUSR2)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    found = sweep(grid, tmp_path / "slurm", num_samples=5, backend="slurm", workers=2, engine="graph")
    interrupter.join()
    assert not found.failures
    logs = "".join(each.read_text() for each in (tmp_path / "slurm/.submitit").glob("*_log.err"))
    assert "Caught signal SIGUSR2" in logs
    assert_equal(found, sweep(grid, tmp_path / "here", num_samples=5, workers=2, engine="graph"))


def test_an_array_is_what_would_be_submitted_to_slurm(grid, monkeypatch, tmp_path):
    submitit = pytest.importorskip("submitit", reason="submitit is not installed: pip install submitit")
    with pytest.raises(InputError, match="expected a machine that submits to SLURM; this one has no sbatch"):
        sweep(grid, tmp_path / "none", backend="slurm")
    # A program of sbatch's name that keeps what it is given and answers as sbatch does.
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun"):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/submitted.sh\necho "Submitted batch job 4711"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(submitit.helpers, "as_completed", lambda jobs: [])
    sweep(grid, tmp_path / "s", backend="slurm", workers=3, threads=2)
    script = (tmp_path / "submitted.sh").read_text()
    for line in ("#SBATCH --array=0-3%3", "#SBATCH --cpus-per-task=2", "#SBATCH --time=1440", "#SBATCH --job-name=pyrovae-s"):
        assert line in script, script
    assert "--signal=USR2@" in script
