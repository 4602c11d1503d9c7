"""Data of one's own, through the library and the command line."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as arrow
import pytest
import torch
from click.testing import CliRunner
from own_files import numbers, png, saved, table
from PIL import Image
from pyarrow import parquet
from pyrovae.cli import main
from scipy.stats import norm

from pyrovae.data.loading import load_dataset
from pyrovae.data.user_files import datasets as own
from pyrovae.data.user_files.images import stack_images
from pyrovae.errors import InputError
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.experiments.building import build
from pyrovae.experiments.recipe import Recipe
from pyrovae.programs.conditionals import DiagonalGaussian

TINY = ("--epochs", "1", "--samples", "3", "--batch-size", "8", "--latent-sizes", "2", "--hidden-sizes", "8")


@pytest.mark.parametrize(
    ("array", "shape", "values", "likelihood", "unit"),
    [
        (numbers().integers(0, 256, (50, 4, 3), np.uint8), (1, 4, 3), "levels", "discretized_logistic", 255),
        (numbers().integers(0, 256, (50, 6, 5, 3)), (3, 6, 5), "levels", "discretized_logistic", 255),
        (numbers().random((50, 4, 3), np.float32), (1, 4, 3), "grey", "continuous_bernoulli", 1),
        (numbers().integers(0, 2, (50, 3, 4, 5)).astype(">f4"), (3, 4, 5), "bits", "bernoulli", 1),
        (numbers().random((50, 6)) > 0.5, (1, 1, 6), "bits", "bernoulli", 1),
    ],
    ids=["bytes", "levels, channels last", "unit interval", "bits, channels first, big-endian", "booleans"],
)
def test_what_the_numbers_are_is_found_out(tmp_path, array, shape, values, likelihood, unit):
    dataset = load_dataset(saved(tmp_path / "a.npy", array))
    assert (dataset.shape, dataset.batch_values, dataset.likelihood) == (shape, values, likelihood)
    assert dataset.protocol.sizes == (40, 5, 5)
    upright = np.moveaxis(array, -1, 1) if array.shape[1:] == (6, 5, 3) else array
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


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("1", 1), ("P", 3)])
def test_a_folder_of_images(tmp_path, mode, channels):
    for number in range(20):
        png(tmp_path / "ab"[number % 2] / f"{number:02}.png", mode=mode, seed=number)
    (tmp_path / "a/notes.txt").write_text("none of it")
    dataset = load_dataset(tmp_path)
    assert dataset.shape == (channels, 4, 6)
    assert dataset.values == ("bits" if mode == "1" else "levels")
    row = int(torch.randperm(20, generator=torch.Generator().manual_seed(0))[0])
    path = sorted(tmp_path.rglob("*.png"))[row]
    pixels = np.asarray(Image.open(path).convert("RGB" if channels == 3 else mode)).reshape(4, 6, channels)
    expected = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32)).flatten() / (1 if mode == "1" else 255)
    torch.testing.assert_close(dataset.valid[0], expected)
    assert dataset.labels["valid"][0] == "ab".index(path.parent.name)


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
    """One that says of each row that it is standard normal, whatever its latent; its posterior is the prior."""
    vae = build(Recipe(latent_sizes=(1,), hidden_sizes=(2,)), dataset)
    for gaussian in [module for module in vae.modules() if isinstance(module, DiagonalGaussian)]:
        torch.nn.init.zeros_(gaussian.readout.weight)
        loc, variance = gaussian.readout.bias.detach().chunk(2)
        loc.zero_()
        variance.fill_(float(np.log(np.e - 1)))
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
    measured = log_likelihood(vae.model, vae.guide, dataset, num_samples=3)
    assert measured.mean == pytest.approx(exact, rel=1e-5)
    assert measured.elbo == pytest.approx(exact, rel=1e-5)
    assert measured.curve[3] == pytest.approx(exact, rel=1e-5)
    assert log_likelihood(vae.model, vae.guide, dataset.test, num_samples=3).mean != pytest.approx(exact, rel=1e-2)
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
        png(folder / f"pictures/{row}.png", size=(8, 8), mode="1", seed=row)
    return ["bytes.npy", "own.npz", "table.csv", "table.parquet", "pictures"]


FOUND = {
    "bytes.npy": "bytes.npy: 60 rows of 1 x 8 x 8, 8-bit grey 0 to 255; likelihood discretized_logistic",
    "own.npz": "own.npz: 60 rows of 1 x 8 x 8, bits 0 to 1; likelihood bernoulli",
    "table.csv": "; likelihood gaussian",
    "table.parquet": "; likelihood continuous_bernoulli",
    "pictures": "pictures: 60 rows of 1 x 8 x 8, bits 0 to 1; likelihood bernoulli",
}


def invoked(*arguments, cwd):
    """The command line without a process of its own, which is faster."""
    before = Path.cwd()
    os.chdir(cwd)
    try:
        return CliRunner().invoke(main, [str(each) for each in arguments])
    finally:
        os.chdir(before)


@pytest.mark.slow
def test_every_kind_trains_and_is_found_again_from_anywhere(tmp_path):
    for name in files_of_each_kind(tmp_path):
        # One of them as people do it, in a process of its own.
        run = pyrovae if name == "table.csv" else invoked
        result = run("fit", "--dataset", name, *TINY, "--engine", "eager", cwd=tmp_path)
        assert FOUND[name] in result.stderr
        assert "of 3 columns, real" in result.stderr or name != "table.csv"
        folder = tmp_path / f"runs/{Path(name).stem}-mean_field-{1 + (name == 'table.parquet')}"
        assert (folder / "figures/samples.png").exists() == (not name.startswith("table"))
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
    assert changed.exit_code == 2
    assert changed.stderr.startswith("error: r: expected the data that it was trained on, 'a.npy, 32 / 4 / 4, split at random")
    assert len(changed.stderr.splitlines()) == 1
    path.unlink()
    moved = pyrovae("evaluate", "r", cwd=tmp_path)
    assert moved.returncode == 2
    said = "expected a file or folder that can be read; got No such file or directory: name another"
    assert moved.stderr == f"error: {path}: {said}\n"


def test_likelihood_and_binarization_override_what_suits_the_data(tmp_path):
    path = saved(tmp_path / "a.npy", numbers().integers(0, 256, (40, 3, 3), np.uint8))
    for flags, values in (
        (("--binarization", "dynamic"), "training binarized dynamically"),
        (("--binarization", "threshold"), "binarized above one half"),
        (("--likelihood", "bernoulli"), "training binarized dynamically"),
        (("--likelihood", "gaussian"), "grey"),
    ):
        result = invoked("fit", "--dataset", path, *flags, *TINY, "--engine", "eager", "--json", cwd=tmp_path)
        assert result.exit_code == 0, result.output
        assert values in json.loads(result.stdout)["protocol"]


FROM_DISK = """
import sys
from pyrovae.data.user_files import datasets as own
from pyrovae.data.loading import load_dataset

