"""Images as bytes in text, as a page takes them and gives them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrovae.errors import InputError

Shape = tuple[int, int, int]


def as_text(values: NDArray[np.floating], shape: Shape) -> str:
    """Values in [0, 1] of one image ``(C H W,)`` as bytes, row by row and channel by channel last, in base64."""
    levels = np.rint(255 * np.clip(values.reshape(shape), 0, 1)).astype(np.uint8)
    return base64.b64encode(levels.transpose(1, 2, 0).tobytes()).decode()


def from_text(text: Any, shape: Shape) -> NDArray[np.float32]:
    """The values in [0, 1] of one image ``(1, C H W)`` from what ``as_text`` writes.

    Raises:
        InputError: for anything else.
    """
    channels, height, width = shape
    try:
        levels = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
        image = levels.reshape(height, width, channels)
    except (TypeError, ValueError, binascii.Error) as error:
        raise InputError(f"expected {height} x {width} pixels of {channels} channels as bytes in base64; got others") from error
    return (image.transpose(2, 0, 1).reshape(1, -1) / 255).astype(np.float32)


def checked_latents(values: Any, sizes: Mapping[str, int]) -> dict[str, list[float]]:
    """The values of each latent, by layer.

    Raises:
        InputError: for layers of other names or sizes, and for what is no finite number.
    """
    fits = isinstance(values, dict) and values.keys() == sizes.keys()
    fits = fits and all(isinstance(each, list) and len(each) == sizes[name] for name, each in values.items())
    if not fits or not all(_is_number(value) for each in values.values() for value in each):
        expected = ", ".join(f"{size} of {name}" for name, size in sizes.items())
        raise InputError(f"expected finite numbers, {expected}; got others")
    return values


def checked_point(point: Any) -> tuple[float, float]:
    """The two coordinates of a point of the map.

    Raises:
        InputError: for anything else.
    """
    if not (isinstance(point, list) and len(point) == 2 and all(map(_is_number, point))):
        raise InputError("expected two finite numbers, a point of the map; got others")
    return point[0], point[1]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e6
