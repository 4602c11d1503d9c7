"""Single changes between two steps, each of which once trained on in silence with what was there before it."""

import history_changes as changes
import history_programs
import pyro
import pyro.distributions as dist
import pytest
import torch
from history_comparison import Batch, compare
from history_programs import FORMS, SUBJECTS
from history_world import World
from plain_pyro import PlainSVI, quiet
from pyro.infer import Trace_ELBO

from pyrovae.inference.svi import CompiledSVI

ENGINES = ("graph", "auto")
HOLDING = ("graph", "auto", "eager")

# A program, and what is done between its second step and its third.
CHANGES = {
    "modes of a module whose methods are the programs": ("vae", changes.switch_mode, "vae", False),
    "mode of one module": ("vae", changes.switch_mode, "vae.encoder.2", False),
    "mode of one module of a ladder": ("ladder", changes.switch_mode, "guide.encoder", False),
    "a weight as attribute": ("vae", changes.change_number, "vae.kl_weight", 0.1),
    "a temperature as attribute": ("vae", changes.change_number, "vae.temperature", 2.0),
    "a name as attribute": ("vae", changes.change_number, "vae.activation", "sigmoid"),
    "a flag as attribute": ("vae", changes.change_number, "vae.shifted", False),
    "a tensor as attribute": ("vae", changes.change_number, "vae.gain", torch.tensor(2.0)),
    "a number in a dictionary": ("vae", changes.change_number, "prior_scale", 2.0),
    "a number in a namespace": ("autoguide", changes.change_number, "model.settings.noise", 2.0),
    "a number of a model with an autoguide": ("autoguide", changes.change_number, "model.width", 2.0),
    "a number of a PyroModule": ("regression", changes.change_number, "model.spread", 2.0),
    "a number that a function closes over": ("mixture", changes.change_number, "temperature", 2.0),
    "a tensor that a function closes over": ("mixture", changes.change_number, "centres", 2.0),
    "a global number": ("mixture", changes.change_number, "spread", 0.5),
    "the share of dropout": ("vae", changes.change_number, "vae.encoder.2.p", 0.5),
    "the momentum of batch norm": ("ladder", changes.change_number, "guide.encoder.networks.0.1.momentum", 0.3),
    "a replaced decoder": ("vae", changes.replace_module, "vae.decoder", True),
    "a replaced decoder that no optimizer holds": ("vae", changes.replace_module, "vae.decoder", False),
    "a replaced likelihood": ("ladder", changes.replace_module, "model.likelihood", True),
    "parameter.data =": ("vae", changes.edit_parameters, "vae", "data ="),
    "parameter.data clamped": ("ladder", changes.edit_parameters, "model", "data clamped"),
    "vector_to_parameters": ("autoguide", changes.edit_parameters, "model", "vector_to_parameters"),
    "the store's tensors given other data": ("mixture", changes.edit_parameters, "store", "data ="),
    "replaced buffers": ("vae", changes.edit_buffers, True),
    "frozen parameters, their gradients left": ("vae", changes.freeze, "vae.encoder", False),
    "frozen parameters of the store": ("mixture", changes.freeze, "store", False),
    "all parameters frozen": ("ladder", changes.freeze, "model", False),
    "float64": ("vae", changes.cast_modules, torch.float64),
    "a cleared store": ("mixture", changes.clear_store),
    "betas": ("vae", changes.change_setting, "betas", (0.5, 0.9)),
    "weight decay": ("vae", changes.change_setting, "weight_decay", 0.1),
    "a rate of zero": ("vae", changes.change_setting, "lr", 0.0),
    "a copy of the programs": ("vae", changes.copy_programs, "deepcopy", True),
    "a pickled copy of the programs": ("ladder", changes.copy_programs, "pickle", True),
}


class Lives:
    """Two worlds, ours and plain Pyro's."""

    def __init__(self, program, engine, optimizer="Adam", **options):
        self.worlds = World(program, optimizer, engine, **options), World(program, optimizer, None, **options)
        self.count = 0

    def both(self, change, *args):
        for world in self.worlds:
            with world.entered(0):
                change(world, *args)

    def step(self, *, size=8, form="tensor", data=None, **options):
        self.count += 1
        data = self.worlds[0].subject.batch(size, self.count) if data is None else data
        compare(*self.worlds, Batch(data, self.count, form, **options), FORMS[form])


@pytest.fixture(autouse=True)
def _as_before():
    yield
    torch.set_default_dtype(torch.float32)
    history_programs.SPREAD = 0.3


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_between_steps_is_seen(name, engine):
    program, change, *args = CHANGES[name]
    lives = Lives(program, engine)
    lives.step()
    lives.step()
    lives.both(change, *args)
    lives.step()
    lives.step()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", ["Adam", "Pyro's Adam"])
