"""Plain Pyro as the reference: its own steps, in a world of its own that a second one can be compared with.

A step is ``differentiable_loss``, ``backward``, the optimizer's step. Stock ``pyro.infer.SVI`` differs in what ``CompiledSVI``
promises otherwise: it takes no torch optimizer, moves everything where a loss is not finite, trains no parameter of a module
that is not in its store, and goes on moving by momentum what was frozen meanwhile.
"""

import warnings
from contextlib import contextmanager

import pyro
import pyro.poutine as poutine
import torch
from pyro.optim import PyroOptim
from torch import nn


class PlainSVI:
    """Steps of plain Pyro; one that fails raises and moves nothing.

    Args:
        modules: a function that gives those whose buffers a failed step leaves as they were.
    """

    def __init__(self, model, guide, optim, loss, *, transform=None, modules=lambda: ()):
        self.model, self.guide, self.optim, self.loss = model, guide, optim, loss
        self.transform, self.modules = transform, modules

    def step(self, *args, **kwargs):
        """Take a step and return its loss."""
        with self._gradients(args, kwargs) as (loss, parameters):
            pass
        if isinstance(self.optim, PyroOptim):
            self.optim(parameters)
        else:
            self.optim.step()
        return loss

    def probe(self, *args, **kwargs):
        """Raise what a step would raise; move nothing."""
        grads = [(parameter, parameter.grad) for parameter in self._reachable()]
        with unmoved_buffers(self.modules()), self._gradients(args, kwargs):
            pass
        for parameter, grad in grads:
            parameter.grad = grad

    def evaluate_loss(self, *args, **kwargs):
        """The loss without a step, as the others give it."""
        args, kwargs = self._served(args, kwargs)
        with torch.no_grad(), unmoved_buffers(self.modules()):
            return float(self.loss.loss(self.model, self.guide, *args, **kwargs))

    @contextmanager
    def _gradients(self, args, kwargs):
        """The loss, and the parameters that the program met, with gradients; buffers and gradients stay where it fails."""
        grads = [(parameter, parameter.grad) for parameter in self._reachable()]
        moved = [(buffer, buffer.clone()) for module in self.modules() for buffer in module.buffers()]
        try:
            for parameter in self._reachable():
                parameter.grad = None
            args, kwargs = self._served(args, kwargs)
            with poutine.trace(param_only=True) as met:
                loss = torch.as_tensor(self.loss.differentiable_loss(self.model, self.guide, *args, **kwargs))
                if loss.requires_grad:
                    loss.backward()
            self._leave_zeros(grads)
            met_by_name = [site["value"].unconstrained() for site in met.trace.nodes.values()]
            parameters = [each for each in dict.fromkeys([*met_by_name, *self._owned()]) if each.requires_grad]
            reached = [each.grad for each in dict.fromkeys([*self._reachable(), *parameters]) if each.grad is not None]
            if not all(each.isfinite().all() for each in (loss, *reached)):
                raise FloatingPointError("the loss or a gradient is not finite")
        except Exception:
            with torch.no_grad():
                for buffer, before in moved:
                    buffer.copy_(before)
            for parameter, grad in grads:
                parameter.grad = grad
            raise
        yield loss.detach(), parameters

    def _owned(self):
        programs = (self.model, self.guide)
        return [each for program in programs if isinstance(program, nn.Module) for each in program.parameters()]

    def _leave_zeros(self, before):
        """Stock SVI zeroes gradients after a step: momentum goes on where a step has none. Torch's optimizers leave nothing."""
        for parameter, grad in before if isinstance(self.optim, PyroOptim) else ():
            if parameter.grad is None and grad is not None and parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)

    def _reachable(self):
        """All that a backward pass may leave gradients on, held by the optimizer or not; a step goes on from none of them."""
        held = [each for group in getattr(self.optim, "param_groups", ()) for each in group["params"]]
        # A store that was cleared does not know those of modules, and an earlier one put back is not what the optimizer holds.
        stored = (value.unconstrained() for _, value in pyro.get_param_store().items())
        known = (parameter for module in self.modules() for parameter in module.parameters())
        return [*dict.fromkeys([*held, *stored, *known, *self._owned()])]

    def _served(self, args, kwargs):
        return (args, kwargs) if self.transform is None else ((self.transform(*args, **kwargs),), {})


@contextmanager
def unmoved_buffers(modules):
    """Afterwards all buffers are as they were."""
    before = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


class OwnStore:
    """A parameter store that takes the place of Pyro's global one while it is entered."""

    NAMES = ("_params", "_param_to_name", "_constraints")

    def __init__(self):
        self._inside = [{}, {}, {}]

    def __enter__(self):
        store = pyro.get_param_store()
        self._outside = [getattr(store, name) for name in self.NAMES]
        self._put(self._inside)
        return store

    def __exit__(self, *_):
        self._inside = [getattr(pyro.get_param_store(), name) for name in self.NAMES]
        self._put(self._outside)

    def _put(self, kept):
        for name, value in zip(self.NAMES, kept, strict=True):
            setattr(pyro.get_param_store(), name, value)


@contextmanager
def quiet():
    """Without the warnings of Pyro and torch, which both worlds give."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
