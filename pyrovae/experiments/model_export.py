"""The functions of a trained model in files that run without Pyro and without pyrovae."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyrovae.engine.validation import without_validation
from pyrovae.errors import InputError, first_line
from pyrovae.evaluation.functions import FUNCTIONS, PureFunction
from pyrovae.evaluation.measuring import measuring
from pyrovae.experiments import files
from pyrovae.experiments.exported_files import FORMATS, Format, Tensors, trace_function
from pyrovae.experiments.exporting import check_ending
from pyrovae.experiments.original_units import units_of
from pyrovae.programs.guides import VAE
from pyrovae.programs.likelihoods import LIKELIHOODS

if TYPE_CHECKING:
    from pyrovae.experiments.folder import RunFolder

Differences = dict[str, float]
# The numbers of examples and samples of the traced example, and of the two checks.
TRACED, CHECKED = (3, 2), ((1, 1), (5, 4))
# The largest difference of a value v from the run's, by 1 + |v|; and the share of entries of draws that may round otherwise.
TOLERANCE, ROUNDED = 1e-5, 1e-3
# A value that the last digit of the weights moves by more is not known to the tolerance by the run itself. It may differ by so
# many times as much: each operation rounds, and weights are one of its inputs.
ROUNDINGS = 10


@dataclass(frozen=True)
class ExportedFunction:
    """A function of a model in a file.

    Args:
        path: the path of the file.
        inputs: the shape of each input, with B examples and K importance samples.
        outputs: the names of the outputs.
        largest_difference: the largest difference of a value v of the file's function from the run's, divided by ``1 + |v|``.
        rounding: the same of the run itself, as each of its weights moves to the next number of its precision.
    """

    path: Path
    inputs: dict[str, tuple[str | int, ...]]
    outputs: list[str]
    largest_difference: float
    rounding: float


@dataclass(frozen=True)
class Export:
    """The files of a model.

    Args:
        functions: the functions by name, of those in ``FUNCTIONS`` that the model has.
        left_out: the reason for each function, or output, that it does not have.
    """

    functions: dict[str, ExportedFunction]
    left_out: dict[str, str]


def export_model(run: RunFolder, path: str | Path, *, seed: int = 0) -> Export:
    """Write the functions of a model, each into a file beside ``path``: ``model.encode.pt2``, ... for ``model.pt2``.

    Before any file is there, each is loaded from the bytes to be written and compared with the run, for other numbers of
    examples and samples than it was traced with.

    Args:
        run: the trained model.
        path: the path, ending in ``.pt2`` or ``.onnx``, to which the names of functions are added.
        seed: the seed of the examples and noise of the comparison.

    Raises:
        InputError: for another ending, a format whose packages are not installed, and a function that differs from the run's or
            cannot be traced.
    """
    path = Path(path)
    check_ending(path, tuple(FORMATS))
    if not all(each.isfinite().all() for each in run.vae.parameters()):
        raise InputError(f"{run.folder}: expected weights that are numbers; some are NaN or infinite: train it anew")
    left_out, found = _left_out(run), {}
    with _on_cpu(run.vae) as vae, torch.random.fork_rng():
        torch.manual_seed(seed)
        moved = _with_other_digits(vae)
        for name in [each for each in FUNCTIONS if each not in left_out]:
            units = units_of(run.required_preparation)
            function, other = (FUNCTIONS[name](each.model, each.guide, units) for each in (vae, moved))
            found[name] = _checked(run, name, function, other, FORMATS[path.suffix.lower()], path)
    for exported, content in found.values():
        files.write_file(exported.path, content)
    return Export({name: exported for name, (exported, _) in found.items()}, left_out)


def _left_out(run: RunFolder) -> dict[str, str]:
    likelihood, kinds = run.recipe.likelihood, run.required_preparation.kinds
    found = {}
    if not run.recipe.latent_sizes:
        found["encode"] = "a regressor has no latents"
    if not LIKELIHOODS[likelihood].normalized:
        found["log_likelihood"] = f"{likelihood!r} is a loss and no density"
    if likelihood in ("poisson", "negative_binomial") or "count" in kinds:
        found["x of sample"] = "counts have no quantiles in closed form: draw them from p(x | z) with the run itself"
    return found


def _with_other_digits(vae: VAE) -> VAE:
    """A copy of programs with each weight one number of its precision further, up or down by chance."""
    moved = copy.deepcopy(vae)
    with torch.no_grad():
        for each in moved.parameters():
            each.copy_(torch.nextafter(each, torch.where(torch.rand_like(each) < 0.5, torch.inf, -torch.inf)))
    return moved


def _checked(
    run: RunFolder, name: str, function: PureFunction, moved: PureFunction, form: Format, path: Path
) -> tuple[ExportedFunction, bytes]:
    """A function and the bytes of its file, compared with the run.

    Raises:
        InputError: where they differ, or it cannot be traced.
    """
    rounds = LIKELIHOODS[run.recipe.likelihood].discrete or run.required_preparation.values == "mixed"
    try:
        example = example_inputs(run, function, *TRACED)
        outputs = list(_values(function, example))
        program = trace_function(function, example)
        content = form.write(program, example, outputs, json.dumps(_metadata(run, name, function, outputs)))
        loaded = form.load(content, outputs)
        checks = [example_inputs(run, function, *sizes) for sizes in CHECKED]
        largest = _worst([_differences(function, loaded, each, rounds) for each in checks])
        rounding = _worst([_differences(function, partial(_values, moved), each, rounds) for each in checks])
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{run.folder}: expected a model that can be exported; of {name!r} torch says: {first_line(error)}"
        ) from error
    for output, difference in largest.items():
        if not (math.isfinite(rounding[output]) and difference <= max(TOLERANCE, ROUNDINGS * rounding[output])):
            raise InputError(
                f"{run.folder}: expected an exported {name!r} that agrees with the run within {TOLERANCE:g} of 1 + |value|; "
                f"the largest difference is {difference:.2g} in {output!r}, where the last digit of the weights makes "
                f"{rounding[output]:.2g}: nothing is written"
            )
    target = path.with_name(f"{path.stem}.{name}{path.suffix}")
    return ExportedFunction(target, function.inputs, outputs, max(largest.values()), max(rounding.values())), content


def _values(function: PureFunction, inputs: Tensors) -> Tensors:
    with measuring(*function.programs), without_validation():
        return function(inputs)


def _differences(function: PureFunction, loaded: Any, inputs: Tensors, rounds: bool) -> Differences:
    """The largest difference of each output, relative to 1 + |value|; infinity for another shape, type or finiteness."""
    known, found = _values(function, inputs), loaded(inputs)
    return {name: _largest(each, found[name], ROUNDED if rounds and name == "x" else None) for name, each in known.items()}


def _largest(known: Tensor, found: Tensor, rounded: float | None) -> float:
    if known.shape != found.shape or known.dtype != found.dtype:
        return float("inf")
    same = (known == found) | (known.isnan() & found.isnan())
    away = ((known - found).abs() / (1 + known.abs())).masked_fill(same, 0.0).nan_to_num(torch.inf).flatten()
    # A draw is rounded to a bit, level or category: where it lies on the edge, the last digit decides.
    allowed = 0 if rounded is None else int(rounded * len(away)) + 1
    return float(away.sort().values[max(0, len(away) - 1 - allowed)])


def _worst(parts: Sequence[Differences]) -> Differences:
    return {name: max(each[name] for each in parts) for name in parts[0]}


def example_inputs(run: RunFolder, function: PureFunction, num_examples: int, num_samples: int) -> Tensors:
    """Draw inputs for a function: examples of the model itself in the units of the function, noise, latents and contexts."""
    sizes: dict[str | int, int] = {"B": num_examples, "K": num_samples}
    inputs = {
        name: torch.randn([int(sizes.get(size, size)) for size in shape], dtype=function.dtype)
        for name, shape in function.inputs.items()
    }
    context = _example_contexts(run, num_examples)
    if context is not None:
        inputs["context"] = context
    if "x" in inputs:
        with measuring(function.model):
            drawn = function.model(None, context, batch_size=num_examples)
        gaps = (torch.rand(drawn.shape) < 0.3) & run.required_preparation.missing
        inputs["x"] = function.units.restore(drawn).masked_fill(gaps, torch.nan)
    return inputs


def _example_contexts(run: RunFolder, number: int) -> Tensor | None:
    """The contexts of random bits of random classes ``(B, C)``; None for a model without a condition."""
    if run.condition is None:
        return None
    images = torch.randint(2, (number, run.required_preparation.size)).float()
    labels = torch.randint(max(1, run.num_classes), (number,))
    return run.condition(images, images, labels, None)


def _metadata(run: RunFolder, name: str, function: PureFunction, outputs: list[str]) -> dict[str, Any]:
    """The description of a function for the file: what it is, of which model, and in which units."""
    preparation = run.required_preparation
    inputs = {
        each: {"shape": shape, "dtype": str(function.dtype_of(each)).removeprefix("torch.")}
        for each, shape in function.inputs.items()
    }
    tables = "x and its mean are in the units of the file, columns in order; a word is its place among its column's categories"
    return {
        "function": name,
        "description": (type(function).__doc__ or "").splitlines()[0],
        "inputs": inputs,
        "outputs": outputs,
        "units": tables if preparation.values in ("real", "mixed") else "x and its mean are as the model sees them",
        "noise": "standard normal",
        "log_likelihood": "nats",
        "recipe": asdict(replace(run.recipe, dataset=Path(run.recipe.dataset).name)),
        "protocol": run.protocol,
        "protocol_hash": run.protocol_hash,
        "weights": run.checksum,
        "preparation": preparation.as_dict(),
    }


@contextmanager
def _on_cpu(vae: VAE) -> Iterator[VAE]:
    """Move programs to the CPU, since devices are constants of a graph; afterwards they are where they were."""
    device = next(vae.parameters()).device
    try:
        yield vae.to("cpu")
    finally:
        vae.to(device)
