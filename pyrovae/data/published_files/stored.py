"""Make a dataset as stored from what readers return: held-out examples, upright images, values in [0, 1], checksums.

Importing this does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrovae.data.datasets import Dataset
from pyrovae.data.protocol import Protocol, checksum

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, int, int]


def stored_dataset(
    name: str,
    levels: dict[str, Tensor],
    labels: dict[str, Tensor],
    shape: Shape,
    *,
    split: str = "",
    stored: str = "",
    remark: str = "",
    values: str = "levels",
    likelihood: str = "bernoulli",
) -> Dataset:
    """Make a dataset from examples by split ``(N, D)``: levels 0 to 255 go to [0, 1], bits and real numbers stay."""
    whole = values == "bits" or levels["train"].is_floating_point()
    values = "grey" if whole and values == "levels" else values
    # The division is in place: another copy of MNIST as floats would take a fifth of the time of loading it.
    images = {part: each.float() if whole else each.float().div_(255) for part, each in levels.items()}
    protocol = Protocol(
        dataset=name,
        sizes=(len(levels["train"]), len(levels.get("valid", ())), len(levels["test"])),
        split=split,
        values=stored,
        remark=remark,
        checksums={part: checksum(each) for part, each in levels.items()},
    )
    return Dataset(
        name,
        images["train"],
        images.get("valid"),
        images["test"],
        labels,
        shape,
        protocol,
        values=values,
        likelihood=likelihood,
    )


def hold_out(size: int, seed: int, *columns: dict[str, Tensor]) -> str:
    """Move ``size`` training examples, drawn with a seed, to the split ``valid``, and return words for the protocol."""
    import torch

    order = torch.randperm(len(columns[0]["train"]), generator=torch.Generator().manual_seed(seed))
    for column in columns:
        column["train"], column["valid"] = column["train"][order[:-size]], column["train"][order[-size:]]
    return f"{size:,} of training held out at random (seed {seed})"


def transpose_images(rows: Tensor, height: int, width: int) -> Tensor:
    """Turn images stored column by column ``(N, W H)``, as MATLAB does, into rows of pixels ``(N, H W)``."""
    return rows.reshape(-1, width, height).transpose(1, 2).flatten(1)