own.LOADED_BYTES = 2**20


def held():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


before, most = held(), 0
dataset = load_dataset(sys.argv[1])
for batch in dataset.train_batches(100).epoch(1):
    most = max(most, held())
for rows in range(0, len(dataset.test), 100):
    dataset.test[rows : rows + 100]
print(max(most, held()) - before, dataset.description)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read from /proc")
def test_large_data_stay_on_disk(tmp_path):
    """As single-precision numbers these 64 MB would take 256."""
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (2**16, 32, 32))
    array[::7, 3] = 255
    array.flush()
    result = subprocess.run([sys.executable, "-c", FROM_DISK, tmp_path / "a.npy"], capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    megabytes, found = result.stdout.split(maxsplit=1)
    assert float(megabytes) < 100
    assert found == "a.npy: 65,536 rows of 1 x 32 x 32, 8-bit grey 0 to 255, read batch by batch\n"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["levels", "real"])
def test_data_on_disk_train_and_measure_as_data_in_memory_do(tmp_path, monkeypatch, kind):
    array = numbers().integers(0, 256, (60, 4, 4), np.uint8) if kind == "levels" else numbers().normal(3, 2, (60, 5))
    path = saved(tmp_path / "a.npy", array)
    flags = ("fit", "--dataset", path, *TINY, "--prior", "vamp_data", "--num-components", "5", "--output-bias", "--json")
    loaded, in_memory = load_dataset(path), invoked(*flags, cwd=tmp_path)
    monkeypatch.setattr(own, "LOADED_BYTES", 100)
    read, on_disk = load_dataset(path), invoked(*flags, cwd=tmp_path)
    assert isinstance(loaded.train, torch.Tensor)
    assert not isinstance(read.train, torch.Tensor)
    assert read.protocol == loaded.protocol
    for one, other in zip(loaded.train_batches(8).epoch(3), read.train_batches(8).epoch(3), strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(read.train.mean(0), loaded.train.mean(0))
    assert on_disk.exit_code == 0, on_disk.output
    assert json.loads(on_disk.stdout)["elbo"] == pytest.approx(json.loads(in_memory.stdout)["elbo"], rel=1e-4)


@pytest.mark.parametrize("options", [{"binarization": "dynamic"}, {"binarization": "threshold"}, {"condition": "left-half"}])
def test_what_needs_all_data_in_memory_says_so(tmp_path, monkeypatch, options):
    path = saved(tmp_path / "a.npy", numbers().integers(0, 256, (60, 4, 4), np.uint8))
    monkeypatch.setattr(own, "LOADED_BYTES", 100)
    (purpose,) = options.items()
    message = f"a.npy: expected examples that fit into memory for the {purpose[0]} '{purpose[1]}'; got 48 of 16 numbers"
    with pytest.raises(InputError, match=message):
        load_dataset(path, **options)


def test_another_table_is_not_scored_by_statistics_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "other"):
        np.savetxt(tmp_path / f"{name}.csv", np.random.default_rng(0).normal(size=(40, 3)), delimiter=",")
    flags = ("--epochs", "1", "--latent-sizes", "2", "--hidden-sizes", "4", "--batch-size", "8", "--samples", "5")
    assert CliRunner().invoke(main, ["fit", "--dataset", "one.csv", *flags, "--output", "r"]).exit_code == 0
    result = CliRunner().invoke(main, ["evaluate", "r", "--dataset", "other.csv"])
    assert result.exit_code == 2
    assert "'other.csv' holds real ones, standardised by statistics of their own" in result.stderr


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_a_photograph_is_turned_as_its_file_says(suffix, mode, tmp_path):
    """All eight orientations of the standard: each, turned, is the same picture, but for what a lossy format loses."""
    upright = np.kron(numbers().integers(0, 2, (3, 4)), np.ones((8, 9))).astype(np.uint8) * 200
    upright = upright if mode == "L" else np.stack([upright, upright // 2, upright // 4], -1)
    on_side = upright.swapaxes(0, 1)
    turned = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]}
    turned |= {5: on_side, 6: on_side[::-1], 7: on_side[::-1, ::-1], 8: on_side[:, ::-1]}
    for orientation, pixels in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{orientation}.{suffix}", exif=exif)
    found = stack_images(tmp_path, sorted(tmp_path.iterdir())).astype(int)
    for orientation, pixels in zip(turned, found, strict=True):
        assert np.abs(pixels - np.atleast_3d(upright).transpose(2, 0, 1)).mean() < 10, orientation


