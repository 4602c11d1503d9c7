"""A sweep is every combination of its grid, whatever happens meanwhile, and says what came of each."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pyrovae.cli import main

from pyrovae.data.loading import load_dataset
from pyrovae.errors import InputError
from pyrovae.evaluation.comparison import paired_difference
from pyrovae.experiments.evaluations import Evaluation
from pyrovae.experiments.locks import lock_folder
from pyrovae.experiments.run import Run
from pyrovae.experiments.sweeping.backends import run_all
from pyrovae.experiments.sweeping.grid import Grid, Member
from pyrovae.experiments.sweeping.jobs import Job
from pyrovae.experiments.sweeping.results import SweepResult
from pyrovae.experiments.sweeping.sweep import members_of, sweep
from pyrovae.experiments.training import train


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "a.npz"
    bits = np.random.default_rng(0).random((150, 3, 3)) > np.linspace(0.2, 0.8, 9).reshape(3, 3)
    np.savez(path, train=bits[:100], test=bits[100:])
    small = {"latent_sizes": (2,), "hidden_sizes": (4,), "batch_size": 50, "warmup_epochs": 0.0}
    return {"dataset": str(path), "epochs": 3, **small}


def grid(settings, **vary):
    return Grid(recipe="activity-vae", settings={k: v for k, v in settings.items() if k not in vary}, vary=vary, seeds=2)


@pytest.fixture(scope="module")
def made(settings, tmp_path_factory):
    """Four members: two objectives, two seeds."""
    folder = tmp_path_factory.mktemp("sweeps") / "objectives"
    chosen = Grid(recipe="activity-vae", settings=settings, vary={"learning_rate": (1e-3, 1e-2)}, seeds=2)
    return chosen, sweep(chosen, folder, num_samples=20, workers=2, engine="graph")


def weights(folder):
    return Run.load(folder).vae.state_dict()


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_grid_is_every_combination_named_by_what_it_changes(settings, tmp_path):
    chosen = Grid(
        recipe="ladder",
        settings={"dataset": settings["dataset"]},
        vary={"latent_sizes": ((64,), (64, 32)), "guide": ("ladder",)},
        seeds=2,
    )
    members = list(members_of(chosen, tmp_path))
    assert [each.folder.name for each in members] == [
        "latent_sizes=64--guide=ladder--seed=0",
        "latent_sizes=64--guide=ladder--seed=1",
        "latent_sizes=64,32--guide=ladder--seed=0",
        "latent_sizes=64,32--guide=ladder--seed=1",
    ]
    assert [each.recipe.hidden_sizes for each in members[::2]] == [(512,), (512, 256)]
    assert [each.recipe.seed for each in members] == [0, 1, 0, 1]


def test_recipes_vary_too(settings, tmp_path):
    chosen = Grid(settings={"dataset": settings["dataset"], "epochs": 2}, vary={"recipe": ("activity-vae", "ladder")})
    assert [each.recipe.guide for each in members_of(chosen, tmp_path)] == ["mean_field", "ladder"]


def test_every_member_is_the_training_that_it_would_be_alone(made, settings, tmp_path):
    _, result = made
    assert not result.failures
    member = result.members[3]
    alone = train(member.recipe, tmp_path / "alone", engine="graph")
    alone.evaluate(20)
    assert equal(weights(member.folder), weights(alone.folder))
    np.testing.assert_array_equal(
        Evaluation.load(member.folder).per_image["log_likelihood"], Evaluation.load(alone.folder).per_image["log_likelihood"]
    )


def test_what_is_done_is_left_alone_and_more_seeds_extend_a_sweep(made, settings):
    chosen, result = made
    before = {each.folder: (each.folder / "history.jsonl").stat().st_mtime_ns for each in result.members}
    told = []
    again = sweep(chosen, result.folder, num_samples=20, watch=lambda members: Counting(members, told))
    assert told == []
    assert {each.folder: (each.folder / "history.jsonl").stat().st_mtime_ns for each in again.members} == before
    wider = Grid(recipe="activity-vae", settings=settings, vary={"learning_rate": (1e-3, 1e-2, 3e-3)}, seeds=2)
    more = sweep(wider, result.folder, num_samples=20, workers=2, engine="graph", watch=lambda members: Counting(members, told))
    assert sorted(told) == ["learning_rate=0.003--seed=0", "learning_rate=0.003--seed=1"]
    assert len(more.evaluations()) == 6


class Counting:
    def __init__(self, members, told):
        self.told = told

    def __enter__(self):
        return lambda name, reason: self.told.append(name)

    def __exit__(self, *_):
        pass


def test_settings_are_ranked_with_their_spread_and_a_paired_difference(made):
    _, result = made
    best, other = SweepResult(result.folder, result.members).settings()
    assert best.log_likelihood > other.log_likelihood
    assert best.difference is None
    values = {seed: each.per_image["log_likelihood"] for seed, each in other.evaluations.items()}
    assert other.log_likelihood == pytest.approx(np.mean([each.mean() for each in values.values()]))
    assert other.deviation == pytest.approx(np.std([each.mean() for each in values.values()], ddof=1))
    of_best = np.mean([each.per_image["log_likelihood"] for each in best.evaluations.values()], 0)
    paired = paired_difference(np.mean(list(values.values()), 0), of_best)
    assert other.difference.value == pytest.approx(paired.mean)
    # The spread over seeds makes the interval wider than that over images.
    assert other.difference.upper - other.difference.lower > paired.upper - paired.lower
    frame = result.frame()
    assert list(frame.columns) == ["learning_rate", "seed", "log_likelihood", "standard_error", "elbo", "folder", "failure"]
    assert len(frame) == 4


def test_one_that_fails_does_not_stop_the_others(settings, tmp_path):
    chosen = grid(settings, likelihood=("bernoulli", "gaussian"))
    result = sweep(chosen, tmp_path / "s", num_samples=5, workers=2, engine="eager")
    assert sorted(result.failures) == ["likelihood=gaussian--seed=0", "likelihood=gaussian--seed=1"]
    assert all(reason.startswith("expected ") and "\n" not in reason for reason in result.failures.values()), result.failures
    assert len(result.evaluations()) == 2
    assert "likelihood=gaussian--seed=0: " in str(result)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_made_up_for(settings, tmp_path):
    """SIGKILL to every process that trains, once the first member has ended an epoch."""
    longer = Grid(recipe="activity-vae", settings={**settings, "epochs": 60}, vary={"learning_rate": (1e-2,)}, seeds=3)

    def kill():
        while not list((tmp_path / "s").glob("*/history.jsonl")):
            time.sleep(0.05)
        for path in (tmp_path / "s").glob("*/.lock.json"):
            process = json.loads(path.read_text())["process"]
            if process != os.getpid():
                os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    result = sweep(longer, tmp_path / "s", num_samples=5, workers=2, engine="graph")
    killer.join()
    assert not result.failures
    whole = sweep(longer, tmp_path / "whole", num_samples=5, workers=1, engine="graph")
    for one, other in zip(result.members, whole.members, strict=True):
        assert equal(weights(one.folder), weights(other.folder))


def test_a_file_says_the_same_as_flags(settings, tmp_path):
    (tmp_path / "s.toml").write_text(
        f'recipe = "activity-vae"\nseeds = 2\ndataset = "{settings["dataset"]}"\n[vary]\nlatent_sizes = [[2], [4]]\n'
    )
    found = Grid.from_toml(tmp_path / "s.toml")
    assert found == Grid(
        recipe="activity-vae", settings={"dataset": settings["dataset"]}, vary={"latent_sizes": ((2,), (4,))}, seeds=2
    )


def invoked(*arguments):
    return CliRunner().invoke(main, ["sweep", *map(str, arguments)])


def test_the_command_prints_a_table_and_fails_where_a_member_did(settings, tmp_path):
    flags = ["--recipe", "activity-vae", "--dataset", settings["dataset"], "--epochs", 1, "--latent-sizes", "2"]
    flags += ["--hidden-sizes", "4", "--batch-size", 50, "--engine", "eager", "--samples", 5, "-o", tmp_path / "s"]
    vary = ["--vary", "likelihood=bernoulli", "--vary", "likelihood=gaussian"]
    result = invoked(*flags, *vary)
    assert result.exit_code == 1
    assert "1 of 2 members are done" in result.stdout
    assert "1 of 2: likelihood=" in result.stderr
    assert "failed: likelihood=gaussian--seed=0: expected" in result.stderr
    again = invoked(*flags, *vary, "--json")
    rows = json.loads(again.stdout)["members"]
    assert [each["likelihood"] for each in rows] == ["bernoulli", "gaussian"]
    assert rows[0]["failure"] == ""
    assert rows[1]["log_likelihood"] is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--vary", "laten_sizes=2"], "expected a field of a recipe to vary; got 'laten_sizes'; did you mean 'latent_sizes'?"),
        (["--vary", "latent_sizes"], "expected FIELD=VALUE after --vary"),
        (["--vary", "latent_sizes=many"], "--vary latent_sizes: expected numbers separated by commas"),
        (["--vary", "recipe=lader"], "got 'lader'"),
        (["--vary", "epochs=2", "--epochs", "3"], "expected each field fixed or varied; got both of epochs"),
        (["--vary", "seed=2"], "expected a field of a recipe to vary; got 'seed'"),
        (["--seed", "2"], "expected the number of seeds of a sweep; got one seed"),
        (["none.toml"], "none.toml: expected a recipe as TOML"),
        (["none.toml", "--epochs", "3"], "expected a file, or flags of what is trained"),
        (["--backend", "ray"], None),
        (["--device", "cuda:77"], "expected a device of this machine, cpu for one; got 'cuda:77'"),
    ],
)
def test_bad_input_is_a_line(flags, words, tmp_path, monkeypatch):
    if words is None:
        monkeypatch.setitem(__import__("sys").modules, "ray", None)
        words = 'expected the package ray for this backend; it is not installed: pip install "pyrovae[ray]"'
        flags = [*flags, "--dataset", "mnist-5k", "--recipe", "activity-vae"]
    result = invoked(*flags, "-o", tmp_path / "s")
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_two_sweeps_do_not_share_a_folder(made, settings):
    _, result = made
    other = Grid(recipe="activity-vae", settings={**settings, "epochs": 4}, vary={"learning_rate": (1e-3,)}, seeds=1)
    with pytest.raises(InputError, match="with more values or seeds; got one that differs in epochs: choose another folder"):
        sweep(other, result.folder)
    another = Grid(recipe="activity-vae", settings=settings, vary={"likelihood": ("bernoulli",)})
    with pytest.raises(InputError, match="got one that differs in learning_rate, likelihood: choose another folder"):
        sweep(another, result.folder)


def test_a_dataset_is_the_same_by_a_relative_path(made, settings, monkeypatch):
    chosen, result = made
    path = Path(settings["dataset"])
    monkeypatch.chdir(path.parent)
    same = replace(chosen, settings={**settings, "dataset": path.name})
    assert sweep(same, result.folder, num_samples=20).members == result.members
    np.savez("b.npz", train=np.zeros((2, 3, 3)), test=np.zeros((2, 3, 3)))
    with pytest.raises(InputError, match="got one that differs in dataset: choose another folder"):
        sweep(replace(chosen, settings={**settings, "dataset": "b.npz"}), result.folder)


def test_a_folder_of_a_benchmarks_name_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    (member,) = members_of(Grid(recipe="activity-vae", settings={"dataset": "mnist"}, vary={}), tmp_path / "s")
    assert member.recipe.dataset == "mnist"


def test_a_device_is_that_of_the_machine_where_a_member_trains(settings, tmp_path):
    """A head without a GPU submits to machines that have one."""
    flags = ["--recipe", "activity-vae", "--dataset", settings["dataset"], "--device", "cuda:77", "-o", tmp_path / "s"]
    refused = invoked(*flags, "--backend", "slurm").stderr
    # What is missing here is named, and not the device.
    assert "sbatch" in refused or "submitit" in refused
    assert "cuda:77" not in refused
    (member,) = members_of(Grid(recipe="activity-vae", settings=settings, vary={}), tmp_path)
    assert "expected a device of this machine, cpu for one; got 'cuda:77'" in Job(member, 5, "eager", 1, "cuda:77")()
    assert Job(member, 5, "eager", 1, None)() == ""


def test_a_member_that_another_process_trains_is_waited_for(settings, tmp_path, caplog):
    (member,) = members_of(Grid(recipe="activity-vae", settings=settings, vary={}), tmp_path)
    member.folder.mkdir()
    with ThreadPoolExecutor(1) as pool:
        with lock_folder(member.folder):
            reason = pool.submit(Job(member, 5, "eager", 1, "cpu"))
            while "trains in it: it is waited for" not in caplog.text:
                assert not reason.done()
                time.sleep(0.01)
        assert reason.result() == ""
    assert Job(member, 5, "eager", 1, "cpu").is_done


def test_each_dataset_is_loaded_once(settings, tmp_path, monkeypatch):
    loaded = []

    def counted(name, *arguments, **options):
        loaded.append(name)
        return load_dataset(name, *arguments, **options)

    monkeypatch.setattr("pyrovae.data.loading.load_dataset", counted)
    vary = {"learning_rate": (1e-3, 1e-2), "latent_sizes": ((2,), (4,)), "guide": ("mean_field", "ladder")}
    assert len(list(members_of(Grid(settings={"dataset": settings["dataset"]}, vary=vary), tmp_path))) == 8
    assert loaded == [settings["dataset"]]


def test_each_evaluation_is_read_once(made, monkeypatch):
    read, load = [], Evaluation.load
    monkeypatch.setattr(Evaluation, "load", lambda folder: read.append(folder) or load(folder))
    result = SweepResult(made[1].folder, made[1].members)
    assert str(result)
    assert len(result.frame()) == len(result.evaluations())
    assert read == [each.folder for each in result.members]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes have no affinity here")
def test_a_process_of_one_processor_trains_one_member_at_a_time(settings, tmp_path):
    code = f"""
