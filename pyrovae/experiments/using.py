"""Encode, score, reconstruct and draw examples by a trained run, in blocks of a stream.

Densities, reconstructions and samples are in the original units: the preparation of the training data is part of the run, and
is applied to new examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
import torch

from pyrovae.data.datasets import log_jacobians
from pyrovae.errors import InputError, first_line
from pyrovae.evaluation import using
from pyrovae.experiments.new_examples import Note, contexts_for_sampling, new_examples

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.folder import RunFolder

# The numbers of the run's own validation or test examples for percentiles: at most, and without a warning at least.
REFERENCES, FEWEST_REFERENCES = 1000, 30


def encode_blocks(
    run: RunFolder,
    source: Any,
    *,
    layer: str = "",
    num_samples: int = 10,
    draws: int = 0,
    class_name: str = "",
    seed: int = 0,
    note: Note = print,
) -> Iterator[pandas.DataFrame]:
    """Encode examples: the mean and standard deviation of each latent, or draws; rows keep their order and names.

    Args:
        run: the trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``.
        layer: the only layer to encode; all by default.
        num_samples: the number of samples of the layers that others depend on.
        draws: the number of draws of the latents in place of their moments.
        class_name: the class of all examples, for a model conditioned on classes and data without them.
        seed: the seed of the random numbers.
        note: called with each remark for the user.

    Raises:
        InputError: for an unknown layer, a regressor, and examples that it cannot take.
    """
    layers = [f"z{number}" for number in range(1, len(run.recipe.latent_sizes) + 1)]
    if not layers:
        raise InputError(f"{run.folder}: expected latents; a regressor has none")
    if layer and layer not in layers:
        raise InputError(f"{run.folder}: expected a layer out of {', '.join(layers)}; got {layer!r}")
    guide = run.vae.guide
    for each_block in new_examples(run, source, seed, note, class_name):
        block, x, context = each_block.block, each_block.x, each_block.context
        if draws:
            values = {name: list(each) for name, each in using.draw_latents(guide, x, context, num_samples=draws).items()}
            titles = {name: [f"draw_{number}" for number in range(1, draws + 1)] for name in values}
        else:
            values = {name: list(each) for name, each in using.encode(guide, x, context, num_samples=num_samples).items()}
            titles = {name: ["mean", "std"] for name in values}
        columns = {
            f"{name}_{unit + 1}_{title}": each[:, unit].cpu().numpy()
            for name in layers
            if layer in ("", name)
            for unit in range(values[name][0].shape[1])
            for title, each in zip(titles[name], values[name], strict=True)
        }
        yield pandas.DataFrame(columns, index=pandas.Index(list(block.names), name="row"))


def score_blocks(
    run: RunFolder,
    source: Any,
    reference: Dataset | None = None,
    *,
    num_samples: int = 100,
    class_name: str = "",
    seed: int = 0,
    note: Note = print,
) -> Iterator[pandas.DataFrame]:
    """Score examples, in nats: tables in their original units, images as the model sees them.

    Columns are ``log_likelihood`` with ``standard_error``, ``elbo``, ``rate``, ``distortion``, ``pareto_k``; with a reference
    also ``percentile``, the share of its examples that are less likely; and for tables ``oddest``, the column whose log-density
    is furthest below its mean in the reference, with ``oddest_by``, by how many standard deviations.

    Args:
        run: the trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``.
        reference: the run's own data.
        num_samples: the number of importance samples for each example.
        class_name: the class of all examples, for a model conditioned on classes and data without them.
        seed: the seed of the samples.
        note: called with each remark for the user.

    Raises:
        InputError: for a loss that is no density, and examples that it cannot take.
    """
    refuse_a_loss(run)
    preparation, model, guide = run.required_preparation, run.vae.model, run.vae.guide
    known = None
    if reference is not None:
        held_out = held_out_examples(run, reference)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            known = using.score(model, guide, *held_out, num_samples=num_samples)
        if len(held_out[0]) < FEWEST_REFERENCES:
            note(f"percentiles are among {len(held_out[0])} examples alone")
    for each in new_examples(run, source, seed, note, class_name):
        found = using.score(model, guide, each.x, each.context, num_samples=num_samples)
        # The change of variables of observed entries: a gap has no density in any unit.
        shift = log_jacobians(each.x, preparation.scale).to(found.log_likelihood)
        columns: dict[str, Any] = {
            "log_likelihood": found.log_likelihood + shift,
            "standard_error": found.standard_error,
            "elbo": found.elbo + shift,
            "rate": found.rate,
            "distortion": found.distortion - shift,
            "pareto_k": found.pareto_k,
        }
        if known is not None:
            among = known.log_likelihood.sort().values
            columns["percentile"] = 100 * torch.searchsorted(among, found.log_likelihood.contiguous()) / len(among)
            if preparation.is_table and known.by_entry is not None and found.by_entry is not None:
                away = (found.by_entry - known.by_entry.mean(0)) / known.by_entry.std(0)
                away = away.masked_fill(each.x.isnan().to(away.device), torch.inf)
                names = preparation.columns or [str(number + 1) for number in range(preparation.size)]
                columns["oddest"] = [names[place] for place in away.argmin(1).tolist()]
                columns["oddest_by"] = -away.min(1).values
        plain = {name: value if isinstance(value, list) else value.cpu().numpy() for name, value in columns.items()}
        yield pandas.DataFrame(plain, index=pandas.Index(list(each.block.names), name="row"))


def refuse_a_loss(run: RunFolder) -> None:
    """Refuse a run whose likelihood is no density, and has no log p(x).

    Raises:
        InputError: for such a run.
    """
    from pyrovae.programs.likelihoods import LIKELIHOODS

    if not LIKELIHOODS[run.recipe.likelihood].normalized:
        raise InputError(f"{run.folder}: expected a likelihood that is a density; {run.recipe.likelihood!r} is a loss")


def held_out_examples(run: RunFolder, reference: Dataset) -> tuple[Tensor, Tensor | None]:
    """The run's own validation examples ``(N, D)``, test examples where there are none, and their contexts ``(N, C)``.

    Raises:
        InputError: for data other than those that it was trained on.
    """
    run.check_data(reference)
    examples, part = (reference.test, "test") if reference.valid is None else (reference.valid, "valid")
    context = reference.contexts[part][:REFERENCES] if part in reference.contexts else None
    return examples[:REFERENCES], context


def reconstruct_blocks(
    run: RunFolder, source: Any, *, class_name: str = "", seed: int = 0, note: Note = print
) -> Iterator[tuple[Sequence[Any], np.ndarray]]:
    """Reconstruct examples: yields names and the means of p(x | z) at a draw of the guide, in original units.

    Args:
        run: the trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``.
        class_name: the class of all examples, for a model conditioned on classes and data without them.
        seed: the seed of the draw.
        note: called with each remark for the user.

    Raises:
        InputError: for a regressor, and examples that it cannot take.
    """
    if not run.recipe.latent_sizes:
        raise InputError(f"{run.folder}: expected latents; a regressor has none")
    for each in new_examples(run, source, seed, note, class_name):
        made = using.reconstruct(run.vae.model, run.vae.guide, each.x, each.context)
        yield each.block.names, run.required_preparation.restore(made)


def draw_samples(
    run: RunFolder,
    number: int,
    *,
    class_name: str = "",
    context: Any = None,
    means: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    note: Note = print,
) -> np.ndarray:
    """Draw examples from a model, in original units: a table ``(N, D)``, images ``(N, C, H, W)``.

    Args:
        run: the trained model.
        number: the number of examples N; with ``context``, for each of its examples.
        class_name: the class, for a model conditioned on classes.
        context: examples whose contexts a conditional model observes: see ``blocks_of``.
        means: return means of p(x | z) in place of draws of x.
        temperature: the factor of the latents' standard deviations.
        seed: the seed of the random numbers.
        note: called with each remark for the user.

    Raises:
        InputError: for a conditional model without a class or contexts, any other model with one, and a temperature of latents
            that are neither Gaussians, nor mixtures of them, nor flows.
    """
    if number < 1 or not temperature > 0:
        raise InputError(f"expected at least one example and a temperature above zero; got {number} and {temperature}")
    context = contexts_for_sampling(run, number, class_name, context, seed, note)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            number = number if context is None else len(context)
            x = using.sample(run.vae.model, number, context, means=means, temperature=temperature)
        except using.TemperatureError as error:
            raise InputError(f"{run.folder}: {first_line(error)}") from error
    return run.required_preparation.restore(x)