def test_a_palette_with_transparency_has_four_channels_and_is_not_mixed_with_others(tmp_path):
    image = Image.fromarray(numbers().integers(0, 255, (4, 6), dtype=np.uint8)).convert("P")
    image.save(tmp_path / "b.png", transparency=int(np.asarray(image)[1, 2]))
    found = stack_images(tmp_path, [tmp_path / "b.png"])
    assert found.shape == (1, 4, 4, 6)
    assert found[0, 3, 1, 2] == 0
    assert found[0, 3].max() == 255
    image.save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"b.png: expected 6 x 4 pixels of mode RGB like a.png; got 6 x 4 of mode RGBA"):
        load_dataset(tmp_path)


def test_a_folder_of_images_keeps_its_split(tmp_path):
    for part, shade in (("train", 10), ("test", 200)):
        (tmp_path / part).mkdir()
        for number in range(3):
            Image.fromarray(np.full((4, 5), shade + number, np.uint8)).save(tmp_path / part / f"{number}.png")
    dataset = load_dataset(str(tmp_path))
    assert (len(dataset.train), dataset.valid, len(dataset.test)) == (3, None, 3)
    assert dataset.train.max() < 0.1 < 0.7 < dataset.test.min(), "images of the test were trained on"
    assert not dataset.labels
    assert "split as in the file" in dataset.protocol.split


