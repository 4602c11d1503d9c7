"""A training that is stopped and gone on with is the one that was not, to the last bit."""

import json
import os
import signal
import threading
from importlib.metadata import version

import pytest
import torch
from resumption import IWAE, LADDER, RECIPES, StoppedError, assert_same, grey, remains, stop_after

from pyrovae.errors import InputError
from pyrovae.experiments import checkpoints, files
from pyrovae.experiments.interruption import TrainingInterrupted
from pyrovae.experiments.locks import lock_folder
from pyrovae.experiments.run import Run
from pyrovae.experiments.training import train
from pyrovae.experiments.trials import num_steps

ENGINES = ("eager", "graph", "compiled")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """What is left of uninterrupted trainings, each made once."""
    made = {}

    def of(name, engine):
        if (name, engine) not in made:
            folder = tmp_path_factory.mktemp("straight") / "run"
            train(RECIPES[name], folder, dataset=grey(), engine=engine)
            made[name, engine] = remains(folder)
        return made[name, engine]

    return of


def stopped_and_gone_on_with(name, engine, stops, expected, tmp_path):
    """Every second time no checkpoint was just written: what was trained since the last one is trained again."""
    for step in stops:
        folder, seconds = tmp_path / f"{step}", 0 if step % 2 else 60
        with pytest.raises(StoppedError):
            train(RECIPES[name], folder, dataset=grey(), engine=engine, track=stop_after(step), checkpoint_every=seconds)
        train(RECIPES[name], folder, dataset=grey(), engine=engine)
        assert_same(remains(folder), expected, f"stopped at step {step}")


def total(name):
    return num_steps(RECIPES[name].schedule, grey())


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", RECIPES)
def test_a_training_stopped_somewhere_ends_the_same(name, engine, straight, tmp_path):
    """In the middle of the second epoch; under engine graph also at its first step, and before its last one."""
    stops = (1, 6, total(name) - 1) if engine == "graph" else (6,)
    stopped_and_gone_on_with(name, engine, stops, straight(name, engine), tmp_path)


@pytest.mark.hours
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", RECIPES)
def test_a_training_stopped_anywhere_ends_the_same(name, engine, straight, tmp_path):
    """At every step: after each epoch in turn, and in the middle of each."""
    stopped_and_gone_on_with(name, engine, range(1, total(name) + 1), straight(name, engine), tmp_path)


@pytest.mark.slow
def test_a_training_stopped_again_and_again_ends_the_same(straight, tmp_path):
    for step in range(2, total("ladder") + 1, 3):
        with pytest.raises(StoppedError):
            # The step after the last checkpoint is taken again.
            train(LADDER, tmp_path, dataset=grey(), engine="graph", track=stop_after(step), checkpoint_every=0)
    train(None, tmp_path, dataset=grey())
    assert_same(remains(tmp_path), straight("ladder", "graph"), "stopped at every third step")


@pytest.mark.slow
def test_what_asks_for_an_end_gets_a_saved_one(straight, tmp_path):
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path / number.name

        def track(status, number=number):
            if status.steps == 5 and status.record is None:
                os.kill(os.getpid(), number)

        before = signal.getsignal(number)
        with pytest.raises(TrainingInterrupted, match=f"saved after step 5 of 16 .*--resume {folder}") as caught:
            train(LADDER, folder, dataset=grey(), engine="graph", track=track)
        assert caught.value.number == number
        assert signal.getsignal(number) == before
        assert json.loads((checkpoints.newest_folder(folder) / "state.json").read_text())["steps"] == 5
        train(LADDER, folder, dataset=grey(), engine="graph")
        assert_same(remains(folder), straight("ladder", "graph"), number.name)


def test_an_end_that_is_asked_for_after_the_last_step_is_one(straight, tmp_path):
    def track(status):
        if status.steps == status.total_steps and status.record is not None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingInterrupted, match="saved after step 16 of 16"):
        train(LADDER, tmp_path, dataset=grey(), engine="graph", track=track)
    assert_same(remains(tmp_path), straight("ladder", "graph"), "asked for an end after the last step")


