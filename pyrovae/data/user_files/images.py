"""Read a folder of images of somebody's own."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pyrovae.data.reading import reading
from pyrovae.data.user_files.arrays import SPLITS, Contents, limit
from pyrovae.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
CHANNELS = {"1": 1, "L": 1, "RGB": 3, "RGBA": 4}


def read_folder(folder: Path) -> Contents:
    """All images under a folder, ``(N, C, H, W)``, in the order of their paths; sub-folders are classes, where all lie in some.

    Sub-folders ``train`` and ``test``, and perhaps ``valid``, keep that split. Links to other folders are not followed.

    Raises:
        InputError: for a folder without images, for images of different sizes or modes, damaged or too large.
    """
    parts = {name: folder / name for name in SPLITS if (folder / name).is_dir()}
    if {"train", "test"} <= set(parts):
        return Contents({name: _stacked(part, sorted(_images(part))) for name, part in parts.items()})
    paths = sorted(_images(folder))
    return Contents({"all": _stacked(folder, paths)}, labels=_classes(folder, paths))


def _stacked(folder: Path, paths: list[Path]) -> np.ndarray:
    if not paths:
        raise InputError(f"{folder}: expected images ({', '.join(SUFFIXES)}); got none: name the folder that holds them")
    first = _header(paths[0])
    (width, height), mode = first
    shape = (len(paths), CHANNELS[mode], height, width)
    limit(folder, int(np.prod(shape)))
    pixels = np.empty(shape, bool if mode == "1" else np.uint8)
    for row, path in enumerate(paths):
        if (found := _header(path)) != first:
            raise InputError(
                f"{path}: expected {width} x {height} pixels of mode {mode} like {paths[0].name}; got {found[0][0]} x "
                f"{found[0][1]} of mode {found[1]}: bring all images to one size and mode"
            )
        pixels[row] = _pixels(path).reshape(height, width, -1).transpose(2, 0, 1)
    return pixels


def _images(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names if Path(name).suffix.lower() in SUFFIXES)


def _classes(folder: Path, paths: list[Path]) -> np.ndarray | None:
    parents = [path.parent for path in paths]
    names, labels = np.unique([str(parent) for parent in parents], return_inverse=True)
    return labels if len(names) > 1 and all(parent.parent == folder for parent in parents) else None


def _open(path: Path) -> Image.Image:
    """Reads no more than the header. Pillow's own limit against images that unpack to gigabytes is a warning at first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=FORMATS)


def _header(path: Path) -> tuple[tuple[int, int], str]:
    with reading(path, "a whole image of less than 90 million pixels"), _open(path) as image:
        mode = "RGB" if image.mode == "P" else image.mode
        if mode not in CHANNELS:
            raise InputError(
                f"{path}: expected an image of mode {', '.join(CHANNELS)}; got {mode}: convert it to 8 bits, L or RGB"
            )
        return image.size, mode


def _pixels(path: Path) -> np.ndarray:
    with reading(path, "a whole image"), _open(path) as image:
        return np.asarray(image.convert("RGB") if image.mode == "P" else image)
