"""Learning rates that change, averages that start late, and weight decay for the guide alone."""

import pytest
import torch
from resumption import SMALL, grey
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pyrovae.errors import InputError
from pyrovae.experiments.building import build
from pyrovae.experiments.methods import build_optimizer
from pyrovae.experiments.training import train
from pyrovae.inference.learning_rates import LEARNING_RATES, scheduled

SCHEDULED = SMALL.replace(
    learning_rate=0.1,
    learning_rate_schedule="linear",
    learning_rate_warmup=3,
    stages=({"epochs": 2}, {"epochs": 1, "learning_rate": 0.02, "learning_rate_schedule": "cosine", "learning_rate_warmup": 0}),
)


@pytest.mark.parametrize("name", LEARNING_RATES)
def test_courses_in_closed_form(name):
    expected = {
        "constant": (1, 1, 1, 1),
        "cosine": (1, 0.5 + 0.5 / 2**0.5, 0.5, 0.5 - 0.5 / 2**0.5),
        "linear": (1, 0.75, 0.5, 0.25),
        "step": (1, 1, 0.1, 0.01),
    }
    assert [LEARNING_RATES[name](share) for share in (0, 0.25, 0.5, 0.75)] == pytest.approx(expected[name])
    rate = scheduled(2.0, LEARNING_RATES[name], 100, warmup_steps=4)
    assert rate(1) == pytest.approx(LEARNING_RATES[name](0.01))
    assert rate(5) == pytest.approx(2 * LEARNING_RATES[name](0.05))


@pytest.fixture
def rates():
    """The learning rates of all groups at each step of any optimizer."""
    seen = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: seen.append({group["lr"] for group in optimizer.param_groups})
    )
    yield seen
    hook.remove()


def test_every_step_of_every_stage_has_the_rate_of_its_course(rates, tmp_path):
    train(SCHEDULED.replace(encoder_weight_decay=0.1), tmp_path / "run", dataset=grey(), engine="eager")
    first = [0.1 * min(1, (step + 1) / 3) * (1 - step / 8) for step in range(8)]
    second = [0.02 * LEARNING_RATES["cosine"](step / 4) for step in range(4)]
    assert [len(each) for each in rates] == 12 * [1]
    assert [rate for each in rates for rate in each] == pytest.approx(first + second)


def test_batch_size_and_particles_change_by_stage_and_moments_stay(tmp_path):
    """Adam's own count of its steps goes on through three stages of other sizes."""
    recipe = SMALL.replace(epochs=1, stages=({}, {"batch_size": 60}, {"num_particles": 3}))
    counts = []

    def count(optimizer, *_):
        counts.append({int(state["step"]) for state in optimizer.state.values()})

    hook = register_optimizer_step_post_hook(count)
    try:
        train(recipe, tmp_path / "run", dataset=grey(), engine="eager")
    finally:
        hook.remove()
    assert counts == [{step} for step in range(1, 4 + 2 + 4 + 1)]


@pytest.mark.slow
def test_a_compiled_graph_takes_the_rates_as_they_come(tmp_path):
    losses = {}
    for engine in ("eager", "compiled"):
        run = train(SCHEDULED, tmp_path / engine, dataset=grey(), engine=engine)
        losses[engine] = [row["loss_nats"] for row in run.history]
    assert losses["compiled"] == pytest.approx(losses["eager"], rel=1e-4)


def test_an_average_starts_with_its_stage(tmp_path):
    """That of the second stage is of the weights after its steps alone, and its weights are those that are measured."""
    recipe = SMALL.replace(stages=({"epochs": 1}, {"epochs": 1, "average_decay": 0.7}, {"epochs": 1, "average_decay": 0.7}))
    weights = []

    def keep(status):
        if status.record is None:
            weights.append([each.detach().clone() for each in status.run.vae.parameters()])

    run = train(recipe, tmp_path / "run", dataset=grey(), engine="graph", track=keep)
    average = weights[4]
    for step, each in enumerate(weights[5:], 2):
        decay = min(0.7, step / (step + 9))
        average = [decay * old + (1 - decay) * new for old, new in zip(average, each, strict=True)]
    for expected, got in zip(average, run.vae.parameters(), strict=True):
        torch.testing.assert_close(got, expected)


def test_weight_decay_reaches_the_guide_alone(tmp_path):
    """A plain step with decay and one without differ by learning rate x decay x weight in the guide, and nowhere else."""
    once = SMALL.replace(optimizer="SGD", learning_rate=0.01, batch_size=120, epochs=1)
    start, plain, decayed = (
        train(each, tmp_path / name, dataset=grey(), engine="eager").vae
        for name, each in (
            ("start", once.replace(learning_rate=1e-30)),
            ("plain", once),
            ("decayed", once.replace(encoder_weight_decay=0.5)),
        )
    )
    for name, before in start.named_parameters():
        difference = plain.get_parameter(name) - decayed.get_parameter(name)
        expected = 0.01 * 0.5 * before if name.startswith("guide.") else torch.zeros_like(before)
        torch.testing.assert_close(difference, expected, rtol=1e-3, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
    for arguments, of_model in (({}, 0.0), ({"weight_decay": 0.2}, 0.2)):
        recipe = once.replace(optimizer="AdamW", encoder_weight_decay=0.01).replace(optimizer_arguments=arguments)
        assert [group["weight_decay"] for group in build_optimizer(recipe, start).param_groups] == [of_model, 0.01]


def test_what_makes_no_sense_is_refused(tmp_path):
    train(SMALL.replace(epochs=1, learning_rate_schedule="cosine"), tmp_path / "run", dataset=grey(), engine="eager")
    with pytest.raises(InputError, match="expected its 1 epochs, over which its learning rate has gone down; got 2"):
        train(SMALL.replace(epochs=2, learning_rate_schedule="cosine"), tmp_path / "run", dataset=grey(), engine="eager")
    with pytest.raises(InputError, match="expected a warm-up of the learning rate within the 4 steps of its stage; got 5"):
        train(SMALL.replace(epochs=1, learning_rate_warmup=5), tmp_path / "other", dataset=grey())
    for stages in ((), ({}, {"learning_rate_schedule": "cosin"})):
        recipe = SMALL.replace(learning_rate_schedule="cosine" if stages else "cosin", stages=stages)
        with pytest.raises(
            InputError, match=r"schedule out of constant, cosine, linear, step; got 'cosin'; did you mean 'cosi"
        ):
            build(recipe, grey())
    with pytest.raises(
        InputError, match="expected an optimizer with weight decay for encoder_weight_decay; got Rprop: use Adam"
    ):
        train(SMALL.replace(optimizer="Rprop", encoder_weight_decay=0.1), tmp_path / "third", dataset=grey())
    with pytest.raises(InputError, match="expected an optimizer whose steps follow the learning rate; Rprop reads it once"):
        train(SMALL.replace(optimizer="Rprop", learning_rate_schedule="step"), tmp_path / "fourth", dataset=grey())