def test_a_second_interruption_does_not_wait(tmp_path):
    def track(status):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(IWAE, tmp_path / "run", dataset=grey(), engine="graph", track=track)
    assert not isinstance(caught.value, TrainingInterrupted)


def test_trainings_in_other_threads_leave_signals_alone(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    threads = [threading.Thread(target=train, args=(IWAE, tmp_path / "run"), kwargs={"dataset": grey(), "engine": "eager"})]
    for each in threads:
        each.start()
        each.join()
    assert Run.load(tmp_path / "run").is_whole
    assert signal.getsignal(signal.SIGINT) == before


def test_more_epochs_go_on_where_fewer_ended(tmp_path):
    """Without early stopping it is the longer training."""
    longer = IWAE.replace(epochs=5)
    train(IWAE, tmp_path / "first", dataset=grey(), engine="graph")
    run = train(longer, tmp_path / "first", dataset=grey())
    assert run.recipe.epochs == 5
    assert Run.load(tmp_path / "first").is_whole
    train(longer, tmp_path / "straight", dataset=grey(), engine="graph")
    (tensors, values), (others, other_values) = remains(tmp_path / "first"), remains(tmp_path / "straight")
    assert all(torch.equal(each, others[name]) for name, each in tensors.items())
    assert [row["loss_nats"] for row in values["history"]] == [row["loss_nats"] for row in other_values["history"]]


def test_a_whole_training_is_left_as_it_is(straight, tmp_path):
    train(LADDER, tmp_path, dataset=grey(), engine="graph")
    train(LADDER, tmp_path, dataset=grey())
    assert_same(remains(tmp_path), straight("ladder", "graph"), "gone on with after its end")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.1}, "learning_rate 0.001 there, 0.1 now"),
        ({"epochs": 2}, "epochs 3 there, 2 now"),
        ({"seed": 1, "batch_size": 20}, "batch_size 30 there, 20 now; seed 0 there, 1 now"),
    ],
)
def test_another_recipe_is_refused_with_what_differs(change, message, tmp_path):
    train(IWAE, tmp_path, dataset=grey(), engine="eager")
    before = remains(tmp_path)
    with pytest.raises(InputError, match=f"expected the recipe that was begun there.*{message}: choose another folder"):
        train(IWAE.replace(**change), tmp_path, dataset=grey())
    assert_same(remains(tmp_path), before, "refused")


def test_a_folder_in_which_another_trains_is_refused(tmp_path):
    seen = []

    def track(status):
        if not seen:
            with pytest.raises(InputError, match=rf"expected a folder that nobody writes to; process {os.getpid()} on "):
                train(IWAE, tmp_path / "run", dataset=grey())
            seen.append(status)

    train(IWAE, tmp_path / "run", dataset=grey(), engine="eager", track=track)
    assert seen


@pytest.mark.slow
def test_a_damaged_checkpoint_leaves_the_one_before(straight, tmp_path, caplog):
    with pytest.raises(StoppedError):
        train(LADDER, tmp_path, dataset=grey(), engine="graph", track=stop_after(7), checkpoint_every=0)
    newest = checkpoints.newest_folder(tmp_path)
    content = (newest / checkpoints.TENSORS).read_bytes()
    (newest / checkpoints.TENSORS).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    train(LADDER, tmp_path, dataset=grey())
    assert "is damaged (tensors.safetensors is not what was written): an older one is looked for" in caplog.text
    assert_same(remains(tmp_path), straight("ladder", "graph"), "one checkpoint damaged")


def test_nothing_whole_is_said(tmp_path):
    train(IWAE, tmp_path, dataset=grey(), engine="eager")
    for each in (tmp_path / "checkpoints").iterdir():
        (each / checkpoints.CHECKSUMS).write_text("{}")
    with pytest.raises(InputError, match="expected a whole checkpoint; all 1 are damaged: train anew in another folder"):
        train(IWAE, tmp_path, dataset=grey())


