"""Data of one's own: real files, good and bad, through the library and the command line."""

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet
from pyrovae.cli import main
from scipy.stats import norm

from pyrovae.data import arrays
from pyrovae.data.loading import load_dataset
from pyrovae.errors import InputError
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.recipes import build
from pyrovae.settings import Recipe

TINY = ("--epochs", "1", "--samples", "3", "--batch-size", "8", "--latent-sizes", "2", "--hidden-sizes", "8")


def numbers():
    return np.random.default_rng(0)


def saved(path, array):
    np.save(path, array)
    return path


@pytest.mark.parametrize(
    ("array", "shape", "values", "likelihood", "unit"),
    [
        (numbers().integers(0, 256, (50, 4, 3), np.uint8), (1, 4, 3), "grey", "discretized_logistic", 255),
        (numbers().integers(0, 256, (50, 4, 5, 3)).clip(0, 255) // 255 * 255, (3, 4, 5), "grey", "discretized_logistic", 255),
        (numbers().random((50, 4, 3), np.float32), (1, 4, 3), "grey", "continuous_bernoulli", 1),
        (numbers().integers(0, 2, (50, 3, 4, 5)).astype(">f4"), (3, 4, 5), "bits", "bernoulli", 1),
        (numbers().random((50, 6)) > 0.5, (1, 1, 6), "bits", "bernoulli", 1),
    ],
    ids=["bytes", "levels, channels last", "unit interval", "bits, channels first, big-endian", "booleans"],
)
def test_what_the_numbers_are_is_found_out(tmp_path, array, shape, values, likelihood, unit):
    dataset = load_dataset(saved(tmp_path / "a.npy", array))
    assert (dataset.shape, dataset.served_values, dataset.likelihood) == (shape, values, likelihood)
    assert dataset.protocol.sizes == (40, 5, 5)
    upright = np.moveaxis(array, -1, 1) if array.shape[1:] == (4, 5, 3) else array
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0)).numpy()
    expected = torch.from_numpy(upright.reshape(50, -1)[order].astype(np.float32)) / unit
    torch.testing.assert_close(torch.cat([dataset.valid, dataset.test, dataset.train]), expected)


def test_the_split_is_seeded_and_recorded(tmp_path):
    path = saved(tmp_path / "a.npy", numbers().random((100, 3)))
    first, again, other = load_dataset(path), load_dataset(path), load_dataset(path, split_seed=1)
    assert torch.equal(first.test, again.test)
    assert not torch.equal(first.test, other.test)
    assert str(first.protocol) == "a.npy, 80 / 10 / 10, split at random (seed 0), grey"
    assert len({dataset.protocol.hash for dataset in (first, again, other)}) == 2
    everything = torch.cat([other.train, other.valid, other.test])
    torch.testing.assert_close(everything.sort(0)[0], torch.cat([first.train, first.valid, first.test]).sort(0)[0])


def test_an_archive_keeps_its_own_split(tmp_path):
    train, test = numbers().random((30, 4)), numbers().random((12, 4))
    np.savez(tmp_path / "a.npz", train=train, test=test)
    dataset = load_dataset(tmp_path / "a.npz")
    assert dataset.valid is None
    torch.testing.assert_close(dataset.test, torch.from_numpy(test).float())
    assert str(dataset.protocol) == "a.npz, 30 / none / 12, split as in the file, grey"
    held_out = load_dataset(tmp_path / "a.npz", validation=True)
    assert (len(held_out.train), len(held_out.valid)) == (27, 3)
    assert str(held_out.protocol) == "a.npz, 27 / 3 / 12, split as in the file, validation at random (seed 0), grey"
    torch.testing.assert_close(torch.cat([held_out.train, held_out.valid]).sort(0)[0], dataset.train.sort(0)[0])
    np.savez(tmp_path / "b.npz", train=train, valid=test, test=test)
    assert load_dataset(tmp_path / "b.npz").protocol.sizes == (30, 12, 12)


