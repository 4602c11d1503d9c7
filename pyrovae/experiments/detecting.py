"""Score how odd new examples are under a run, and how well each score tells them from normal ones.

Scores of tables are in nats of the original values, as those of ``score``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas
import torch

from pyrovae.data.datasets import log_jacobians
from pyrovae.errors import InputError
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.evaluation.oddity import has_gaussian_latents, negative_waic, oddity, typicality
from pyrovae.evaluation.ranking import Interval, auroc, auroc_difference
from pyrovae.experiments.new_examples import Note, new_examples
from pyrovae.experiments.using import held_out_examples, refuse_a_loss

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.data.datasets import Dataset
    from pyrovae.experiments.folder import RunFolder

# The score that others are compared with.
PLAIN = "negative_log_likelihood"
ERROR = "_error"


def detect_blocks(
    run: RunFolder,
    source: Any,
    typical: Tensor | None = None,
    *,
    also: Sequence[RunFolder] = (),
    num_samples: int = 100,
    num_steps: int = 100,
    class_name: str = "",
    seed: int = 0,
    note: Note = print,
) -> Iterator[pandas.DataFrame]:
    """Score how odd examples are, in nats: every score is larger for what is odder.

    Columns are ``negative_log_likelihood``, -log p(x); ``ratio_above_z1``, ..., the likelihood ratios of layers, for all but
    the top layer; ``regret``, for guides of Gaussians; with typical examples ``typicality``, the distance of log p(x) from its
    mean over these; and with other runs ``negative_waic``. NAME_error is the standard error of NAME, from the samples, for all
    but the last two.

    Args:
        run: the trained model.
        source: a path, a DataFrame or an array: see ``blocks_of``.
        typical: the log p(x) of typical examples ``(R,)``, of ``reference_likelihoods``.
        also: trainings on the same data, with other seeds.
        num_samples: the number of samples for each example and score.
        num_steps: the number of steps of the regret; with 0 it is left out.
        class_name: the class of all examples, for a model conditioned on classes and data without them.
        seed: the seed of the random numbers.
        note: called with each remark for the user.

    Raises:
        InputError: for a loss that is no density, other runs on other data, and examples that it cannot take.
    """
    for each_run in (run, *also):
        refuse_a_loss(each_run)
    _refuse_other_data(run, also)
    warned = not num_steps
    for each in new_examples(run, source, seed, note, class_name):
        if not warned and not has_gaussian_latents(run.vae.guide, each.x, each.context):
            note("no regret: the guide's latents are not all Gaussian")
        warned = True
        columns = scores_of(run, each.x, each.context, typical, also, num_samples=num_samples, num_steps=num_steps)
        plain = {name: value.cpu().numpy() for name, value in columns.items()}
        yield pandas.DataFrame(plain, index=pandas.Index(list(each.block.names), name="row"))


def scores_of(
    run: RunFolder,
    x: Tensor,
    context: Tensor | None = None,
    typical: Tensor | None = None,
    also: Sequence[RunFolder] = (),
    *,
    num_samples: int = 100,
    num_steps: int = 100,
) -> dict[str, Tensor]:
    """The columns of ``detect_blocks`` for prepared examples ``(N, D)`` and their contexts ``(N, C)``.

    ``typical`` are the log p(x) of reference examples ``(R,)``, of ``reference_likelihoods``.
    """
    found = oddity(run.vae.model, run.vae.guide, x, context, num_samples=num_samples, num_steps=num_steps)
    # The change of variables is the same for every training; of a difference it is zero.
    shift = log_jacobians(x, run.required_preparation.scale).to(found.log_likelihood)
    columns = {PLAIN: -found.log_likelihood - shift, PLAIN + ERROR: found.standard_error}
    for layer, ratio in found.ratios.items():
        columns |= {f"ratio_above_{layer}": ratio, f"ratio_above_{layer}{ERROR}": found.ratio_errors[layer]}
    if found.regret is not None and found.regret_error is not None:
        columns |= {"regret": found.regret, f"regret{ERROR}": found.regret_error}
    if typical is not None:
        columns["typicality"] = typicality(found.log_likelihood, typical.to(found.log_likelihood))
    if also:
        again = [_log_likelihood(each, x, context, num_samples) for each in (run, *also)]
        others = [_log_likelihood(each, x, context, num_samples) for each in also]
        columns["negative_waic"] = negative_waic([found.log_likelihood, *others], again) - shift
    return columns


def _log_likelihood(run: RunFolder, x: Tensor, context: Tensor | None, num_samples: int) -> Tensor:
    return log_likelihood(run.vae.model, run.vae.guide, x, num_samples, context=context).per_image


def reference_likelihoods(run: RunFolder, reference: Dataset, num_samples: int, seed: int) -> Tensor:
    """The log p(x) of the run's own held-out examples ``(R,)``."""
    x, context = held_out_examples(run, reference)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _log_likelihood(run, x, context, num_samples)


def _refuse_other_data(run: RunFolder, also: Sequence[RunFolder]) -> None:
    """Refuse runs whose log p(x) is one of other data, which cannot be averaged with that of ``run``.

    Raises:
        InputError: for such a run.
    """
    checksums = [each.checksum for each in (run, *also)] if also else []
    for number, each in enumerate(also, start=1):
        if checksums[number] in checksums[:number]:
            raise InputError(f"{each.folder}: expected another training; it has the weights of one that is there: leave it out")
        for what in ("protocol_hash", "preparation"):
            if getattr(each, what) != getattr(run, what):
                raise InputError(
                    f"{each.folder}: expected a training on the data of {run.folder}, '{run.protocol}'; it was trained on "
                    f"'{each.protocol}': train it on the same data with another --seed"
                )
        if (each.recipe.likelihood, each.recipe.condition) != (run.recipe.likelihood, run.recipe.condition):
            raise InputError(
                f"{each.folder}: expected the likelihood and condition of {run.folder}, {run.recipe.likelihood!r} and "
                f"{run.recipe.condition!r}; got {each.recipe.likelihood!r} and {each.recipe.condition!r}: leave it out"
            )


def score_names(table: pandas.DataFrame) -> list[str]:
    """The names of the scores among the columns of a table of ``detect_blocks``."""
    return [str(name) for name in table.columns if not str(name).endswith(ERROR)]


def aurocs(odd: pandas.DataFrame, normal: pandas.DataFrame) -> dict[str, tuple[Interval, Interval]]:
    """The area under the ROC curve of each score, and its difference from that of -log p(x), with 95 % intervals.

    Args:
        odd: scores of odd examples, as of ``detect_blocks``.
        normal: the same scores of normal examples.

    Raises:
        InputError: for fewer than two examples of a kind, and scores that are no numbers.
    """
    pairs = {name: (odd[name].to_numpy(), normal[name].to_numpy()) for name in score_names(odd)}
    try:
        return {name: (auroc(*pair), auroc_difference(pair, pairs[PLAIN])) for name, pair in pairs.items()}
    except ValueError as error:
        raise InputError(str(error)) from error
