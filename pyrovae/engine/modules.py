"""Contexts that act on every module that runs in them, wherever programs keep it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pyrovae.engine.reachable import Reachable

# Larger tensors are data, which programs do not write to.
SMALL = 100_000
NOTHING = Reachable()
T = TypeVar("T")
Program = Callable[..., Any]


@contextmanager
def preserved_buffers(reached: Reachable = NOTHING) -> Iterator[None]:
    """Restore the buffers of every module that runs in the context.

    Modules that were ``reached`` are restored also where their ``forward`` is called directly; so are other small tensors
    that were reached.
    """
    values = (place.value for place in reached.places)
    tensors = [each for each in values if isinstance(each, Tensor) and not each.requires_grad and each.numel() <= SMALL]
    before = [(each, each._version, each.clone()) for each in tensors]

    def remember(module: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (value, value.clone()) for name, value in module._buffers.items() if value is not None}

    def restore(module: nn.Module, buffers: dict[str, tuple[Tensor, Tensor]]) -> None:
        for name, (buffer, value) in buffers.items():
            buffer.copy_(value)
            module._buffers[name] = buffer

    try:
        with modules_that_run(remember, restore, reached):
            yield
    finally:
        with torch.no_grad():
            for each, version, value in before:
                if each._version != version and 0 not in each.stride():
                    each.copy_(value)


@contextmanager
def evaluation_mode(reached: Reachable = NOTHING) -> Iterator[None]:
    """Take no gradients, and put every module that runs into evaluation mode; afterwards each is as before.

    This includes modules that were ``reached`` whose ``forward`` is called directly.
    """

    def switch(module: nn.Module) -> bool:
        before, module.training = module.training, False
        return before

    def restore(module: nn.Module, mode: bool) -> None:
        module.training = mode

    with torch.no_grad(), modules_that_run(switch, restore, reached):
        yield


@contextmanager
def modules_that_run(
    enter: Callable[[nn.Module], T], leave: Callable[[nn.Module, T], None], reached: Reachable = NOTHING
) -> Iterator[dict[nn.Module, T]]:
    """Call ``enter`` on each module before it first runs, wherever programs keep it; at the end ``leave`` with the result.

    Modules that were ``reached`` are entered at once, since their ``forward`` may be called directly.
    """
    seen: dict[nn.Module, T] = {}

    def meet(module: nn.Module, _: Any = None) -> None:
        if module not in seen:
            seen[module] = enter(module)

    for module in reached.modules:
        meet(module)
    hook = nn.modules.module.register_module_forward_pre_hook(meet)
    try:
        yield seen
    finally:
        hook.remove()
        with torch.no_grad():
            for module, value in seen.items():
                leave(module, value)
