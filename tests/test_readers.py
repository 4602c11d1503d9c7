"""The original formats: read exactly, or refused with file, reason and remedy, in bounded memory, and never unpickled."""

import gzip
import io
import pickle
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrovae.data.published_files.archives import read_npz
from pyrovae.data.published_files.matlab import SPARE_BYTES, read_mat
from pyrovae.data.published_files.readers import CHUNK_BYTES, check_range, read_amat, read_idx, read_norb
from pyrovae.errors import InputError

LEVELS = torch.arange(24, dtype=torch.uint8).view(2, 3, 4)
BITS = [[0, 1, 1], [1, 0, 0]]
REMEDY = "delete it or replace it by a whole copy|it is not this dataset's original file"


def idx(*shape, kind=8):
    header = bytes([0, 0, kind, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    return header + bytes(torch.arange(torch.Size(shape).numel()).remainder(256).tolist())


def norb(array, magic=0x1E3D4C55):
    sizes = [*array.shape, 1, 1][: max(3, array.ndim)]
    return struct.pack(f"<II{len(sizes)}I", magic, array.ndim, *sizes) + array.tobytes()


def npz(save=np.savez_compressed, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def npz_around(npy):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", npy)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def mat(compressed=True, **matrices):
    file = io.BytesIO()
    scipy.io.savemat(file, matrices, do_compression=compressed)
    return file.getvalue()


def read_mat_data(path):
    return read_mat(path, {"data": (2, 12)})["data"]


def read_npz_data(path):
    return read_npz(path, {"data": (torch.uint8, (2, 3, 4))})["data"]


def read_idx_data(path):
    return read_idx(path, (2, 3, 4))


def read_norb_data(path):
    return read_norb(path, (2, 3, 4), torch.uint8)


def read_amat_data(path):
    return read_amat(path, (2, 3))


AMAT = b"0 1 1\n1 0 0\n"
NUMPY = LEVELS.numpy()
# A file's name, its content, what is packed around that, its reader and what comes out.
FORMATS = {
    "idx": ("images-idx3-ubyte", idx(2, 3, 4), bytes, read_idx_data, LEVELS),
    "idx.gz": ("images-idx3-ubyte.gz", gzip.compress(idx(2, 3, 4)), bytes, read_idx_data, LEVELS),
    "idx within gz": ("images-idx3-ubyte.gz", idx(2, 3, 4), gzip.compress, read_idx_data, LEVELS),
    "norb": ("dat.mat", norb(NUMPY), bytes, read_norb_data, LEVELS),
    "norb.gz": ("dat.mat.gz", gzip.compress(norb(NUMPY)), bytes, read_norb_data, LEVELS),
    "amat": ("bits.amat", AMAT, bytes, read_amat_data, torch.tensor(BITS, dtype=torch.uint8)),
    "amat.gz": ("bits.amat.gz", gzip.compress(AMAT), bytes, read_amat_data, torch.tensor(BITS, dtype=torch.uint8)),
    "npz": ("data.npz", npz(data=NUMPY), bytes, read_npz_data, LEVELS),
    "npz, stored": ("data.npz", npz(np.savez, data=NUMPY), bytes, read_npz_data, LEVELS),
    "npy within npz": ("data.npz", npy(NUMPY), npz_around, read_npz_data, LEVELS),
    "npy within npz, Fortran order": ("data.npz", npy(np.asfortranarray(NUMPY)), npz_around, read_npz_data, LEVELS),
    "mat": ("data.mat", mat(data=NUMPY.reshape(2, 12)), bytes, read_mat_data, LEVELS.view(2, 12)),
    "mat, plain": ("data.mat", mat(False, data=NUMPY.reshape(2, 12)), bytes, read_mat_data, LEVELS.view(2, 12)),
    "mat, doubles": ("data.mat", mat(False, data=NUMPY.reshape(2, 12) / 2), bytes, read_mat_data, LEVELS.view(2, 12) / 2.0),
}


@pytest.mark.parametrize("name", FORMATS)
def test_files_are_read(name, tmp_path):
    file, content, packed, read, expected = FORMATS[name]
    (tmp_path / file).write_bytes(packed(content))
    torch.testing.assert_close(read(tmp_path / file), expected, check_dtype=False, rtol=0, atol=0)
    assert [each.name for each in tmp_path.iterdir()] == [file]


NO_FILES = {"empty": b"", "a byte": b"\x00", "a page": b"<html>404</html>", "zeros": b"\x00" * 4096}


@pytest.mark.parametrize("content", NO_FILES.values(), ids=NO_FILES)
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_no_such_file_is_refused(name, content, tmp_path):
    file, _, packed, read, _ = FORMATS[name]
    (tmp_path / file).write_bytes(packed(content))
    with pytest.raises(InputError, match=REMEDY) as caught:
        read(tmp_path / file)
    assert str(caught.value).startswith(f"{tmp_path / file}: expected ")


@st.composite
def mutations(draw, content):
    """The content cut short, or with some of its bytes overwritten, left out, doubled, or put in between."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        # Where headers are, most goes wrong.
        start = min(start, draw(st.sampled_from([len(content), 16, 200])))
        stop = start + draw(st.integers(0, 9))
        kind = draw(st.sampled_from(["cut", "overwrite", "leave out", "double", "insert"]))
        if kind == "cut":
            del content[start:]
        elif kind == "overwrite":
            content[start:stop] = draw(st.binary(min_size=stop - start, max_size=stop - start))
        elif kind == "leave out":
            del content[start:stop]
        else:
            content[start:start] = content[start:stop] if kind == "double" else draw(st.binary(max_size=9))
    return bytes(content)


@pytest.mark.parametrize("name", FORMATS)
def test_a_mutated_file_is_read_in_its_shape_or_refused_by_its_name(name):
    file, content, packed, read, expected = FORMATS[name]

    @settings(max_examples=120, deadline=None, derandomize=True, database=None)
    @given(mutations(content))
    def check(mutated):
        path.write_bytes(packed(mutated))
        try:
            shape, message = read(path).shape, None
        except InputError as error:
            shape, message = None, str(error)
        assert shape == expected.shape or message.startswith(f"{path}: expected ")
        assert "\n" not in (message or "")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        check()


ZEROS = 2**25
BOMBS = {
    "idx": ("images.gz", lambda: gzip.compress(idx(2, 3, 4) + bytes(ZEROS)), read_idx_data, "it goes on after 24 bytes"),
    "norb": ("dat.mat.gz", lambda: gzip.compress(norb(NUMPY) + bytes(ZEROS)), read_norb_data, "it goes on after 24 bytes"),
    "amat": ("bits.amat.gz", lambda: gzip.compress(AMAT + b" " * ZEROS), read_amat_data, "expected 2 lines of 3 digits"),
    "npz": ("data.npz", lambda: npz_around(npy(NUMPY) + bytes(ZEROS)), read_npz_data, "it goes on after 24 bytes"),
    "npz that says so": (
        "data.npz",
        lambda: npz(data=np.zeros(ZEROS, np.uint8)),
        read_npz_data,
        "'data' as torch.uint8 of shape",
    ),
    "mat": ("data.mat", lambda: mat(data=np.zeros((2, ZEROS // 2), np.uint8)), read_mat_data, "holds more than it should"),
    "mat, elsewhere": (
        "data.mat",
        lambda: mat(data=NUMPY.reshape(2, 12), other=np.zeros((2, ZEROS // 2), np.uint8)),
        read_mat_data,
        "holds more than it should",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_decompresses_to_more_than_its_shape_is_refused_in_bounded_memory(name, tmp_path):
    file, content, read, message = BOMBS[name]
    path = tmp_path / file
    path.write_bytes(content())
    assert path.stat().st_size < ZEROS // 100
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message):
            read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * SPARE_BYTES < ZEROS


def test_large_arrays_are_read_in_pieces(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, CHUNK_BYTES + 5, np.uint8)
    (tmp_path / "dat.mat").write_bytes(norb(levels))
    assert read_norb(tmp_path / "dat.mat", levels.shape, torch.uint8).equal(torch.from_numpy(levels))


class RunsCode:
    """Whoever unpickles it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_what_runs_code_when_unpickled_is_refused_and_does_not_run(tmp_path):
    evil = RunsCode(tmp_path / "evil")
    pickle.loads(pickle.dumps(evil))
    evil.path.unlink()
    path = tmp_path / "data.npz"
    path.write_bytes(npz(data=np.array([[evil]], dtype=object)))
    with pytest.raises(InputError, match=r"data.npz: expected 'data' as torch.uint8 of shape \(2, 3, 4\); got .*'O'"):
        read_npz_data(path)
    path.write_bytes(pickle.dumps(evil))
    with pytest.raises(InputError, match="expected a whole npz file"):
        read_npz_data(path)
    assert not evil.path.exists()


REFUSED = {
    "idx, short": ("i.gz", gzip.compress(idx(2, 3, 4)[:-5]), read_idx_data, "it ends 5 bytes early"),
    "idx, truncated": ("i.gz", gzip.compress(idx(2, 3, 4))[:-12], read_idx_data, "expected a whole idx file"),
    "idx, wrong magic": ("i.gz", gzip.compress(b"\x01" * 40), read_idx_data, "its magic number is another one"),
    "idx, wrong shape": (
        "i",
        idx(2, 4, 3),
        read_idx_data,
        r"expected bytes of shape \(2, 3, 4\); got bytes of ",
    ),
    "idx, labels": ("i", idx(24), read_idx_data, r"expected bytes of shape \(2, 3, 4\); got bytes of shape \(24,\)"),
    "idx, floats": ("i", idx(2, 3, 4, kind=13), read_idx_data, r"expected bytes of shape \(2, 3, 4\); got float32 of shape"),
    "norb, as MATLAB": ("n", mat(data=NUMPY.reshape(2, 12)), read_norb_data, "its magic number is another one"),
    "norb, integers": (
        "n",
        norb(NUMPY, 0x1E3D4C54),
        read_norb_data,
        r"got torch.int32 of shape \(2, 3, 4\)",
    ),
    "norb, labels": ("n", norb(NUMPY.reshape(24)), read_norb_data, r"got torch.uint8 of shape \(24,\)"),
    "norb, dimensions": ("n", struct.pack("<2I", 0x1E3D4C55, 2**31), read_norb_data, "its magic number is another one"),
    "amat, one more": ("a", AMAT + b"1 1 1\n", read_amat_data, "expected 2 lines of 3 digits"),
    "amat, twos": ("a", AMAT.replace(b"1", b"2"), read_amat_data, "expected 2 lines of 3 digits"),
    "amat, truncated": ("a.gz", gzip.compress(AMAT)[:-9], read_amat_data, "expected a whole amat file"),
    "npz, other name": ("z", npz(images=NUMPY), read_npz_data, "it has no array 'data'"),
    "npz, integers": ("z", npz(data=NUMPY.astype(int)), read_npz_data, "got 'data' as torch.int64"),
    "npz, foreign bytes": ("z", npz(data=NUMPY.astype(">i4")), read_npz_data, "got 'data' as dtype"),
    "npz, corrupted": ("z", npz(np.savez, data=NUMPY).replace(b"\x14\x15", b"\x15\x14"), read_npz_data, "Bad CRC-32"),
    "mat, other name": ("m", mat(X=NUMPY.reshape(2, 12)), read_mat_data, "it has no variable data"),
    "mat, transposed": ("m", mat(data=NUMPY.reshape(12, 2)), read_mat_data, r"got 'data' as numbers of shape \(12, 2\)"),
    "mat, cells": ("m", mat(data=np.full((2, 12), "cell", object)), read_mat_data, "got 'data' as cell of shape"),
    "mat, text": ("m", mat(data=["twelve words", "twelve lines"]), read_mat_data, "got 'data' as char of shape"),
    "mat, complex": ("m", mat(data=NUMPY.reshape(2, 12) * 1j), read_mat_data, "got 'data' as something else"),
    "mat, truncated": ("m", mat(data=NUMPY.reshape(2, 12))[:-9], read_mat_data, "it ends 9 bytes early"),
    "mat, far too large": ("m", bytes(SPARE_BYTES + 200), read_mat_data, "it is larger than"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_damage_is_told_from_another_file(name, tmp_path):
    file, content, read, message = REFUSED[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / file)
    assert str(caught.value).startswith(f"{tmp_path / file}: expected ")


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected a whole idx file; reading it failed .*Is a directory"):
        read_idx(tmp_path, (2, 3, 4))


def test_truth_is_true_in_whatever_bits(tmp_path):
    array = np.array([[0, 255, 1]], np.uint8).view(bool)
    (tmp_path / "data.npz").write_bytes(npz(np.savez, data=array))
    read = read_npz(tmp_path / "data.npz", {"data": (torch.bool, (1, 3))})["data"]
    assert read.view(torch.uint8).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.5, 1.5])
def test_values_out_of_range_are_refused(bad):
    values = torch.tensor([0.0, 1.0, 0.5])
    assert check_range(Path("x.mat"), "grey", values, 0, 1) is values
    with pytest.raises(InputError, match=f"x.mat: expected grey from 0 to 1; got values from .*{bad}"):
        check_range(Path("x.mat"), "grey", torch.tensor([0.0, bad, 0.0]), 0, 1)
