"""The place of this process among those that torchrun started, which is known before torch is imported."""

import os


def launched_number() -> tuple[int, int]:
    """The number of this process among those that torchrun started together, and how many there are."""
    if "MASTER_ADDR" not in os.environ:
        return 0, 1
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
