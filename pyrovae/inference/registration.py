"""Fitting modules to stock Pyro, which trains what stands in its parameter store."""

import itertools
from collections.abc import Callable
from typing import Any

import pyro
from torch import nn

_instances = itertools.count()


def registered(program: nn.Module) -> Callable[..., Any]:
    """Make a program fit for stock ``pyro.infer.SVI``: wrap the model and the guide each.

    Stock SVI trains what stands in the parameter store, and trains nothing, in silence, where a module did not register.
    Each call registers under a name of its own, so that two models in one process never share parameters.
    """
    name = f"{type(program).__name__}-{next(_instances)}"

    def run(*args: Any, **kwargs: Any) -> Any:
        pyro.module(name, program)
        return program(*args, **kwargs)

    run.__wrapped__ = program  # type: ignore[attr-defined]
    return run
