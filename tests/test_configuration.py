"""Settings from a file and from flags; names that are misspelt."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from pyrovae.cli import main

from pyrovae.errors import InputError
from pyrovae.experiments.published import RECIPES
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run

TINY = ("--latent-sizes", "3", "--hidden-sizes", "8", "--epochs", "1", "--samples", "2", "--json")


def invoked(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_its_file(name, tmp_path):
    result = invoked("recipes", name, "--toml")
    assert result.exit_code == 0, result.output
    (tmp_path / "run.toml").write_text(result.stdout)
    assert Recipe.from_toml(tmp_path / "run.toml") == RECIPES[name]


@pytest.mark.parametrize(
    "recipe", [Recipe(), Recipe(guide="ladder", epochs=300, latent_sizes=(5,), hidden_sizes=(20,)), RECIPES["activity-vae"]]
)
def test_fit_takes_the_recipe_of_a_file_as_the_library_does(recipe, tmp_path, monkeypatch):
    """Settings that are left out have their defaults, and not those of the guide's published architecture."""
    asked = []
    monkeypatch.setattr("pyrovae.experiments.training.train", lambda recipe, *_, **__: asked.append(recipe) or sys.exit(0))
    (tmp_path / "run.toml").write_text(recipe.replace(dataset="mnist-5k").to_toml())
    invoked("fit", "--config", tmp_path / "run.toml")
    assert asked == [recipe.replace(dataset="mnist-5k")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("gide = 'ladder'", "got 'gide'; did you mean 'guide'?"),
        ("zzz = 1", "got 'zzz', out of dataset, validation, "),
        ("epochs = 'many'", "expected epochs as int; got 'many'"),
        ("epochs = 1\nepochs = 2", "expected a recipe as TOML; got Cannot overwrite a value"),
        ("[guide", "expected a recipe as TOML; got "),
        ("guide = 1979-05-27", "expected guide as str; got "),
        ("[stages]\na = 1", "expected stages as "),
        ("x" * 2_000_000, "expected a recipe as TOML; got 2,000,000 bytes, which no recipe has"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(content, message, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        Recipe.from_toml(path)
    assert message in str(caught.value)
    result = invoked("fit", "--config", path)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path):
    (tmp_path / "run.toml").write_text("learning_rate = 0.5\nseed = 7\ndataset = 'mnist-5k'\n")
    result = invoked("fit", "--config", tmp_path / "run.toml", "--seed", "8", *TINY, "--output", tmp_path / "r")
    assert result.exit_code == 0, result.output
    recipe = Run.load(tmp_path / "r").recipe
    assert (recipe.learning_rate, recipe.seed) == (0.5, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "--guide", "lader"), "did you mean 'ladder'?"),
        (("fit", "--recipe", "laddr"), "did you mean 'ladder'?"),
        (("recipes", "activty-vae"), "did you mean 'activity-vae'?"),
        (("fit", "--dataset", "fashion-mnst"), "did you mean 'fashion-mnist'?"),
        (("fit", "--prior", "wamp"), "did you mean 'vamp'?"),
        (("recipes", "--toml"), "expected the NAME of a recipe with --toml"),
        (("fit", "--resume", "nowhere"), "nowhere: expected a run folder with recipe.json"),
        (("fit", "--resume", "nowhere", "--seed", "3"), "expected no setting but --epochs with --resume"),
    ],
)
def test_the_nearest_name_is_told(arguments, message):
    result = invoked(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


LIMITED = "import resource; resource.setrlimit(resource.{}, ({}, {})); from pyrovae.cli import main; main()"


def limited(limit, size, *arguments):
    """The command line under a limit of the system."""
    command = [sys.executable, "-c", LIMITED.format(limit, size, size), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_what_was_whole(tmp_path):
    """No file may be longer than 30,000 bytes: the recipe fits, weights and checkpoints do not."""
    wide = ("--latent-sizes", "3", "--hidden-sizes", "64", "--epochs", "1", "--samples", "2", "--json", "--engine", "eager")
    result = limited("RLIMIT_FSIZE", 30_000, "fit", *wide, "--output", tmp_path / "r")
    assert result.returncode == 2, result.stderr
    assert result.stderr.splitlines()[-1].endswith("expected a folder to write the run into; got File too large")
    assert "Traceback" not in result.stderr
    assert invoked("fit", "--resume", tmp_path / "r", "--samples", "2", "--json").exit_code == 0
    assert Run.load(tmp_path / "r").is_whole


@pytest.fixture
def read_only(tmp_path):
    """From a folder to the command line of somebody who may read it but not write into it."""
    closed = []

    def invoked_there(folder, *arguments):
        for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            each.chmod(0o500)
            closed.append(each)
        # The superuser may write everywhere, but for this.
        plain = ["setpriv", "--bounding-set", "-dac_override"] if os.getuid() == 0 else []
        command = [*plain, sys.executable, "-c", "from pyrovae.cli import main; main()", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})

    yield invoked_there
    for each in closed:
        each.chmod(0o700)


@pytest.mark.slow
def test_a_read_only_folder_is_one_line(read_only, tmp_path):
    run = tmp_path / "r"
    assert invoked("fit", *TINY, "--samples", "2", "--output", run).exit_code == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    commands = [
        ("fit", *TINY, "--output", run / "inner"),
        ("fit", "--resume", run, "--epochs", "9"),
        ("evaluate", run, "--samples", "9"),
        ("bounds", run, "--images", "2", "--temperatures", "2", "--chains", "2", "--samples", "2"),
    ]
    for command in commands:
        result = read_only(run, *command)
        assert result.returncode == 2, (command, result.stdout, result.stderr)
        assert result.stderr.splitlines()[-1].endswith("Permission denied"), (command, result.stderr)
        assert "Traceback" not in result.stderr
        printed = {"evaluate": "log p(x)", "bounds": "annealed"}.get(command[0], "")
        assert printed in result.stdout, f"{command[0]} lost what it measured to a folder that cannot be written"
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert read_only(run, "pack", run, "-o", tmp_path / "run.zip").returncode == 0
    assert read_only(run, "compare", run, run).returncode == 0


@pytest.mark.slow
def test_a_lack_of_memory_says_what_to_lower(tmp_path):
    """Two gibibytes beside torch: a step of 4,000 images with 2,000 samples each takes more."""
    many = ("--batch-size", "4000", "--num-particles", "2000", *TINY, "--engine", "eager", "--output", tmp_path / "r")
    result = limited("RLIMIT_AS", 6 * 2**30, "fit", *many)
    assert result.returncode == 2, result.stderr
    assert "expected enough memory for a step of the training; there is no more: lower --batch-size or" in result.stderr


@pytest.mark.slow
def test_threads_are_those_that_were_asked_for(tmp_path):
    result = limited("RLIMIT_CORE", 0, "fit", "--threads", "1", *TINY, "--output", tmp_path / "r")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "r/environment.json").read_text())["threads"] == 1
