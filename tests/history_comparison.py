"""One step in two worlds, and what may come of it."""

from contextlib import ExitStack
from dataclasses import dataclass, field

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger

from pyrovae.engine.capture import CaptureError
from pyrovae.inference.warmup import scale_latents

HANDLERS = {
    "scale": lambda weight, data: poutine.scale(scale=weight),
    "scale_latents": lambda weight, data: scale_latents(weight),
    "mask": lambda weight, data: poutine.mask(mask=weight > 0.7),
    "condition": lambda weight, data: poutine.condition(data=data),
    "block": lambda weight, data: poutine.block(),
    "trace": lambda weight, data: poutine.trace(),
    "seed": lambda weight, data: poutine.seed(rng_seed=int(10 * weight)),
}
# What engine graph may refuse, by the words that its message must hold.
REFUSED = {
    "mask": "MaskMessenger",
    "condition": "ConditionMessenger",
    "block": "BlockMessenger",
    "trace": "TraceMessenger",
    "seed": "SeedMessenger",
    "namespace": "SimpleNamespace",
    "subclass of dict": "Table",
}


@dataclass(frozen=True)
class Batch:
    """What a step is called with and under; made anew for each world."""

    data: torch.Tensor
    seed: int
    form: str = "tensor"
    keyword: bool = False
    arguments: dict = field(default_factory=dict)
    handlers: tuple = ()
    trainer: int = 0
    strange: bool = False

    @property
    def words(self):
        """Those of which a refusal must hold one; none where there is nothing to refuse."""
        names = [self.form, *(name for name, _ in self.handlers)]
        # A program may branch on a number, and not on the value of a tensor.
        branches = ["by if"] if any(isinstance(each, torch.Tensor) for each in self.arguments.values()) else []
        return [REFUSED[name] for name in names if name in REFUSED] + branches


@dataclass
class Outcome:
    """What came of a step: its loss or an error, the random numbers after it, and what handlers around it saw."""

    loss: torch.Tensor | None = None
    error: Exception | None = None
    noise: torch.Tensor | None = None
    seen: list = field(default_factory=list)


def attempt(world, batch, form, method):
    """Call a method of the batch's trainer, under its handlers."""
    outcome, settings = Outcome(), _settings()
    args, kwargs = ((), {"batch": form(batch.data)}) if batch.keyword else ((form(batch.data),), {})
    other = world.subject.other_data(len(batch.data))
    with world.entered(batch.seed), ExitStack() as stack:
        entered = [stack.enter_context(HANDLERS[name](weight, other)) for name, weight in batch.handlers]
        trainer = world.trainers[batch.trainer % len(world.trainers)]
        try:
            outcome.loss = getattr(trainer, method)(*args, **kwargs, **batch.arguments)
        except Exception as error:
            outcome.error = error
        outcome.noise = torch.get_rng_state()
        outcome.seen = [list(each.trace.nodes) for each in entered if isinstance(each, TraceMessenger)]
    assert not _PYRO_STACK, f"handlers were left behind: {_PYRO_STACK}"
    assert _settings() == settings, f"settings were left changed: {settings} before, {_settings()} now"
    return outcome


def compare(ours, plain, batch, form, *, rounding=False):
    """Take a step in both worlds.

    Raises:
        AssertionError: where they differ, or ours failed otherwise than it may.
    """
    before, names = ours.state(), [set(_stored(world)) for world in (ours, plain)]
    got = attempt(ours, batch, form, "step")
    right = attempt(plain, batch, form, "step" if got.error is None else "probe")
    where = f"engine {ours.engine}, {type(ours.subject).__name__}, step {batch.seed}"
    if got.error is None:
        assert right.error is None, f"{where}: took a step of loss {got.loss} where plain Pyro raises {right.error!r}"
        _same_step(got, right, where, rounding=rounding)
        same(ours.state(), plain.state(), where, rounding=rounding)
        return
    _may_fail(got.error, right.error, [*batch.words, *ours.subject.words], batch.strange, ours.engine, where)
    for world, known in zip((ours, plain), names, strict=True):
        _forget(world, known)
    same(ours.state(), before, f"{where}, after {got.error!r}")


def same(ours, plain, where, *, rounding=False):
    """Two states are the same, to the last bit."""
    assert set(ours) == set(plain), f"{where}: one state alone has {sorted(set(ours) ^ set(plain))}"
    wrong = [name for name in ours if not _equal(ours[name], plain[name], rounding)]
    assert not wrong, f"{where}: differ in {wrong[:6]}, first {ours[wrong[0]]} where {plain[wrong[0]]} is right"


def _same_step(got, right, where, *, rounding):
    loss = right.loss.to(got.loss.dtype)
    assert _equal(got.loss.detach(), loss, rounding), f"{where}: loss {got.loss.item()!r} where {loss.item()!r} is right"
    assert got.seen == right.seen, f"{where}: handlers around the step saw {got.seen} where {right.seen} is right"
    assert rounding or torch.equal(got.noise, right.noise), f"{where}: other random numbers come next"


def _may_fail(error, right, words, strange, engine, where):
    if right is not None:
        ours = (ValueError, FloatingPointError) if engine == "graph" else ()
        refused = isinstance(error, CaptureError) and engine != "graph"
        assert not refused, f"{where}: refused a step that plain Pyro fails by {right!r}: {error!r}"
        assert isinstance(error, (type(right), FloatingPointError, ValueError, *ours)), f"{where}: {error!r} for {right!r}"
        return
    outside = strange and "support" in str(error) and isinstance(error, ValueError)
    # Where all is frozen there is nothing to train, and our own words for it.
    outside = outside or str(error).startswith("expected parameters to train")
    named = engine == "graph" and isinstance(error, CaptureError) and any(word in str(error) for word in words)
    if not (outside or named):
        raise AssertionError(f"{where}: raised {error!r} where plain Pyro takes a step") from error


def _equal(one, other, rounding):
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if rounding:
        return torch.allclose(one.double(), other.double(), rtol=1e-3, atol=1e-4, equal_nan=True)
    return torch.equal(one.nan_to_num(12345.0), other.nan_to_num(12345.0)) and torch.equal(one.isnan(), other.isnan())


def _settings():
    grads, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    return grads, dtype, torch.distributions.Distribution._validate_args, pyro.settings.get()


def _stored(world):
    with world.store as store:
        return list(store.keys())


def _forget(world, known):
    """A step that failed may have been the first to meet parameters of the store, with its own random numbers."""
    with world.store as store:
        for name in set(store.keys()) - known:
            del store[name]
