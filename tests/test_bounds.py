"""``pyrovae bounds``: its figures, its table and its refusals."""

import json

import pytest
import torch
from click.testing import CliRunner
from pyrovae.cli import main

from pyrovae.experiments.bounding import Bounds
from pyrovae.experiments.building import load_data
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run

TINY = {"guide": "mean_field", "latent_sizes": (4,), "hidden_sizes": (8,), "hidden_layers": 1, "likelihood": "bernoulli"}


def untrained(folder, **settings):
    """A run folder as it is before the first epoch, which is one all the same."""
    torch.set_default_dtype(torch.float32)
    recipe = Recipe(**TINY | settings)
    data = load_data(recipe)
    run = Run.create(folder, recipe, data)
    run.save_weights()
    return str(folder)


@pytest.mark.parametrize("condition", ["none", "middle-column"])
def test_the_command_line_prints_bounds_from_both_sides(condition, tmp_path):
    run = untrained(tmp_path / "run", condition=condition)
    arguments = ("bounds", run, "--images", "4", "--temperatures", "3", "--chains", "3", "--samples", "50")
    first, second = (CliRunner().invoke(main, [*arguments, "--json"]) for _ in range(2))
    assert first.exit_code == 0, first.output
    results = json.loads(first.stdout)
    assert results["simulated"]["gap"] == pytest.approx(
        results["simulated"]["upper"] - results["simulated"]["annealed"], abs=1e-3
    )
    assert -800 < results["test"]["annealed"] < -400, "an untrained network gives bits a probability of about one half"
    assert abs(results["test"]["difference"]) < 5
    assert 0 < results["test"]["acceptance_rate"] <= 1
    assert Bounds.load(tmp_path / "run").as_dict() == json.loads(second.stdout)
    assert results | {"seconds": 0} == json.loads(second.stdout) | {"seconds": 0}, "the same seed"


def test_the_table_says_how_its_figures_were_made(tmp_path):
    arguments = ("--images", "2", "--temperatures", "2", "--chains", "3", "--samples", "50")
    table = CliRunner().invoke(main, ["bounds", untrained(tmp_path / "run"), *arguments]).stdout
    for part in (
        "annealed, from above",
        "3 chains of 2 temperatures",
        "50 importance samples",
        "2 of 500 test images",
        "accepted",
    ):
        assert part in table


def test_the_command_line_refuses_what_has_no_bounds(tmp_path):
    regressor = {"latent_sizes": (), "condition": "middle-column"}
    cases = [(regressor, "expected latents to anneal"), ({"likelihood": "cross_entropy"}, "'cross_entropy' is a loss")]
    for number, (settings, message) in enumerate(cases):
        result = CliRunner().invoke(main, ["bounds", untrained(tmp_path / str(number), **settings)])
        assert result.exit_code == 2, result.output
        assert message in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
