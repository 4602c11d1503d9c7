"""Summaries of evaluations, bounds and trainings as rows of tables.

Importing this does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pyrovae.errors import visible

if TYPE_CHECKING:
    from pyrovae.experiments.bounding import Bounds
    from pyrovae.experiments.evaluations import Evaluation


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(4), duration(95), duration(7400)
    ('4 s', '1 min 35 s', '2 h 3 min')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def describe_course(history: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]) -> str:
    """Describe the course of a training: epochs, time, engines and the reasons for these."""
    early = ", stopped early" if history[-1].get("stopped_early") else ""
    engines = "; ".join(f"engine {name}: {reason}" for name, reason in environment["engines"])
    return f"{len(history)} epochs{early} in {duration(sum(row['seconds'] for row in history))}; {engines}"


def surroundings_rows(history: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]) -> dict[str, str]:
    """The rows about the time and the environment of a training, by name, as far as its folder has them."""
    rows = {}
    if history:
        rows["took"] = f"{duration(sum(row['seconds'] for row in history))} for {len(history)} epochs"
    engines = environment.get("engines")
    if isinstance(engines, list) and all(isinstance(each, list) and len(each) == 2 for each in engines):
        rows["engine"] = "; ".join(f"{visible(str(name))}: {visible(str(reason))}" for name, reason in engines)
    for name in ("device", "capability", "threads", "python", "torch", "pyro-ppl", "pyrovae", "git"):
        if environment.get(name):
            rows[name] = visible(str(environment[name]))[:200]
    return rows


def evaluation_rows(results: Evaluation) -> dict[str, str]:
    """The rows of an evaluation, by name."""
    rows = _density(results)
    if results.values != "bits" and results.bits_per_dimension is not None:
        rows["the same in bits"] = f"{results.bits_per_dimension:.3f} per dimension"
    if results.kl_by_layer:
        rows |= _trust(results)
        rows[f"ELBO, nats per {results.example}"] = f"{results.elbo:.2f} (one-sample bound, averaged over the same samples)"
        rows["KL by layer, nats"] = ", ".join(f"{layer} {value:.2f}" for layer, value in results.kl_by_layer.items())
        rows["active units"] = _active(results.active_units)
    if results.kl_weight != 1:
        rows["trained for"] = f"latent terms that weigh {results.kl_weight:.2f}, not the true bound"
    return rows | {
        "model": results.model,
        f"{results.example}s": f"{results.num_images:,} test {results.example}s; {results.protocol} [{results.protocol_hash}]",
        "measured in": duration(results.seconds),
    }


def _active(layers: Mapping[str, Mapping[str, int]]) -> str:
    """The number of active units of each layer above the lower threshold, and in brackets above the higher one."""
    _, lower, higher = next(iter(layers.values()))
    counts = (f"{layer} {each[lower]} ({each[higher]}) of {each['units']}" for layer, each in layers.items())
    return f"{', '.join(counts)}: variance {lower.replace('_', ' ')} ({higher.replace('_', ' ')})"


def _tails(results: Evaluation) -> str:
    from pyrovae.evaluation.weighing import heavy_tail

    if results.share_of_heavy_tails is None:
        return "too few samples to know whether their weights have heavy tails"
    return (
        f"weights of {results.share_of_heavy_tails:.1%} of the {results.example}s have heavy tails (Pareto k above "
        f"{heavy_tail(results.num_samples):.2f}: estimated too low, perhaps; 'pyrovae bounds' says by how much)"
    )


def _density(results: Evaluation) -> dict[str, str]:
    density = "log p(x)" if results.condition == "none" else f"log p(x | {results.condition})"
    if results.log_likelihood is None:
        return {density: "none: the cross-entropy of grey values is no density of them; the ELBO below is that of the loss"}
    if not results.kl_by_layer:
        samples = "exact: there is no latent"
    elif results.num_samples == 1:
        samples = "one sample each: the ELBO"
    else:
        samples = f"{results.num_samples:,} importance samples each"
    value = f"{results.log_likelihood:.2f} ± {results.standard_error:.2f}"
    return {f"{density}, nats per {results.example}": f"{value} (standard error over {results.example}s; {samples})"}


def _trust(results: Evaluation) -> dict[str, str]:
    """The rows about the reliability of an estimate: its error, its tails, and its growth with the samples."""
    curve = ", ".join(f"{int(size):,}: {value:.2f}" for size, value in results.curve.items())
    rows = {"by number of samples": curve}
    if results.sampling_error is not None:
        rows["error of the sampling"] = (
            f"{results.sampling_error:.3f}; {_tails(results)}; median effective sample size "
            f"{results.effective_sample_size:.0f} of {results.num_samples:,}"
        )
    return rows


def bounds_rows(bounds: Bounds) -> dict[str, str]:
    """The rows of bounds, by name."""
    test, simulated = asdict(bounds.test), asdict(bounds.simulated)
    density = "log p(x)" if bounds.condition == "none" else f"log p(x | {bounds.condition})"
    chains = f"{bounds.num_chains} chains of {bounds.num_temperatures:,} temperatures"
    samples = f"{bounds.num_samples:,} importance samples"
    return {
        f"{density} of test {bounds.example}s, nats": "",
        "  importance-sampled": f"{_pm(test, 'importance_sampled')} (standard error over {bounds.example}s; {samples} each)",
        "  annealed": f"{_pm(test, 'annealed')} (a lower bound too; {chains} each, {test['acceptance_rate']:.0%} accepted)",
        "  annealed less sampled": f"{_pm(test, 'difference')} ({_said_of(test['difference'])})",
        f"{density} of simulated {bounds.example}s, nats": "",
        "  importance-sampled ": _pm(simulated, "importance_sampled"),
        "  annealed, from below": f"{_pm(simulated, 'annealed')} ({simulated['acceptance_rate']:.0%} accepted)",
        "  annealed, from above": f"{_pm(simulated, 'upper')} (in reverse, from the latents that they were drawn from)",
        "  gap": f"{_pm(simulated, 'gap')} (the truth is between the two, in expectation)",
        f"{bounds.example}s": f"{bounds.num_images:,} of {bounds.num_test_images:,} test {bounds.example}s, the same each "
        f"time, and as many that the model draws; {bounds.protocol} [{bounds.protocol_hash}]",
        "measured in": duration(bounds.seconds),
    }


def _said_of(difference: float) -> str:
    if difference < 0:
        return "below zero: annealing was worse than importance sampling; more temperatures or chains are needed"
    return "above zero: the importance samples miss that much"


def _pm(figures: dict[str, float], name: str) -> str:
    # Adding zero removes the sign of a rounded minus zero.
    return f"{round(figures[name], 2) + 0.0:.2f} ± {figures[f'{name}_standard_error']:.2f}"
