"""Files that cannot be used: each is refused with its name, the reason and a remedy, and never unpickled."""

import io
import os
import pickle
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from own_files import numbers, png, table
from PIL import Image
from pyarrow import parquet

from pyrovae.data.loading import load_dataset
from pyrovae.data.user_files import arrays
from pyrovae.errors import InputError


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def damaged(folder):
    """Files that cannot be used, by name: how each is written, and what is said of it."""
    good = io.BytesIO()
    np.save(good, numbers().random((20, 5)))
    good = good.getvalue()

    def npy(array, **options):
        return lambda path: np.save(path, array, **options)

    def content(data):
        return lambda path: path.write_bytes(data)

    def archive(**members):
        def write(path):
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
                for name, data in members.items():
                    file.writestr(f"{name}.npy", data)

        return write

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 10)})
    objects = np.array([Trap()] * 20, object)
    gap, edge = table(20), table(20)
    gap[7, 1], edge[3, 2] = np.nan, np.inf
    rows = "\n".join(["1,2.5,3"] * 20)
    return {
        "truncated.npy": (content(good[:-8]), "expected a whole .npy file of numbers; reading it failed"),
        "empty.npy": (content(b""), "expected a whole .npy file of numbers; reading it failed"),
        "huge.npy": (content(header.getvalue()), "expected a whole .npy file of numbers; reading it failed"),
        "objects.npy": (npy(objects, allow_pickle=True), "expected a whole .npy file of numbers; reading it failed"),
        "pickle.npy": (content(pickle.dumps(Trap())), "expected a whole .npy file of numbers; reading it failed"),
        "text.npy": (npy(np.array([["a", "b"]] * 20)), "expected numbers; got <U1: convert them"),
        "complex.npy": (npy(np.ones((20, 2), complex)), "expected numbers; got complex128"),
        "flat.npy": (npy(np.ones(20)), r"expected examples \(N, D\), .*; got \(20,\): reshape them"),
        "none.npy": (npy(np.ones((20, 0, 3))), r"got \(20, 0, 3\): reshape them"),
        "few.npy": (npy(np.ones((19, 3))), "expected at least 20 examples; got 19: use more"),
        "ambiguous.npy": (npy(np.ones((20, 3, 8, 3))), r"\(3, 8, 3\), where both could be: reshape them"),
        "channels.npy": (npy(np.ones((20, 5, 8, 6))), r"\(5, 8, 6\), where neither could be: reshape them"),
        "gap.npy": (npy(gap), "expected finite numbers; got nan in row 8, column 2: leave such rows out"),
        "edge.npy": (npy(edge), "expected finite numbers; got inf in row 4, column 3: leave such rows out"),
        "constant.npy": (
            npy(np.hstack([table(20), np.full((20, 1), 0.1)])),
            "constant in the training part: 4: leave them out",
        ),
        "large.npy": (npy(1e300 * table(20)), "expected numbers of moderate size"),
        "bomb.npz": (archive(x=header.getvalue() + bytes(10**6)), "expected x.npy to hold the 8000"),
        "truncated.npz": (content(b"PK\3\4" + bytes(50)), "expected a whole .npz file of numbers; reading it failed"),
        "several.npz": (archive(a=good, b=good), "expected one array of examples, .*; got a, b: save it with these names"),
        "objects.npz": (lambda path: np.savez(path, x=objects), r"Python objects, which are never loaded"),
        "unequal.npz": (
            lambda path: np.savez(path, train=np.ones((20, 3)), test=np.ones((20, 4))),
            r"expected examples of one shape in all parts; got \(",
        ),
        "empty.csv": (content(b""), "expected rows of numbers; got no more than one line"),
        "header.csv": (content(b"a,b,c\n"), "expected rows of numbers; got no more than one line"),
        "words.csv": (content(f"{rows}\n1,red,3\n".encode()), "expected numbers; column '2' holds 'red' in line 21: --drop 2"),
        "missing.csv": (content(f"{rows}\n1,,3\n".encode()), "column '2' has none in line 21: fill it in"),
        "ragged.csv": (content(f"{rows}\n1,2\n".encode()), "expected lines of 3 fields; line 21 has 2"),
        "nan.csv": (content(f"a,b,c\n{rows}\n1,nan,3\n".encode()), "column 'b' has none in line 22: fill it in"),
        "latin.csv": (content("größe,b\n".encode("latin1") + b"1,2\n" * 20), "expected text in UTF-8; got the byte"),
        "constant.csv": (
            content(b"a,b\n" + b"3,7\n" * 20),
            "expected columns that vary; .* training part: 'a', 'b': add others",
        ),
        "words.parquet": (
            lambda path: parquet.write_table(arrow.table({"a": [1.0] * 20, "b": list("abcdefghijklmnopqrst")}), path),
            "expected numbers; column 'b' holds 'a' in line 1: --drop b",
        ),
        "missing.parquet": (
            lambda path: parquet.write_table(arrow.table({"a": [1.0, None] * 10}), path),
            "expected a number in each row; column 'a' has none in line 2: fill it in",
        ),
        "truncated.parquet": (content(b"PAR1" + bytes(40)), "expected a whole parquet file; reading it failed"),
        "photo.heic": (content(b"?"), "expected a file of .npy, .npz, .csv, .* or a folder of images; got .heic"),
        "loop.npy": (lambda path: path.symlink_to(path), "got Too many levels of symbolic links: name another"),
    }