def test_parameters_are_frozen_and_thawed(optimizer, engine):
    lives = Lives("vae", engine, optimizer)
    for trained in (True, False, True):
        lives.both(changes.freeze, "vae.encoder", trained)
        lives.step()
        lives.step()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_new_group_of_parameters_is_trained(engine):
    lives = Lives("vae", engine, held="half")
    lives.step()
    lives.both(changes.add_group)
    lives.step()
    lives.step()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("program", ["vae", "ladder", "autoguide"])
def test_a_state_dict_is_loaded(program, assign, engine):
    lives = Lives(program, engine)
    part = next(iter(SUBJECTS[program].roots))
    for change in ((changes.save_modules, part), (changes.load_modules, part, assign)):
        lives.step()
        lives.both(*change)
    lives.step()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", ["Adam", "Pyro's Adam"])
def test_a_store_is_saved_and_loaded(optimizer, engine):
    lives = Lives("mixture", engine, optimizer)
    for change in (changes.save_store, changes.load_store):
        lives.step()
        lives.both(change)
    lives.step()
    lives.step()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("program", ["vae", "regression", "autoguide"])
def test_the_default_dtype_is_part_of_the_situation(program, engine):
    lives = Lives(program, engine)
    for dtype in (torch.float32, torch.float64, torch.float32):
        torch.set_default_dtype(dtype)
        lives.step()


@pytest.mark.parametrize("engine", HOLDING)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("program", ["vae", "mixture"])
def test_each_batch_is_trained_on_whatever_holds_it(program, form, engine):
    lives = Lives(program, engine)
    for keyword in (False, False, True):
        lives.step(form=form, keyword=keyword, size=40)


def test_large_arrays_of_one_representation_are_different_batches():
    # numpy abbreviates: zeros at the borders are all that it prints.
    arrays = [torch.nn.functional.pad(torch.full((30, 30), i + 1.0), (6, 6, 6, 6)).numpy() for i in range(3)]
    assert len({repr(each) for each in arrays}) == 1

    def model(batch):
        x = torch.as_tensor(batch)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[:, None].expand(x.shape), 1.0).to_event(1), obs=x)

    def guide(batch):
        with pyro.plate("data", len(batch)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0).expand([len(batch)]))

    for engine in (*HOLDING, None):
        pyro.clear_param_store()
        optim = pyro.optim.Adam({"lr": 1e-3})
        svi = (
            PlainSVI(model, guide, optim, Trace_ELBO())
            if engine is None
            else CompiledSVI(model, guide, optim, Trace_ELBO(), engine=engine)
        )
        torch.manual_seed(0)
        losses = [float(svi.step(each)) for each in arrays]
        if engine == HOLDING[0]:
            first = losses
        assert losses == first, engine


@pytest.mark.parametrize("engine", HOLDING)
@pytest.mark.parametrize("program", ["vae", "ladder"])
def test_scales_of_two_kinds_are_two_situations(program, engine):
    lives = Lives(program, engine)
    for name in ("scale_latents", "scale", "scale_latents"):
        lives.step(handlers=((name, 0.1),))


@pytest.mark.parametrize("engine", HOLDING)
@pytest.mark.parametrize(
    "handlers",
    [
        (("condition", 1.0),),
        (("mask", 0.1),),
        (("block", 1.0),),
        (("trace", 1.0),),
        (("seed", 0.5),),
        (("scale", 0.1), ("block", 1.0)),
        (("block", 1.0), ("scale", 0.1)),
        (("scale", 0.1), ("scale_latents", 0.5), ("scale", 2.0)),
    ],
    ids=lambda handlers: ", ".join(name for name, _ in handlers),
)
def test_handlers_around_a_later_step_count_or_are_refused(handlers, engine):
    lives = Lives("vae", engine)
    for around in ((), handlers, (), handlers):
        lives.step(handlers=around)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("program", [name for name, each in SUBJECTS.items() if each.weighted])
def test_numbers_as_arguments_are_annealed(program, engine):
    lives = Lives(program, engine)
    for weight in [*(step / 30 for step in range(1, 31)), 1, 2, *([] if program == "regression" else [torch.tensor(0.5)])]:
        lives.step(arguments={"weight": weight})
    assert lives.worlds[0].trainers[0].graphs_kept < 10


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_many_lengths_are_not_all_kept(engine):
    lives = Lives("mixture", engine)
    with quiet():
        for size in range(2, 42):
            lives.step(size=size)
    assert lives.worlds[0].trainers[0].graphs_kept < 40
