"""Draw the latents of new examples from the posterior of a run's model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from pyrovae.errors import InputError, nearest
from pyrovae.evaluation.posterior import METHODS, import_arviz
from pyrovae.experiments.calibrating import refuse_what_has_no_posterior
from pyrovae.experiments.new_examples import Note, new_examples

if TYPE_CHECKING:
    from pyrovae.experiments.folder import RunFolder


def posterior_of(
    run: RunFolder,
    source: Any,
    num_samples: int,
    *,
    method: str = "resampling",
    class_name: str = "",
    seed: int = 0,
    note: Note = print,
) -> Any:
    """Draw the latents of examples from p(z | x), as ``arviz.InferenceData``, with a remark on examples to be doubted.

    Args:
        run: the trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``.
        num_samples: the number of draws of each example, with chains that of each chain.
        method: one of ``posterior.METHODS``.
        class_name: the class of all examples, for a model conditioned on classes and data without them.
        seed: the seed of the random numbers.
        note: called with each remark for the user.

    Raises:
        InputError: where the extra ``arviz`` is not installed, for a regressor, a loss that is no density, an unknown method,
            too few draws, and examples that it cannot take.
    """
    import_arviz()
    refuse_what_has_no_posterior(run)
    if method not in METHODS:
        raise InputError(f"expected a method out of {', '.join(METHODS)}; got {method!r}{nearest(method, list(METHODS))}")
    blocks = list(new_examples(run, source, seed, note, class_name))
    contexts = [each.context for each in blocks if each.context is not None]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x, context = torch.cat([each.x for each in blocks]), torch.cat(contexts) if contexts else None
        try:
            found = METHODS[method](run.vae.model, run.vae.guide, x, num_samples, context=context)
        except ValueError as error:
            raise InputError(f"{run.folder}: {error}") from error
    doubtful = int((~found.by_example["reliable"]).sum())
    if doubtful:
        better = "method='hmc' may do better" if method == "resampling" else "more draws may do better"
        note(f"the draws of {doubtful} of {len(x)} examples are not reliable, as sample_stats says: {better}")
    return found.to_arviz([name for each in blocks for name in each.block.names])
