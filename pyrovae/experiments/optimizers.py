"""The state of an optimizer as tensors and plain values, for files that hold no code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrovae.experiments.checking import check_tensors, check_value, is_number
from pyrovae.experiments.checkpoints import Checkpoint

if TYPE_CHECKING:
    import torch


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state of an optimizer: its tensors by number and name, and its other values."""
    import torch

    state = optimizer.state_dict()
    entries = [(f"{number}.{name}", each) for number, named in state["state"].items() for name, each in named.items()]
    tensors = {name: each for name, each in entries if isinstance(each, torch.Tensor)}
    return tensors, {"state": dict(entry for entry in entries if entry[0] not in tensors), "groups": state["param_groups"]}


def load_optimizer(optimizer: torch.optim.Optimizer, found: Checkpoint) -> None:
    """Load the state of an optimizer from a checkpoint.

    Raises:
        ValueError: for the state of another optimizer.
    """
    fresh, saved = optimizer.state_dict(), found.values["optimizer"]
    check_value("optimizer", saved, {"state": dict, "groups": list})
    state: dict[int, dict[str, Any]] = {}
    for name, each in {**found.part("optimizer"), **saved["state"]}.items():
        number, _, entry = name.partition(".")
        state.setdefault(int(number), {})[entry] = each
    groups = [_group(group, old) for group, old in zip(saved["groups"], fresh["param_groups"], strict=True)]
    _check_state(optimizer, state)
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _group(saved: Any, fresh: dict[str, Any]) -> dict[str, Any]:
    """Restore a saved group of parameters, with tuples where JSON has lists.

    Raises:
        ValueError: for settings of other kinds than those of a fresh group.
    """
    check_value("a group of parameters", saved, dict)
    group = {name: tuple(each) if isinstance(fresh.get(name), tuple) else each for name, each in saved.items()}
    if group.keys() != fresh.keys() or group["params"] != fresh["params"]:
        raise ValueError("expected the groups of parameters of the recipe's optimizer; got others")
    for name, value in group.items():
        if name != "params" and _kind(value) != _kind(fresh[name]) and not {_kind(value), _kind(fresh[name])} <= {None, bool}:
            raise ValueError(f"expected the optimizer's {name} as in {fresh[name]!r}; got another kind")
    return group


def _kind(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_kind, value))
    return float if is_number(value) else None if value is None else type(value)


def _check_state(optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Any]]) -> None:
    """Refuse a state that a step of this optimizer would not leave, as a step of zeros on a copy shows.

    Raises:
        ValueError: for other names, shapes or kinds.
    """
    import torch

    groups = [
        group | {"params": [torch.zeros_like(each, requires_grad=True) for each in group["params"]]}
        for group in optimizer.param_groups
    ]
    kind: Any = type(optimizer)
    copy = kind(groups)
    for group in groups:
        for each in group["params"]:
            each.grad = torch.zeros_like(each)
    copy.step()
    expected = copy.state_dict()["state"]
    for number, entries in state.items():
        known = expected.get(number, {})
        # Some entries are made only when they are first needed.
        tensors = {name: each for name, each in known.items() if isinstance(each, torch.Tensor)}
        check_tensors({name: each for name, each in entries.items() if isinstance(each, torch.Tensor)}, tensors)
        for name, value in entries.items():
            if name not in known or (not isinstance(value, torch.Tensor) and _kind(value) != _kind(known[name])):
                raise ValueError(f"expected the state of {type(optimizer).__name__}; got {name[:100]!r}")
