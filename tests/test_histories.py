"""Histories of what people do between steps: after each step our engine is where plain Pyro is, or says why not.

A history is drawn by hypothesis and lived twice: by ``CompiledSVI``, and by plain Pyro on programs made from the same seed. One
of three things happens at each step: both take it and are equal to the last bit, in loss, parameters, moments, buffers and the
state of the random numbers; or the step fails by itself, in both, and ours has moved nothing; or engine ``graph`` refuses, by
a ``CaptureError`` that names what it cannot hold, and has moved nothing. Engine ``auto`` never refuses.
"""

import history_changes as changes
import history_programs
import pyro
import pytest
import torch
from history_comparison import HANDLERS, Batch, attempt, compare, same
from history_programs import FORMS, SUBJECTS, WEIGHTS
from history_world import OPTIMIZERS, World
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from torch.distributions import Distribution

# Histories for each program: by default, in CI, among what takes hours, and of those in which all is compiled.
FEW, HUNDREDS, MANY, COMPILED = 2, 20, 400, 2
LENGTH = 7

BROKEN = {
    "not a number": lambda x: x.index_fill(0, torch.tensor([1]), torch.nan),
    "infinite": lambda x: x.index_fill(0, torch.tensor([1]), torch.inf),
    "between the bits": lambda x: x * 0.5,
    "too narrow": lambda x: x[:, :4],
    "one row": lambda x: x[:1],
    "no rows": lambda x: x[:0],
}
# Of three changes, one is followed by no step before the next.
then = st.sampled_from([1, 1, 0])
sizes = st.sampled_from([8, 8, 5])
stacks = st.lists(st.tuples(st.sampled_from(list(HANDLERS)), st.sampled_from(WEIGHTS)), min_size=1, max_size=3)