def test_levels_are_no_other_grey_values(tmp_path):
    """A probability of levels is none of values between them."""
    np.save(tmp_path / "grey.npy", np.random.default_rng(0).uniform(size=(40, 12)))
    dataset = load_dataset(str(tmp_path / "grey.npy"))
    with pytest.raises(InputError, match=r"expected a likelihood of grey for .*; got 'discretized_logistic'"):
        build(Recipe(likelihood="discretized_logistic"), dataset)


def test_trained_pseudo_inputs_are_refused_where_data_are_real(tmp_path):
    np.save(tmp_path / "real.npy", np.random.default_rng(0).normal(size=(40, 12)))
    with pytest.raises(InputError, match=r"expected values in .0, 1., .* use the prior 'vamp_data' or 'mixture'"):
        build(Recipe(prior="vamp", num_components=3), load_dataset(str(tmp_path / "real.npy")))


def test_a_table_has_no_convolutions(tmp_path):
    np.save(tmp_path / "real.npy", np.random.default_rng(0).normal(size=(40, 12)))
    with pytest.raises(InputError, match=r"expected images for the network 'residual'; .* is a table: use the network 'mlp'"):
        build(Recipe(network="residual"), load_dataset(str(tmp_path / "real.npy")))


# Folders and archives as people have them.


def tree(folder, *places):
    """Images at some places of a folder, each of its own brightness."""
    for number, place in enumerate(places):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 5), number, np.uint8) + np.arange(30, dtype=np.uint8).reshape(6, 5)).save(path)
    return folder


def many(template, *numbers_of):
    return [template.format(number) for number in range(*numbers_of)]


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_the_parts_of_a_folder_are_a_split_and_no_classes(tmp_path, validation):
    places = [*many("train/{:02d}.png", 30), *many(validation + "/{:02d}.png", 6), *many("test/{:02d}.png", 4)]
    dataset = load_dataset(tree(tmp_path / "a", *places))
    assert dataset.protocol.sizes == (30, 6, 4)
    assert not dataset.labels


def test_the_parts_of_a_folder_may_hold_classes(tmp_path):
    places = [f"{part}/{kind}/{number}.png" for part in ("train", "test") for kind in ("cat", "dog") for number in range(10)]
    dataset = load_dataset(tree(tmp_path / "a", *places), validation=True)
    assert dataset.protocol.sizes == (18, 2, 20)
    assert dataset.labels["test"].tolist() == [0] * 10 + [1] * 10
    assert sorted([*dataset.labels["train"].tolist(), *dataset.labels["valid"].tolist()]) == [0] * 10 + [1] * 10


@pytest.mark.parametrize("size", [(6, 4), (3, 6), (1, 5)])
def test_images_as_narrow_as_channels_are_images(tmp_path, size):
    for number in range(20):
        png(tmp_path / "a" / f"{number:02d}.png", size=size, seed=number)
    assert load_dataset(tmp_path / "a").shape == (1, size[1], size[0])


def test_what_systems_and_editors_leave_behind_is_left_out(tmp_path):
    folder = tree(tmp_path / "a", *many("{:02d}.png", 30))
    for name in (
        "._00.png",
        ".hidden.png",
        "Thumbs.db",
        "notes.txt",
        "00.png~",
        ".ipynb_checkpoints/00.png",
        "__MACOSX/._00.png",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")
    assert load_dataset(folder).protocol.sizes == (24, 3, 3)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (["train/{}.png", "val/{}.png"], r"expected train and test, and perhaps one of valid, val, validation; got train, val"),
        (["train/{}.png", "test/{}.png", "val/{}.png", "valid/{}.png"], "got test, train, val, valid"),
        (["test/{}.png"], "got test: bring the rest"),
        (["train/{}.png", "test/{}.png", "extra/{}.png"], "expected nothing beside the parts test, train; got extra: move"),
    ],
    ids=["no test", "two validations", "test alone", "something beside"],
)
def test_half_a_split_is_refused(tmp_path, places, words):
    with pytest.raises(InputError, match=words):
        load_dataset(tree(tmp_path / "a", *(each.format(number) for each in places for number in range(20))))