def test_another_machine_goes_on_and_says_that_bits_may_differ(tmp_path):
    with pytest.raises(StoppedError):
        train(IWAE, tmp_path, dataset=grey(), engine="graph", track=stop_after(5), checkpoint_every=0)
    environment = json.loads((tmp_path / "environment.json").read_text())
    (tmp_path / "environment.json").write_text(json.dumps(environment | {"torch": "1.0", "threads": 77}))
    with pytest.warns(UserWarning, match="bits may differ from an uninterrupted training: ") as warned:
        train(IWAE, tmp_path, dataset=grey())
    assert {str(each.message).partition("training: ")[2].split(",")[0] for each in warned} == {"torch 1.0", "threads 77"}
    assert json.loads((tmp_path / "environment.json").read_text())["gone_on_with"][0]["torch"] == version("torch")


@pytest.mark.parametrize("way", ["skip", "rewind", "stop"])
def test_a_loss_that_is_not_finite(way, tmp_path, monkeypatch):
    """A batch that fails once, or each time."""
    from pyrovae.inference.svi import CompiledSVI

    failures, taken = iter([False] * 5 + [True] + [False] * 100), CompiledSVI.step

    def step(self, *args):
        if next(failures):
            raise FloatingPointError("step 6: expected a finite loss; got nan")
        return taken(self, *args)

    monkeypatch.setattr(CompiledSVI, "step", step)
    arguments = {"dataset": grey(), "engine": "graph", "on_nan": way, "checkpoint_every": 0}
    if way == "stop":
        newest = tmp_path / "checkpoints" / "00000005"
        with pytest.raises(InputError, match=f"holds 1 of 3 epochs, and {newest} its last checkpoint: try a lower"):
            train(IWAE, tmp_path, **arguments)
        assert newest.is_dir()
    else:
        assert train(IWAE, tmp_path, **arguments).is_whole


def test_rewinding_that_does_not_help_ends(tmp_path, monkeypatch):
    from pyrovae.inference.svi import CompiledSVI

    taken = CompiledSVI.step

    def step(self, *args):
        if self.steps_taken == 5:
            raise FloatingPointError("step 6: expected a finite loss; got nan")
        return taken(self, *args)

    monkeypatch.setattr(CompiledSVI, "step", step)
    with pytest.raises(InputError, match="not finite however often it is rewound"):
        train(IWAE, tmp_path, dataset=grey(), engine="graph", on_nan="rewind", checkpoint_every=0)


def test_the_files_of_a_run(tmp_path):
    train(LADDER, tmp_path, dataset=grey(), engine="graph")
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["engines"] == [["graph", "as asked"]]
    assert {"python", "torch", "pyro-ppl", "pyrovae", "capability", "threads", "device", "command"} <= set(environment)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pkl", ".pt")]
    assert len(list((tmp_path / "checkpoints").iterdir())) <= checkpoints.KEPT
    assert files.read_json(tmp_path / "recipe.json")["format"] == 2


def test_the_history_holds_both_bounds_of_both_splits_and_each_units_activity(tmp_path):
    """For an importance-weighted training the bound that was trained, by its name, which is above the one of one sample."""
    history = train(IWAE, tmp_path, dataset=grey(), engine="graph").history
    for row in history:
        for split in ("train", "valid"):
            assert row[f"{split}_iwelbo_3_nats"] > row[f"{split}_elbo_nats"]
        assert [len(each) for each in row["activity_by_unit"].values()] == [3]
    # The loss of an epoch is the negative of the bound, on average over it: between those at its ends.
    assert -history[-1]["loss_nats"] == pytest.approx(history[-1]["train_iwelbo_3_nats"], abs=0.2)


def test_a_folder_is_made_by_one_process_alone(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with lock_folder(folder), pytest.raises(InputError, match="expected a folder that nobody writes to"):
        Run.create(folder, IWAE, grey())
    assert not (folder / "recipe.json").exists()
    Run.create(folder, IWAE, grey())
    with pytest.raises(InputError, match="expected a new or an empty folder"):
        Run.create(folder, IWAE, grey())
