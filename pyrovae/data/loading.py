"""Load a dataset by its name, ready to be trained on and measured."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pyrovae.data.benchmarks import DATASETS
from pyrovae.data.datasets import Dataset, Options, with_binarization, with_checksums, with_condition
from pyrovae.errors import InputError, nearest


def load_dataset(
    name: str | Path,
    root: str | Path | None = None,
    *,
    binarization: str = "auto",
    condition: str = "none",
    validation: bool = False,
    split_seed: int = 0,
    label: str = "",
    drop: str | Sequence[str] = (),
    columns: str | Sequence[str] = (),
    missing: bool = False,
    mirror: str | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Dataset:
    """Load a dataset by name, from files under ``root``, ``$PYROVAE_DATA`` or the user's cache, or downloaded into the cache.

    Args:
        name: a key of ``DATASETS``; ``torchvision:NAME`` for one of torchvision's; or the path of a file or folder of your
            own: see ``own_dataset``.
        root: the folder to look in first.
        binarization: ``dynamic``: bits, drawn anew for training and once for validation and test; ``threshold``: bits by
            rounding; ``none``: every image stays grey; ``auto``: as suits the dataset.
        condition: a key of ``CONDITIONS``: what a conditional model observes of each image.
        validation: hold images out of training for validation where the authors did not.
        split_seed: the seed of the split, for data that come without one.
        label: the column of a table that holds the classes and is not modelled.
        drop: columns of a table that are left out, or the name of one.
        columns: kinds of columns, each as ``NAME=KIND``, out of real, positive, count, binary and category; ``*`` for all
            others. Kinds that are not named follow from the values.
        missing: accept gaps, as missing entries; they are NaN in the tensors.
        mirror: an address to download from in place of the authors'.
        progress: called with the name of each file that is downloaded, the bytes that have arrived, and its size if known.

    Raises:
        InputError: for an unknown name, for files that are missing or damaged, for a binarization of values that are not grey,
            and for a condition that these data do not allow.
    """
    options = Options(
        root=root,
        mirror=mirror,
        validation=validation,
        split_seed=split_seed,
        label=label,
        drop=_names(drop),
        columns=_names(columns),
        missing=missing,
        progress=progress,
    )
    stored = _loader(str(name))(options)
    return with_checksums(with_condition(with_binarization(stored, binarization), stored, condition))


def _is_there(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # a name that no system has
        return False


def _loader(name: str) -> Callable[[Options], Dataset]:
    if name in DATASETS:
        return DATASETS[name]
    if name.startswith("torchvision:"):
        from pyrovae.data.published_files.torchvision_datasets import torchvision_dataset

        return partial(torchvision_dataset, name)
    if Path(name).suffix or len(Path(name).parts) > 1 or _is_there(name):
        from pyrovae.data.user_files.datasets import own_dataset

        return partial(own_dataset, name)
    raise InputError(
        f"expected a dataset out of {', '.join(DATASETS)}; got {name!r}: see 'pyrovae datasets', or name one of "
        f"torchvision's as torchvision:NAME, or a file or folder of your own{nearest(name, DATASETS)}"
    )


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Names, or one: the letters of a name are none."""
    return tuple(filter(None, given.split(","))) if isinstance(given, str) else tuple(given)