def test_a_file_of_several_pages_is_refused_by_its_name(tmp_path):
    folder = tree(tmp_path / "a", *many("{:02d}.png", 30))
    pages = [Image.fromarray(np.full((6, 5), value, np.uint8)) for value in (0, 9)]
    pages[0].save(folder / "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"stack.tif: expected one image in each file; got 2 of them: save each"):
        load_dataset(folder)


def test_an_archive_may_call_its_validation_part_val(tmp_path):
    x = numbers().random((50, 4))
    np.savez(tmp_path / "a.npz", train=x[:30], val=x[30:40], test=x[40:])
    assert load_dataset(tmp_path / "a.npz").protocol.sizes == (30, 10, 10)
    np.savez(tmp_path / "b.npz", train=x[:30], val=x[30:])
    with pytest.raises(InputError, match=r"expected train and test.*got train, val: bring the rest"):
        load_dataset(tmp_path / "b.npz")


def test_parts_of_two_scales_are_refused(tmp_path):
    levels = numbers().integers(0, 256, (30, 4, 3), np.uint8)
    np.savez(tmp_path / "a.npz", train=levels, test=levels[:20] / 255)
    with pytest.raises(InputError, match=r"expected all parts on one scale; got train in 0 to 255 and test in 0 to 1: divide"):
        load_dataset(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", train=levels, test=(levels[:20] > 0).astype(np.uint8))
    assert load_dataset(tmp_path / "b.npz").values == "levels"


# Tables as pandas, R and spreadsheets write them.

NAMED = ["a", "b", "c"]


def frame(count=60):
    return pd.DataFrame(table(count), columns=NAMED)


def written(path, **options):
    frame().to_csv(path, float_format="%.17g", **options)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.csv", {"index": False}),
        ("a.csv", {}),
        ("a.tsv", {"sep": "\t", "index": False}),
        ("a.csv.gz", {"index": False}),
        ("a.tsv.gz", {"sep": "\t"}),
        ("a.csv", {"sep": ";", "decimal": ",", "index": False}),
        ("a.csv", {"sep": ";", "index": False}),
        ("a.csv", {"sep": "|", "index": False}),
        ("a.csv", {"index": False, "quoting": csv.QUOTE_NONNUMERIC}),
        ("a.csv", {"index": False, "lineterminator": "\r\n", "encoding": "utf-8-sig"}),
        ("a.csv", {"index": False, "header": False}),
        ("a.csv", {"index": False, "header": ["0", "1", "2"]}),
    ],
    ids=lambda each: str(each),
)
def test_a_table_is_read_however_it_was_written(tmp_path, name, options):
    dataset = load_dataset(written(tmp_path / name, **options))
    expected = load_dataset(saved(tmp_path / "a.npy", table(60)))
    assert dataset.protocol.sizes == (48, 6, 6)
    torch.testing.assert_close(dataset.train, expected.train, rtol=1e-6, atol=1e-6)
    assert ("index" in dataset.description) == ("index" not in options)


def test_a_table_of_r_has_names_of_rows(tmp_path):
    """As write.table and write.csv of R leave them."""
    rows = [" ".join(f"{value:.17g}" for value in row) for row in table(60)]
    tabs = ["a\tb\tc", *(f"row {number}\t" + row.replace(" ", "\t") for number, row in enumerate(rows))]
    commas = ['"","a","b","c"', *(f'"{number}",' + row.replace(" ", ",") for number, row in enumerate(rows, 1))]
    (tmp_path / "table.tsv").write_text("\n".join(tabs) + "\n")
    (tmp_path / "table.csv").write_text("\n".join(commas) + "\n")
    expected = load_dataset(saved(tmp_path / "a.npy", table(60)))
    spaces = ['"a" "b" "c"', *(f'"{number}" {row}' for number, row in enumerate(rows, 1))]
    (tmp_path / "spaces.csv").write_text("\n".join(spaces) + "\n")
    names = "the names of the rows are left out"
    said = {"table.tsv": names, "spaces.csv": names, "table.csv": "the index 'Unnamed: 0' is left out"}
    for name, remark in said.items():
        dataset = load_dataset(tmp_path / name)
        torch.testing.assert_close(dataset.train, expected.train)
        assert remark in dataset.description


