"""Recipes: what they say, where they say it from, and what their stages are."""

import json
from dataclasses import asdict

import pytest
import torch
from click.testing import CliRunner
from pyrovae.cli import main
from resumption import grey

from pyrovae.data.benchmarks import DATASETS
from pyrovae.errors import InputError
from pyrovae.experiments.building import build
from pyrovae.experiments.methods import build_clipping, build_optimizer
from pyrovae.experiments.published import PUBLISHED, RECIPES
from pyrovae.experiments.recipe import Recipe
from pyrovae.programs.networks import ACTIVATIONS


def different(name):
    """The settings in which a recipe, or a stage of it, differs from the defaults."""
    return {setting for setting, value in asdict(RECIPES[name]).items() if value != asdict(Recipe())[setting]}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_shows_where_it_differs_from_the_defaults_and_where_its_paper_says_so(name):
    output = " ".join(CliRunner().invoke(main, ["recipes", name]).output.replace("│", " ").split())
    assert PUBLISHED[name].paper in output
    for setting in different(name):
        assert setting in PUBLISHED[name].says, f"{setting} has no source"
        assert " ".join(PUBLISHED[name].says[setting].split()[:2]) in output, setting
        assert f"{setting.replace('_', ' ')} " in output or setting == "stages"
    assert set(PUBLISHED) == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_json_as_it_was(name):
    assert Recipe.from_dict(json.loads(json.dumps(asdict(RECIPES[name])))) == RECIPES[name]


def test_an_entry_of_ones_own_in_a_table_is_built(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "mish", torch.nn.Mish)
    recipe = Recipe(dataset="grey", activation="mish", likelihood="bernoulli", latent_sizes=(3,), hidden_sizes=(8,))
    assert any(isinstance(each, torch.nn.Mish) for each in build(recipe, grey()).modules())


def test_burdas_stages():
    stages = RECIPES["iwae-1"].schedule
    assert [stage.epochs for stage in stages] == [1, 3, 9, 27, 81, 243, 729, 2187]
    assert stages[0].learning_rate == 1e-3
    assert stages[-1].learning_rate == pytest.approx(1e-4)
    assert RECIPES["iwae-1"].total_epochs == 3280


def test_fine_tuning_follows_the_whole_training_of_the_ladder():
    first, *tuning = RECIPES["ladder-finetuned"].schedule
    assert first == RECIPES["ladder"]
    assert sum(stage.epochs for stage in tuning) == 2000
    assert [stage.learning_rate for stage in tuning[:3]] == pytest.approx([1e-3, 7.5e-4, 5.625e-4])
    assert {(stage.objective, stage.num_particles, stage.num_averages) for stage in tuning} == {("iwelbo", 10, 10)}


def test_a_stage_changes_how_steps_are_taken_and_nothing_else():
    with pytest.raises(InputError, match=r"expected stages that change objective, .*; got guide, seed"):
        Recipe(stages=({"guide": "ladder", "seed": 1},))
    with pytest.raises(InputError, match="expected epochs above zero; got 0"):
        Recipe(stages=({"epochs": 0},))


def test_another_setting_holds_in_every_stage():
    recipe = Recipe(stages=({"epochs": 3}, {"epochs": 5, "batch_size": 10})).replace(epochs=1)
    assert [(stage.epochs, stage.batch_size) for stage in recipe.schedule] == [(1, 100), (1, 10)]


def test_the_arguments_of_one_optimizer_are_none_of_another():
    recipe = RECIPES["activity-vae"]
    assert recipe.replace(optimizer="SGD").optimizer_arguments == {}
    assert recipe.replace(optimizer="Adam").optimizer_arguments == recipe.optimizer_arguments
    assert recipe.replace(optimizer="SGD", optimizer_arguments={"momentum": 0.9}).optimizer_arguments["momentum"] == 0.9


OPTIMIZERS = ["ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_of_torch_moves_the_weights(name):
    module = torch.nn.Linear(3, 2, bias=False)
    optimizer = build_optimizer(Recipe(optimizer=name, learning_rate=0.1), module)
    before = module.weight.detach().clone()
    module(torch.ones(3)).sum().backward()
    optimizer.step()
    assert type(optimizer).__name__ == name
    assert not torch.equal(module.weight, before)


def test_no_norm_is_no_clipping():
    clipping = build_clipping(Recipe(batch_size=20))
    assert (clipping.max_norm, clipping.skip_norm, clipping.scale) == (float("inf"), float("inf"), 0.05)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_of_a_dataset_that_exists(name):
    assert RECIPES[name].dataset in DATASETS
