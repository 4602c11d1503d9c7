r"""Bits-back coding: the size of compressed data is the bound on their log-likelihood.

.. math:: \log_2 q(z | x) \text{ bits come back of the } -\log_2 p(x, z) \text{ that an example is put by}

Latents are drawn by taking bits that earlier examples have left on a stack, and so an example costs minus its ELBO on average.
Townsend et al. (2019), algorithm 1. Of a hierarchy all layers are drawn before anything is put: all examples share the stack,
and to put some layers earlier (Kingma et al., 2019) would gain bits for the first example alone. This one finds no bits: its
latents are the locations of the guide, and nothing comes back. Then batches grow as far as the stack bears. On lengths of
descriptions see Doersch (2016), section 2.4.2.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.evaluation.measuring import measuring
from pyrovae.evaluation.symbols import FAR, NEAR, Stack, locations, places_in, values_of

# The most examples that share a run of the programs, and the most probabilities of their entries, one for each letter.
MOST_AT_ONCE, MOST_PROBABILITIES = 200, 10_000_000
# The bits that stay on the stack when latents are drawn: less would be bits that nobody has put.
FEWEST_BITS = 64
BITS = torch.tensor([0.0, 1.0])
Track = Callable[[int], Any]


class DecodingError(ValueError):
    """An error for bits of other programs, or of other arithmetic: what they decode is not what was encoded."""


@dataclass(frozen=True)
class Batch:
    """A batch of examples within compressed data.

    Args:
        size: the number of its examples.
        has_bits_back: whether its latents were drawn by bits of the stack.
        checksum: the CRC-32 of its entries.
    """

    size: int
    has_bits_back: bool
    checksum: int


@dataclass(frozen=True, eq=False)
class Compressed:
    """Compressed data, and what is needed beside the programs to decompress them.

    Args:
        words: the bits, in unsigned 32-bit words.
        batches: the batches, in the order of the examples.
        alphabet: the values of an entry ``(A,)``.
        negative_elbo: the bits of an example by the bound, at the latents that were coded; NaN where no bits came back.
    """

    words: np.ndarray
    batches: Sequence[Batch]
    alphabet: Tensor
    negative_elbo: float = math.nan


def compress(
    model: nn.Module, guide: nn.Module, x: Tensor, *, alphabet: Tensor = BITS, track: Track = lambda number: None
) -> Compressed:
    """Compress examples without loss, to about minus their ELBO in bits.

    Args:
        model: the generative program, whose latents are Gaussian given the others, or a mixture of Gaussians.
        guide: the variational program, with Gaussian latents.
        x: examples ``(N, D)``, whose entries are in the alphabet.
        alphabet: the values of an entry, ascending ``(A,)``; by default bits.
        track: called with the number of examples of each batch.

    Raises:
        InputError: where constriction is not installed.
        ValueError: for entries that are not in the alphabet, and latents that cannot be coded.
    """
    stack, batches, costs = Stack(), list[Batch](), list[Tensor]()
    # What is put last is taken first.
    end, size, most = len(x), 1, most_at_once(x.shape[1] * len(alphabet))
    with measuring(model, guide):
        while end:
            rows = x[end - min(size, end, most) : end]
            stack, batch, cost = _put(stack.words, model, guide, rows, alphabet, bool(batches))
            batches.insert(0, batch)
            costs += [cost] * batch.has_bits_back
            end -= batch.size
            size = 2 * batch.size
            track(batch.size)
    return Compressed(stack.words, batches, alphabet, torch.cat(costs).mean().item() if costs else math.nan)


def decompress(
    model: nn.Module, guide: nn.Module, compressed: Compressed, *, track: Track = lambda number: None
) -> Iterator[Tensor]:
    """Decompress examples batch by batch ``(B, D)``, each checked before it is given out.

    Raises:
        InputError: where constriction is not installed.
        DecodingError: where these programs, or their arithmetic, are not those that compressed the examples.
    """
    stack = _stack_of(compressed)
    for batch in compressed.batches:
        with measuring(model, guide):
            x = _take(stack, model, guide, batch, compressed.alphabet)
        track(batch.size)
        yield x
    if stack.num_bits:
        raise DecodingError(f"expected bits for {len(compressed.batches)} batches; {stack.num_bits:,} are left over")


def most_at_once(probabilities: int) -> int:
    """The most examples in a batch, by the number of probabilities of one example."""
    return min(MOST_AT_ONCE, max(1, MOST_PROBABILITIES // probabilities))


def _stack_of(compressed: Compressed) -> Stack:
    try:
        return Stack(compressed.words)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise DecodingError("expected the bits of a stack; its last word is zero") from error


def _put(
    words: np.ndarray, model: nn.Module, guide: nn.Module, rows: Tensor, alphabet: Tensor, has_bits_back: bool
) -> tuple[Stack, Batch, Tensor]:
    """Put a batch, or as many of its last rows as the bits suffice for; return the stack, and the cost of each row in bits."""
    entries = places_in(alphabet, rows)
    while True:
        # The guide gets what it will get when it decodes, to the last digit and the place in memory.
        stack, x = Stack(words), _values_at(entries, alphabet, rows)
        draws = _Drawing(stack, alphabet, like=x, width=NEAR) if has_bits_back else _Locating(stack, alphabet, like=x)
        with draws:
            guide(x)
        if not has_bits_back or stack.num_bits >= FEWEST_BITS:
            break
        has_bits_back, entries = len(entries) > 1, entries[len(entries) // 2 :]
    known = _Known({**draws.values, "x": x})
    with known:
        model(None, batch_size=len(x))
    if set(known.sites) != {*draws.sites, "x"}:
        raise ValueError(f"expected a model of 'x' and the latents of its guide {list(draws.sites)}; got {list(known.sites)}")
    for name, distribution in reversed(known.sites.items()):
        if name == "x":
            stack.put_data(entries, distribution, alphabet)
        else:
            stack.put_latents(draws.symbols[name], distribution, FAR)
    cost = (draws.log_prob - known.log_prob) / math.log(2)
    return stack, Batch(len(x), has_bits_back, zlib.crc32(entries.tobytes())), cost


def _take(stack: Stack, model: nn.Module, guide: nn.Module, batch: Batch, alphabet: Tensor) -> Tensor:
    """Take a batch ``(B, D)``.

    Raises:
        DecodingError: where it is not the one that was put.
    """
    with _Drawing(stack, alphabet, like=next(iter(model.parameters())), width=FAR) as draws:
        model(None, batch_size=batch.size)
    if zlib.crc32(np.ascontiguousarray(draws.symbols["x"]).tobytes()) != batch.checksum:
        raise DecodingError("expected the examples that were compressed; the programs decode others here")
    if batch.has_bits_back:
        with _Known(draws.values) as known:
            guide(draws.values["x"])
        try:
            for name, distribution in reversed(known.sites.items()):
                stack.put_latents(draws.symbols[name], distribution, NEAR)
        except ValueError as error:
            raise DecodingError("expected latents of the guide; the programs decode others here") from error
    return draws.values["x"]


def _values_at(places: np.ndarray, alphabet: Tensor, like: Tensor) -> Tensor:
    """The values at some places of an alphabet, on the device and in the precision of a tensor."""
    return alphabet[torch.as_tensor(places, device=alphabet.device).long()].to(like)


class _Sites(Messenger):
    """A handler that gives each site its value, and keeps the distributions in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: dict[str, Any] = {}
        self.values: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if not site_is_subsample(msg):
            self.sites[msg["name"]] = msg["fn"]
            msg["value"] = self.values[msg["name"]] = self.value(msg["name"], msg["fn"])
            msg["done"] = True

    def value(self, name: str, distribution: Any) -> Tensor:
        """The value of a site."""
        raise NotImplementedError

    @property
    def log_prob(self) -> Tensor:
        """The log-density of all sites ``(B,)``, in nats."""
        return torch.stack([each.log_prob(self.values[name]) for name, each in self.sites.items()]).double().sum(0)