class History(RuleBasedStateMachine):
    """Steps; a program adds what may be changed in it."""

    program: str
    engines: tuple

    def __init__(self):
        super().__init__()
        self.count = 0
        self.subject = SUBJECTS[self.program]

    def teardown(self):
        torch.set_default_dtype(torch.float32)
        pyro.enable_validation(True)
        history_programs.SPREAD = 0.3

    @initialize(data=st.data(), optimizer=st.sampled_from(list(OPTIMIZERS)), held=st.sampled_from(["all", "all", "half"]))
    def begin(self, data, optimizer, held):
        engine = data.draw(st.sampled_from(self.engines), "engine")
        if not self.subject.stored and optimizer.startswith("Pyro"):
            optimizer = "Adam"
        self.ours = World(self.program, optimizer, engine, held=held)
        self.plain = World(self.program, optimizer, None, held=held)
        self._steps(1)

    def _steps(self, number=1, *, size=8, form="tensor", broken=None, **options):
        for _ in range(number):
            self.count += 1
            data = self.subject.batch(size, self.count)
            if broken is not None:
                data = BROKEN[broken](data)
            batch = Batch(data, self.count, form, strange=broken is not None, **options)
            compare(self.ours, self.plain, batch, FORMS[form], rounding=self.ours.engine == "compiled")

    def _both(self, steps, change, *args, **kwargs):
        """Do something in both worlds, then take some steps."""
        for world in (self.ours, self.plain):
            with world.entered(self.count):
                change(world, *args, **kwargs)
        same(self.ours.state(), self.plain.state(), change.__name__, rounding=self.ours.engine == "compiled")
        self._steps(steps)

    @rule(size=sizes, trainer=st.integers(0, 1), number=st.integers(1, 3))
    def take_steps(self, size, trainer, number):
        self._steps(number, size=size, trainer=trainer)

    @rule(size=sizes, form=st.sampled_from(list(FORMS)), keyword=st.booleans())
    def take_a_step_on_another_form_of_batch(self, size, form, keyword):
        self._steps(2, size=size, form=form, keyword=keyword)

    @precondition(lambda self: self.subject.weighted)
    @rule(weights=st.lists(st.sampled_from([*WEIGHTS, 1, 2, torch.tensor(0.5)]), min_size=1, max_size=3))
    def take_steps_with_an_annealed_argument(self, weights):
        for weight in weights:
            self._steps(arguments={"weight": weight})

    @rule(handlers=stacks, number=st.integers(1, 2), size=sizes)
    def take_steps_under_handlers(self, handlers, number, size):
        self._steps(number, handlers=tuple(handlers), size=size)

    @rule(broken=st.sampled_from(list(BROKEN)))
    def take_a_step_that_may_fail_and_go_on(self, broken):
        self._steps(broken=broken)
        self._steps()

    @rule(size=sizes, handlers=st.lists(stacks.map(lambda each: each[0]), max_size=1))
    def measure_between_steps(self, size, handlers):
        before = self.ours.state()
        batch = Batch(self.subject.batch(size, self.count), self.count, handlers=tuple(handlers))
        got, right = (attempt(world, batch, FORMS["tensor"], "evaluate_loss") for world in (self.ours, self.plain))
        assert type(got.error) is type(right.error), f"measuring raised {got.error!r} where {right.error!r} is right"
        assert got.error is not None or got.loss == right.loss, f"measured {got.loss} where {right.loss} is right"
        same(self.ours.state(), before, "after measuring")
        self._steps()

    @precondition(lambda self: self.subject.parts)
    @rule(data=st.data(), training=st.booleans(), steps=then)
    def switch_mode(self, data, training, steps):
        self._both(steps, changes.switch_mode, self._part(data, store=False), training)

    @rule(data=st.data(), trained=st.booleans(), steps=then)
    def freeze_or_thaw(self, data, trained, steps):
        self._both(steps, changes.freeze, self._part(data), trained)

    @rule(data=st.data(), steps=then)
    def change_an_attribute(self, data, steps):
        path = data.draw(st.sampled_from(list(self.subject.numbers)), "path")
        self._both(steps, changes.change_number, path, data.draw(st.sampled_from(self.subject.numbers[path]), "value"))

    @rule(data=st.data(), how=st.sampled_from([*changes.EDITS, "vector_to_parameters"]), steps=then)
    def edit_parameters(self, data, how, steps):
        self._both(steps, changes.edit_parameters, self._part(data), how)

    @rule(replaced=st.booleans(), steps=then)
    def edit_buffers(self, replaced, steps):
        self._both(steps, changes.edit_buffers, replaced)

    @precondition(lambda self: self.subject.parts)
    @rule(data=st.data(), assign=st.booleans(), steps=st.integers(0, 1))
    def go_back_to_an_earlier_state_dict(self, data, assign, steps):
        part = self._part(data, store=False)
        self._both(1, changes.save_modules, part)
        self._both(steps, changes.load_modules, part, assign)
        self._steps()

    @precondition(lambda self: self.subject.replaceable)
    @rule(data=st.data(), held=st.booleans(), steps=then)
    def replace_a_module(self, data, held, steps):
        self._both(steps, changes.replace_module, data.draw(st.sampled_from(self.subject.replaceable), "part"), held)

    @precondition(lambda self: self.subject.parts)
    @rule(dtype=st.sampled_from([torch.float64, torch.float32]))
    def cast_modules(self, dtype):
        self._both(1, changes.cast_modules, dtype)

    @rule(how=st.sampled_from(["deepcopy", "pickle"]), kept=st.booleans(), cleared=st.booleans())
    def go_on_with_a_copy(self, how, kept, cleared):
        self._both(0, changes.copy_programs, how if self.subject.picklable else "deepcopy", kept)
        self._both(1, changes.clear_store if cleared else changes.step_schedulers)

    @rule(data=st.data(), together=st.booleans(), anew=st.booleans())
    def train_by_another(self, data, together, anew):
        known = [name for name in OPTIMIZERS if self.subject.stored or not name.startswith("Pyro")]
        optimizer = data.draw(st.sampled_from(known), "optimizer") if anew else None
        self._both(1, changes.train_by_another, optimizer, together)
        self._steps(trainer=1)

    @rule(setting=st.sampled_from(changes.SETTINGS), steps=then)
    def change_a_setting_of_the_optimizer(self, setting, steps):
        self._both(steps, changes.change_setting, *setting)

    @rule(steps=then)
    def add_a_group_of_parameters(self, steps):
        self._both(steps, changes.add_group)

    @rule(steps=st.integers(0, 2))
    def go_back_to_an_earlier_state_of_the_optimizer(self, steps):
        self._both(steps, changes.save_optimizer)
        self._both(1, changes.load_optimizer)

    @rule(kind=st.sampled_from(["exponential", "one cycle"]))
    def schedule_rates(self, kind):
        self._both(1, changes.schedule, kind)
        self._both(1, changes.step_schedulers)

    @rule(dtype=st.sampled_from([torch.float64, torch.float32]), steps=then)
    def change_the_default_dtype(self, dtype, steps):
        torch.set_default_dtype(dtype)
        self._steps(steps)

    @rule(validated=st.booleans(), of_torch_alone=st.booleans(), steps=then)
    def switch_validation(self, validated, of_torch_alone, steps):
        (Distribution.set_default_validate_args if of_torch_alone else pyro.enable_validation)(validated)
        self._steps(steps)

    @precondition(lambda self: self.subject.stored)
    @rule(steps=then)
    def clear_the_store(self, steps):
        self._both(steps, changes.clear_store)

    @precondition(lambda self: self.subject.stored)
    @rule(steps=then)
    def go_back_to_an_earlier_store(self, steps):
        self._both(steps, changes.save_store)
        self._both(1, changes.load_store)

    def _part(self, data, *, store=True):
        known = [*self.subject.parts, *(["store"] if store and self.subject.stored else [])]
        return data.draw(st.sampled_from(known), "part")


