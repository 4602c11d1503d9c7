"""``pyrovae bounds``: how far off an importance-sampled figure can be."""

from __future__ import annotations

from typing import Any

import click

from . import console, options
from .opening import opened


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--images", type=click.IntRange(min=2), default=100, show_default=True, help="Test images, and simulated ones.")
@click.option("--temperatures", type=click.IntRange(min=2), default=300, show_default=True, help="From guide to posterior.")
@click.option("--chains", type=click.IntRange(min=1), default=5, show_default=True, help="Annealed chains per image.")
@click.option("--samples", type=click.IntRange(min=1), default=5000, show_default=True, help="Importance samples per image.")
@click.option("--seed", type=click.IntRange(min=0, max=2**63 - 1), default=0, show_default=True, help="Of samples and chains.")
@options.root
@options.mirror
@options.device
@options.threads
@options.as_json
def bounds(
    run: str,
    images: int,
    temperatures: int,
    chains: int,
    samples: int,
    seed: int,
    root: str | None,
    mirror: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Bound the log-likelihood of a run folder from both sides, by annealed importance sampling.

    On some test images, beside importance sampling; and on as many images that the model draws, from above too. bounds.json in
    the run folder keeps what comes out.
    """
    trained, dataset = opened(run, root, mirror, device, quiet=as_json)
    trained.bounds(
        images,
        num_temperatures=temperatures,
        num_chains=chains,
        num_samples=samples,
        seed=seed,
        dataset=dataset,
        track=lambda label, unit: console.metered(label, unit, quiet=as_json),
        show=lambda results: _show(run, results, as_json=as_json),
    )


def _show(run: str, results: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.print_json(results)
    else:
        console.show(summary(results), title=f"{run}: log-likelihood from both sides")


def summary(results: dict[str, Any]) -> dict[str, str]:
    """The rows of the table that people read."""
    test, simulated = results["test"], results["simulated"]
    density = "log p(x)" if results["condition"] == "none" else f"log p(x | {results['condition']})"
    chains = f"{results['num_chains']} chains of {results['num_temperatures']:,} temperatures"
    samples = f"{results['num_samples']:,} importance samples"
    return {
        f"{density} of test images, nats": "",
        "  importance-sampled": f"{_pm(test, 'importance_sampled')} (standard error over images; {samples} each)",
        "  annealed": f"{_pm(test, 'annealed')} (a lower bound too; {chains} each, {test['acceptance_rate']:.0%} accepted)",
        "  annealed less sampled": f"{_pm(test, 'difference')} ({_said_of(test['difference'])})",
        f"{density} of simulated images, nats": "",
        "  importance-sampled ": _pm(simulated, "importance_sampled"),
        "  annealed, from below": f"{_pm(simulated, 'annealed')} ({simulated['acceptance_rate']:.0%} accepted)",
        "  annealed, from above": f"{_pm(simulated, 'upper')} (in reverse, from the latents that the images were drawn from)",
        "  gap": f"{_pm(simulated, 'gap')} (the truth is between the two, in expectation)",
        "images": f"{results['num_images']:,} of {results['num_test_images']:,} test images, the same each time, and as many "
        f"that the model draws; {results['protocol']} [{results['protocol_hash']}]",
        "measured in": console.duration(results["seconds"]),
    }


def _said_of(difference: float) -> str:
    if difference < 0:
        return "below zero: more samples than chains could make up for; more temperatures or chains are needed"
    return "above zero: the importance samples miss that much"


def _pm(figures: dict[str, float], name: str) -> str:
    # Added to zero, a rounded minus zero loses its sign.
    return f"{round(figures[name], 2) + 0.0:.2f} ± {figures[f'{name}_standard_error']:.2f}"
