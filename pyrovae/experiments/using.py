"""A trained run at work on new examples: encoded, reconstructed, scored, and drawn; each block of a stream as a table.

Densities, reconstructions and samples are in the original units: what the data of the training went through is part of the
run, and is applied to whatever comes later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
import torch

from pyrovae.data.datasets import log_jacobians
from pyrovae.errors import InputError
from pyrovae.evaluation import using
from pyrovae.experiments.new_examples import Note, prepared, told_of

if TYPE_CHECKING:
    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.folder import RunFolder

# Of the run's own validation images, or test images, that percentiles are among.
REFERENCES, FEWEST_REFERENCES = 1000, 30


def encoded(
    run: RunFolder,
    source: Any,
    *,
    layer: str = "",
    num_samples: int = 10,
    draws: int = 0,
    given: str = "",
    seed: int = 0,
    note: Note = print,
) -> Iterator[pandas.DataFrame]:
    """Mean and standard deviation of each latent of each example, or draws of it; rows keep their order and names.

    Args:
        run: the trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``.
        layer: one layer alone.
        num_samples: of the layers that others depend on.
        draws: of the latents, in place of their moments.
        given: the class of all examples, for a model that is told classes, where the data say none.
        seed: of all that is drawn.
        note: called with what a reader must know.

    Raises:
        InputError: for a layer that there is none, a regressor, and examples that it cannot take.
    """
    layers = [f"z{number}" for number in range(1, len(run.recipe.latent_sizes) + 1)]
    if not layers:
        raise InputError(f"{run.folder}: expected latents; a regressor has none")
    if layer and layer not in layers:
        raise InputError(f"{run.folder}: expected a layer out of {', '.join(layers)}; got {layer!r}")
    guide = run.vae.guide
    for each_block in prepared(run, source, seed, note, given):
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


def scored(
    run: RunFolder,
    source: Any,
    reference: Dataset | None = None,
    *,
    num_samples: int = 100,
    given: str = "",
    seed: int = 0,
    note: Note = print,
) -> Iterator[pandas.DataFrame]:
    """What a model says of each example, in nats: of tables in their original units, of images as the model sees them.

    ``log_likelihood`` with ``standard_error``, ``elbo``, ``rate``, ``distortion``, ``pareto_k``; with a reference also
    ``percentile``, the share of its examples that are less likely; and of tables ``oddest``, the column that is furthest below
    what it is in the reference, with how many standard deviations.

    Args:
        run: the trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``.
        reference: the run's own data.
        num_samples: importance samples for each example.
        given: the class of all examples, for a model that is told classes, where the data say none.
        seed: of these.
        note: called with what a reader must know.

    Raises:
        InputError: for a loss that is no density, and examples that it cannot take.
    """
    from pyrovae.programs.likelihoods import LIKELIHOODS

    if not LIKELIHOODS[run.recipe.likelihood].normalized:
        raise InputError(f"{run.folder}: expected a likelihood that is a density; {run.recipe.likelihood!r} is a loss")
    preparation, model, guide = run.prepared, run.vae.model, run.vae.guide
    known = None
    if reference is not None:
        run.check_data(reference)
        held_out, part = (reference.test, "test") if reference.valid is None else (reference.valid, "valid")
        told = reference.contexts[part][:REFERENCES] if part in reference.contexts else None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            known = using.score(model, guide, held_out[:REFERENCES], told, num_samples=num_samples)
        if len(held_out) < FEWEST_REFERENCES:
            note(f"percentiles are among {len(held_out)} examples alone")
    for each in prepared(run, source, seed, note, given):
        found = using.score(model, guide, each.x, each.context, num_samples=num_samples)
        # Of what is there: a gap has no density, in whatever unit.
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


def reconstructed(
    run: RunFolder, source: Any, *, given: str = "", seed: int = 0, note: Note = print
) -> Iterator[tuple[Sequence[Any], np.ndarray]]:
    """Names and reconstructions of examples: the means of p(x | z) at a draw of the guide, in original units.

    Args:
        run: the trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``.
        given: the class of all examples, for a model that is told classes, where the data say none.
        seed: of the draw.
        note: called with what a reader must know.

    Raises:
        InputError: for a regressor, and examples that it cannot take.
    """
    if not run.recipe.latent_sizes:
        raise InputError(f"{run.folder}: expected latents; a regressor has none")
    for each in prepared(run, source, seed, note, given):
        made = using.reconstruct(run.vae.model, run.vae.guide, each.x, each.context)
        yield each.block.names, run.prepared.restore(made)


def drawn(
    run: RunFolder,
    number: int,
    *,
    given: str = "",
    told: Any = None,
    means: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    note: Note = print,
) -> np.ndarray:
    """Examples that a model draws, in original units: a table ``(N, D)``, images ``(N, C, H, W)``.

    Args:
        run: the trained model.
        number: N; of a conditional model with ``told``, for each of those.
        given: the class, for a model that is told classes.
        told: examples that a conditional model is told of: see ``blocks_of``.
        means: of p(x | z) in place of draws of x.
        temperature: of the latents: their standard deviations are multiplied by it.
        seed: of all that is drawn.
        note: called with what a reader must know.

    Raises:
        InputError: for a conditional model that is told nothing, or another that is, and a temperature of latents that are
            neither Gaussians nor mixtures of them.
    """
    if number < 1 or not temperature > 0:
        raise InputError(f"expected at least one example and a temperature above zero; got {number} and {temperature}")
    context = told_of(run, number, given, told, seed, note)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            number = number if context is None else len(context)
            x = using.sample(run.vae.model, number, context, means=means, temperature=temperature)
        except using.TemperatureError as error:
            raise InputError(f"{run.folder}: {str(error).splitlines()[0]}") from error
    return run.prepared.restore(x)
