"""The state of an optimizer as tensors and plain values, for files that hold no code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrovae.experiments.checkpoints import Checkpoint

if TYPE_CHECKING:
    import torch


def saved_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state of an optimizer: its tensors by number and name, and its other values."""
    import torch

    state = optimizer.state_dict()
    entries = [(f"{number}.{name}", each) for number, named in state["state"].items() for name, each in named.items()]
    tensors = {name: each for name, each in entries if isinstance(each, torch.Tensor)}
    return tensors, {"state": dict(entry for entry in entries if entry[0] not in tensors), "groups": state["param_groups"]}


def load_optimizer(optimizer: torch.optim.Optimizer, found: Checkpoint) -> None:
    """Be where a checkpoint is."""
    fresh, saved = optimizer.state_dict(), found.values["optimizer"]
    state: dict[int, dict[str, Any]] = {}
    for name, each in {**found.part("optimizer"), **saved["state"]}.items():
        number, _, entry = name.partition(".")
        state.setdefault(int(number), {})[entry] = each
    # JSON has lists where torch has tuples.
    groups = [
        {name: tuple(each) if isinstance(old.get(name), tuple) else each for name, each in group.items()}
        for group, old in zip(saved["groups"], fresh["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
