"""``pyrovae compare``: compare runs image by image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import console, options

if TYPE_CHECKING:
    from pyrovae.experiments.comparison import ComparedRun, Comparison


@click.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path())
@options.as_json
def compare(runs: tuple[str, ...], as_json: bool) -> None:
    """Compare the last evaluations of run folders, each with the best of them.

    The differences are paired, over the same test images, with a bootstrap interval that contains the mean difference over
    all such images 19 times in 20. A second table has the settings in which the runs differ. Runs that were measured on
    different things are refused, with the reason; runs with a loss that is no density are compared by their ELBO.
    """
    from pyrovae.experiments.comparison import compare

    comparison = compare(*runs)
    if as_json:
        console.print_json(_plain(comparison))
        return
    columns = ("", "run", _TITLES[comparison.by], "difference [95%]", "ELBO", "samples")
    console.show_list(columns, [(str(place), *_cells(row, comparison.by)) for place, row in enumerate(comparison.rows, 1)])
    if settings := list(comparison.rows[0].settings):
        values = [
            (name.replace("_", " "), *(options.plain(row.settings[name]) for row in comparison.rows)) for name in settings
        ]
        console.show_list(("setting", *(str(place) for place in range(1, len(comparison.rows) + 1))), values)
    measured = comparison.rows[0].evaluation
    protocol = f"{measured.protocol} [{measured.protocol_hash}]"
    click.echo(f"nats per {measured.example}; {measured.num_images:,} test {measured.example}s; {protocol}")
    for remark in comparison.remarks:
        console.say(f"warning: {remark}", fg="yellow")


_TITLES = {"log_likelihood": "log p(x)", "elbo": "ELBO of the loss"}


def _cells(row: ComparedRun, by: str) -> tuple[str, ...]:
    measured, difference = row.evaluation, row.difference
    error = "" if by == "elbo" else f" ± {measured.standard_error:.2f}"
    return (
        row.run,
        f"{getattr(measured, by):.2f}{error}",
        "best" if difference is None else f"{difference}{'' if difference.is_clear else ', unclear'}",
        f"{measured.elbo:.2f}",
        f"{measured.num_samples:,}",
    )


def _plain(comparison: Comparison) -> dict[str, Any]:
    names = ("log_likelihood", "standard_error", "elbo", "num_samples", "model")
    first = comparison.rows[0].evaluation
    return {
        "runs": [
            {"run": row.run, "difference": None if row.difference is None else vars(row.difference), "settings": row.settings}
            | {name: getattr(row.evaluation, name) for name in names}
            for row in comparison.rows
        ],
        **{name: getattr(first, name) for name in ("protocol", "protocol_hash", "num_images")},
        "compared_by": comparison.by,
        "remarks": list(comparison.remarks),
    }
