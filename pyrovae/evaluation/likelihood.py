"""The marginal log-likelihood, estimated by importance sampling with the guide as proposal."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pyrovae.data.datasets import Dataset
from pyrovae.data.rows import Rows
from pyrovae.engine.modules import Program
from pyrovae.evaluation.chunks import columns_of
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
        curve: the mean over images of the bound with 1, 10, 100, ... and all samples, from the same weights.
        num_samples: the number of importance samples per image.
    """

    standard_error_per_image: Tensor
    elbo_per_image: Tensor
    effective_sample_size: Tensor
    pareto_k: Tensor
    curve: dict[int, float]
    num_samples: int

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
        curve = {size: value + nats.mean().item() for size, value in self.curve.items()}
        return replace(self, per_image=self.per_image + nats, elbo_per_image=self.elbo_per_image + nats, curve=curve)

    def __repr__(self) -> str:
        images = f"{len(self.per_image)} images, {self.num_samples} samples each"
        return f"LogLikelihood({self.mean:.2f} ± {self.standard_error:.2f} nats, ELBO {self.elbo:.2f}; {images})"


def log_likelihood(
    model: Program,
    guide: Program,
    x: Tensor | Rows | Dataset,
    num_samples: int = 5000,
    *,
    context: Tensor | None = None,
    engine: str = "auto",
    track: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> LogLikelihood:
    r"""Estimate the log-likelihood of each row of x ``(N, D)`` by importance sampling.

    .. math:: \log p(x | c) \approx \log \frac 1 K \sum_{k=1}^K \frac{p(x, z_k | c)}{q(z_k | x, c)}, \quad z_k \sim q(z | x, c)

    Exactly K = ``num_samples`` samples are drawn per image. Memory holds the weights of a hundred images, 400 bytes for each
    sample, and the networks' values for 2,000 samples. Modules are in evaluation mode while they run; parts that depend on
    parameters alone are computed once, parts that depend on the image once per image. On a CPU the figures depend on torch's
    generator and nothing else.
    Burda et al. (2016), equation 8; a lower bound in expectation, tighter as K grows.

    Args:
        model: the generative program.
        guide: the proposal.
        x: the images, in memory or not; or a dataset, whose test images are measured given their contexts, in nats of the
            original values where these were standardised.
        num_samples: the number of samples K.
        context: the contexts c ``(N, C)`` of a conditional model.
        engine: the engine of ``WeightSampler``.
        track: function that wraps the sequence of image chunks, to show progress.

    Raises:
        ValueError: for fewer than one sample, another number of contexts than of images, data outside the support of the
            likelihood, and a model that observes nothing.
    """
    if num_samples < 1:
        raise ValueError(f"expected at least one sample; got num_samples={num_samples}")
    if isinstance(x, Dataset):
        found = log_likelihood(model, guide, x.test, num_samples, context=x.contexts.get("test"), engine=engine, track=track)
        return found.shift(x.log_jacobians(x.test).to(found.per_image))
    columns = columns_of(x, context)
    chunks = [slice(start, start + IMAGES_AT_ONCE) for start in range(0, len(x), IMAGES_AT_ONCE)]
    sampler = WeightSampler(model, guide, num_samples * len(chunks), engine)
    data = check_support(model, ([column[rows] for column in columns] for rows in track(chunks)))
    measured = [_measured(sampler(rows, num_samples).double()) for rows in data]
    log_mean, error, elbo, sample_size, tail = (torch.cat([each[number] for each in measured]) for number in range(5))
    curve = torch.cat([each[5] for each in measured], 1).mean(1).tolist()
    curve_by_size = dict(zip(sizes_of_curve(num_samples), curve, strict=True))
    return LogLikelihood(log_mean, error, elbo, sample_size, tail, curve_by_size, num_samples)


def _measured(weights: Tensor) -> tuple[Tensor, ...]:
    """The statistics of log-weights ``(K, B)`` that are kept: five numbers ``(B,)``, and the bounds of the curve ``(S, B)``."""
    bounds = torch.stack([bound(weights, size) for size in sizes_of_curve(len(weights))])
    return (
        bounds[-1],
        standard_error(weights),
        bounds[0],
        effective_sample_size(weights),
        pareto_k(weights),
        bounds,
    )
