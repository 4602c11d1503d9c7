"""A stack of bits, and the symbols that are put on it and taken from it by the distributions of a program.

Each entry of a value has a symbol, a whole number. Latents are multiples of ``STEP``, exact in single precision; entries of
data are places in an alphabet. What is put by some distributions is taken by the same ones in the reverse order. The entropy
coder is that of ``constriction``, with a probability of at least 2^-24 for each symbol of a range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pyro.distributions import Independent
from torch import Tensor

from pyrovae.extras import import_extra
from pyrovae.programs.distributions import GaussianMixture, gaussian_of

STEP, MOST_SYMBOL = 2.0**-14, 2**30
# A Gaussian is coded in intervals, of which a standard deviation has 8 to 16; within an interval all multiples of the step are
# as likely. The widths that a draw of the guide may be from its location, and a latent from that of the model: the fewer
# intervals, the less of the probability is for those that never occur.
INTERVALS_IN_A_SCALE = 8
NEAR, FAR = 96, 2048
# A probability of zero or one would be a bit that cannot be coded.
LEAST_PROBABILITY = 2.0**-23


class Stack:
    """A stack of bits.

    Args:
        words: the bits, in unsigned 32-bit words; none by default.

    Raises:
        InputError: where constriction is not installed.
    """

    def __init__(self, words: np.ndarray | Sequence[int] = ()) -> None:
        stream = import_extra("constriction", "compress", "for compression").stream
        self._models, self._coder = stream.model, stream.stack.AnsCoder(np.asarray(words, np.uint32))

    @property
    def words(self) -> np.ndarray:
        """The bits, in unsigned 32-bit words."""
        return np.asarray(self._coder.get_compressed())

    @property
    def num_bits(self) -> int:
        """The number of bits."""
        return int(self._coder.num_bits())

    def put_latents(self, symbols: np.ndarray, distribution: Any, width: int) -> None:
        """Put the symbols of a layer ``(B, D)`` by their distribution.

        Args:
            symbols: the symbols.
            distribution: Gaussians, or a mixture of them.
            width: ``NEAR`` for a draw of the guide, ``FAR`` for one of the model.

        Raises:
            ValueError: for another distribution, and for latents far out of it.
        """
        if isinstance(distribution, GaussianMixture):
            # The component is one more latent, whose posterior is known: the bits that choose it come back.
            component = self._take(self._categorical, _responsibilities(distribution, symbols * STEP))
            self._put_gaussian(symbols, distribution.loc[component], distribution.scale[component], width)
            self._put(component, self._models.Uniform(len(distribution.loc)))
        else:
            self._put_gaussian(symbols, *_moments(distribution, symbols.shape), width)

    def take_latents(self, shape: tuple[int, ...], distribution: Any, width: int) -> np.ndarray:
        """Take the symbols of a layer ``(B, D)``: the inverse of ``put_latents``."""
        if isinstance(distribution, GaussianMixture):
            component = np.asarray(self._coder.decode(self._models.Uniform(len(distribution.loc)), shape[0]))
            symbols = self._take_gaussian(distribution.loc[component], distribution.scale[component], width)
            self._put(component, self._categorical, _responsibilities(distribution, symbols * STEP))
            return symbols
        return self._take_gaussian(*_moments(distribution, shape), width)

    def put_data(self, symbols: np.ndarray, distribution: Any, alphabet: Tensor) -> None:
        """Put the places of entries ``(B, D)`` in an alphabet ``(A,)`` by the distribution of their values."""
        self._put(symbols, *self._entries(distribution, alphabet))

    def take_data(self, shape: tuple[int, ...], distribution: Any, alphabet: Tensor) -> np.ndarray:
        """Take the places of entries ``(B, D)``: the inverse of ``put_data``."""
        return self._take(*self._entries(distribution, alphabet)).reshape(shape)

    def _entries(self, distribution: Any, alphabet: Tensor) -> tuple[Any, np.ndarray]:
        """The coder's model of entries, and its parameters, a row for each."""
        while isinstance(distribution, Independent):
            distribution = distribution.base_dist
        if len(alphabet) == 2 and hasattr(distribution, "logits"):
            ones = _numbers(distribution.logits.double().sigmoid()).reshape(-1)
            return self._models.Bernoulli(perfect=False), ones.clip(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        logs = distribution.log_prob(alphabet.view(-1, *[1] * len(distribution.batch_shape)))
        return self._categorical, _numbers(logs.flatten(1).softmax(0).T)

    def _put_gaussian(self, symbols: np.ndarray, loc: Tensor, scale: Tensor, width: int) -> None:
        size, centre, *moments = _intervals(loc, scale)
        interval = symbols // size - centre
        if (far := np.abs(interval) > width).any():
            raise ValueError(
                f"expected latents within {width // INTERVALS_IN_A_SCALE} standard deviations of where the model expects them; "
                f"{far.sum()} are further away, which no trained model does: train it for longer"
            )
        self._put(symbols % size, self._models.Uniform(), _flat(size))
        self._put(interval, self._models.QuantizedGaussian(-width, width), *moments)

    def _take_gaussian(self, loc: Tensor, scale: Tensor, width: int) -> np.ndarray:
        size, centre, *moments = _intervals(loc, scale)
        interval = self._take(self._models.QuantizedGaussian(-width, width), *moments).reshape(size.shape)
        within = self._take(self._models.Uniform(), _flat(size)).reshape(size.shape)
        return np.asarray((interval + centre) * size + within)

    @property
    def _categorical(self) -> Any:
        return self._models.Categorical(perfect=False)

    def _put(self, symbols: np.ndarray, model: Any, *parameters: np.ndarray) -> None:
        self._coder.encode_reverse(_flat(symbols), model, *parameters)

    def _take(self, model: Any, *parameters: np.ndarray) -> np.ndarray:
        return np.asarray(self._coder.decode(model, *parameters))


def locations(shape: tuple[int, ...], distribution: Any) -> np.ndarray:
    """The symbols of the locations of a layer ``(B, D)``.

    Raises:
        ValueError: for a distribution that is not Gaussian.
    """
    loc, _ = _moments(distribution, shape)
    return np.rint(_numbers(loc) / STEP).astype(np.int64)


def places_in(alphabet: Tensor, values: Tensor) -> np.ndarray:
    """The places of values ``(B, D)`` in an alphabet, which ascends ``(A,)``.

    Raises:
        ValueError: for a value that is not in it.
    """
    x, letters = _numbers(values), _numbers(alphabet)
    places = np.clip(np.searchsorted(letters, x - 1e-6), 0, len(letters) - 1)
    if (wrong := ~np.isclose(letters[places], x, rtol=0, atol=1e-6)).any():
        raise ValueError(f"expected one of {len(letters)} values from {letters[0]:g} to {letters[-1]:g}; got {x[wrong][0]:g}")
    return np.asarray(places, np.int32)


def _intervals(loc: Tensor, scale: Tensor) -> tuple[np.ndarray, ...]:
    """The number of symbols in an interval, the interval of the location, and a Gaussian's moments in intervals from it."""
    centre, width = _numbers(loc) / STEP, _numbers(scale) / STEP
    if not (np.isfinite(centre).all() and np.isfinite(width).all() and np.abs(centre).max(initial=0) < MOST_SYMBOL):
        raise ValueError(f"expected latents between -{MOST_SYMBOL * STEP:,.0f} and {MOST_SYMBOL * STEP:,.0f}; got others")
    exponent = np.clip(np.floor(np.log2(width / INTERVALS_IN_A_SCALE)), 1, 23)
    size = (2**exponent).astype(np.int64)
    nearest = np.floor(centre / size).astype(np.int64)
    # An interval is around its middle.
    return size, nearest, (centre / size - nearest - 0.5).reshape(-1), (width / size).reshape(-1)


def _moments(distribution: Any, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    gaussian = gaussian_of(distribution)
    if gaussian is None:
        raise ValueError(
            f"expected latents that are Gaussian given the others, or a mixture; got a {type(distribution).__name__}, of whose "
            "intervals no probability is known: compress by a model without flows"
        )
    return gaussian.loc.expand(shape), gaussian.scale.expand(shape)


def _responsibilities(mixture: GaussianMixture, values: np.ndarray) -> np.ndarray:
    """The probability of each component given values: from ``(B, D)`` to ``(B, K)``."""
    loc, scale = _numbers(mixture.loc), _numbers(mixture.scale)
    logs = -0.5 * (((values[:, None] - loc) / scale) ** 2).sum(-1) - np.log(scale).sum(-1)
    weights = np.exp(logs - logs.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def _numbers(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().cpu().double().numpy())


def _flat(symbols: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(symbols.reshape(-1), np.int32)


def values_of(symbols: np.ndarray, like: Tensor) -> Tensor:
    """The latents of symbols, on the device and in the precision of a tensor."""
    # Memory of torch's own, aligned as that of any other tensor: products of others may differ in the last digit.
    return torch.tensor(symbols * STEP, dtype=like.dtype, device=like.device)
