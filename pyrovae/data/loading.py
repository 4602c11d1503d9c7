"""From a name to a dataset as it is trained on and measured."""

from pathlib import Path

from pyrovae.data.benchmarks import DATASETS
from pyrovae.data.datasets import Dataset, Options, conditioned, served
from pyrovae.errors import InputError


def load_dataset(
    name: str,
    root: str | Path | None = None,
    *,
    binarization: str = "auto",
    condition: str = "none",
    validation: bool = False,
    split_seed: int = 0,
    mirror: str | None = None,
) -> Dataset:
    """A dataset by name, its files found under ``root``, ``$PYROVAE_DATA`` or the user's cache, or downloaded there.

    Args:
        name: its key in ``DATASETS``, or ``torchvision:NAME`` for one of torchvision's.
        root: where to look first.
        binarization: ``dynamic``: bits, drawn anew for training and once for validation and test; ``threshold``; ``none``:
            every image stays grey; ``auto``: as suits the dataset.
        condition: a key of ``CONDITIONS``: what a conditional model is told of each image.
        validation: hold validation images out of training where the authors did not.
        split_seed: of the split of data that come without one.
        mirror: an address to download from in place of the authors'.

    Raises:
        InputError: for an unknown name, where files are missing or damaged, for a binarization of what is not grey, and for a
            condition that these data cannot meet.
    """
    options = Options(root=root, mirror=mirror, validation=validation, split_seed=split_seed)
    if name.startswith("torchvision:"):
        from pyrovae.data.torchvision_datasets import torchvision_dataset

        stored = torchvision_dataset(name, options)
    elif name in DATASETS:
        stored = DATASETS[name](options)
    else:
        raise InputError(f"expected a dataset out of {', '.join(DATASETS)}; got {name!r}: see 'pyrovae datasets'")
    return conditioned(served(stored, binarization), stored, condition)
