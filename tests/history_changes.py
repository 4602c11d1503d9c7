"""What people do between two steps, each as a function of a world."""

import copy
import pickle

import pyro
import torch
from history_world import OPTIMIZERS
from pyro.optim import PyroOptim
from torch.nn.utils import parameters_to_vector, vector_to_parameters

EDITS = {
    "data =": lambda each: setattr(each, "data", each.data * 0.9),
    "data clamped": lambda each: setattr(each, "data", each.data.clamp(-0.2, 0.2)),
    "in place": lambda each: each.mul_(0.9),
    "copied into": lambda each: each.copy_(torch.randn_like(each) * 0.1),
}
SETTINGS = (
    ("lr", 0.1),
    ("lr", 0.0),
    ("lr", 0.02),
    ("betas", (0.5, 0.9)),
    ("weight_decay", 0.1),
    ("eps", 1e-3),
    ("momentum", 0.5),
    ("maximize", True),
)


def switch_mode(world, part, training):
    world.subject.part(part).train(training)


def freeze(world, part, trained):
    for parameter in world.parameters(part):
        parameter.requires_grad_(trained)


def change_number(world, path, value):
    world.subject.put(path, value)


@torch.no_grad()
def edit_parameters(world, part, how):
    parameters = world.parameters(part)
    if how == "vector_to_parameters":
        vector_to_parameters(parameters_to_vector(parameters) * 0.9, parameters)
        return
    for parameter in parameters:
        EDITS[how](parameter)


@torch.no_grad()
def edit_buffers(world, replaced):
    """Running statistics begun anew, in place or by other tensors."""
    for module in (each for root in world.subject.modules().values() for each in root.modules()):
        for name, buffer in module.named_buffers(recurse=False):
            if not buffer.is_floating_point():
                continue
            if replaced:
                setattr(module, name, torch.ones_like(buffer))
            else:
                buffer.fill_(0.5)


def save_modules(world, part):
    world.saved[part] = copy.deepcopy(world.subject.part(part).state_dict())


def load_modules(world, part, assign):
    if part in world.saved:
        world.subject.part(part).load_state_dict(copy.deepcopy(world.saved[part]), assign=assign)


@torch.no_grad()
def replace_module(world, part, held):
    """Another module of the same layout, which a torch optimizer is told of or not."""
    fresh = copy.deepcopy(world.subject.part(part)).requires_grad_(True)
    for parameter in fresh.parameters():
        parameter.grad = None
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    world.subject.put(part, fresh)
    for optim in _torch_optimizers(world) if held else ():
        optim.add_param_group({"params": list(fresh.parameters()), "lr": 0.05})
        world.schedulers = []


def cast_modules(world, dtype):
    """All in another precision, and the moments with them, as ``load_state_dict`` casts them."""
    for module in world.subject.modules().values():
        module.to(dtype)
    for optim in (inner for trainer in world.trainers for inner in _inner(trainer.optim)):
        optim.load_state_dict(optim.state_dict())


def copy_programs(world, how, kept):
    """A copy of the programs goes on in the place of the first, with its moments or without."""
    old, before = world.trainers[0].optim, world.parameters() or _held(world.trainers[0].optim)
    world.subject = copy.deepcopy(world.subject) if how == "deepcopy" else pickle.loads(pickle.dumps(world.subject))
    # Of a store that was cleared nothing is left to optimize until the next step.
    optim = OPTIMIZERS[world.optimizer](world.parameters() or before)
    if kept and _is_pyros(old):
        optim = old
    elif kept:
        # What a copy does not own, parameters of the store and modules that were replaced, stay as they are.
        copies = dict(zip(before, world.parameters(), strict=False))
        held = [[(each, copies.get(each, each)) for each in group["params"]] for group in old.param_groups]
        # Moments belong to shapes: where parameters come in another order in the copy, they are of others.
        if all(each.shape == copied.shape for group in held for each, copied in group):
            optim = type(old)([{"params": [copied for _, copied in group]} for group in held])
            optim.load_state_dict(old.state_dict())
    world.schedulers = []
    world.trainers = [world.trainer(optim)]


def train_by_another(world, optimizer, together):
    """A new ``CompiledSVI`` over the same programs, beside the first or in its place."""
    parameters = world.parameters()
    held = [] if optimizer is None or not parameters else [world.trainer(OPTIMIZERS[optimizer](parameters))]
    again = held or [world.trainer(world.trainers[0].optim)]
    world.trainers = [*world.trainers[:1], *again] if together else again
    world.schedulers = []


def change_setting(world, name, value):
    """A setting of every group that has it."""
    inner = [each for trainer in world.trainers for each in _inner(trainer.optim)]
    for group in (group for each in inner for group in each.param_groups if name in group):
        group[name] = value


def add_group(world):
    """What a torch optimizer does not hold yet becomes a group of its own, with another rate."""
    for optim in _torch_optimizers(world)[:1]:
        held = {each for group in optim.param_groups for each in group["params"]}
        others = [each for each in world.parameters() if each not in held]
        if others:
            optim.add_param_group({"params": others, "lr": 0.05})
            # A scheduler knows the groups that there were when it began.
            world.schedulers = []


def save_optimizer(world):
    optim = world.trainers[0].optim
    if not _is_pyros(optim):
        world.saved["optimizer"] = optim, copy.deepcopy(optim.state_dict())


def load_optimizer(world):
    """What was saved, where it still fits."""
    of, state = world.saved.get("optimizer", (None, None))
    optim = world.trainers[0].optim
    if of is optim and len(state["param_groups"]) == len(optim.param_groups):
        optim.load_state_dict(copy.deepcopy(state))


def schedule(world, kind):
    """A scheduler begins."""
    begin = {
        "exponential": lambda optim: torch.optim.lr_scheduler.ExponentialLR(optim, 0.5),
        "one cycle": lambda optim: torch.optim.lr_scheduler.OneCycleLR(optim, 0.1, total_steps=50),
    }[kind]
    world.schedulers += [begin(optim) for optim in _torch_optimizers(world)[:1]]


def step_schedulers(world):
    for each in world.schedulers:
        each.step()
    for trainer in world.trainers:
        if isinstance(trainer.optim, pyro.optim.lr_scheduler.PyroLRScheduler):
            trainer.optim.step()


def clear_store(world):
    pyro.clear_param_store()


def save_store(world):
    world.saved["store"] = copy.deepcopy(pyro.get_param_store().get_state())


def load_store(world):
    if "store" in world.saved:
        pyro.get_param_store().set_state(copy.deepcopy(world.saved["store"]))


def _is_pyros(optim):
    return isinstance(optim, PyroOptim)


def _inner(optim):
    """The torch optimizers inside one of Pyro's, or the one that it is."""
    return [getattr(each, "optimizer", each) for each in optim.optim_objs.values()] if _is_pyros(optim) else [optim]


def _torch_optimizers(world):
    return [each.optim for each in world.trainers if not _is_pyros(each.optim)]


def _held(optim):
    return [] if _is_pyros(optim) else [each for group in optim.param_groups for each in group["params"]]