@pytest.mark.parametrize("name", damaged(None))
def test_what_cannot_be_used_is_refused_with_file_reason_and_remedy(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write, message = damaged(tmp_path)[name]
    write(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists(), "it was unpickled"


def bomb(path):
    """The header of a PNG that would unpack to gigabytes."""
    image = io.BytesIO()
    Image.new("L", (1, 1)).save(image, "PNG")
    data = bytearray(image.getvalue())
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: png(folder / "20.png", size=(5, 4)), "20.png: expected 6 x 4 pixels of mode L like 00.png; got 5 x 4"),
        (
            lambda folder: png(folder / "20.png", mode="RGB"),
            "20.png: expected 6 x 4 pixels of mode L .*; got 6 x 4 of mode RGB",
        ),
        (lambda folder: bomb(folder / "20.png"), "20.png: expected a whole image of less than 90 million pixels"),
        (
            lambda folder: (folder / "20.png").write_bytes((folder / "00.png").read_bytes()[:-30]),
            "20.png: expected a whole image",
        ),
        (lambda folder: (folder / "20.png").write_bytes(b""), "20.png: expected a whole image"),
        (lambda folder: (folder / "20.png").symlink_to("20.png"), "20.png: expected a whole image"),
        (lambda folder: png(folder / "20.tif", mode="I;16"), "20.tif: expected an image of mode 1, L, RGB, RGBA; got I;16"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], r"pictures: expected images \(.png, .*; got none"),
    ],
    ids=["size", "mode", "bomb", "truncated", "empty", "loop", "16 bits", "none"],
)
def test_a_folder_that_cannot_be_used_is_refused(tmp_path, spoil, message):
    for number in range(12):
        png(tmp_path / f"pictures/{number:02}.png", seed=number)
    spoil(tmp_path / "pictures")
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / "pictures")


def test_what_would_not_fit_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "READ_BYTES", 1000)
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 100)))
    np.savetxt(tmp_path / "a.csv", np.zeros((300, 2)), delimiter=",", fmt="%d")
    parquet.write_table(arrow.table({"a": np.zeros(1000)}), tmp_path / "a.parquet")
    np.save(tmp_path / "a.npy", np.zeros((40, 50)).T)
    with pytest.raises(InputError, match=r"a.npy: expected an array in C order, .* save numpy.ascontiguousarray\(array\)"):
        load_dataset(tmp_path / "a.npy")
    for number in range(12):
        png(tmp_path / f"pictures/{number}.png", size=(100, 100))
    for name in ("a.npz", "a.csv", "a.parquet", "pictures"):
        with pytest.raises(InputError, match=f"{name}: expected at most .* GiB once it is unpacked; .*one .npy file"):
            load_dataset(tmp_path / name)


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"a.parquet: expected the package pyarrow .*: pip install pyarrow"):
        load_dataset(tmp_path / "a.parquet")


def originals():
    """A small good file of each format, as bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "a.npy", table(20).astype(np.float32))
        np.savez_compressed(folder / "a.npz", x=np.arange(60, dtype=np.uint8).reshape(20, 3), y=np.arange(20))
        np.savetxt(folder / "a.csv", table(20), delimiter=",", header="a,b,c", comments="", fmt="%.3g")
        png(folder / "a.png")
        return {path.suffix: path.read_bytes() for path in folder.iterdir()}


ORIGINALS = originals()


@settings(max_examples=150, deadline=5000, derandomize=True)
@given(data=st.data(), suffix=st.sampled_from(sorted(ORIGINALS)))
def test_mutated_files_give_a_dataset_or_an_error_that_names_the_file(data, suffix):
    content = bytearray(ORIGINALS[suffix])
    for _ in range(data.draw(st.integers(1, 4), "mutations")):
        at = data.draw(st.integers(0, len(content)), "at")
        content[at : at + data.draw(st.integers(0, 8), "replaced")] = data.draw(st.binary(max_size=8), "by")
    content = content[: data.draw(st.sampled_from([None, None, len(content) // 2, len(content) - 3]), "cut")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "own"
        folder.mkdir()
        for number in range(20 if suffix == ".png" else 1):
            (folder / f"{number}{suffix}").write_bytes(content)
        path = folder if suffix == ".png" else folder / f"0{suffix}"
        try:
            dataset = load_dataset(path)
        except InputError as error:
            said = str(error)
        else:
            said = str(folder)
            assert torch.isfinite(dataset.train).all()
            assert dataset.train.shape[1] == np.prod(dataset.shape)
        assert str(folder) in said
        assert "\n" not in said
