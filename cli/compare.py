"""``pyrovae compare``: runs beside each other, image by image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pyrovae.errors import InputError

from . import console, options

if TYPE_CHECKING:
    from pyrovae.evaluation.comparison import Difference
    from pyrovae.runs import Evaluation


@click.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path())
@options.as_json
def compare(runs: tuple[str, ...], as_json: bool) -> None:
    """Compare the last evaluations of run folders, each with the best of them.

    The differences are paired: of the same test images, with a bootstrap interval over images that holds the mean difference
    of all such images 19 times in 20. Runs that were measured on something else are refused, with the reason.
    """
    from pyrovae.evaluation.comparison import paired_difference
    from pyrovae.runs import Evaluation

    if len(runs) < 2:
        raise InputError("expected at least two run folders to compare; got one")
    evaluations = [(run, Evaluation.load(run)) for run in runs]
    remarks = _checked(evaluations)
    evaluations.sort(key=lambda pair: pair[1].results["log_likelihood"], reverse=True)
    best = evaluations[0][1].per_image["log_likelihood"]
    rows = [
        (run, evaluation.results, paired_difference(evaluation.per_image["log_likelihood"], best) if number else None)
        for number, (run, evaluation) in enumerate(evaluations)
    ]
    if as_json:
        console.print_json(_plain(rows) | {"remarks": remarks})
    else:
        _show(rows)
        for remark in remarks:
            console.say(f"warning: {remark}", fg="yellow")


Row = tuple[str, dict[str, Any], "Difference | None"]


def _checked(evaluations: list[tuple[str, Evaluation]]) -> list[str]:
    """Refuse what is not comparable with the first; return what is to be said of the rest."""
    from pyrovae.evaluation.comparison import incomparable, remark, remark_on_tails

    (first, reference), *others = evaluations
    remarks = []
    for run, evaluation in others:
        if reason := incomparable(reference.results, evaluation.results):
            raise InputError(f"expected runs measured on one thing; {first} and {run} are not: {reason}")
        if noted := remark(reference.results, evaluation.results):
            remarks.append(f"{first} and {run}: {noted}")
    tails = ((run, remark_on_tails(evaluation.results)) for run, evaluation in evaluations)
    return remarks + [f"{run}: {noted}" for run, noted in tails if noted]


def _show(rows: list[Row]) -> None:
    cells = [
        (
            run,
            f"{results['log_likelihood']:.2f} ± {results['standard_error']:.2f}",
            "best" if difference is None else f"{difference}{'' if difference.is_clear else ', unclear'}",
            f"{results['elbo']:.2f}",
            f"{results['num_samples']:,}",
            results["model"],
        )
        for run, results, difference in rows
    ]
    console.show_list(("run", "log p(x)", "difference [95%]", "ELBO", "samples", "model"), cells)
    results = rows[0][1]
    click.echo(f"nats per image; {results['num_images']:,} test images; {results['protocol']} [{results['protocol_hash']}]")


def _plain(rows: list[Row]) -> dict[str, Any]:
    names = ("log_likelihood", "standard_error", "elbo", "num_samples", "model")
    return {
        "runs": [
            {"run": run, "difference": None if difference is None else vars(difference)}
            | {name: results[name] for name in names}
            for run, results, difference in rows
        ],
        **{name: rows[0][1][name] for name in ("protocol", "protocol_hash", "num_images")},
    }