def test_classes_lie_beside_the_examples(tmp_path):
    classes = np.arange(40) % 4
    np.savez(tmp_path / "a.npz", x=np.repeat(classes[:, None], 3, 1) / 4, y=classes)
    dataset = load_dataset(tmp_path / "a.npz", condition="label")
    assert dataset.num_classes == 4
    torch.testing.assert_close(dataset.train[:, 0], dataset.labels["train"] / 4)
    np.savez(tmp_path / "b.npz", x=np.zeros((40, 3)), y=classes - 1)
    with pytest.raises(InputError, match=r"b.npz: expected as classes integers from 0 to 65,535, one for each of \(40,\)"):
        load_dataset(tmp_path / "b.npz")


def png(path, size=(6, 4), mode="L", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("1", 1), ("P", 3)])
def test_a_folder_of_images(tmp_path, mode, channels):
    for number in range(20):
        png(tmp_path / "ab"[number % 2] / f"{number:02}.png", mode=mode, seed=number)
    (tmp_path / "a/notes.txt").write_text("none of it")
    dataset = load_dataset(tmp_path)
    assert dataset.shape == (channels, 4, 6)
    assert dataset.values == ("bits" if mode == "1" else "grey")
    row = int(torch.randperm(20, generator=torch.Generator().manual_seed(0))[0])
    path = sorted(tmp_path.rglob("*.png"))[row]
    pixels = np.asarray(Image.open(path).convert("RGB" if channels == 3 else mode)).reshape(4, 6, channels)
    expected = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32)).flatten() / (1 if mode == "1" else 255)
    torch.testing.assert_close(dataset.valid[0], expected)
    assert dataset.labels["valid"][0] == "ab".index(path.parent.name)


def table(count=200, columns=3):
    return numbers().normal(size=(count, columns)) * 10.0 ** np.arange(columns) + 5


def test_a_table_is_the_same_from_text_and_parquet(tmp_path):
    values = table()
    np.savetxt(tmp_path / "named.csv", values, delimiter=",", header="a,b,c", comments="", fmt="%.17g")
    np.savetxt(tmp_path / "plain.csv", values, delimiter=",", fmt="%.17g")
    parquet.write_table(arrow.table(dict(zip("abc", values.T, strict=True))), tmp_path / "a.parquet")
    datasets = [load_dataset(saved(tmp_path / "a.npy", values))]
    datasets += [load_dataset(tmp_path / name) for name in ("named.csv", "plain.csv", "a.parquet")]
    for dataset in datasets:
        assert dataset.shape == (1, 1, 3)
        assert dataset.protocol.checksums == datasets[0].protocol.checksums
        assert torch.equal(dataset.train, datasets[0].train)
        torch.testing.assert_close(dataset.train.std(0, correction=0), torch.ones(3))


def flat_vae(dataset):
    """One that says of each row that it is standard normal, whatever its latent."""
    vae = build(Recipe(latent_sizes=(1,), hidden_sizes=(2,)), dataset)
    *_, likelihood = vae.model.likelihood.children()
    torch.nn.init.zeros_(likelihood.readout.weight)
    torch.nn.init.constant_(likelihood.readout.bias, 0)
    # A softplus of one: the variance.
    torch.nn.init.constant_(likelihood.readout.bias[dataset.train.shape[1] :], float(np.log(np.e - 1)))
    return vae


@pytest.mark.parametrize("shape", [(200, 3), (200, 2, 3)], ids=["by column", "as a whole"])
def test_the_reported_density_is_that_of_the_values_in_the_file(tmp_path, shape):
    values = numbers().normal(50, 8, shape) * np.arange(1, 4)
    dataset = load_dataset(saved(tmp_path / "a.npy", values))
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0)).numpy()
    train, test = values[order[40:]], values[order[20:40]]
    axis = 0 if len(shape) == 2 else None
    exact = norm(train.mean(axis), train.std(axis)).logpdf(test).reshape(20, -1).sum(1).mean()
    vae = flat_vae(dataset)
    measured = log_likelihood(vae.model, vae.guide, dataset.test, num_samples=2000)
    assert measured.elbo + dataset.log_jacobian < exact
    assert measured.mean + dataset.log_jacobian == pytest.approx(exact, abs=0.05)
    scaled = load_dataset(saved(tmp_path / "b.npy", 1000 * values))
    assert scaled.log_jacobian - dataset.log_jacobian == pytest.approx(-dataset.train.shape[1] * np.log(1000))


