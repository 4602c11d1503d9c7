"""Contexts over every module that runs in them, wherever programs keep it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
Program = Callable[..., Any]


@contextmanager
def preserved_buffers() -> Iterator[None]:
    """Afterwards the buffers of every module that ran are as they were."""

    def remember(module: nn.Module) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in module._buffers.items() if value is not None}

    def restore(module: nn.Module, buffers: dict[str, Tensor]) -> None:
        for name, value in buffers.items():
            module._buffers[name].copy_(value)  # type: ignore[union-attr]

    with modules_that_run(remember, restore):
        yield


@contextmanager
def evaluation_mode() -> Iterator[None]:
    """No gradients, and every module that runs is in evaluation mode; afterwards each is as it was."""

    def switch(module: nn.Module) -> bool:
        before, module.training = module.training, False
        return before

    def restore(module: nn.Module, mode: bool) -> None:
        module.training = mode

    with torch.no_grad(), modules_that_run(switch, restore):
        yield


@contextmanager
def modules_that_run(enter: Callable[[nn.Module], T], leave: Callable[[nn.Module, T], None]) -> Iterator[None]:
    """Call ``enter`` on each module before it first runs, wherever programs keep it; at the end ``leave`` with what came."""
    seen: dict[nn.Module, T] = {}

    def meet(module: nn.Module, _: Any) -> None:
        if module not in seen:
            seen[module] = enter(module)

    hook = nn.modules.module.register_module_forward_pre_hook(meet)
    try:
        yield
    finally:
        hook.remove()
        with torch.no_grad():
            for module, value in seen.items():
                leave(module, value)
