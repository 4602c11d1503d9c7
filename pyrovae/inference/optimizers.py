"""The parameters that an optimizer of torch or Pyro trains, and its step."""

import inspect
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyrovae.engine.modules import Program

Optimizer = torch.optim.Optimizer | PyroOptim


def held_parameters(optim: Optimizer) -> list[Tensor]:
    """The parameters that a torch optimizer holds; none for one of Pyro, which holds no parameters beforehand."""
    if isinstance(optim, PyroOptim):
        return []
    return list(chain.from_iterable([group["params"] for group in optim.param_groups]))


def trained_parameters(optim: Optimizer, sites: Mapping[str, Any], *programs: Program) -> list[Tensor]:
    """The parameters that a step trains: those of a torch optimizer; for one of Pyro those of modules and of a trace's sites.

    Raises:
        ValueError: for an optimizer of Pyro without parameters to train.
    """
    if not isinstance(optim, PyroOptim):
        return [each for each in held_parameters(optim) if each.requires_grad]
    stored = [site["value"].unconstrained() for site in sites.values() if site["type"] == "param"]
    owned = [parameter for module in _modules(*programs) for parameter in module.parameters(recurse=False)]
    unique = {id(parameter): parameter for parameter in (*stored, *owned) if parameter.requires_grad}
    if not unique:
        raise ValueError("expected parameters to train; model and guide have none in modules or in the parameter store")
    return list(unique.values())


def take_step(optim: Optimizer, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Take the optimizer's step with these gradients and no others."""
    for parameter in held_parameters(optim):
        parameter.grad = None
    for parameter, gradient in zip(parameters, gradients, strict=True):
        # Stock SVI leaves gradients of zero, with which an optimizer still takes steps; torch leaves None.
        is_left = gradient is None and parameter.grad is not None and isinstance(optim, PyroOptim)
        parameter.grad = torch.zeros_like(parameter) if is_left else gradient
    if isinstance(optim, PyroOptim):
        optim(list(parameters))
    else:
        optim.step()


def check_optimizer(optim: Any) -> None:
    """Refuse an object that is no optimizer, and an optimizer that evaluates the loss itself.

    Raises:
        ValueError: for either.
    """
    name = type(optim).__name__
    if not isinstance(optim, torch.optim.Optimizer | PyroOptim):
        raise ValueError(f"expected an optimizer of torch.optim or pyro.optim; got {name}: use one of those, or pyro.infer.SVI")
    closure = (
        inspect.signature(type(optim).step).parameters.get("closure") if isinstance(optim, torch.optim.Optimizer) else None
    )
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(f"expected an optimizer that takes one gradient a step; {name} asks for a closure: use Adam, say")


def _modules(*programs: Program) -> list[nn.Module]:
    return [module for program in programs if isinstance(program, nn.Module) for module in program.modules()]