def test_a_decimal_comma_is_no_separator(tmp_path):
    expected = load_dataset(saved(tmp_path / "a.npy", np.round(table(60), 3)))
    rows = ["|".join(f"{value:.3f}".replace(".", ",") for value in row) for row in table(60)]
    (tmp_path / "bars.csv").write_text("\n".join(["a|b|c", *rows]) + "\n")
    torch.testing.assert_close(load_dataset(tmp_path / "bars.csv").train, expected.train, rtol=1e-4, atol=1e-4)
    (tmp_path / "one.csv").write_text("v\n" + "\n".join(f"{number},{number % 7}" for number in range(60)) + "\n")
    with pytest.raises(InputError, match="got one name, 'v', above '0,0': name the first column too, or write decimal points"):
        load_dataset(tmp_path / "one.csv")
    notes = [f"{value:.3f};{value * 2:.3f};{'1,2' if number == 5 else 'x'}" for number, value in enumerate(table(60)[:, 0])]
    (tmp_path / "notes.csv").write_text("a;b;note\n" + "\n".join(notes) + "\n")
    assert load_dataset(tmp_path / "notes.csv", drop=("note",)).columns == ("a", "b")


def test_a_table_is_text_in_utf_8_or_16(tmp_path):
    """A spreadsheet's "Unicode text", and what older ones write, which is refused: a letter would be another."""
    cities = np.array(["Oslo", "S\u00e3o Paulo"])[np.arange(60) % 2]
    for name, encoding in (("a.csv", "utf-8"), ("b.csv", "utf-16"), ("c.csv", "latin-1"), ("d.csv.gz", "utf-16")):
        frame().assign(city=cities).to_csv(tmp_path / name, index=False, encoding=encoding, sep="\t")
    expected = load_dataset(tmp_path / "a.csv", columns=("city=category",))
    for name in ("b.csv", "d.csv.gz"):
        found = load_dataset(tmp_path / name, columns=("city=category",))
        assert torch.equal(found.train, expected.train)
        assert found.categories == expected.categories
    with pytest.raises(InputError, match=r"c.csv: expected text in UTF-8; got the byte b'\\xe3': save it as UTF-8$"):
        load_dataset(tmp_path / "c.csv")


def test_a_table_may_hold_a_label_and_columns_to_leave_out(tmp_path):
    cities = np.array(["Rome", "Oslo", "Lima"])[np.arange(60) % 3]
    frame().assign(city=cities, id=range(60)).to_csv(tmp_path / "a.csv", index=False)
    dataset = load_dataset(tmp_path / "a.csv", label="city", drop=("id",))
    assert dataset.shape == (1, 1, 3)
    assert dataset.num_classes == 3
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).numpy()
    assert dataset.labels["valid"].tolist() == [["Lima", "Oslo", "Rome"].index(each) for each in cities[order[:6]]]
    assert "'city' is the label, of 3 classes" in dataset.description
    assert torch.equal(load_dataset(tmp_path / "a.csv", label="city", drop="id").train, dataset.train)
    parquet.write_table(arrow.Table.from_pandas(frame().assign(city=cities, id=range(60))), tmp_path / "a.parquet")
    again = load_dataset(tmp_path / "a.parquet", label="city", drop=("id",))
    torch.testing.assert_close(again.train, dataset.train)


@pytest.mark.parametrize(
    ("changed", "options", "words"),
    [
        (
            {"name": [f"n{number}" for number in range(60)]},
            {},
            "expected numbers; column 'name' holds 'n0' in line 2: --drop name leaves it out",
        ),
        ({}, {"drop": ("d",)}, "expected a column of the table; got 'd'"),
        ({}, {"label": "bb"}, "got 'bb'; did you mean 'b'?"),
        (
            {"b": np.where(np.arange(60) == 7, np.nan, 1.5)},
            {},
            "a number in each row; column 'b' has none in line 9: fill",
        ),
        ({}, {"drop": ("a", "b", "c")}, "got none beside those that are left out"),
    ],
    ids=["text", "no such column", "no such label", "a gap", "nothing left"],
)
def test_what_a_table_cannot_have_is_named_by_line_and_column(tmp_path, changed, options, words):
    frame().assign(**changed).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(InputError, match=re.escape(words)):
        load_dataset(tmp_path / "a.csv", **options)


