"""Read a user's folder of images."""

import io
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pyrovae.data.reading import reading
from pyrovae.data.user_files.arrays import Contents, refuse_too_large, split_names
from pyrovae.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
CHANNELS = {"1": 1, "L": 1, "RGB": 3, "RGBA": 4}
# The tag by which the file of a photograph states how to turn it, and the values for one that lies on its side.
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)


def read_folder(folder: Path) -> Contents:
    """Read all images under a folder ``(N, C, H, W)``, in the order of their paths; sub-folders are classes if all lie in one.

    Sub-folders ``train`` and ``test``, and perhaps ``valid`` or ``val``, are the parts of a split, and may hold classes
    themselves. Photographs are turned as their files say. Links to other folders are not followed; hidden files, and files that
    systems and editors leave behind, are left out.

    Raises:
        InputError: for a folder without images, an incomplete split or one with other folders beside it, and for images of
            different sizes or modes, of several pages, damaged or too large.
    """
    beside = sorted(each.name for each in folder.iterdir() if each.is_dir() and not _is_left_behind(each.name))
    parts = split_names(folder, beside)
    if not parts:
        paths = sorted(image_paths(folder))
        labels, classes = _labels({"all": (folder, paths)})
        return Contents({"all": stack_images(folder, paths)}, labels, classes=classes, channels_first=True)
    if others := [name for name in beside if name not in parts.values()]:
        raise InputError(
            f"{folder}: expected nothing beside the parts {', '.join(parts.values())}; got {', '.join(others)}: move them away"
        )
    found = {part: (folder / name, sorted(image_paths(folder / name))) for part, name in parts.items()}
    pixels = {part: stack_images(place, paths) for part, (place, paths) in found.items()}
    labels, classes = _labels(found)
    return Contents(pixels, labels, classes=classes, channels_first=True)


def stack_images(folder: Path, paths: list[Path]) -> np.ndarray:
    """Read the pixels of images of one size and mode ``(N, C, H, W)``.

    Raises:
        InputError: for no images, and for images of different sizes or modes, of several pages, damaged or too large.
    """
    if not paths:
        raise InputError(f"{folder}: expected images ({', '.join(SUFFIXES)}); got none: name the folder that holds them")
    first = _header(paths[0])
    (width, height), mode = first
    shape = (len(paths), CHANNELS[mode], height, width)
    refuse_too_large(folder, int(np.prod(shape)))
    pixels = np.empty(shape, bool if mode == "1" else np.uint8)
    for row, path in enumerate(paths):
        if (header := _header(path)) != first:
            raise InputError(
                f"{path}: expected {width} x {height} pixels of mode {mode} like {paths[0].name}; got {header[0][0]} x "
                f"{header[0][1]} of mode {header[1]}: bring all images to one size and mode"
            )
        found = _pixels(path)
        assert found.shape[:2] == (height, width), path
        pixels[row] = found.reshape(height, width, -1).transpose(2, 0, 1)
    return pixels


def image_paths(folder: Path) -> Iterator[Path]:
    """The paths of the images under a folder, without hidden files and files that systems leave behind."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_left_behind(name)]
        chosen = (name for name in names if Path(name).suffix.lower() in SUFFIXES and not _is_left_behind(name))
        yield from (Path(place, name) for name in chosen)


def _is_left_behind(name: str) -> bool:
    """True for the name of a file that a system or an editor made: a hidden file, or the folder that a Mac adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def _labels(parts: Mapping[str, tuple[Path, list[Path]]]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The classes of all parts, numbered in the order of their names; none where an image has no class or all have the same."""
    names = {part: [path.parent.name for path in paths] for part, (_, paths) in parts.items()}
    known = sorted({name for each in names.values() for name in each})
    if len(known) < 2 or any(path.parent.parent != folder for folder, paths in parts.values() for path in paths):
        return {}, ()
    return {part: np.array([known.index(name) for name in each]) for part, each in names.items()}, tuple(known)


def _open(path: Path) -> Image.Image:
    """Open an image and read its header. Pillow's warning of images that unpack to gigabytes becomes an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # Pillow 13 maps some TIFFs into memory by their path, and then does so with the sides of a turned one exchanged.
        is_tiff = path.suffix.lower() in (".tif", ".tiff")
        return Image.open(io.BytesIO(path.read_bytes()) if is_tiff else path, formats=FORMATS)


def _header(path: Path) -> tuple[tuple[int, int], str]:
    with reading(path, "a whole image of less than 90 million pixels"), _open(path) as image:
        mode = _mode(image)
        if mode not in CHANNELS:
            raise InputError(
                f"{path}: expected an image of mode {', '.join(CHANNELS)}; got {mode}: convert it to 8 bits, L or RGB"
            )
        if (pages := getattr(image, "n_frames", 1)) > 1:
            raise InputError(f"{path}: expected one image in each file; got {pages} of them: save each as a file of its own")
        if image.format == "TIFF":
            # Some of these are turned as they are read.
            return _upright(image).size, mode
        width, height = image.size
        return ((height, width) if image.getexif().get(ORIENTATION) in SIDEWAYS else (width, height)), mode


def _mode(image: Image.Image) -> str:
    """The mode of an image's pixels: a palette counts as colour, with transparency where it has any."""
    if image.mode not in ("P", "PA"):
        return image.mode
    return "RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB"


def _pixels(path: Path) -> np.ndarray:
    with reading(path, "a whole image"), _open(path) as image:
        mode, upright = _mode(image), _upright(image)
        return np.asarray(upright if mode == upright.mode else upright.convert(mode))


def _upright(image: Image.Image) -> Image.Image:
    """The image as its file says that it is to be turned, if it has not been turned while it was read."""
    image.load()
    return ImageOps.exif_transpose(image)
