"""Registration of modules with Pyro's parameter store, whose contents stock Pyro trains."""

import itertools
from collections.abc import Callable
from typing import Any

import pyro
from torch import nn

_instances = itertools.count()


def register_parameters(program: nn.Module) -> Callable[..., Any]:
    """Wrap a program for stock ``pyro.infer.SVI``, so that its parameters are registered; wrap the model and the guide each.

    Stock SVI trains the contents of the parameter store, and without a warning does not train a module that is not registered.
    Each call uses another name, so that two models in one process never share parameters.
    """
    name = f"{type(program).__name__}-{next(_instances)}"

    def run(*args: Any, **kwargs: Any) -> Any:
        pyro.module(name, program)
        return program(*args, **kwargs)

    run.__wrapped__ = program  # type: ignore[attr-defined]
    return run
