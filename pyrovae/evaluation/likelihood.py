"""The marginal log-likelihood, estimated by importance sampling with the guide as proposal."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyrovae.data.datasets import Dataset
from pyrovae.data.rows import Rows
from pyrovae.engine.modules import Program
from pyrovae.evaluation.chunks import WHOLE, chunks_of_shard, columns_of, draw_seed, noise_of_chunk
from pyrovae.evaluation.sampling import WeightSampler
from pyrovae.evaluation.support import check_support
from pyrovae.evaluation.weighing import bound, effective_sample_size, heavy_tail, pareto_k, sizes_of_curve, standard_error

IMAGES_AT_ONCE = 100


@dataclass(frozen=True, eq=False, repr=False)
class Estimates:
    """The estimates for each image, in nats, with their mean and standard error.

    Args:
        per_image: the estimates ``(N,)``.
    """

    per_image: Tensor

    @property
    def mean(self) -> float:
        """The mean of the estimates over images."""
        return self.per_image.mean().item()

    @property
    def standard_error(self) -> float:
        """The standard error of ``mean`` over images, as a sample of all images of this kind; NaN for one image."""
        if len(self.per_image) == 1:
            return math.nan
        return self.per_image.std().item() / math.sqrt(len(self.per_image))

    def __repr__(self) -> str:
        return f"Estimates({self.mean:.2f} ± {self.standard_error:.2f} nats; {len(self.per_image)} images)"


@dataclass(frozen=True, eq=False, repr=False)
class LogLikelihood(Estimates):
    """Importance-sampled log-likelihoods in nats, with statistics of how far they can be trusted.

    Args:
        per_image: the estimate of log p(x) for each image ``(N,)``.
        standard_error_per_image: the standard error of each estimate, from the spread of its weights ``(N,)``.
        elbo_per_image: the mean log-weight of the same samples ``(N,)``: the bound with one sample.
        effective_sample_size: that of each image's weights ``(N,)``, between 1 and ``num_samples``.
        pareto_k: the tail index of each image's weights ``(N,)``: above ``heavy_tail(num_samples)`` estimates are not reliable.
        curve_per_image: the bound with 1, 10, 100, ... and all samples, from the same weights ``(S, N)``.
        num_samples: the number of importance samples per image.
    """

    standard_error_per_image: Tensor
    elbo_per_image: Tensor
    effective_sample_size: Tensor
    pareto_k: Tensor
    curve_per_image: Tensor
    num_samples: int

    @property
    def curve(self) -> dict[int, float]:
        """The mean over images of the bound, by the number of samples."""
        return dict(zip(sizes_of_curve(self.num_samples), self.curve_per_image.mean(1).tolist(), strict=True))

    @property
    def sampling_error(self) -> float:
        """The standard error of ``mean`` for the same images and new samples, which more samples make smaller."""
        return self.standard_error_per_image.square().sum().sqrt().item() / len(self.per_image)

    @property
    def elbo(self) -> float:
        """The evidence lower bound: the mean over images and samples of the log-weights."""
        return self.elbo_per_image.mean().item()

    @property
    def share_of_heavy_tails(self) -> float:
        """The share of images whose ``pareto_k`` is above ``heavy_tail(num_samples)``, among those that have one."""
        known = self.pareto_k[~self.pareto_k.isnan()]
        return (known > heavy_tail(self.num_samples)).double().mean().item() if len(known) else math.nan

    def shift(self, nats: Tensor) -> "LogLikelihood":
        """Add numbers ``(N,)`` to the estimates of the images, for a change of variables."""
        shifted = ("per_image", "elbo_per_image", "curve_per_image")
        return replace(self, **{name: getattr(self, name) + nats for name in shifted})

    def __repr__(self) -> str:
        images = f"{len(self.per_image)} images, {self.num_samples} samples each"
        return f"LogLikelihood({self.mean:.2f} ± {self.standard_error:.2f} nats, ELBO {self.elbo:.2f}; {images})"


AnyEstimates = TypeVar("AnyEstimates", bound=Estimates)


def join_shards(shards: Sequence[AnyEstimates]) -> AnyEstimates:
    """Join the estimates of all shards, in their order, to those of the whole: the same to the last bit.

    Raises:
        ValueError: for shards of other numbers of samples.
    """
    # What is empty may be of another type.
    parts = [each for each in shards if len(each.per_image)] or shards[:1]
    values = {name: [getattr(each, name) for each in parts] for name in vars(parts[0])}
    for name, (first, *others) in values.items():
        if not isinstance(first, Tensor) and any(each != first for each in others):
            raise ValueError(f"expected shards with one {name}; got {', '.join(map(str, [first, *others]))}")
    joined = {name: torch.cat(each, -1) for name, each in values.items() if isinstance(each[0], Tensor)}
    return replace(parts[0], **joined)


def log_likelihood(
    model: Program,
    guide: Program,
    x: Tensor | Rows | Dataset,
    num_samples: int = 5000,
    *,
    context: Tensor | None = None,
    engine: str = "auto",
    track: Callable[[Sequence[Any]], Iterable[Any]] = iter,
    shard: tuple[int, int] = WHOLE,
) -> LogLikelihood:
    r"""Estimate the log-likelihood of each row of x ``(N, D)`` by importance sampling.

    .. math:: \log p(x | c) \approx \log \frac 1 K \sum_{k=1}^K \frac{p(x, z_k | c)}{q(z_k | x, c)}, \quad z_k \sim q(z | x, c)

    Exactly K = ``num_samples`` samples are drawn per image. Memory holds the weights of a hundred images, 400 bytes for each
    sample, and the networks' values for 2,000 samples. Modules are in evaluation mode while they run; parts that depend on
    parameters alone are computed once, parts that depend on the image once per image. On a CPU the figures depend on torch's
    generator and nothing else. Burda et al. (2016), equation 8; a lower bound in expectation, tighter as K grows.

    The noise of a hundred images depends on one seed, which is drawn from torch's generator, and their number alone. Shards
    from the same state of the generator, joined by ``join_shards``, are the same as the whole to the last bit.

    Args:
        model: the generative program.
        guide: the proposal.
        x: the images, in memory or not; or a dataset, whose test images are measured given their contexts, in nats of the
            original values where these were standardised.
        num_samples: the number of samples K.
        context: the contexts c ``(N, C)`` of a conditional model.
        engine: the engine of ``WeightSampler``.
        track: function that wraps the sequence of image chunks, to show progress.
        shard: the pair (3, 16) measures the third of sixteen parts of the images, which are whole hundreds of them.

    Raises:
        ValueError: for fewer than one sample, another number of contexts than of images, data outside the support of the
            likelihood, a model that observes nothing, and a shard that is out of range.
    """
    if num_samples < 1:
        raise ValueError(f"expected at least one sample; got num_samples={num_samples}")
    if isinstance(x, Dataset):
        options: dict[str, Any] = {"engine": engine, "track": track, "shard": shard}
        measured = log_likelihood(model, guide, x.test, num_samples, context=x.contexts.get("test"), **options)
        return measured.shift(x.log_jacobians(x.test)[images_of_shard(shard, len(x.test))].to(measured.per_image))
    columns, seed = columns_of(x, context), draw_seed(x.device)
    numbers = chunks_of_shard(shard, -(-len(x) // IMAGES_AT_ONCE))
    chunks = ([column[images] for column in columns] for images in map(_images_of_chunk, track(numbers)))
    samplers = _samplers(model, guide, len(x), num_samples, engine)
    # The chunks come first, so that the tracked sequence is run to its end.
    checked, found = check_support(model, chunks, first=numbers.start * IMAGES_AT_ONCE), []
    for rows, number in zip(checked, numbers, strict=True):
        with noise_of_chunk(seed, number):
            found.append(_estimates(samplers[len(rows[0])](rows, num_samples).double()))
    return join_shards(found or [_estimates(torch.zeros(num_samples, 0, dtype=torch.float64, device=x.device))])


def images_of_shard(shard: tuple[int, int], num_images: int) -> slice:
    """The images of a shard, among those that ``log_likelihood`` measures."""
    chunks = chunks_of_shard(shard, -(-num_images // IMAGES_AT_ONCE))
    return slice(chunks.start * IMAGES_AT_ONCE, chunks.stop * IMAGES_AT_ONCE)


def _images_of_chunk(number: int) -> slice:
    return slice(number * IMAGES_AT_ONCE, (number + 1) * IMAGES_AT_ONCE)


def _samplers(model: Program, guide: Program, num_images: int, num_samples: int, engine: str) -> dict[int, WeightSampler]:
    """The samplers by the number of images at once, whose engines depend on the whole and not on the shard."""
    whole, rest = divmod(num_images, IMAGES_AT_ONCE)
    counts = {IMAGES_AT_ONCE: whole, rest: 1}
    return {size: WeightSampler(model, guide, num_samples * count, engine) for size, count in counts.items()}


def _estimates(weights: Tensor) -> LogLikelihood:
    """The estimates from log-weights ``(K, B)``."""
    curve = torch.stack([bound(weights, size) for size in sizes_of_curve(len(weights))])
    statistics = (effective_sample_size(weights), pareto_k(weights), curve)
    return LogLikelihood(curve[-1], standard_error(weights), curve[0], *statistics, len(weights))
