"""``pyrovae detect``: how odd examples are under a trained model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console, options
from .opening import open_run, reference_of

if TYPE_CHECKING:
    import pandas

    from pyrovae.evaluation.ranking import Interval


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.argument("data", metavar="DATA", type=click.Path())
@options.output("FILE", "Table to write: .csv, .parquet, .npz or .npy.")
@click.option(
    "--against", metavar="DATA2", type=click.Path(), help="Normal examples, from which each score should tell those of DATA."
)
@click.option(
    "--also", metavar="RUN2", multiple=True, type=click.Path(), help="Training on the same data with another seed, for WAIC."
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=100, show_default=True, help="Number of samples per example and score."
)
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Number of steps of the posterior of each example, for the regret; 0 leaves it out.",
)
@options.class_name
@options.seed
@options.root
@options.mirror
@options.device
@options.threads
@options.as_json
def detect(
    run: str,
    data: str,
    output: Path,
    against: str | None,
    also: tuple[str, ...],
    samples: int,
    steps: int,
    class_name: str,
    seed: int,
    root: str | None,
    mirror: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Score how odd each example of DATA is, by several scores in nats; each is larger for what is odder.

    The scores are -log p(x), likelihood ratios over layers (Havtorn et al., 2021), likelihood regret (Xiao et al., 2020), the
    distance of log p(x) from that of typical validation data (Nalisnick et al., 2019) and, with --also, WAIC over trainings
    (Choi et al., 2019). With --against, the area under the ROC curve of each score is printed, with 95 % intervals.
    """
    from pyrovae.experiments.detecting import aurocs, detect_blocks, reference_likelihoods
    from pyrovae.experiments.exporting import TABLES, check_ending, write_table

    check_ending(output, TABLES, data)
    trained = open_run(run, device)
    how: dict[str, Any] = {"also": [open_run(each, device) for each in also], "num_samples": samples, "num_steps": steps}
    reference = reference_of(trained, root, mirror, device, "typicality")
    typical = None if reference is None else reference_likelihoods(trained, reference, samples, seed)
    score = partial(detect_blocks, trained, typical=typical, **how, class_name=class_name, seed=seed, note=console.warn)
    odd = _table(score, data, quiet=as_json)
    found = aurocs(odd, _table(score, against, quiet=as_json)) if against else {}
    write_table(output, [odd])
    if as_json:
        areas = {name: {"auroc": asdict(area), "difference": asdict(gain)} for name, (area, gain) in found.items()}
        console.print_json({"output": str(output), "rows": len(odd), "scores": areas})
        return
    if found:
        _show(found)
    click.echo(output)


def _table(score: Callable[..., Any], source: str, *, quiet: bool) -> pandas.DataFrame:
    """The scores of a source, with a line for each block."""
    import pandas

    blocks: list[pandas.DataFrame] = []
    for block in score(source):
        blocks.append(block)
        if not quiet:
            console.say(f"{source}: {sum(map(len, blocks)):,} rows")
    return pandas.concat(blocks)


def _show(found: Mapping[str, tuple[Interval, Interval]]) -> None:
    columns = ("score", "area under the ROC curve [95 %]", "minus that of -log p(x) [95 %]")
    console.show_list(columns, [(name, str(area), str(gain)) for name, (area, gain) in found.items()])
