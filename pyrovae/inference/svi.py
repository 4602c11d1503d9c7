"""Stochastic variational inference on programs that own their parameters."""

import itertools
from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyrovae.inference.objectives import Objective, Program


class SVI:
    """``pyro.infer.SVI`` for programs that are modules: their parameters stay their own, and the parameter store empty.

    Args:
        model: the generative program.
        guide: the variational program.
        optim: a torch optimizer of the parameters that are to be trained.
        loss: the objective.
    """

    def __init__(self, model: Program, guide: Program, optim: torch.optim.Optimizer, loss: Objective) -> None:
        self.model = model
        self.guide = guide
        self.optim = optim
        self.loss = loss
        self._validated = False

    def step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take one gradient step; return the loss in nats, summed over the batch, still on the device.

        Pyro's validation of shapes, supports and sites runs on the first batch alone: on every batch it would cost more than
        the arithmetic of a small model.
        """
        self.optim.zero_grad()
        with pyro.validation_enabled(not self._validated):
            loss = self.loss.differentiable_loss(self.model, self.guide, *args, **kwargs)
        self._validated = True
        loss.backward()
        self.optim.step()
        return loss.detach()

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """The loss in nats, summed over the batch, without a step."""
        return self.loss.loss(self.model, self.guide, *args, **kwargs)


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

    return run