def test_columns_that_do_not_vary_are_named_and_left_out(tmp_path):
    frame().assign(d=3.0).to_csv(tmp_path / "a.csv", index=False)
    dataset = load_dataset(tmp_path / "a.csv")
    assert dataset.shape == (1, 1, 3)
    assert dataset.description.endswith("left out, since constant in the training part: 'd'")


def test_a_column_that_looks_like_a_label_is_told_of(tmp_path):
    frame().assign(label=np.arange(60) % 3).to_csv(tmp_path / "a.csv", index=False)
    assert (
        "'label' is modelled as the other columns are: --label label makes it the label"
        in load_dataset(tmp_path / "a.csv").description
    )
    assert load_dataset(tmp_path / "a.csv", label="label").shape == (1, 1, 3)


def test_label_and_drop_are_settings_of_a_recipe(tmp_path):
    frame().assign(city=["Rome", "Oslo"] * 30, id=range(60)).to_csv(tmp_path / "a.csv", index=False)
    result = invoked("fit", "--dataset", "a.csv", "--label", "city", "--drop", "id", *TINY, "--output", "r", cwd=tmp_path)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "r" / "recipe.json").read_text())["recipe"]["drop"] == ["id"]
    assert invoked("evaluate", "r", "--samples", "5", cwd=tmp_path).exit_code == 0
    np.save(tmp_path / "a.npy", table())
    refused = invoked("fit", "--dataset", "a.npy", "--label", "city", *TINY, cwd=tmp_path)
    assert "expected a table with named columns for label; it is none" in refused.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,c\n" + "1,2,3\n" * 29 + "1,2,3,4\n", "reading it failed"),
        ("a,b\n" + "1,234,5,5\n" * 30, "reading it failed"),
        ("a,b,a\n" + "1,2,3\n" * 30, "expected columns"),
    ],
    ids=["a longer line", "two more", "a name twice"],
)
def test_a_line_of_another_length_shifts_no_column(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        load_dataset(tmp_path / "a.csv")


def test_a_comma_at_the_end_of_each_line_is_no_column(tmp_path):
    rows = [",".join(map(str, row)) for row in np.round(table(40), 3)]
    (tmp_path / "a.csv").write_text("\n".join(["a,b,c", *(f"{row}," for row in rows)]) + "\n")
    (tmp_path / "b.csv").write_text("\n".join(["a,b,c", *rows]) + "\n")
    assert torch.equal(load_dataset(tmp_path / "a.csv").train, load_dataset(tmp_path / "b.csv").train)


def test_a_table_without_names_says_so_and_counts_its_lines(tmp_path):
    rows = [",".join(map(str, row)) for row in np.round(table(40), 3)]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    assert "no line of names above" in load_dataset(tmp_path / "a.csv").description
    assert load_dataset(tmp_path / "a.csv").columns == ()
    (tmp_path / "b.csv").write_text("\n".join(["NA,1,2", *rows]) + "\n")
    with pytest.raises(InputError, match="column '1' has none in line 1"):
        load_dataset(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("\n".join([",0,1,2", *(f"{number},{row}" for number, row in enumerate(rows))]) + "\n")
    assert load_dataset(tmp_path / "c.csv").columns == ("0", "1", "2")


def test_the_first_of_rows_without_names_is_no_line_of_names(tmp_path):
    """As the iris of the UCI repository come: numbers, and a word at the end."""
    lines = [f"{number / 10},{number % 7},{'setosa' if number % 2 else 'virginica'}" for number in range(60)]
    (tmp_path / "iris.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="column '3' holds 'virginica' in line 1: --drop 3 leaves it out, --label 3 makes it"):
        load_dataset(tmp_path / "iris.csv")
    dataset = load_dataset(tmp_path / "iris.csv", label="3")
    assert (sum(dataset.protocol.sizes), dataset.num_classes) == (60, 2)
    assert dataset.classes == ("setosa", "virginica")