def live(program, engines, histories, *, length=LENGTH, shrink=False):
    """Draw histories of a program, always the same ones; ``shrink`` spends minutes on a shorter one that fails too."""
    machine = type(f"HistoryOf{program.capitalize()}", (History,), {"program": program, "engines": engines})
    chosen = settings(
        max_examples=histories,
        stateful_step_count=length,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.parametrize("engine", ["graph", "auto", "eager"])
def test_batch_norm_without_momentum_is_refused_by_name_or_trained(engine):
    """A history that was drawn once: a statistic that is averaged over all batches reads their number."""
    ours, plain = World("vae", "Adam", engine), World("vae", "Adam", None)
    for count in range(1, 6):
        if count == 3:
            for world in (ours, plain):
                changes.change_number(world, "vae.encoder.1.momentum", None)
        compare(ours, plain, Batch(ours.subject.batch(8, count), count, arguments={"weight": 0.1}), FORMS["tensor"])


@pytest.mark.slow
@pytest.mark.parametrize("program", SUBJECTS)
def test_plain_pyro_equals_itself(program):
    live(program, (None,), 5 * FEW)


@pytest.mark.parametrize("program", SUBJECTS)
def test_histories_equal_those_of_plain_pyro(program):
    live(program, ("graph", "auto", "graph", "eager"), FEW)


@pytest.mark.slow
@pytest.mark.parametrize("program", SUBJECTS)
def test_hundreds_of_histories_equal_those_of_plain_pyro(program):
    live(program, ("graph", "auto", "graph", "eager"), HUNDREDS)


@pytest.mark.hours
@pytest.mark.parametrize("program", SUBJECTS)
def test_many_histories_equal_those_of_plain_pyro(program):
    live(program, ("graph", "auto", "graph", "eager"), MANY, shrink=True)


@pytest.mark.hours
@pytest.mark.parametrize("program", SUBJECTS)
def test_compiled_histories_equal_those_of_plain_pyro_within_rounding(program):
    live(program, ("compiled",), COMPILED, length=4)
