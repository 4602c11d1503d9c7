"""One training in several processes, as torchrun starts them: the steps of one process, one run folder, and resuming."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrovae.engine.shared_draws import ShapesOfDraws, WholeDraws
from pyrovae.engine.shares import Share
from pyrovae.errors import CaptureError
from pyrovae.experiments.run import Run

HERE = Path(__file__).parent
# Batch norm over few rows makes rounding grow: in float32 it would be seen after a few dozen epochs.
FLOAT64 = HERE / "in_float64.py"


def launch(number, *arguments, **options):
    """Start a program in several processes on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(number), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, **options)


def one_process(*arguments):
    return subprocess.run([sys.executable, "-m", "pyrovae", *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    found = launch(2, HERE / "shared_steps.py", tmp_path / "curves.json")
    _, errors = found.communicate(timeout=900)
    assert found.returncode == 0, errors
    results = json.loads((tmp_path / "curves.json").read_text())
    assert "site 'w' has the shape (3,) for any number of them" in results.pop("global latent")
    assert "as the sum over 2 processes" in results.pop("subsampled plate")
    assert "the program writes statistics of its rows" in results.pop("statistics of rows")
    assert "the program draws by _standard_gamma" in results.pop("gamma noise")
    for name, (one, two) in results.items():
        np.testing.assert_allclose(two, one, rtol=1e-12, err_msg=name)
        assert len(set(one)) == 50, name


DRAWS = {
    "rand": lambda n: torch.rand(n, 5),
    "randn": lambda n: torch.randn(3, n, 5),
    "rand_like": lambda n: torch.rand_like(torch.empty(n, 5)),
    "normal of tensors": lambda n: torch.normal(torch.zeros(n, 7), torch.ones(n, 7)),
    "in place": lambda n: torch.empty(2, n, 5).normal_(),
    "uniform": lambda n: torch.empty(n, 17).uniform_(-1, 1),
    "exponential": lambda n: torch.empty(n, 5).exponential_(),
    "bits": lambda n: torch.bernoulli(torch.full((n, 6), 0.4)),
    "dropout": lambda n: torch.nn.functional.dropout(torch.ones(n, 6), 0.5),
    "folded": lambda n: torch.randn(3 * n, 5),
    "folded, of parameters": lambda n: torch.normal(
        torch.arange(n).repeat(3).unsqueeze(1).expand(3 * n, 5) * 100.0, torch.ones(3 * n, 5)
    ),
    "other signature": lambda n: torch.randint(9, (3,)) + torch.randperm(3),
    "one for all": lambda n: torch.randn(5, 8),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_rows_of_a_process_have_the_noise_of_the_whole_batch(name):
    draw, size, examples = DRAWS[name], 3, 12
    torch.manual_seed(0)
    with ShapesOfDraws() as found:
        whole = draw(examples)
    after = torch.rand(1)
    parts = []
    for rank in range(size):
        share = Share()
        share.rank, share.size = rank, size
        torch.manual_seed(0)
        with share.split(WholeDraws(found.shapes, examples)):
            parts.append(draw(examples // size))
        assert torch.equal(torch.rand(1), after)
    if name == "folded, of parameters":
        # A row has its own parameters: here its number in the process, where the whole batch has that in the batch.
        parts = [part + 100.0 * rank * (examples // size) for rank, part in enumerate(parts)]
    if name in ("one for all", "other signature"):
        assert all(torch.equal(part, whole) for part in parts)
    elif name.startswith("folded"):
        by_particle = [part.view(3, -1, 5) for part in parts]
        torch.testing.assert_close(torch.cat(by_particle, 1), whole.view(3, -1, 5), rtol=0, atol=1e-3)
    else:
        assert torch.equal(torch.cat(parts, -2), whole)


@pytest.mark.parametrize("number", [1, 3])
def test_other_draws_than_those_of_the_whole_batch_are_refused(number):
    share = Share()
    share.size = 2

    def run():
        with share.split(WholeDraws([torch.Size([8, 2])] * 2, 8)):
            for _ in range(number):
                torch.rand(4, 2)

    with pytest.raises(CaptureError, match="expected the draws of the whole batch; for the rows of one process the program"):
        run()


def test_rows_are_those_of_everything_as_long_as_the_batch():
    share = Share()
    share.rank, share.size = 1, 2
    x, y, other = torch.arange(8).view(4, 2), np.arange(4), torch.zeros(3)
    (rows, labels), kept = share.rows((x, y), {"other": other, "number": 4})
    assert rows.tolist() == [[4, 5], [6, 7]]
    assert labels.tolist() == [2, 3]
    assert kept["other"] is other
    with pytest.raises(ValueError, match="expected a batch that 2 processes can share evenly; got 3 examples"):
        share.rows((other,), {})


@pytest.fixture
def fit(tmp_path):
    """The arguments of a training of eighty epochs, of two layers with batch norm."""
    bits = np.random.default_rng(0).random((260, 3, 4)) > np.linspace(0.2, 0.8, 12).reshape(3, 4)
    np.savez(tmp_path / "a.npz", train=bits[:200], valid=bits[200:230], test=bits[230:])
    layers = ("--latent-sizes", "3,2", "--hidden-sizes", "6,4", "--batch-size", 40, "--epochs", 80, "--engine", "graph")
    return ("fit", "--recipe", "ladder", "--dataset", tmp_path / "a.npz", *layers, "--samples", 5, "--checkpoint-every", 0.2)


def losses(folder):
    return [row["loss_nats"] for row in Run.load(folder).history]


def wait_for_epochs(folder, number):
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        history = folder / "history.jsonl"
        if history.is_file() and len(history.read_text().splitlines()) >= number:
            return
        time.sleep(0.02)
    raise AssertionError(f"{folder} has not reached {number} epochs")


def processes_of(folder):
    """The numbers of the processes that torchrun started for a folder, by their rank."""
    found = {}
    for each in Path("/proc").iterdir():
        try:
            words = (each / "cmdline").read_bytes().split(b"\0")
            variables = (each / "environ").read_bytes().split(b"\0")
        except (OSError, PermissionError):
            continue
        if str(folder).encode() in words:
            found |= {int(v.removeprefix(b"RANK=")): int(each.name) for v in variables if v.startswith(b"RANK=")}
    return found


@pytest.mark.slow
def test_a_training_survives_the_death_of_any_of_its_processes(fit, tmp_path, float64):
    whole = subprocess.run([sys.executable, FLOAT64, *map(str, fit), "-o", tmp_path / "one"], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "two"
    for killed, epochs in ((1, 10), (0, 25)):
        training = launch(2, FLOAT64, *fit, "-o", folder)
        wait_for_epochs(folder, epochs)
        os.kill(processes_of(folder)[killed], signal.SIGKILL)
        _, errors = training.communicate(timeout=120)
        assert training.returncode != 0
        assert f"process {1 - killed} of 2 ends, since another process of its training has ended" in errors, errors
        assert f"fit --resume {folder}" in errors
    # It goes on in one process, is stopped there, and ends in two.
    alone = subprocess.Popen([sys.executable, FLOAT64, "fit", "--resume", folder], stderr=subprocess.DEVNULL)
    wait_for_epochs(folder, 45)
    alone.send_signal(signal.SIGTERM)
    assert alone.wait(120) == 128 + signal.SIGTERM
    ended = launch(2, FLOAT64, "fit", "--resume", folder, "--samples", 5)
    output, errors = ended.communicate(timeout=240)
    assert ended.returncode == 0, errors
    # One of them speaks.
    assert output.count("log p(x)") == 1
    np.testing.assert_allclose(losses(folder), losses(tmp_path / "one"), rtol=1e-10)
    states = [Run.load(each).vae.state_dict() for each in (folder, tmp_path / "one")]
    for name, value in states[1].items():
        torch.testing.assert_close(states[0][name], value, rtol=1e-8, atol=1e-8, msg=name)


@pytest.mark.slow
def test_what_processes_cannot_share_is_refused_in_one_line(fit, tmp_path):
    for arguments, message in (
        ((*fit, "--batch-size", 41), "expected a batch that 2 processes can share evenly; got a batch size of 41"),
        (("evaluate", tmp_path), "expected one process for 'evaluate'; torchrun started 2, of which only 'fit' makes use"),
    ):
        refused = launch(2, "-m", "pyrovae", *arguments)
        _, errors = refused.communicate(timeout=120)
        assert refused.returncode != 0
        assert f"error: {message}" in errors, errors
    assert not list(tmp_path.glob("runs"))


def test_the_command_line_is_a_module():
    found = one_process("--version")
    assert found.returncode == 0
    assert found.stdout.startswith("pyrovae, version ")
