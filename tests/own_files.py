"""Small files as people have them."""

import numpy as np
from PIL import Image


def numbers():
    return np.random.default_rng(0)


def saved(path, array):
    np.save(path, array)
    return path


def png(path, size=(6, 4), mode="L", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


def table(count=200, columns=3):
    return numbers().normal(size=(count, columns)) * 10.0 ** np.arange(columns) + 5
