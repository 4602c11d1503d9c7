"""The protocol of a dataset: the facts that every figure measured on it depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BINARIZATION_SEED, CONTEXT_SEED = 0, 1


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The description of a dataset as measured: two figures can be compared where the ``hash`` of their protocols is the same.

    Args:
        dataset: the name of the dataset.
        sizes: numbers of examples for training, validation and test.
        split: how the parts were chosen, where the authors do not fix it; with the seed where they were drawn.
        values: how the values were treated: binarized and how, grey, standardised.
        condition: what a conditional model observes.
        remark: a warning to be read before figures are compared.
        checksums: checksums of the examples as stored, by split, whatever format the files had; and of what was drawn once.

    >>> protocol = Protocol(dataset="digits", sizes=(4000, 0, 500), values="grey")
    >>> print(protocol)
    digits, 4,000 / none / 500, grey
    >>> protocol.hash
    'f4143bc9'
    """

    dataset: str
    sizes: tuple[int, int, int]
    split: str = ""
    values: str = ""
    condition: str = ""
    remark: str = ""
    checksums: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        sizes = " / ".join(f"{size:,}" if size else "none" for size in self.sizes)
        return ", ".join(filter(None, (self.dataset, sizes, self.split, self.values, self.condition, self.remark)))

    @property
    def hash(self) -> str:
        """Eight hexadecimal digits of a hash of all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]


def checksum(examples: Tensor) -> str:
    """Sixteen hexadecimal digits of a hash of the bytes and the shape of a tensor."""
    digest = hashlib.sha256(repr(tuple(examples.shape)).encode())
    digest.update(examples.contiguous().numpy().data.cast("B"))
    return digest.hexdigest()[:16]
