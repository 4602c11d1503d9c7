"""The datasets of torchvision that hold images of one size in memory, under names such as ``torchvision:KMNIST``.

Torchvision reads and downloads their files, in its own layout under each place where data files are looked for.
CIFAR-10 and CIFAR-100 are distributed as pickles, which torchvision loads only after it has found the MD5 of each file to be
the one it knows; the ``.pt`` files that its old versions left it loads as weights only. Nothing else is unpickled, and what
torchvision unpickles unverified must not be entered in ``KNOWN``.
"""

import importlib
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pyrovae.data.datasets import Dataset, Options
from pyrovae.data.published_files.sources import DATA_VARIABLE, Source, candidate_folders
from pyrovae.data.published_files.stored import hold_out, stored_dataset
from pyrovae.data.reading import in_one_line
from pyrovae.errors import InputError

PREFIX = "torchvision:"
STALLED_AFTER_SECONDS = 20.0


@dataclass(frozen=True)
class Construction:
    """The arguments of a class of torchvision for each split, and the layout of its images and labels.

    Args:
        train: arguments for the training examples.
        test: arguments for the test examples.
        axes: the axes of the array of images: ``NHW``, ``NWH`` where they lie on their side, ``NHWC`` or ``NCHW``.
        labels: the attribute with the classes.
    """

    train: dict[str, Any]
    test: dict[str, Any]
    axes: str = "NHW"
    labels: str = "targets"


_FLAG: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})
_NAME: tuple[dict[str, Any], dict[str, Any]] = ({"split": "train"}, {"split": "test"})
_EMNIST_SPLITS = ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")

KNOWN: dict[str, Construction] = {
    "MNIST": Construction(*_FLAG),
    "FashionMNIST": Construction(*_FLAG),
    "KMNIST": Construction(*_FLAG),
    "QMNIST": Construction(*_FLAG),
    "USPS": Construction(*_FLAG),
    "CIFAR10": Construction(*_FLAG, axes="NHWC"),
    "CIFAR100": Construction(*_FLAG, axes="NHWC"),
    "SVHN": Construction(*_NAME, axes="NCHW", labels="labels"),
    "STL10": Construction(*_NAME, axes="NCHW", labels="labels"),
} | {
    f"EMNIST-{split}": Construction({"split": split, "train": True}, {"split": split, "train": False}, axes="NWH")
    for split in _EMNIST_SPLITS
}


def import_torchvision() -> ModuleType:
    """Import torchvision, also beside a torch build that it was not compiled for.

    A torchvision built for CUDA fails on import beside a CPU build of torch, because two of its compiled operators are not
    registered there. Its datasets and readers need neither: declaring their schemas is enough. They are declared only after a
    failure: a torchvision that fits registers them itself, and a second registration would abort the process.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


def torchvision_dataset(name: str, options: Options) -> Dataset:
    """Load a dataset of torchvision in its own split; a tenth of training is held out where validation is asked for.

    Grey images ``(N, H W)`` have the likelihood ``bernoulli``, colour images ``(N, 3 H W)``, one colour after the other,
    ``discretized_logistic``.

    Args:
        name: ``torchvision:`` and the name of the class, for EMNIST followed by its split: ``torchvision:EMNIST-letters``.
        options: where the files are, and how they are split.

    Raises:
        InputError: for a class that is not in ``KNOWN``, and for files that are missing or damaged.
    """
    construction = KNOWN.get(name.removeprefix(PREFIX))
    if construction is None:
        raise InputError(f"expected one of torchvision's datasets out of {', '.join(KNOWN)} after {PREFIX!r}; got {name!r}")
    if options.mirror is not None:
        raise InputError(f"expected no mirror for {name!r}, which torchvision downloads from where it knows: leave it out")
    levels, labels = {}, {}
    for split, arguments in (("train", construction.train), ("test", construction.test)):
        read = _constructed(name, arguments, options)
        images = _channels_first(torch.as_tensor(read.data), construction.axes)
        levels[split], labels[split] = images.flatten(1), _classes(getattr(read, construction.labels))
        if not 0 < len(images) == len(labels[split]) or levels[split].shape[1] != levels["train"].shape[1]:
            raise InputError(
                f"dataset {name!r}: expected images of one size, each with a label; got {len(images)} of {split} of "
                f"{tuple(images.shape[1:])} with {len(labels[split])} labels: replace its files by whole copies"
            )
    split = hold_out(len(levels["train"]) // 10, options.split_seed, levels, labels) if options.validation else ""
    channels, height, width = images.shape[1:]
    likelihood = "bernoulli" if channels == 1 else "discretized_logistic"
    return stored_dataset(name, levels, labels, (channels, height, width), split=split, likelihood=likelihood)


def _channels_first(images: Tensor, axes: str) -> Tensor:
    """The images with their axes in the order ``(N, C, H, W)``."""
    if "C" not in axes:
        images, axes = images.unsqueeze(1), f"NC{axes[1:]}"
    return images.permute([axes.index(axis) for axis in "NCHW"]).contiguous()


def _classes(labels: Any) -> Tensor:
    """The class of each image: the first column, where labels are a table of several properties."""
    classes = torch.as_tensor(labels).long()
    return classes if classes.dim() == 1 else classes[:, 0]


def _constructed(name: str, arguments: dict[str, Any], options: Options) -> Any:
    """Make torchvision's object from the first place that has its files, or download them into the last, which is the cache."""
    construct = getattr(import_torchvision().datasets, name.removeprefix(PREFIX).split("-")[0])
    places = list(candidate_folders(Source(name, (".",), {}, ""), options.root))
    for place in places:
        if (read := _read(construct, place, arguments)) is not None:
            return read
    try:
        with _socket_timeout(STALLED_AFTER_SECONDS):
            return construct(places[-1], **arguments, download=True)
    except Exception as error:
        raise InputError(
            f"dataset {name!r}: expected its whole files in torchvision's layout; looked in {', '.join(map(str, places))}, and "
            f"the download failed ({in_one_line(error)}): put them into one of these folders, or name theirs with --root or "
            f"${DATA_VARIABLE}"
        ) from error


def _read(construct: Callable[..., Any], place: Path, arguments: dict[str, Any]) -> Any:
    """Let torchvision read the files in a place; None where it does not find them there."""
    try:
        return construct(place, **arguments, download=False)
    except FileNotFoundError:
        return None
    except Exception as error:
        if "Dataset not found" in str(error):
            return None
        # Torchvision's readers raise all kinds of errors over damaged files.
        raise InputError(
            f"{place}: expected torchvision's {construct.__name__} files; reading them failed ({in_one_line(error)}): "
            "delete them or replace them by whole copies"
        ) from error


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set a timeout for torchvision, which would wait for ever on a network that swallows packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
