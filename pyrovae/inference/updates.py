"""The optimizer's step as the last operation of a captured graph.

Adam and AdamW are single operations of torch; here they are part of the graph, so that no Python runs between two steps. A step
that is not taken changes neither parameters nor moments. Other optimizers take their steps after the graph.
"""

import copy
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx

from pyrovae.engine.capture import Graph, add_placeholder, memory_key

aten = torch.ops.aten
ADAMS = (torch.optim.Adam, torch.optim.AdamW)

_library = torch.library.Library("pyrovae", "FRAGMENT")
_library.define(
    "adam_(Tensor(a!)[] parameters, Tensor[] gradients, Tensor(b!)[] first_moments, Tensor(c!)[] second_moments, "
    "Tensor(d!)[] steps, Tensor learning_rate, Tensor taken, float beta1, float beta2, float weight_decay, float epsilon, "
    "bool decoupled) -> ()"
)


@torch.library.impl(_library, "adam_", "CompositeExplicitAutograd")
def adam(
    parameters: list[Tensor],
    gradients: list[Tensor],
    first_moments: list[Tensor],
    second_moments: list[Tensor],
    steps: list[Tensor],
    learning_rate: Tensor,
    taken: Tensor,
    beta1: float,
    beta2: float,
    weight_decay: float,
    epsilon: float,
    decoupled: bool,
) -> None:
    """Take a step of Adam, or of AdamW where ``decoupled``, if it is ``taken``."""
    # On a CPU ``taken`` can be read at once, and steps are counted by a number instead of a tensor for each parameter.
    at_once = taken.device.type == "cpu"
    if at_once and not taken:
        return
    if at_once:
        torch._foreach_add_(steps, 1)
    else:
        # By its full name: torch would take a tensor of one number for a number, and wait for the device to read it.
        aten._foreach_add_.Tensor(steps, taken.to(steps[0].dtype))
    update = torch._fused_adamw_ if decoupled else torch._fused_adam_
    update(
        parameters,
        gradients,
        first_moments,
        second_moments,
        [],
        steps,
        lr=learning_rate,
        beta1=beta1,
        beta2=beta2,
        weight_decay=weight_decay,
        eps=epsilon,
        amsgrad=False,
        maximize=False,
        grad_scale=None,
        found_inf=None if at_once else taken.logical_not().float(),
    )


@torch.library.register_fake("pyrovae::adam_")
def _(*_: Any, **__: Any) -> None:
    return None


def can_be_captured(optimizer: Any, parameters: Sequence[Tensor]) -> bool:
    """True where the optimizer's step is the operation of this file, and its state exists, as after its first step."""
    return (
        type(optimizer) in ADAMS
        and not any(group["amsgrad"] or group["maximize"] or group["differentiable"] for group in optimizer.param_groups)
        and not (optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)
        and all(parameter.dtype == torch.float32 for parameter in parameters)
        and any(map(bool, optimizer.state.values()))
        and all(_counts_on_the_device(optimizer, parameter) for parameter in parameters if parameter.grad is not None)
    )


def _counts_on_the_device(optimizer: Any, parameter: Tensor) -> bool:
    """True where Adam counts a parameter's steps on its device, as it does with ``fused`` or ``capturable``."""
    state = optimizer.state.get(parameter, {})
    return "step" in state and state["step"].device == parameter.device


def learning_rates(optimizer: Any) -> list[Tensor]:
    """The learning rate of each group of parameters: inputs of the graph, since schedulers change them."""
    device = optimizer.param_groups[0]["params"][0].device
    return [scalar(group["lr"], torch.float32, device) for group in optimizer.param_groups]


def scalar(value: Tensor | float, dtype: torch.dtype, device: torch.device | None) -> Tensor:
    """Make a tensor of a number by a kernel, since a copy from the CPU would wait for the device."""
    if isinstance(value, Tensor):
        return value.to(device=device, dtype=dtype)
    return torch.full((), value, dtype=dtype, device=device)


