"""The command line as people meet it: real processes, real files."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from pyrovae.cli import main

from pyrovae.data.benchmarks import DATASETS
from pyrovae.errors import InputError
from pyrovae.experiments import tracking
from pyrovae.experiments.building import load_data
from pyrovae.experiments.folder import new_folder
from pyrovae.experiments.published import RECIPES
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.tables import names_in

TINY = ("fit", "--guide", "ladder", "--epochs", "2", "--warmup-epochs", "1", "--samples", "10")
TINY_LAYERS = ("--latent-sizes", "4,2", "--hidden-sizes", "16,8")


def pyrovae(*arguments, cwd):
    command = [sys.executable, "-c", "from pyrovae.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def invoked(*arguments, cwd):
    """The same without a process of its own, which is faster."""
    before = Path.cwd()
    os.chdir(cwd)
    try:
        return CliRunner().invoke(main, arguments)
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run folder, and what the command that made it printed."""
    folder = tmp_path_factory.mktemp("fit")
    result = pyrovae(*TINY, *TINY_LAYERS, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "runs/mnist-5k-ladder-1", result


def test_fit_ends_in_a_table_pictures_and_the_run_folder(fitted):
    folder, result = fitted
    for part in (
        "log p(x), nats per image",
        "standard error",
        "KL by layer",
        "active units",
        "runs/mnist-5k-ladder-1",
        "500 test images",
    ):
        assert part in result.stdout
    for name in ("reconstructions.png", "samples.png", "learning-curves.png", "active-units.png", "log-likelihoods.png"):
        assert name in result.stdout
        assert (folder / "figures" / name).read_bytes().startswith(b"\x89PNG")
    assert "\x1b" not in result.stdout + result.stderr, "colours where there is no terminal"
    assert "steps/s" in result.stderr
    assert "left" in result.stderr


def test_fit_records_its_recipe_and_history(fitted):
    run = Run.load(fitted[0])
    assert run.recipe.latent_sizes == (4, 2)
    assert run.recipe.epochs == 2
    assert [row["epoch"] for row in run.history] == [1, 2]
    of_latents = {"kl_by_layer", "kl_by_unit", "activity_by_unit", "active_units", "surgery"}
    assert (
        set(run.history[0]) == {"epoch", "loss_nats", "kl_weight", "seconds", "valid_elbo_nats", "train_elbo_nats"} | of_latents
    )
    assert list(run.history[0]["kl_by_layer"]) == ["z1", "z2"]
    for layer, nats in run.history[-1]["kl_by_unit"].items():
        assert sum(nats) == pytest.approx(run.history[-1]["kl_by_layer"][layer], abs=0.01)
    for layer, size in (("z1", 4), ("z2", 2)):
        counts = run.history[-1]["active_units"][layer]
        assert list(counts) == ["units", "above_0.01", "above_0.1"]
        assert counts["units"] == size
        assert counts["above_0.1"] <= counts["above_0.01"] <= size
    assert run.history[-1]["active_units"]["z1"]["above_0.01"] > 0
    assert run.history[-1]["kl_weight"] == 1
    assert run.history[1]["valid_elbo_nats"] > run.history[0]["valid_elbo_nats"]
    assert not run.vae.training


@pytest.mark.slow
def test_what_is_followed_is_measured_after_enough_examples_and_changes_no_training(tmp_path, monkeypatch):
    """Gaps after 8,000 examples, every second epoch here, and after the last; the same figures where measured again."""
    flags = ("--guide", "top_down", *TINY_LAYERS, "--no-batch-norm", "--epochs", "3", "--samples", "10", "--json")
    histories = []
    for folder, examples in (("often", 8000), ("seldom", 100_000)):
        monkeypatch.setattr(tracking, "EXAMPLES_PER_REFINEMENT", examples)
        result = invoked("fit", *flags, "--output", folder, cwd=tmp_path)
        assert result.exit_code == 0, result.output
        histories.append(Run.load(tmp_path / folder).history)
    often, seldom = histories
    assert ["inference_gaps" in row for row in often] == [False, True, True]
    assert ["inference_gaps" in row for row in seldom] == [False] * 3
    assert [row["loss_nats"] for row in often] == [row["loss_nats"] for row in seldom]
    run = Run.load(tmp_path / "often")
    tracked = tracking.TrainingTracker.of(run.vae, load_data(run.recipe), run.recipe.epochs)
    torch.manual_seed(0)
    tracked.bounds(run.recipe)
    measured = tracked.latents(3)
    for figures in {"surgery", "inference_gaps"} & set(measured):
        assert measured[figures] == pytest.approx(often[-1][figures], rel=1e-3), figures


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["vamp", "vamp_data"])
def test_pseudo_inputs_are_drawn_and_come_back_with_the_run(prior, tmp_path):
    flags = ("--prior", prior, "--num-components", "7", "--likelihood", "continuous_bernoulli", "--json")
    result = invoked(*TINY, *TINY_LAYERS, *flags, cwd=tmp_path)
    assert result.exit_code == 0, result.stderr
    folder = tmp_path / f"runs/mnist-5k-ladder-{prior}-1"
    assert (folder / "figures/pseudo-inputs.png").exists()
    results = json.loads(result.stdout)
    assert results["protocol"] == "mnist-5k, 4,000 / 500 / 500, grey"
    again = invoked("evaluate", str(folder), "--samples", "10", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["elbo"] == pytest.approx(results["elbo"], rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [("4,2", "16,8"), ("none", "16")], ids=["ladder", "regressor"])
def test_a_conditional_model_and_its_regressor_come_from_one_command(sizes, tmp_path):
    guide = "mean_field" if sizes[0] == "none" else "ladder"
    flags = ("--condition", "middle-column", "--guide", guide, "--latent-sizes", sizes[0], "--hidden-sizes", sizes[1])
    result = invoked(*TINY, *flags, "--output", "r", "--json", cwd=tmp_path)
    assert result.exit_code == 0, result.stderr
    results = json.loads(result.stdout)
    assert results["protocol"].endswith("given middle-column (seed 1)")
    assert results["num_samples"] == (1 if sizes[0] == "none" else 10)
    assert (tmp_path / "r/figures/completions.png").exists()
    assert not (tmp_path / "r/figures/samples.png").exists()
    again = invoked("evaluate", "r", "--samples", "10", cwd=tmp_path)
    assert "log p(x | middle-column), nats per image" in again.stdout
    assert ("exact: there is no latent" in again.stdout) == (sizes[0] == "none")
    evaluation = json.loads((tmp_path / "r/evaluations/test.json").read_text())
    assert evaluation["log_likelihood"] == pytest.approx(results["log_likelihood"], rel=0.01)


@pytest.mark.slow
def test_a_convolutional_model_trains_from_the_command_line(tmp_path):
    flags = ("--network", "convolutional", "--initialization", "he", "--output-bias", "--hidden-layers", "1")
    result = invoked(*TINY, *TINY_LAYERS, *flags, "--epochs", "1", "--output", "r", "--json", cwd=tmp_path)
    assert result.exit_code == 0, result.stderr
    again = invoked("evaluate", "r", "--samples", "10", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["elbo"] == pytest.approx(json.loads(result.stdout)["elbo"], rel=0.01)


@pytest.mark.slow
def test_evaluate_prints_one_json_object_alone(fitted):
    folder, _ = fitted
    result = pyrovae("evaluate", str(folder), "--samples", "20", "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    assert {"log_likelihood", "standard_error", "elbo", "num_samples", "dataset"} <= set(values)
    assert values["num_samples"] == 20
    assert values["dataset"] == "mnist-5k"
    assert -784 < values["elbo"] < values["log_likelihood"] < 0
    assert json.loads((folder / "evaluations/test.json").read_text()) == values
    assert result.stderr == ""
    again = invoked("evaluate", str(folder), "--samples", "20", "--json", cwd=folder)
    assert json.loads(again.stdout)["log_likelihood"] == pytest.approx(values["log_likelihood"], rel=1e-6)


def test_an_evaluation_of_fewer_samples_is_printed_and_not_kept(fitted):
    folder, _ = fitted
    invoked("evaluate", str(folder), "--samples", "20", "--json", cwd=folder)
    before = (folder / "evaluations/test.json").read_text()
    result = invoked("evaluate", str(folder), "--samples", "1", cwd=folder)
    assert result.exit_code == 0, result.output
    assert "one sample each: the ELBO" in result.stdout
    assert "keeps its evaluation of 20 samples; this one of 1 is not kept" in result.stderr
    assert (folder / "evaluations/test.json").read_text() == before


def test_few_samples_are_said_to_be_too_few(fitted):
    result = invoked("evaluate", str(fitted[0]), "--samples", "10", cwd=fitted[0])
    assert "too few samples to know whether their weights have heavy tails" in " ".join(result.stdout.split())


@pytest.mark.slow
def test_stages_follow_each_other_with_another_optimizer_and_the_average_of_the_weights(tmp_path, monkeypatch):
    stages = ({}, {"epochs": 1, "learning_rate": 5e-3, "warmup_epochs": 0.0}, {"objective": "iwelbo", "num_particles": 3})
    monkeypatch.setitem(RECIPES, "ladder", replace(RECIPES["ladder"], dataset="mnist-5k", stages=stages))
    flags = ("--optimizer", "SGD", "--optimizer-arguments", "momentum=0.9, nesterov=True", "--learning-rate", "0.01")
    more = ("--average-decay", "0.9", "--clip-norm", "5", "--skip-norm", "1e3", "--warmup-epochs", "1", "--output", "r")
    arguments = ("fit", "--recipe", "ladder", *TINY_LAYERS, "--epochs", "2", "--samples", "5", *flags, *more)
    result = invoked(*arguments, cwd=tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "6 epochs in 3 stages, 90 steps" in result.stderr
    run = Run.load(tmp_path / "r")
    assert [stage.learning_rate for stage in run.recipe.schedule] == [0.01] * 3, "a flag holds in every stage"
    assert [row["stage"] for row in run.history] == [1, 1, 2, 2, 3, 3]
    assert [row["kl_weight"] for row in run.history] == [1.0] * 6
    assert run.history[-1]["steps_skipped"] == 0
    assert run.is_whole
    assert run.recipe.optimizer_arguments == {"momentum": 0.9, "nesterov": True}
    assert result.stdout.count("interrupted") == 0


@pytest.mark.slow
def test_averaged_weights_are_what_is_measured(tmp_path):
    """With a decay of almost one the average is that of the last ninth of the steps, which early in training lags behind."""
    flags = ("fit", "--epochs", "2", "--samples", "5", *("--latent-sizes", "4", "--hidden-sizes", "8"), "--json")
    raw = json.loads(invoked(*flags, "--output", "raw", cwd=tmp_path).stdout)
    averaged = json.loads(invoked(*flags, "--average-decay", "0.999999", "--output", "averaged", cwd=tmp_path).stdout)
    assert averaged["elbo"] < raw["elbo"] - 10
    assert Run.load(tmp_path / "averaged").history[-1]["valid_elbo_nats"] == pytest.approx(averaged["elbo"], abs=10)


def test_a_loss_that_is_no_density_has_no_likelihood(tmp_path):
    flags = ("fit", "--likelihood", "cross_entropy", "--epochs", "1", "--latent-sizes", "4", "--hidden-sizes", "8")
    result = invoked(*flags, "--samples", "5", "--output", "r", cwd=tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "none: the cross-entropy of grey values is no density of them" in result.stdout
    evaluation = json.loads((tmp_path / "r/evaluations/test.json").read_text())
    assert evaluation["log_likelihood"] is None
    assert "grey" in evaluation["protocol"]


@pytest.mark.slow
def test_a_schedule_that_ends_below_one_says_so(tmp_path):
    result = invoked(*TINY, *TINY_LAYERS, "--epochs", "1", "--warmup-epochs", "4", "--json", "--output", "here", cwd=tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "warning: the weight of the latent terms ends at 0.25" in result.stderr
    assert json.loads(result.stdout)["run"] == "here"
    assert json.loads((tmp_path / "here/evaluations/test.json").read_text())["kl_weight"] == 0.25
    again = invoked("evaluate", "here", "--samples", "5", cwd=tmp_path)
    assert "latent terms that weigh 0.25, not the true bound" in again.stdout


def test_help_and_refusals_do_not_import_torch():
    code = "import sys, pyrovae.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "command", [(), ("fit",), ("evaluate",), ("compare",), ("bounds",), ("calibrate",), ("recipes",), ("datasets",)]
)
def test_help(command):
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage")


REFUSED = {
    "unknown command": (["fti"], "No such command 'fti'"),
    "unknown flag": (["fit", "--gide", "ladder"], "No such option '--gide'"),
    "unknown dataset": (["fit", "--dataset", "mnits"], "got 'mnits': see 'pyrovae datasets'"),
    "unknown guide": (["fit", "--guide", "laddr"], "'laddr' is not one of"),
    "recipe to show": (["recipes", "x"], "'x' is not one of"),
    "unknown recipe": (["fit", "--recipe", "x"], "'x' is not one of"),
    "no number": (["fit", "--epochs", "many"], "'many' is not a valid int"),
    "negative epochs": (["fit", "--epochs", "-3"], "expected epochs above zero; got -3"),
    "negative batch": (["fit", "--batch-size", "-3"], "expected batch size above zero; got -3"),
    "negative layer": (
        ["fit", "--latent-sizes", "8,-2", "--hidden-sizes", "8,8"],
        "expected latent sizes above zero; got 8, -2",
    ),
    "negative warm-up": (["fit", "--warmup-epochs", "-1"], "expected warmup epochs of at least 0; got -1.0"),
    "negative samples": (["fit", "--samples", "-1"], "-1 is not in the range x>=1"),
    "infinite rate": (["fit", "--learning-rate", "inf"], "expected learning rate above zero; got inf"),
    "unequal layers": (["fit", "--latent-sizes", "8,4"], "expected one hidden size for each latent layer"),
    "regressor of nothing": (["fit", "--latent-sizes", "none"], "expected a condition for a regressor"),
    "conditional prior": (
        ["fit", "--prior", "conditional_gaussian"],
        "expected a condition for the prior",
    ),
    "unknown condition": (["fit", "--condition", "right-half"], "'right-half' is not one of"),
    "no scale": (["fit", "--likelihood-scale", "0"], "expected likelihood scale above zero; got 0.0"),
    "no sizes": (["fit", "--latent-sizes", "8;4"], "expected numbers separated by commas"),
    "no optimizer": (["fit", "--optimizer", "Adamm"], "expected a torch optimizer out of ASGD"),
    "optimizer of closures": (["fit", "--optimizer", "LBFGS"], "expected a torch optimizer out of ASGD"),
    "no arguments": (["fit", "--optimizer-arguments", "0.9"], "expected arguments as Python writes them"),
    "call as argument": (["fit", "--optimizer-arguments", "eps=print(1)"], "expected arguments as Python writes them"),
    "argument of another": (
        ["fit", "--optimizer-arguments", "momentum=0.9"],
        "expected arguments of torch.optim.Adam; got {'momentum': 0.9}",
    ),
    "step size twice": (["fit", "--optimizer-arguments", "lr=0.1"], "got lr: the step size is the learning rate"),
    "bad betas": (["fit", "--optimizer-arguments", "betas=(0.9, 1)"], "Invalid beta parameter at index 1"),
    "average of nothing": (["fit", "--average-decay", "1"], "expected average decay of at least 0 and below 1; got 1.0"),
    "negative norm": (["fit", "--clip-norm", "-1"], "expected clip norm of at least 0; got -1.0"),
    "biased gradient": (
        ["fit", "--objective", "iwelbo", "--gradient", "sticking_the_landing"],
        "leaving the score out of a logarithm of an average is biased: use doubly_reparameterized",
    ),
    "alpha of nothing": (["fit", "--alpha", "0.5"], "expected the objective 'renyi' with alpha; got 'elbo'"),
    "averages of averages": (["fit", "--num-averages", "2"], "expected another objective than 'elbo' with num_averages"),
    "free bits of weights": (
        ["fit", "--objective", "iwelbo", "--free-bits", "1"],
        "expected the objective 'elbo' with free_bits",
    ),
    "analytic iwelbo": (["fit", "--objective", "iwelbo", "--analytic-kl"], "expected the objective 'elbo' with analytic_kl"),
    "batch too large": (["fit", "--batch-size", "9999"], "expected a batch size from 1 to the 4000 examples"),
    "single images": (
        ["fit", "--guide", "ladder", "--batch-size", "1"],
        "expected batches of at least 2 images for batch norm",
    ),
    "a prior that the user did not choose": (
        ["fit", "--guide", "top_down", "--posterior", "flow"],
        "or the posterior 'gaussian' (what was not set is as published for the guide 'top_down')",
    ),
    "two that the user chose": (
        ["fit", "--guide", "top_down", "--batch-norm", "--layer-norm"],
        "expected one normalization; got batch norm and layer norm: leave one of the two out\n",
    ),
    "analytic": (["fit", "--guide", "bottom_up", "--analytic-kl"], "expected a guide that allows analytic_kl; got 'bottom_up'"),
    "vamp over bottom-up": (
        ["fit", "--guide", "bottom_up", "--prior", "vamp"],
        "in a 'bottom_up' hierarchy of 5 layers it is an integral over the layers below: use the guide 'ladder'",
    ),
    "large seed": (["fit", "--seed", str(10**22)], "expected seed of at least 0 and below 9223372036854775808"),
    "meta": (["fit", "--device", "meta"], "expected a device of this machine"),
    "no device": (["fit", "--device", "tpu"], "expected a device of this machine, cpu for one; got 'tpu'"),
    "no run": (["evaluate", "nowhere"], "expected a run folder with recipe.json"),
    "no samples": (["evaluate", "nowhere", "--samples", "0"], "0 is not in the range x>=1"),
    "nothing to compare": (["compare", "nowhere"], "expected at least two run folders to compare; got one"),
    "no runs": (["compare", "nowhere", "else"], "nowhere: expected a run folder, as 'pyrovae fit' makes one; there is no such"),
    "missing run": (["evaluate"], "Missing argument 'RUN'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_gets_one_line_and_exit_code_2(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = REFUSED[case]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == [], "something was written all the same"


def test_an_occupied_output_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    result = CliRunner().invoke(main, [*TINY, "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert "expected a new or an empty folder" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_an_epoch_count_alone_brings_its_warmup_along(tmp_path):
    result = invoked("fit", "--guide", "ladder", "--epochs", "2", *TINY_LAYERS, "--samples", "5", "--output", "r", cwd=tmp_path)
    assert "the true bound is never trained" not in result.stderr
    assert Run.load(tmp_path / "r").recipe.warmup_epochs == 1


@pytest.mark.slow
def test_a_training_that_diverges_says_so_in_one_line(tmp_path):
    result = invoked(*TINY, *TINY_LAYERS, "--learning-rate", "1e30", "--json", "--output", "r", cwd=tmp_path)
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""
    assert "the step was not applied; r holds 0 of 2 epochs: try a lower --learning-rate" in result.stderr
    aloud = invoked(*TINY, *TINY_LAYERS, "--learning-rate", "1e30", "--output", "s", cwd=tmp_path)
    assert aloud.exit_code == 2, "while it says how long it will take"
    assert "try a lower --learning-rate" in aloud.stderr


def test_an_interrupted_training_is_measured_as_one(fitted, tmp_path):
    for file in ("recipe.json", "weights.safetensors"):
        (tmp_path / file).write_bytes((fitted[0] / file).read_bytes())
    (tmp_path / "history.jsonl").write_text((fitted[0] / "history.jsonl").read_text().splitlines()[0] + '\n{"torn')
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path), "--samples", "5", "--json"])
    assert "warning: the training was interrupted after 1 of 2 epochs" in result.stderr
    assert json.loads(result.stdout)["epochs"] == 1


@pytest.mark.slow
def test_a_training_without_patience_left_stops_early_and_is_whole(tmp_path):
    """Where nothing is learned the bound is noise: that it grows twenty times in a row has a chance of one in 20!."""
    flags = ("--patience", "1", "--learning-rate", "1e-12", "--epochs", "20", "--warmup-epochs", "0", "--output", "r")
    result = invoked(*TINY, *TINY_LAYERS, *flags, cwd=tmp_path)
    assert result.exit_code == 0, result.stderr
    run = Run.load(tmp_path / "r")
    assert len(run.history) < 20
    assert [row.get("stopped_early", False) for row in run.history] == [False] * (len(run.history) - 1) + [True]
    assert run.is_whole
    assert "stopped early" in result.stdout


def test_patience_asks_for_validation_images(tmp_path, monkeypatch):
    stored = DATASETS["mnist-5k"](None)
    monkeypatch.setitem(DATASETS, "mnist-5k", replace(DATASETS["mnist-5k"], load=lambda _: replace(stored, valid=None)))
    result = invoked("fit", "--patience", "3", cwd=tmp_path)
    assert result.exit_code == 2
    assert "expected validation images for patience; 'mnist-5k' has none" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_two_runs_never_get_the_same_folder(tmp_path):
    assert [new_folder(tmp_path, "run").name for _ in range(3)] == ["run-1", "run-2", "run-3"]


@pytest.mark.parametrize("values", [{"epochs": "3"}, {"latent_sizes": 8}, {"batch_norm": 1}, {"guide": 3}, {"epochs": True}])
def test_recipes_refuse_values_of_another_type(values):
    with pytest.raises(InputError, match=f"expected {next(iter(values)).replace('_', ' ')} as "):
        Recipe(**values)


def test_an_output_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    result = CliRunner().invoke(main, [*TINY, "--output", str(tmp_path / "file" / "run")])
    assert result.exit_code == 2
    assert "expected a folder to write the run into" in result.stderr


DAMAGES = {
    "recipe.json": ["", "{}", '{"recipe": {"colour": 1}, "shape": [1, 28, 28], "protocol": ""}', "[1]"],
    "weights.safetensors": ["", "not safetensors at all", "x" * 2000],
}


@pytest.mark.parametrize(("name", "content"), [(name, text) for name, texts in DAMAGES.items() for text in texts])
def test_a_damaged_run_is_refused_in_one_line(fitted, tmp_path, name, content):
    for file in ("recipe.json", "weights.safetensors"):
        (tmp_path / file).write_bytes((fitted[0] / file).read_bytes())
    (tmp_path / name).write_text(content)
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path)])
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1
    assert "expected a run folder" in result.stderr


def test_weights_of_another_architecture_are_refused(fitted, tmp_path):
    settings = json.loads((fitted[0] / "recipe.json").read_text())
    settings["recipe"]["latent_sizes"] = [5, 2]
    (tmp_path / "recipe.json").write_text(json.dumps(settings))
    (tmp_path / "weights.safetensors").write_bytes((fitted[0] / "weights.safetensors").read_bytes())
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path)])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("table", [f.metadata["table"] for f in Recipe.__dataclass_fields__.values() if "table" in f.metadata])
def test_choices_are_the_names_of_the_tables(table):
    module, variable = table.split(":")
    assert names_in(table) == list(getattr(importlib.import_module(module), variable))


def test_lists():
    assert all(name in CliRunner().invoke(main, ["recipes"]).output for name in RECIPES)
    assert "mnist-5k" in CliRunner().invoke(main, ["datasets"]).output
