"""A sweep on engines that others keep: clusters of Ray and Dask on the loopback interface, and SLURM's array by submitit."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
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


def wait_until(happened, what, seconds=300):
    """The first true value of a call."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := happened():
            return found
        time.sleep(0.02)
    raise AssertionError(f"after {seconds} seconds there is still no {what}")


def epochs_in(folder):
    history = folder / "history.jsonl"
    return history.read_bytes().count(b"\n") if history.exists() else 0


def begun(folder):
    """The first run folder that has an epoch in its history."""
    return wait_until(lambda: [each for each in folder.glob("*") if epochs_in(each)], "epoch of a member")[0]


def session_of(process):
    try:
        return os.getsid(process)
    except ProcessLookupError:
        return None


def processes_in(session):
    found = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [process for process in found if session_of(process) == session]


def trained_in(session, folder):
    """The run folder that a process started by this test trains, after an epoch."""
    for path in folder.glob("*/.lock.json"):
        if epochs_in(path.parent) and session_of(json.loads(path.read_text())["process"]) == session:
            return path.parent
    return None


def kill_in_the_middle(worker, folder):
    """Kill a worker and all its processes when it trains a member; the epochs that this member had then."""
    member = wait_until(lambda: trained_in(worker.pid, folder), "member that the worker trains")
    end(worker)
    return epochs_in(member)


def end(engine, number=signal.SIGKILL):
    """Send a signal to all processes of an engine, and wait for its first."""
    for process in processes_in(engine.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
    engine.wait(60)


def started(log, *command):
    """The process of a command of its own session, and its log."""
    # Its processes find the jobs of this file.
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with log.open("w") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=environment)


def assert_ends_though_a_worker_dies(grid, worker, backend, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill_in_the_middle, worker, tmp_path / backend)
        found = sweep(grid, tmp_path / backend, num_samples=5, backend=backend, workers=2, engine="graph")
    assert 0 < killed.result() < grid.settings["epochs"]
    assert not found.failures
    assert len(found.evaluations()) == 4
    assert_equal(found, sweep(grid, tmp_path / "here", num_samples=5, workers=2, engine="graph"))


class Deadly:
    """A job whose process dies each time, or one of no time."""

    is_done = True
    threads = 1

    def __init__(self, dies):
        self.dies = dies

    def __call__(self):
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return ""


def assert_gives_up_only_the_deadly(backend, folder):
    outcomes = {}
    backends.run_all([Deadly(number == 1) for number in range(4)], backend, 2, folder, outcomes.__setitem__)
    assert outcomes == {0: "", 1: backends.DIED, 2: "", 3: ""}


def free_ports(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def ray_node(log, *arguments):
    """A node of Ray, started again where its agents were late: it gives up after 15 seconds, as on a busy machine."""
    spare = (
        "--num-cpus=1",
        "--object-store-memory=100000000",
        "--include-log-monitor=false",
        "--disable-usage-stats",
        "--block",
    )
    for _ in range(10):
        node = started(log, str(Path(sys.executable).with_name("ray")), "start", *arguments, *spare)
        wait_until(lambda process=node: "Ray runtime started" in log.read_text() or process.poll() is not None, "node of Ray")
        if node.poll() is None:
            return node
        end(node)
    raise AssertionError(log.read_text())


@pytest.fixture
def ray_worker(monkeypatch, tmp_path):
    """A worker of a Ray cluster, beside its head; each has a processor, and an address of the loopback interface."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install ray")
    (port,) = free_ports(1)
    address = f"127.0.0.2:{port}"
    nodes = []
    # Its sockets need a short path.
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        try:
            head = ("--head", f"--port={port}", "--node-ip-address=127.0.0.2", "--include-dashboard=false", "--no-monitor")
            nodes.append(ray_node(tmp_path / "head.log", *head, f"--temp-dir={temporary}"))
            nodes.append(ray_node(tmp_path / "worker.log", f"--address={address}", "--node-ip-address=127.0.0.3"))
            monkeypatch.setenv("RAY_ADDRESS", address)
            ray.init(log_to_driver=False, _node_ip_address="127.0.0.2")
            wait_until(lambda: len([each for each in ray.nodes() if each["Alive"]]) == 2, "second node")
            yield nodes[1]
        finally:
            ray.shutdown()
            for each in reversed(nodes):
                end(each)


def test_a_sweep_on_ray_ends_though_a_worker_dies(grid, ray_worker, tmp_path):
    assert_gives_up_only_the_deadly("ray", tmp_path)
    assert_ends_though_a_worker_dies(grid, ray_worker, "ray", tmp_path)


@pytest.fixture
def dask_worker(monkeypatch, tmp_path):
    """One of two workers of a Dask cluster on the loopback interface."""
    pytest.importorskip("distributed", reason="distributed is not installed: pip install distributed")
    (port,) = free_ports(1)
    address = f"tcp://127.0.0.1:{port}"
    dask = (sys.executable, "-m", "distributed.cli")
    engines = []
    try:
        scheduler = (f"{dask[2]}.dask_scheduler", "--host=127.0.0.1", f"--port={port}", "--no-dashboard")
        engines.append(started(tmp_path / "scheduler.log", *dask[:2], *scheduler))
        for name in ("one", "two"):
            worker = (f"{dask[2]}.dask_worker", address, "--host=127.0.0.1", "--nthreads=1", "--no-dashboard")
            engines.append(started(tmp_path / f"{name}.log", *dask[:2], *worker))
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
        yield engines[1]
    finally:
        for each in reversed(engines):
            end(each)


def test_a_sweep_on_dask_ends_though_a_worker_dies(grid, dask_worker, tmp_path):
    assert_gives_up_only_the_deadly("dask", tmp_path)
    assert_ends_though_a_worker_dies(grid, dask_worker, "dask", tmp_path)


def test_a_cluster_that_does_not_answer_is_a_line(grid, monkeypatch, tmp_path):
    dask = pytest.importorskip("dask", reason="dask is not installed: pip install distributed")
    pytest.importorskip("distributed", reason="distributed is not installed: pip install distributed")
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:9")
    short = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with (
        short,
        pytest.raises(InputError, match=r"expected a Dask cluster at \$DASK_SCHEDULER_ADDRESS; got no answer from 'tcp"),
    ):
        sweep(grid, tmp_path / "s", backend="dask", workers=2)


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