class _Known(_Sites):
    """A handler that gives sites their known values."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = dict(values)

    def value(self, name: str, distribution: Any) -> Tensor:
        return self.values[name]


class _Drawing(_Sites):
    """A handler that draws sites by taking bits from a stack."""

    def __init__(self, stack: Stack, alphabet: Tensor, *, like: Tensor, width: int) -> None:
        super().__init__()
        self.stack, self.alphabet, self.like, self.width = stack, alphabet, like, width
        self.symbols: dict[str, np.ndarray] = {}

    def value(self, name: str, distribution: Any) -> Tensor:
        shape = tuple(distribution.batch_shape + distribution.event_shape)
        if name == "x":
            self.symbols[name] = self.stack.take_data(shape, distribution, self.alphabet)
            return _values_at(self.symbols[name], self.alphabet, self.like)
        self.symbols[name] = self.symbols_of(shape, distribution)
        return values_of(self.symbols[name], self.like)

    def symbols_of(self, shape: tuple[int, ...], distribution: Any) -> np.ndarray:
        """The symbols of a latent."""
        return self.stack.take_latents(shape, distribution, self.width)


class _Locating(_Drawing):
    """A handler that puts latents at their locations."""

    def __init__(self, stack: Stack, alphabet: Tensor, *, like: Tensor) -> None:
        super().__init__(stack, alphabet, like=like, width=NEAR)

    def symbols_of(self, shape: tuple[int, ...], distribution: Any) -> np.ndarray:
        return locations(shape, distribution)
