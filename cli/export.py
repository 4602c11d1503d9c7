"""``pyrovae export``: write a model's functions into files that run without Pyro and without pyrovae."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console, options

if TYPE_CHECKING:
    from pyrovae.experiments.model_export import Export


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="Name of the files, .pt2 for torch or .onnx; the name of each function is added to it.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**63 - 1),
    default=0,
    show_default=True,
    help="Seed of the examples on which files are compared with the run.",
)
@options.threads
@options.as_json
def export(run: str, output: Path, seed: int, as_json: bool) -> None:
    """Write the encoder, the decoder, the sampler and the log-likelihood of RUN, each into a file that runs without pyrovae.

    With -o model.pt2 they are model.encode.pt2, model.decode.pt2, model.sample.pt2 and model.log_likelihood.pt2, which torch
    alone runs; with -o model.onnx, onnxruntime and others run them. Noise is an input, and the number of examples is free. Each
    file is compared with the run before it is there.
    """
    from pyrovae.experiments.run import Run

    found = Run.load(run).export(output, seed=seed)
    for name, reason in found.left_out.items():
        console.say(f"warning: no {name}: {reason}", fg="yellow")
    if as_json:
        console.print_json(_as_json(found))
        return
    rows = [
        (
            name,
            str(each.path),
            ", ".join(f"{key} {_shape(shape)}" for key, shape in each.inputs.items()),
            ", ".join(each.outputs),
        )
        for name, each in found.functions.items()
    ]
    console.show_list(("function", "file", "inputs", "outputs"), rows)
    for name, each in found.functions.items():
        digits = f"the last digit of the weights makes {each.rounding:.1g}"
        click.echo(f"{name}: largest difference from the run {each.largest_difference:.1g} of 1 + |value|; {digits}")


def _shape(shape: tuple[str | int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _as_json(found: Export) -> dict[str, Any]:
    functions = {name: asdict(each) | {"path": str(each.path)} for name, each in found.functions.items()}
    return {"functions": functions, "left_out": found.left_out}
