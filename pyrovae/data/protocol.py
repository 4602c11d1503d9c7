"""The protocol of a dataset: what a figure that is measured on it must be read with."""

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
    """What was measured: two figures are of the same thing where the ``hash`` of their protocols is the same.

    Args:
        dataset: its name.
        sizes: examples for training, validation and test.
        split: which they are, where the authors say more than one thing; the seed where it was drawn.
        values: what became of them on the way: binarized and how, grey, standardised.
        condition: what a conditional model is told.
        remark: what a reader must know before comparing.
        checksums: of the examples as stored, by split, whatever container the files came in; and of what is measured.

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
        """Eight hexadecimal digits of everything above."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]


def checksum(examples: Tensor) -> str:
    """Sixteen hexadecimal digits of the bytes of a tensor, and of its shape."""
    digest = hashlib.sha256(repr(tuple(examples.shape)).encode())
    digest.update(examples.contiguous().numpy().data.cast("B"))
    return digest.hexdigest()[:16]
