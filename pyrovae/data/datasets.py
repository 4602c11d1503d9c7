"""A dataset: split examples, what is drawn of them, and the protocol that says so.

Loaders return examples as stored; ``served`` and ``conditioned`` make of them what training and measuring see. Importing this
does not import torch: the command line lists datasets without waiting for it.
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

# How grey values become bits: drawn anew in training and once elsewhere, rounded, or not at all; as the likelihood wants it.
BINARIZATIONS = ("auto", "dynamic", "threshold", "none")
# Of examples that stay on disk.
ROWS_AT_ONCE = 100_000


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the files of a dataset are, and how it is split.

    Args:
        root: where to look first.
        mirror: an address to download from in place of the authors'.
        validation: hold images out of training where the authors did not.
        split_seed: of the split of data that come without one.
        label: the column of a table that holds the classes and is not modelled.
        drop: columns of a table that are left out.
        columns: kinds of columns, each as ``NAME=KIND``; others are found out.
        missing: take gaps for missing entries.
        progress: told of the name of each file that is downloaded, how much of it has arrived, and its size where it is known.
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
    """Examples in rows, split: bits, drawn anew for training and once for the others; or grey, or real, throughout.

    Those that are too many for the memory are ``Rows`` in place of tensors: read where they lie when they are indexed.

    Args:
        name: its key in ``DATASETS``, or the path that it was read from.
        train: training examples ``(N, D)``: grey in [0, 1], bits where the dataset was binarized once and for all, or real.
        valid: examples ``(M, D)`` held out of training, where the protocol holds any out; bits where ``binarize``.
        test: examples ``(T, D)``; bits where ``binarize``.
        labels: the classes of each split, by the split's name.
        shape: channels, height and width; their product is D. A table has one channel and one row.
        protocol: what a figure measured on it must be read with.
        binarize: whether training draws a bit for each grey value.
        condition: one of ``CONDITIONS`` made for these images, or None.
        contexts: what it tells of each image held out ``(T, C)``, drawn once, by the split's name.
        values: what is stored: ``bits``, ``levels`` k / 255, other ``grey`` in [0, 1], ``real``, ``counts``, or ``mixed``:
            columns of several kinds.
        likelihood: the density in ``LIKELIHOODS`` that suits it where nobody says another.
        found: in a file of somebody's own: sizes and ranges, for people.
        stored_values: what was stored, where grey values were made bits once and for all.
        columns: names, of a table that names them.
        kinds: of the columns, where they are mixed.
        categories: the names of what each column holds; none where it holds numbers.
        classes: the names of the labels, where they have any.
        shift: subtracted from real values, one for each column or one for all.
        scale: what the difference was divided by.
        missing: whether entries that are not a number are gaps.
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
    found: str = ""
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
            f"{self.shape},\n  served as {self.served_values}{f', given {self.condition}' if self.condition else ''};\n"
            f"  {self.protocol} [{self.protocol.hash}])"
        )

    @property
    def log_jacobian(self) -> float:
        """The change of variables of an example without gaps: from a log-density to that of the values in the file, in nats."""
        return -math.prod(self.shape) / len(self.scale) * math.fsum(map(math.log, self.scale))

    def log_jacobians(self, x: Tensor | Rows) -> Tensor:
        """The change of variables of each of these examples ``(N,)``: of the entries that are there, where some are missing."""
        import torch

        if self.missing:
            blocks = (x[start : start + ROWS_AT_ONCE] for start in range(0, len(x), ROWS_AT_ONCE))
            return torch.cat([log_jacobians(block, self.scale) for block in blocks])
        return torch.full((len(x),), self.log_jacobian, dtype=torch.float64, device=x.device)

    @property
    def example(self) -> str:
        """The word for one of them: image, or row of a table."""
        return "row" if self.shape[:2] == (1, 1) else "image"

    @property
    def num_classes(self) -> int:
        """One more than the largest label; none without labels."""
        return 1 + max((int(labels.max()) for labels in self.labels.values()), default=-1)

    @property
    def served_values(self) -> str:
        """What the programs are given: ``bits``, ``levels``, ``grey``, ``real``, ``counts`` or ``mixed``."""
        return "bits" if self.binarize else self.values

    def draw(
        self, images: Tensor, labels: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """What the programs take of stored images, drawn anew: bits where ``binarize``, their contexts behind them."""
        from pyrovae.data.batches import binarized

        x = binarized(images, generator=generator) if self.binarize else images
        return x if self.condition is None else (x, self.condition(images, x, labels, generator))

    def draw_train(self, rows: Tensor | slice, *, generator: torch.Generator | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """``draw`` of some rows of the training images, and their labels where there are any."""
        labels = self.labels.get("train")
        return self.draw(self.train[rows], None if labels is None else labels[rows], generator=generator)

    def train_batches(self, batch_size: int, *, seed: int = 0, drawn: bool = True) -> Batches:
        """Shuffled batches of training images, bits and contexts drawn afresh each time that an image is served.

        With ``drawn=False`` they are as stored, for ``CompiledSVI(transform=dataset.draw)``, which draws in its graph.
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
    """The change of variables of each example ``(N,)``: added to its log-density, it is that of the values before scaling.

    In nats and double precision; of the entries that are there, where some are missing.
    """
    import torch

    scales = torch.tensor(scale, dtype=torch.float64, device=x.device).log().expand(x.shape[1])
    return -((~x.isnan()).double() @ scales)


def served(stored: Dataset, binarization: str) -> Dataset:
    """With its grey values as bits, or as they are, and validation and test as they are measured.

    Raises:
        InputError: for values that are to become what they cannot.
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


def conditioned(dataset: Dataset, stored: Dataset, name: str) -> Dataset:
    """With a condition, and with the contexts of what is held out.

    Raises:
        InputError: for a condition that these data cannot meet.
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


def stamped(dataset: Dataset) -> Dataset:
    """With checksums of what was drawn once, bits and contexts, and of classes: what is measured depends on them too."""
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
    """The three parts as tensors.

    Raises:
        InputError: where they are read from where they lie.
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
    """Grey values to bits, drawn once and for all: everybody's test set is the same one."""
    import torch

    return torch.bernoulli(grey, generator=torch.Generator().manual_seed(BINARIZATION_SEED))
