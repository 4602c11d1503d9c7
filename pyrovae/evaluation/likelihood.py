"""The marginal log-likelihood, estimated by importance sampling with the guide as proposal."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrovae.data.rows import Rows
from pyrovae.inference.modules import Program, evaluation_mode
from pyrovae.inference.weights import log_weights
from pyrovae.programs.conditionals import share_constants

IMAGES_AT_ONCE = 100
PARTICLES_AT_ONCE = 2_000


@dataclass(frozen=True, eq=False, repr=False)
class LogLikelihood:
    """Importance-sampled log-likelihoods in nats.

    Args:
        per_image: the estimate of log p(x) for each image ``(N,)``.
        elbo_per_image: the mean log-weight of the same samples ``(N,)``: the bound with one sample.
        effective_sample_size: of each image's weights ``(N,)``, between 1 and ``num_samples``.
        num_samples: importance samples per image.
    """

    per_image: Tensor
    elbo_per_image: Tensor
    effective_sample_size: Tensor
    num_samples: int

    @property
    def mean(self) -> float:
        """The estimate for the set: the mean over images."""
        return self.per_image.mean().item()

    @property
    def standard_error(self) -> float:
        """The standard error of ``mean`` over images, as a sample of all images of their kind."""
        return self.per_image.std().item() / math.sqrt(len(self.per_image))

    def __repr__(self) -> str:
        images = f"{len(self.per_image)} images, {self.num_samples} samples each"
        return f"LogLikelihood({self.mean:.2f} ± {self.standard_error:.2f} nats, ELBO {self.elbo:.2f}; {images})"

    @property
    def elbo(self) -> float:
        """The evidence lower bound: the mean over images and samples of the log-weights."""
        return self.elbo_per_image.mean().item()


def log_likelihood(
    model: Program,
    guide: Program,
    x: Tensor | Rows,
    num_samples: int = 5000,
    *,
    context: Tensor | None = None,
    track: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> LogLikelihood:
    r"""Estimate the log-likelihood of each row of x ``(N, D)`` by importance sampling.

    .. math:: \log p(x | c) \approx \log \frac 1 K \sum_{k=1}^K \frac{p(x, z_k | c)}{q(z_k | x, c)}, \quad z_k \sim q(z | x, c)

    Exactly K = ``num_samples`` samples per image, streamed: memory depends on neither K nor N. Modules are put into evaluation
    mode while they run; a prior that depends on no image is evaluated once. Burda et al. (2016), equation 8; a lower bound in
    expectation, tighter as K grows.

    Args:
        model: the generative program.
        guide: the proposal.
        x: the images, in memory or not.
        num_samples: K.
        context: c ``(N, C)`` of a conditional model.
        track: wraps the sequence of image chunks, to show progress.

    Raises:
        ValueError: for fewer than one sample, and for as many contexts as there are not images.
    """
    if num_samples < 1:
        raise ValueError(f"expected at least one sample; got num_samples={num_samples}")
    if context is not None and len(context) != len(x):
        raise ValueError(f"expected a context for each image; got {len(context)} of them for {len(x)} images")
    columns = [column for column in (x, context) if column is not None]
    starts = range(0, len(x), IMAGES_AT_ONCE)
    with evaluation_mode(), share_constants():
        chunks = [
            _weigh(model, guide, [column[start : start + IMAGES_AT_ONCE] for column in columns], num_samples)
            for start in track(starts)
        ]
    log_mean, elbo, sample_size = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return LogLikelihood(log_mean, elbo, sample_size, num_samples)


def _weigh(model: Program, guide: Program, args: Sequence[Tensor], num_samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """The three statistics of ``stream`` for a few images ``(B, D)``, and their contexts where there are any."""
    at_once = max(1, PARTICLES_AT_ONCE // len(args[0]))
    sizes = [min(at_once, num_samples - start) for start in range(0, num_samples, at_once)]
    return stream(log_weights(model, guide, *args, num_particles=size) for size in sizes)


def stream(chunks: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    r"""Statistics of log-weights that come in chunks ``(k, B)``, in double precision and one chunk's memory.

    Returns:
        The log-mean weight, the mean log-weight, and the effective sample size
        :math:`(\sum_k w_k)^2 / \sum_k w_k^2`, each ``(B,)``: the same however the weights were cut into chunks.
    """
    count = 0
    log_sum = log_sum_of_squares = total = torch.tensor(0.0)
    for weights in (chunk.double() for chunk in chunks):
        parts = weights.logsumexp(0), (2 * weights).logsumexp(0), weights.sum(0)
        if count:
            log_sum = torch.logaddexp(log_sum, parts[0])
            log_sum_of_squares = torch.logaddexp(log_sum_of_squares, parts[1])
            total = total + parts[2]
        else:
            log_sum, log_sum_of_squares, total = parts
        count += len(weights)
    return log_sum - math.log(count), total / count, (2 * log_sum - log_sum_of_squares).exp()