def fixed_settings(optimizer: Any) -> list[dict[str, Any]]:
    """The settings of each group of parameters that the graph holds as numbers."""
    groups = [(group, ADAMS.index(type(optimizer)) == 1) for group in optimizer.param_groups]
    return [
        {
            "beta1": group["betas"][0],
            "beta2": group["betas"][1],
            "weight_decay": group["weight_decay"],
            "epsilon": group["eps"],
            "decoupled": decoupled or bool(group.get("decoupled_weight_decay", False)),
        }
        for group, decoupled in groups
    ]


class CapturedUpdate:
    """An optimizer whose step is part of a graph: the conditions of its use, and its inputs."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer, self._state = optimizer, optimizer.state
        self._values: list[Any] = []
        self._rates: list[Tensor] = []
        self._settings, self._moments = _settings_of(optimizer), self._look()

    def holds(self) -> bool:
        """True where settings have not changed, and moments are the same tensors of the same parameters."""
        return self._look() == self._moments and _settings_of(self._optimizer) == self._settings

    @property
    def rates(self) -> list[Tensor]:
        """The learning rates as tensors, made anew after a scheduler has changed one."""
        values = [group["lr"] for group in self._optimizer.param_groups]
        # A rate that is a tensor may have been changed in place.
        if values != self._values or any(isinstance(each, Tensor) for each in values):
            self._values, self._rates = values, learning_rates(self._optimizer)
        return self._rates

    def _look(self) -> list[int]:
        return [*map(id, chain.from_iterable(map(dict.values, self._state.values())))]


def _settings_of(optimizer: Any) -> Any:
    names = ("betas", "weight_decay", "eps", "amsgrad", "maximize", "differentiable")
    hooks = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    return [[group[name] for name in names] for group in optimizer.param_groups], [*map(len, hooks)]


def with_update(graph: Graph, parameters: Sequence[Tensor], optimizer: Any) -> Graph:
    """Put the optimizer's step in place of the gradients into the graph of a step.

    The new graph takes the ``learning_rates`` after its other inputs.
    """
    module, constants, sources = copy.deepcopy(graph.module), list(graph.constants), list(graph.sources)
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    bound = {memory_key(tensor): node for tensor, node in zip(constants, inputs, strict=False)}
    output = next(iter(reversed(module.graph.nodes)))
    loss, healthy, taken, *gradients = output.args[0]
    gradient_of = dict(zip(map(id, parameters), gradients, strict=True))

    end = _after_inputs(module.graph)
    values = enumerate(learning_rates(optimizer))
    rates = [add_placeholder(module.graph, f"learning_rate_{number}", value, before=end) for number, value in values]
    # Constants come before all inputs, of which the rates are the first where there are no others.
    first = [*inputs[len(constants) :], *rates][0]

    def bind(tensor: Tensor) -> fx.Node:
        if memory_key(tensor) not in bound:
            bound[memory_key(tensor)] = add_placeholder(module.graph, f"bound_{len(constants)}", tensor, before=first)
            constants.append(tensor.detach())
            sources.append(tensor)
        return bound[memory_key(tensor)]

    for number, (group, settings) in enumerate(zip(optimizer.param_groups, fixed_settings(optimizer), strict=True)):
        rate = rates[number]
        trained = [each for each in group["params"] if gradient_of.get(id(each)) is not None]
        if not trained:
            continue
        states = [optimizer.state[each] for each in trained]
        lists = [[bind(each) for each in trained], [gradient_of[id(each)] for each in trained]]
        lists += [[bind(state[name]) for state in states] for name in ("exp_avg", "exp_avg_sq", "step")]
        with module.graph.inserting_before(output):
            module.graph.call_function(torch.ops.pyrovae.adam_.default, (*lists, rate, taken), settings)
    output.args = ([loss, healthy, taken],)
    module.recompile()
    return Graph(module, constants, sources)


def _after_inputs(graph: fx.Graph) -> fx.Node:
    return next(node for node in graph.nodes if node.op != "placeholder")
