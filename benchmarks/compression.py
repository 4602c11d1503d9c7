"""The bits of an image of the binarized MNIST test set: by the models of run folders, and by general compressors.

    python benchmarks/compression.py RUN [RUN ...] [--images 10000] [--json FILE]

Each model's file is decompressed and compared bit by bit. General compressors get eight pixels in a byte; pictures are one for
each image, and one of all images, a hundred in a row.
"""

import argparse
import bz2
import gzip
import io
import json
import lzma
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pyrovae import Run

ACROSS = 100


def packed(compressor):
    return lambda x: len(compressor(np.packbits(x.reshape(len(x), -1)).tobytes()))


def picture_bytes(x, **how):
    buffer = io.BytesIO()
    Image.fromarray(255 * x).convert("1" if how["format"] == "PNG" else "RGB").save(buffer, **how)
    return buffer.tell()


def one_each(**how):
    return lambda x: sum(picture_bytes(each, **how) for each in x)


def one_sheet(**how):
    def size(x):
        rows = x[: len(x) // ACROSS * ACROSS].reshape(-1, ACROSS, *x.shape[1:])
        return picture_bytes(rows.transpose(0, 2, 1, 3).reshape(-1, ACROSS * x.shape[2]), **how)

    return size


PNG, WEBP = {"format": "PNG", "optimize": True}, {"format": "WEBP", "lossless": True, "quality": 100, "method": 6}
GENERAL = {
    "gzip": packed(lambda content: gzip.compress(content, 9)),
    "bz2": packed(lambda content: bz2.compress(content, 9)),
    "xz": packed(lambda content: lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)),
    "PNG, one each": one_each(**PNG),
    "PNG, one sheet": one_sheet(**PNG),
    "WebP, one each": one_each(**WEBP),
    "WebP, one sheet": one_sheet(**WEBP),
}


def of_model(folder, x):
    """What a run makes of the images, and the seconds of both ways."""
    run = Run.load(folder)
    with tempfile.TemporaryDirectory() as scratch:
        path, start = Path(scratch) / "x.bits", time.perf_counter()
        found = run.compress(x.astype(bool), path).as_dict()
        between = time.perf_counter()
        same = np.array_equal(run.decompress(path).reshape(x.shape), x)
        seconds = {"compress_seconds": between - start, "decompress_seconds": time.perf_counter() - between}
    assert same
    return found | seconds | {"epochs": len(run.history), "latent_sizes": list(run.recipe.latent_sizes)}


def of_general(compressor, x):
    start = time.perf_counter()
    return {"bits_per_example": 8 * compressor(x) / len(x), "compress_seconds": time.perf_counter() - start}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    test = Run.load(asked.runs[0]).dataset().test[: asked.images]
    x = np.asarray(test).reshape(-1, 28, 28).astype(np.uint8)
    results = {folder: of_model(folder, x) for folder in asked.runs}
    results |= {name: of_general(each, x) for name, each in GENERAL.items()}
    print("| | bits per image | minus the ELBO | s to compress | s to decompress |\n| --- | --- | --- | --- | --- |")
    for name, each in results.items():
        bound, back = each.get("negative_elbo_bits"), each.get("decompress_seconds")
        title = f"{name}, latents {each['latent_sizes']}, {each['epochs']} epochs" if bound else name
        times = f"{each['compress_seconds']:.1f} | {f'{back:.1f}' if back else ''}"
        print(f"| {title} | {each['bits_per_example']:.1f} | {f'{bound:.1f}' if bound else ''} | {times} |")
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