def pyrovae(*arguments, cwd):
    command = [sys.executable, "-c", "from pyrovae.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def files_of_each_kind(folder):
    images = numbers().integers(0, 256, (60, 8, 8), np.uint8)
    np.save(folder / "bytes.npy", images)
    np.savez_compressed(folder / "own.npz", train=images[:40] > 127, test=images[40:] > 127)
    np.savetxt(folder / "table.csv", table(60), delimiter=",", header="a,b,c", comments="")
    parquet.write_table(arrow.table({"a": numbers().random(60), "b": numbers().random(60)}), folder / "table.parquet")
    for row in range(60):
        png(folder / f"pictures/{row}.png", size=(8, 8), seed=row)
    return ["bytes.npy", "own.npz", "table.csv", "table.parquet", "pictures"]


FOUND = {
    "bytes.npy": "bytes.npy: 60 rows of 1 x 8 x 8, 8-bit grey 0 to 255; likelihood discretized_logistic",
    "own.npz": "own.npz: 60 rows of 1 x 8 x 8, bits 0 to 1; likelihood bernoulli",
    "table.csv": "; likelihood gaussian",
    "table.parquet": "; likelihood continuous_bernoulli",
    "pictures": "pictures: 60 rows of 1 x 8 x 8, 8-bit grey 0 to 255; likelihood discretized_logistic",
}


def invoked(*arguments, cwd):
    """The command line without a process of its own, which is faster."""
    with contextlib.chdir(cwd) if sys.version_info >= (3, 11) else contextlib.nullcontext():
        return CliRunner().invoke(main, [str(each) for each in arguments])


def test_every_kind_trains_and_is_found_again_from_anywhere(tmp_path):
    for number, name in enumerate(files_of_each_kind(tmp_path)):
        # One of them as people do it, in a process of its own.
        run = pyrovae if name == "table.csv" else invoked
        result = run("fit", "--dataset", name, *TINY, "--engine", "eager", cwd=tmp_path)
        assert FOUND[name] in result.stderr
        folder = tmp_path / f"runs/{Path(name).stem}-mean_field-{1 + (name == 'table.parquet')}"
        assert (folder / "samples.png").exists() == (not name.startswith("table")), number
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        again = invoked("evaluate", folder, "--samples", "3", "--json", cwd=tmp_path / "elsewhere")
        assert again.exit_code == 0, again.stderr
        results = json.loads(again.stdout)
        assert results["protocol_hash"] == json.loads((folder / "recipe.json").read_text())["protocol_hash"]
        assert f"[{results['protocol_hash']}]" in result.stdout


def test_a_tables_unit_shifts_the_reported_figures_and_nothing_else(tmp_path):
    reported = []
    for name, unit in (("metres", 1), ("millimetres", 1000)):
        np.savetxt(tmp_path / f"{name}.csv", unit * table(400), delimiter=",", fmt="%.17g")
        result = invoked("fit", "--dataset", f"{name}.csv", *TINY, "--output", name, "--json", cwd=tmp_path)
        assert result.exit_code == 0, result.output
        history = json.loads((tmp_path / name / "history.jsonl").read_text().splitlines()[-1])
        reported.append((json.loads(result.stdout), history["valid_elbo_nats"]))
    (small, small_bound), (large, large_bound) = reported
    assert "density of the original values" in small["protocol"]
    for before, after in ((small["log_likelihood"], large["log_likelihood"]), (small["elbo"], large["elbo"])):
        assert after - before == pytest.approx(-3 * np.log(1000), abs=1e-2)
    assert large_bound - small_bound == pytest.approx(-3 * np.log(1000), abs=1e-2)


def test_a_run_refuses_other_content_and_says_where_a_moved_file_was(tmp_path):
    path = saved(tmp_path / "a.npy", numbers().random((40, 5)))
    assert invoked("fit", "--dataset", "a.npy", *TINY, "--output", "r", cwd=tmp_path).exit_code == 0
    saved(path, numbers().random((40, 5))[::-1])
    changed = invoked("evaluate", "r", cwd=tmp_path)
    assert changed.exit_code != 0
    assert isinstance(changed.exception, SystemExit) or isinstance(changed.exception, InputError)
    path.unlink()
    moved = pyrovae("evaluate", "r", cwd=tmp_path)
    assert moved.returncode == 2
    assert (
        moved.stderr
        == f"error: {path}: expected a file or folder that can be read; got No such file or directory: name another\n"
    )


def test_likelihood_and_binarization_override_what_suits_the_data(tmp_path):
    path = saved(tmp_path / "a.npy", numbers().integers(0, 256, (40, 3, 3), np.uint8))
    for flags, values in (
        (("--binarization", "dynamic"), "training binarized dynamically"),
        (("--binarization", "threshold"), "binarized above one half"),
        (("--likelihood", "bernoulli"), "training binarized dynamically"),
        (("--likelihood", "gaussian"), "grey"),
    ):
        result = invoked(
            "fit", "--dataset", path, *flags, *TINY, "--json", "--output", tmp_path / "_".join(flags), cwd=tmp_path
        )
        assert result.exit_code == 0, result.output
        assert values in json.loads(result.stdout)["protocol"]


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
        "few.npy": (npy(np.ones((9, 3))), "expected at least 10 examples to split; got 9"),
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
        "words.csv": (content(f"{rows}\n1,red,3\n".encode()), "could not convert string 'red' to float64 at row 20, column 2"),
        "missing.csv": (content(f"{rows}\n1,,3\n".encode()), "could not convert string '' to float64 at row 20, column 2"),
        "ragged.csv": (content(f"{rows}\n1,2\n".encode()), "the number of columns changed from 3 to 2 at row 21"),
        "nan.csv": (content(f"a,b,c\n{rows}\n1,nan,3\n".encode()), "got nan in row 21, column 'b': leave such rows out"),
        "latin.csv": (content("größe,b\n".encode("latin1") + b"1,2\n" * 20), "reading it failed .*utf-8"),
        "constant.csv": (content(b"a,b\n" + b"".join(b"%d,7\n" % i for i in range(20))), "training part: 'b': leave them out"),
        "words.parquet": (
            lambda path: parquet.write_table(arrow.table({"a": [1.0] * 20, "b": ["x"] * 20}), path),
            r"expected columns of numbers; got b \(string\): leave them out",
        ),
        "missing.parquet": (
            lambda path: parquet.write_table(arrow.table({"a": [1.0, None] * 10}), path),
            "expected a number in each row; a misses some: fill them in",
        ),
        "truncated.parquet": (content(b"PAR1" + bytes(40)), "expected a whole parquet file; reading it failed"),
        "photo.heic": (content(b"?"), "expected a file of .npy, .npz, .csv, .parquet or a folder of images; got .heic"),
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
    for number in range(12):
        png(tmp_path / f"pictures/{number}.png", size=(100, 100))
    for name in ("a.npz", "a.csv", "a.parquet", "pictures"):
        with pytest.raises(InputError, match=f"{name}: expected at most .* GiB once it is unpacked; .*one .npy file"):
            load_dataset(tmp_path / name)


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="a.parquet: expected the package pyarrow .*: pip install pyarrow"):
        load_dataset(tmp_path / "a.parquet")


def originals():
    """A small good file of each format, as bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "a.npy", table(20).astype(np.float32))
        np.savez_compressed(folder / "a.npz", x=np.arange(60, dtype=np.uint8).reshape(20, 3), y=np.arange(20))
        np.savetxt(folder / "a.csv", table(12), delimiter=",", header="a,b,c", comments="", fmt="%.3g")
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
        for number in range(10 if suffix == ".png" else 1):
            (folder / f"{number}{suffix}").write_bytes(content)
        path = folder if suffix == ".png" else folder / f"0{suffix}"
        try:
            dataset = load_dataset(path)
        except InputError as error:
            assert str(folder) in str(error)
            assert "\n" not in str(error)
        else:
            assert torch.isfinite(dataset.train).all()
            assert dataset.train.shape[1] == np.prod(dataset.shape)
