"""A world of a history: programs, a parameter store of their own, and what trains them; and all that a step may move."""

from contextlib import contextmanager

import pyro
import pyro.optim
import torch
from history_programs import SUBJECTS
from plain_pyro import OwnStore, PlainSVI, quiet
from pyro.optim import PyroOptim

from pyrovae.inference.svi import CompiledSVI

# What Adam divides by is kept from zero: a bias before batch norm has a gradient of rounding alone, which the compiled engine
# rounds otherwise, and a step divided by its size would be as long as any other.
STEADY = {"lr": 0.02, "eps": 1e-3}
OPTIMIZERS = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, **STEADY),
    "fused Adam": lambda parameters: torch.optim.Adam(parameters, fused=True, **STEADY),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, **STEADY),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.002, momentum=0.9),
    "Pyro's Adam": lambda _: pyro.optim.Adam(STEADY),
    "Pyro's ClippedAdam": lambda _: pyro.optim.ClippedAdam({**STEADY, "lrd": 0.9, "clip_norm": 1.0}),
    "Pyro's ExponentialLR": lambda _: pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": STEADY, "gamma": 0.5}
    ),
}


class World:
    """One program and its training, by plain Pyro where ``engine`` is None.

    Args:
        program: one of ``SUBJECTS``.
        optimizer: one of ``OPTIMIZERS``.
        engine: of ``CompiledSVI``.
        held: a torch optimizer holds all parameters, or the first half of them.
    """

    def __init__(self, program, optimizer, engine, *, held="all"):
        self.engine, self.optimizer = engine, optimizer
        self.store = OwnStore()
        self.schedulers, self.saved = [], {}
        with self.entered(0):
            self.subject = SUBJECTS[program]()
            with torch.no_grad():
                # Autoguides and the store have no parameters before the first run.
                PlainSVI(*self._programs()[:2], None, self.subject.loss, transform=self.subject.transform).evaluate_loss(
                    self.subject.batch(8, 0)
                )
            parameters = self.parameters()
            parameters = parameters if held == "all" else parameters[: (len(parameters) + 1) // 2]
            self.trainers = [self.trainer(OPTIMIZERS[optimizer](parameters))]

    @contextmanager
    def entered(self, seed):
        """Inside, the store is this world's and random numbers start from ``seed``."""
        with self.store, quiet():
            torch.manual_seed(seed)
            yield

    def trainer(self, optim):
        """What takes steps of these programs with an optimizer."""
        model, guide = self._programs()
        options = {"transform": self.subject.transform}
        if self.engine is None:
            return PlainSVI(model, guide, optim, self.subject.loss, modules=self._modules, **options)
        return CompiledSVI(model, guide, optim, self.subject.loss, engine=self.engine, **options)

    def parameters(self, part="everything"):
        """Each parameter once: of a module, of the store, or of both."""
        stored = [value.unconstrained() for _, value in sorted(pyro.get_param_store().items())]
        if part == "store":
            return stored
        modules = self._modules() if part == "everything" else [self.subject.part(part)]
        owned = [parameter for module in modules for parameter in module.parameters()]
        return list(dict.fromkeys(owned + (stored if part == "everything" else [])))

    def buffers(self):
        return [buffer for module in self._modules() for buffer in module.buffers()]

    def state(self):
        """A copy of all that a step may move, and of all that it must not, by name."""
        found = {}
        for root, module in self.subject.modules().items():
            tensors = [*module.named_parameters(root), *module.named_buffers(root)]
            found |= {name: value.detach().clone() for name, value in tensors}
            found |= {f"{name} is trained": torch.tensor(value.requires_grad) for name, value in tensors}
            found |= {f"{name} is in training": torch.tensor(each.training) for name, each in module.named_modules(prefix=root)}
        for name, value in pyro.get_param_store().items():
            found[f"{name} in the store"] = value.unconstrained().detach().clone()
        for number, trainer in enumerate(self.trainers):
            found |= {f"optimizer {number}: {name}": value for name, value in _moments(trainer.optim).items()}
        return found

    def _programs(self):
        return self.subject.model, self.subject.guide

    def _modules(self):
        return list(self.subject.modules().values())


def _moments(optim):
    """What an optimizer holds and keeps of each parameter, by its place."""
    if isinstance(optim, PyroOptim):
        held = {name: value.unconstrained() for name, value in pyro.get_param_store().items()}
        pairs = [(name, value, optim.optim_objs[value]) for name, value in held.items() if value in optim.optim_objs]
        states = [(name, value, getattr(each, "optimizer", each).state) for name, value, each in pairs]
    else:
        places = [(group, place) for group, each in enumerate(optim.param_groups) for place in range(len(each["params"]))]
        states = [((group, place), optim.param_groups[group]["params"][place], optim.state) for group, place in places]
    found = {}
    for name, parameter, state in states:
        found[f"{name} value"] = parameter.detach().clone()
        for key, value in state.get(parameter, {}).items():
            found[f"{name} {key}"] = torch.as_tensor(value).detach().clone() if value is not None else torch.tensor(torch.nan)
    return found
