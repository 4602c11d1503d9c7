"""Steps that go on elsewhere are those of the trainer that they come from, to the last bit, in every engine."""

import copy
import shutil

import pytest
import torch

from pyrovae.engine import matmul_kernels
from pyrovae.engine.capture import capture
from pyrovae.engine.matmul_kernels import products_by, with_fastest_products
from pyrovae.experiments.building import assemble
from pyrovae.experiments.recipe import Recipe
from pyrovae.inference.clipping import Clipping
from pyrovae.inference.objectives import ELBO, IWELBO
from pyrovae.inference.svi import CompiledSVI

RECIPES = {
    "ladder": Recipe(
        guide="ladder", prior="vamp", num_components=5, latent_sizes=(4, 2), hidden_sizes=(16, 8), batch_norm=True
    ),
    "one layer": Recipe(latent_sizes=(4,), hidden_sizes=(16,), hidden_layers=1),
}
STEPS = 10


class Training:
    """Steps whose random numbers are those of their number."""

    def __init__(self, name, engine):
        recipe = RECIPES[name]
        torch.manual_seed(0)
        self.vae = assemble(Recipe(**(vars(recipe) | {"likelihood": "bernoulli"})), (1, 4, 5)).train()
        self.optimizer = torch.optim.Adam(self.vae.parameters(), fused=True)
        objective = IWELBO(3) if name == "one layer" else ELBO()
        clipping = Clipping(max_norm=20.0, skip_norm=1e6) if name == "ladder" else None
        self.svi = CompiledSVI(self.vae.model, self.vae.guide, self.optimizer, objective, engine=engine, clipping=clipping)
        self.x = (torch.rand(30, 20) > 0.7).float()

    def take(self, first, last):
        for number in range(first, last):
            torch.manual_seed(number)
            self.svi.step(self.x)
        return self

    def goes_on(self, other):
        self.vae.load_state_dict(copy.deepcopy(other.vae.state_dict()))
        self.optimizer.load_state_dict(copy.deepcopy(other.optimizer.state_dict()))
        self.svi.load_state_dict(other.svi.state_dict())
        return self

    @property
    def state(self):
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        return [*self.vae.state_dict().values(), *moments]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "graph", "compiled"])
@pytest.mark.parametrize("name", RECIPES)
def test_steps_go_on_to_the_same_bits(name, engine):
    straight = Training(name, engine).take(0, STEPS)
    for number in (1, 7):
        begun = Training(name, engine).take(0, number)
        ended = Training(name, engine).goes_on(begun).take(number, STEPS)
        assert all(map(torch.equal, straight.state, ended.state)), f"stopped after {number} steps"
        assert ended.svi.state_dict() == straight.svi.state_dict()


@pytest.mark.slow
def test_a_compiled_training_is_compiled_from_its_first_step_on():
    ended = Training("ladder", "compiled").goes_on(Training("ladder", "compiled").take(0, 3))
    ended.take(3, 4)
    (plan,) = [each.payload for each in ended.svi._function.situations]
    assert plan.is_compiled
    assert ended.svi.decision == "engine compiled: as asked"


def test_a_state_that_was_loaded_is_saved_again_as_it_was():
    begun = Training("ladder", "graph").take(0, 3)
    assert Training("ladder", "graph").goes_on(begun).svi.state_dict() == begun.svi.state_dict()


@pytest.mark.parametrize("faster", [0, 1])
def test_products_are_taken_as_they_were_whatever_is_faster_now(home, monkeypatch, faster):
    graph = capture(lambda x, y: [x @ y], [torch.ones(4, 5), torch.ones(5, 3)])
    before, choices = [2.0, 2.0], {}
    before[faster] = 1.0
    monkeypatch.setattr(matmul_kernels, "_seconds", lambda *products: before)
    with products_by(choices):
        code = with_fastest_products(graph.module).code
    assert list(choices.values()) == [faster == 1]
    shutil.rmtree(home)
    monkeypatch.setattr(matmul_kernels, "_seconds", lambda *products: pytest.fail("it was timed anew"))
    with products_by(choices):
        assert with_fastest_products(graph.module).code == code