import json, os
from pyrovae import Grid, sweep
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
grid = Grid(recipe="activity-vae", settings={settings}, vary={{}}, seeds=2)
for member in sweep(grid, "s", num_samples=5, engine="eager").members:
    assert json.loads((member.folder / ".lock.json").read_text())["process"] == os.getpid()
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_a_fault_of_ours_is_kept_with_its_traceback(settings, tmp_path, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("by nobody's fault")

    monkeypatch.setattr("pyrovae.experiments.building.load_data", broken)
    (tmp_path / "s").mkdir()
    (member,) = members_of(Grid(recipe="activity-vae", settings=settings, vary={}), tmp_path / "s")
    reason = Job(member, 5, "eager", 1, "cpu")()
    log = tmp_path / "s" / f"{member.folder.name}.error.txt"
    assert reason == f"ZeroDivisionError: by nobody's fault (see {log.name})"
    assert "in broken" in log.read_text()
    monkeypatch.undo()
    assert Job(member, 5, "eager", 1, "cpu")() == ""
    assert not log.exists()


class Trivial:
    """A job of no time; or one whose process dies each time."""

    is_done = True

    def __init__(self, *, dies=False):
        self.dies = dies

    def __call__(self):
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return ""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_is_asked_to_end_leaves_no_process(number, settings, tmp_path):
    """The signal goes to the command alone, as of a scheduler or of ``kill``."""
    flags = ["--recipe", "activity-vae", "--dataset", settings["dataset"], "--epochs", "2000", "--latent-sizes", "2"]
    flags += ["--hidden-sizes", "4", "--batch-size", "50", "--engine", "eager", "--seeds", "2", "-o", str(tmp_path / "s")]
    code = "from pyrovae.cli import main; main()"
    command = [sys.executable, "-c", code, "sweep", *flags, "--vary", "learning_rate=0.001", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "s").glob("*/history.jsonl"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(60) == 130
    assert "interrupted: the same command goes on with the sweep" in said
    sizes = [path.stat().st_size for path in sorted((tmp_path / "s").glob("*/history.jsonl"))]
    time.sleep(3)
    assert [path.stat().st_size for path in sorted((tmp_path / "s").glob("*/history.jsonl"))] == sizes


@pytest.mark.slow
def test_a_job_that_kills_its_process_each_time_takes_no_other_down(tmp_path):
    told, jobs = [], [Trivial(dies=number == 3) for number in range(8)]
    run_all(jobs, "processes", 2, tmp_path, lambda number, reason: told.append((number, reason)))
    assert sorted(number for number, _ in told) == list(range(8))
    assert [pair for pair in told if pair[1]] == [(3, "its process died; where memory is short, fewer --workers help")]


def test_a_job_that_leaves_no_run_here_is_no_success(tmp_path):
    told, job = [], Trivial()
    job.is_done = False
    run_all([job], "processes", 1, tmp_path, lambda number, reason: told.append(reason))
    assert told == [f"its run is not in {tmp_path} of this machine: share the folder"]


def test_the_example_of_the_help_is_a_sweep(settings, tmp_path):
    vary = {"guide": ("ladder", "mean_field"), "latent_sizes": ((64, 32),)}
    members = list(members_of(Grid(settings={"dataset": settings["dataset"]}, vary=vary), tmp_path))
    assert [len(each.recipe.hidden_sizes) for each in members] == [2, 2]


def test_arguments_of_an_optimizer_vary(settings, tmp_path):
    chosen = Grid(recipe="activity-vae", settings=settings, vary={"optimizer_arguments": ({"eps": 1e-8}, {"eps": 1e-4})})
    result = sweep(chosen, tmp_path / "s", num_samples=5, workers=1, engine="eager")
    assert len(result.table()[1]) == 2
    assert result.remarks() == ["one seed: the intervals hold the spread over test examples, and not that over trainings"]


def test_members_of_one_folder_are_refused(settings, tmp_path):
    twice = Grid(recipe="activity-vae", settings=settings, vary={"learning_rate": (1e-3, 0.001)})
    with pytest.raises(InputError, match=r"got learning_rate=0.001--seed=0 more than once"):
        sweep(twice, tmp_path / "s")


def test_another_training_in_the_folder_of_a_member_is_not_taken_for_it(made):
    _, result = made
    one, other = result.members[0], result.members[2]
    assert Job(one, 20, "graph", 1, "cpu").is_done
    assert not Job(Member(one.settings, other.recipe, one.folder), 20, "graph", 1, "cpu").is_done
