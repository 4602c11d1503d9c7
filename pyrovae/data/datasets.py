"""A dataset: examples in parts, the bits and contexts that are drawn for them, and the protocol that states all this.

Loaders return examples as stored; ``with_binarization`` and ``with_condition`` turn these into what training and measuring use.
Importing this does not import torch: the command line lists datasets without waiting for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pyrovae.data.conditions import CONDITIONS, Condition
from pyrovae.data.protocol import BINARIZATION_SEED, CONTEXT_SEED, Protocol, checksum
from pyrovae.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pyrovae.data.batches import Batches
    from pyrovae.data.rows import Rows

# How grey values become bits: as the likelihood needs it; drawn anew in training and once elsewhere; rounded; or not at all.
BINARIZATIONS = ("auto", "dynamic", "threshold", "none")
# The number of examples that are read at once, of data that stay on disk.
ROWS_AT_ONCE = 100_000


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a loader: where the files of a dataset are, and how it is split.

    Args:
        root: the folder to look in first.
        mirror: an address to download from in place of the authors'.
        validation: hold images out of training for validation where the authors did not.
        split_seed: the seed of the split, for data that come without one.
        label: the column of a table that holds the classes and is not modelled.
        drop: columns of a table that are left out.
        columns: kinds of columns, each as ``NAME=KIND``; the kinds of all others follow from their values.
        missing: accept gaps, as missing entries.
        progress: called with the name of each file that is downloaded, the bytes that have arrived, and its size if known.
    """

    root: str | Path | None = None
    mirror: str | None = None
    validation: bool = False
    split_seed: int = 0
    label: str = ""
    drop: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    missing: bool = False
    progress: Callable[[str, int, int | None], None] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Examples in rows, in three parts: as bits, drawn anew in training and once for validation and test; or as they are.

    Parts that do not fit into memory are ``Rows`` in place of tensors, which read their file when they are indexed.

    Args:
        name: the key in ``DATASETS``, or the path that the data were read from.
        train: training examples ``(N, D)``: grey in [0, 1], bits where the dataset was binarized once and for all, or real.
        valid: examples ``(M, D)`` held out of training for validation, or None; bits where ``binarize``.
        test: examples ``(T, D)``; bits where ``binarize``.
        labels: the classes of each split, by the split's name.
        shape: channels, height and width; their product is D. A table has one channel and one row.
        protocol: the facts that every figure measured on these data depends on.
        binarize: whether training draws a bit for each grey value.
        condition: one of ``CONDITIONS`` made for these images, or None.
        contexts: the contexts of validation and test images ``(T, C)``, drawn once, by the split's name.
        values: what is stored: ``bits``, ``levels`` k / 255, other ``grey`` in [0, 1], ``real``, ``counts``, or ``mixed``:
            columns of several kinds.
        likelihood: the key of the likelihood in ``LIKELIHOODS`` that is the default for these data.
        description: sizes, ranges and kinds that were found in a user's file, in words.
        stored_values: the ``values`` before grey values were rounded to bits once and for all.
        columns: the names of the columns, for a table that has them.
        kinds: the kinds of the columns, where they are mixed.
        categories: for each column the names of its categories; none where it holds numbers.
        classes: the names of the labels, where they have any.
        shift: the numbers subtracted from real values, one for each column or one for all.
        scale: the numbers that the differences were divided by.
        missing: whether NaN stands for a missing entry.
    """

    name: str
    train: Tensor | Rows
    valid: Tensor | Rows | None
    test: Tensor | Rows
    labels: dict[str, Tensor]
    shape: tuple[int, int, int]
    protocol: Protocol
    binarize: bool = True
    condition: Condition | None = None
    contexts: dict[str, Tensor] = field(default_factory=dict)
    values: str = "levels"
    likelihood: str = "bernoulli"
    description: str = ""
    stored_values: str = ""
    columns: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    categories: tuple[tuple[str, ...], ...] = ()
    classes: tuple[str, ...] = ()
    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    missing: bool = False

    def __repr__(self) -> str:
        sizes = (0 if each is None else len(each) for each in (self.train, self.valid, self.test))
        return (
            f"Dataset({self.name!r}; {' / '.join(f'{size:,}' if size else 'none' for size in sizes)} examples of shape "
            f"{self.shape},\n  served as {self.batch_values}{f', given {self.condition}' if self.condition else ''};\n"
            f"  {self.protocol} [{self.protocol.hash}])"
        )

    @property
    def log_jacobian(self) -> float:
        """The change of variables of an example without gaps: from a log-density to that of the values in the file, in nats."""
        return -math.prod(self.shape) / len(self.scale) * math.fsum(map(math.log, self.scale))

    def log_jacobians(self, x: Tensor | Rows) -> Tensor:
        """The change of variables of each of these examples ``(N,)``, over its observed entries where some are missing."""
        import torch

        if self.missing:
            blocks = (x[start : start + ROWS_AT_ONCE] for start in range(0, len(x), ROWS_AT_ONCE))
            return torch.cat([log_jacobians(block, self.scale) for block in blocks])
        return torch.full((len(x),), self.log_jacobian, dtype=torch.float64, device=x.device)

    @property
    def example(self) -> str:
        """The word for an example: image, or row of a table."""
        return "row" if self.shape[:2] == (1, 1) else "image"

    @property
    def num_classes(self) -> int:
        """The number of classes, one more than the largest label; 0 without labels."""
        return 1 + max((int(labels.max()) for labels in self.labels.values()), default=-1)

    @property
    def batch_values(self) -> str:
        """The kind of the values in batches: ``bits``, ``levels``, ``grey``, ``real``, ``counts`` or ``mixed``."""
        return "bits" if self.binarize else self.values

    def draw(
        self, images: Tensor, labels: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Draw the arguments of the programs from stored images: bits where ``binarize``, followed by contexts if any."""
        from pyrovae.data.batches import binarize

        x = binarize(images, generator=generator) if self.binarize else images
        return x if self.condition is None else (x, self.condition(images, x, labels, generator))

    def draw_train(self, rows: Tensor | slice, *, generator: torch.Generator | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Draw the arguments of the programs from some rows of the training images."""
        labels = self.labels.get("train")
        return self.draw(self.train[rows], None if labels is None else labels[rows], generator=generator)

    def train_batches(self, batch_size: int, *, seed: int = 0, drawn: bool = True) -> Batches:
        """Shuffled batches of training images, with bits and contexts drawn afresh for each batch.

        With ``drawn=False`` batches are as stored, for ``CompiledSVI(transform=dataset.draw)``, which draws in its graph.
        """
        from pyrovae.data.batches import Batches

        labels = None if self.condition is None else self.labels.get("train")
        return Batches(self.train, batch_size, seed=seed, labels=labels, draw=self.draw if drawn else None)

    def to(self, device: str | torch.device) -> Dataset:
        """The same dataset with its tensors on a device."""
        return replace(
            self,
            train=self.train.to(device),
            valid=None if self.valid is None else self.valid.to(device),
            test=self.test.to(device),
            labels={split: labels.to(device) for split, labels in self.labels.items()},
            contexts={split: context.to(device) for split, context in self.contexts.items()},
        )


def log_jacobians(x: Tensor, scale: Sequence[float]) -> Tensor:
    """The change of variables of each example ``(N,)``: added to a log-density, it gives that of the values before scaling.

    In nats and double precision, over the observed entries where some are missing.
    """
    import torch

    scales = torch.tensor(scale, dtype=torch.float64, device=x.device).log().expand(x.shape[1])
    return -((~x.isnan()).double() @ scales)


def with_binarization(stored: Dataset, binarization: str) -> Dataset:
    """Return the dataset with grey values as bits or as they are, and with the bits of validation and test drawn.

    Raises:
        InputError: for an unknown binarization, and for values that cannot become bits or grey.
    """
    if binarization not in BINARIZATIONS:
        raise InputError(f"expected a binarization out of {', '.join(BINARIZATIONS)}; got {binarization!r}")
    is_grey = stored.values in ("grey", "levels")
    if stored.missing and is_grey and binarization in ("dynamic", "threshold"):
        raise InputError(f"{stored.name}: expected grey values without gaps for bits: leave --missing or the binarization out")
    if not is_grey:
        if binarization in ("auto", "dynamic" if stored.values == "bits" else "none"):
            return replace(stored, binarize=False)
        raise InputError(
            f"expected grey values for the binarization {binarization!r}; {stored.name!r} holds {stored.values}: leave it out"
        )
    if binarization == "auto":
        binarization = "dynamic" if stored.likelihood == "bernoulli" else "none"
    return {"dynamic": _drawn, "threshold": _rounded, "none": _grey}[binarization](stored)


def with_condition(dataset: Dataset, stored: Dataset, name: str) -> Dataset:
    """Return the dataset with a condition, and with the contexts of validation and test drawn.

    Raises:
        InputError: for an unknown condition, and for one that these data do not allow.
    """
    import torch

    if name not in CONDITIONS:
        raise InputError(f"expected a condition out of {', '.join(CONDITIONS)}; got {name!r}")
    condition = CONDITIONS[name](dataset.shape, dataset.num_classes)
    if condition is None:
        return dataset
    generator = torch.Generator().manual_seed(CONTEXT_SEED)
    purpose = f"the condition {name!r}"
    _, *images_held_out = _in_memory(stored, purpose)
    _, *held_out = _in_memory(dataset, purpose)
    contexts = {
        split: condition(images, x, dataset.labels.get(split), generator)
        for split, images, x in zip(("valid", "test"), images_held_out, held_out, strict=True)
        if images is not None and x is not None
    }
    protocol = replace(dataset.protocol, condition=f"given {name} (seed {CONTEXT_SEED})")
    return replace(dataset, condition=condition, contexts=contexts, protocol=protocol)


def with_checksums(dataset: Dataset) -> Dataset:
    """Return the dataset with checksums of the bits and contexts that were drawn once, and of the classes, in its protocol."""
    import torch

    parts = {"bits of valid": dataset.valid, "bits of test": dataset.test} if dataset.binarize else {}
    parts |= {f"contexts of {split}": each for split, each in dataset.contexts.items()}
    parts |= {f"classes of {split}": each for split, each in dataset.labels.items()}
    known = {name: checksum(each) for name, each in parts.items() if isinstance(each, torch.Tensor)}
    return replace(dataset, protocol=replace(dataset.protocol, checksums=dataset.protocol.checksums | known))


def _drawn(stored: Dataset) -> Dataset:
    _, valid, test = _in_memory(stored, "the binarization 'dynamic'")
    held_out = "test" if stored.valid is None else "validation and test"
    values = f"training binarized dynamically, {held_out} once (seed {BINARIZATION_SEED})"
    return replace(
        stored,
        valid=None if valid is None else _bits(valid),
        test=_bits(test),
        binarize=True,
        likelihood="bernoulli",
        protocol=replace(stored.protocol, values=values),
    )


def _rounded(stored: Dataset) -> Dataset:
    train, valid, test = _in_memory(stored, "the binarization 'threshold'")
    return replace(
        stored,
        train=_above_half(train),
        valid=None if valid is None else _above_half(valid),
        test=_above_half(test),
        binarize=False,
        values="bits",
        stored_values=stored.values,
        likelihood="bernoulli",
        protocol=replace(stored.protocol, values="binarized above one half"),
    )


def _above_half(grey: Tensor) -> Tensor:
    return (grey > 0.5).to(grey.dtype)


def _grey(stored: Dataset) -> Dataset:
    return replace(stored, binarize=False, protocol=replace(stored.protocol, values="grey"))


def _in_memory(dataset: Dataset, purpose: str) -> tuple[Tensor, Tensor | None, Tensor]:
    """The parts for training, validation and test as tensors.

    Raises:
        InputError: for parts that are read from disk.
    """
    import torch

    parts = dataset.train, dataset.valid, dataset.test
    if not all(part is None or isinstance(part, torch.Tensor) for part in parts):
        raise InputError(
            f"{dataset.name}: expected examples that fit into memory for {purpose}; got {len(dataset.train):,} of "
            f"{dataset.train.shape[1]:,} numbers, which are read from where they lie: use fewer, or leave it out"
        )
    return cast("tuple[Tensor, Tensor | None, Tensor]", parts)


def _bits(grey: Tensor) -> Tensor:
    """Draw bits from grey values with a fixed seed, so that everybody's test set is the same."""
    import torch

    return torch.bernoulli(grey, generator=torch.Generator().manual_seed(BINARIZATION_SEED))
