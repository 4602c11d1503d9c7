"""Files from strangers: a valid run or one line, within seconds, and nothing outside the folder is touched."""

import json
import os
import pickle
import resource
import shutil
import stat
import tempfile
import time
import tracemalloc
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resumption import IWAE, StoppedError, grey
from strangers import ODD, Payload, damage, flipped, seal

from pyrovae.errors import InputError
from pyrovae.experiments.comparison import compare
from pyrovae.experiments.evaluations import Evaluation
from pyrovae.experiments.packing import pack, unpack
from pyrovae.experiments.pictures.gallery import draw, views_of
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.report import describe_run
from pyrovae.experiments.run import Run
from pyrovae.experiments.training import train

SECONDS = 10


def of(examples):
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=checks)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small run with everything that a run holds, pictures only by name."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run = train(IWAE, folder, dataset=grey(), engine="eager", checkpoint_every=0.0)
    run.evaluate(20, dataset=grey())
    (folder / "figures").mkdir()
    (folder / "figures" / "bound.png").write_bytes(b"\x89PNG")
    (folder / ".lock").unlink()
    return folder


@pytest.fixture(scope="module")
def packed(whole):
    return pack(whole, whole.parent / "run.zip", checkpoints=True)


@contextmanager
def place():
    """A folder to work in, one that is to stay as it is, and a file that nothing may make."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "outside").mkdir()
        (folder / "outside" / "mine.txt").write_text("mine")
        yield folder, folder / "outside", folder / "payload"
        assert not (folder / "payload").exists(), "a payload ran"


def state_of(folder):
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(folder))] = (status.st_mode, content)
    return found


def attempted(what, *args):
    """What a call gives, or None where it is refused in one line."""
    start, result, refusal = time.monotonic(), None, ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = what(*args)
        except InputError as error:
            refusal = str(error)
        except StoppedError:
            pass
    assert time.monotonic() - start < SECONDS, what
    assert refusal == "" or refusal.isprintable(), ascii(refusal)
    assert len(refusal) < 4000, ascii(refusal[:500])
    return result


def opened(folder):
    run = Run.load(folder)
    assert repr(run).replace("\n", "").isprintable()
    return run, run.history, run.is_whole, run.environment


def gone_on_with(folder):
    """For a step or two, whatever the recipe says: half a million epochs are nobody's attack."""
    taken = []

    def track(status):
        taken.append(status)
        if len(taken) > 2:
            raise StoppedError

    return train(None, folder, dataset=grey(), engine="eager", checkpoint_every=0.0, track=track)


def damaged_run(data, whole):
    with place() as (folder, outside, payload):
        run = folder / "run"
        shutil.copytree(whole, run)
        damage(data.draw, run, outside, payload)
        before, beside = state_of(outside), sorted(os.listdir(folder))
        attempted(opened, run)
        attempted(Evaluation.load, run)
        attempted(lambda: str(compare(run, whole)))
        attempted(lambda: pack(run, folder / "again.zip", checkpoints=True))
        attempted(gone_on_with, run)
        if loaded := attempted(Run.load, run):
            attempted(loaded.evaluate, 30)
            attempted(lambda: loaded.evaluate(30, dataset=grey()))
            (view,) = views_of([loaded], [grey()])
            for kind in ("learning-curves", "active-units", "kl-heat-map", "kl-bars", "log-likelihoods", "sampled-curve"):
                attempted(lambda kind=kind: draw(kind, [view]))
            attempted(describe_run, view)
        assert state_of(outside) == before, "something outside was written"
        assert set(os.listdir(folder)) <= {*beside, "again.zip"}


def damaged_zip(data, packed):
    with place() as (folder, _, _):
        path = folder / "run.zip"
        content = flipped(data.draw, packed.read_bytes())
        path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content), len(content) // 2]))])
        made = attempted(unpack, path, folder / "run")
        assert (made is not None) == (folder / "run").exists()
        assert set(os.listdir(folder)) <= {"outside", "run.zip", "run"}
        if made:
            attempted(opened, made)
            attempted(Evaluation.load, made)


TOML = IWAE.replace(optimizer_arguments={"betas": (0.9, 0.9)}, stages=({"epochs": 2}, {"learning_rate": 0.1})).to_toml()
TEXTS = [
    "nan",
    "-inf",
    "1e999",
    "9" * 5000,
    "[" * 2000 + "]" * 2000,
    "{a={a={}}}",
    "'\\u001b'",
    '"\\u001b[31m"',
    "1979-05-27",
    "x",
]


def damaged_toml(data):
    with place() as (folder, _, _):
        path, lines = folder / "recipe.toml", TOML.splitlines()
        if data.draw(st.booleans()):
            values = [*TEXTS, *(json.dumps(each) for each in ODD if not isinstance(each, int) or abs(each) < 10**300)]
            number = data.draw(st.integers(0, len(lines) - 1))
            lines[number] = f"{lines[number].partition('=')[0]} = {data.draw(st.sampled_from(values))}"
            content = "\n".join(lines).encode()
        else:
            content = flipped(data.draw, TOML.encode())
        path.write_bytes(content)
        attempted(Recipe.from_toml, path)


@pytest.mark.slow
@of(40)
@given(data=st.data())
def test_a_damaged_run_is_opened_or_refused(data, whole):
    damaged_run(data, whole)


@of(10)
@given(data=st.data())
def test_a_damaged_zip_is_unpacked_or_refused(data, packed):
    damaged_zip(data, packed)


@of(10)
@given(data=st.data())
def test_a_damaged_config_is_read_or_refused(data):
    damaged_toml(data)


@pytest.mark.hours
@of(1400)
@given(data=st.data())
def test_many_damaged_runs_are_opened_or_refused(data, whole):
    damaged_run(data, whole)


@pytest.mark.hours
@of(300)
@given(data=st.data())
def test_many_damaged_zips_are_unpacked_or_refused(data, packed):
    damaged_zip(data, packed)


@pytest.mark.hours
@of(300)
@given(data=st.data())
def test_many_damaged_configs_are_read_or_refused(data):
    damaged_toml(data)


# What must be refused, each for its reason.


@pytest.mark.parametrize("name", ["weights.safetensors", "checkpoints/*/tensors.safetensors", "evaluations/test.safetensors"])
def test_a_pickle_does_not_run(name, whole, tmp_path):
    payload, run = tmp_path / "payload", tmp_path / "run"
    shutil.copytree(whole, run)
    for path in run.glob(name):
        path.write_bytes(pickle.dumps(Payload(payload)))
        if path.name == "tensors.safetensors":
            seal(path.parent)
    refusing = {"weights.safetensors": Run.load, "evaluations/test.safetensors": Evaluation.load}.get(name, gone_on_with)
    with pytest.raises(InputError, match="expected a"):
        refusing(run)
    for call in (Run.load, Evaluation.load, gone_on_with, lambda folder: pack(folder, tmp_path / "run.zip", checkpoints=True)):
        attempted(call, run)
    assert not payload.exists()


@pytest.mark.parametrize("name", ["evaluations", "figures", "checkpoints"])
def test_a_linked_folder_is_neither_read_nor_written(name, whole, tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(whole, run)
    shutil.move(run / name, outside)
    (run / name).symlink_to(outside)
    before, loaded = state_of(outside), Run.load(run)
    if name == "evaluations":
        with pytest.raises(InputError, match="it is a link"):
            Evaluation.load(run)
        with pytest.raises(InputError, match="it is a link"):
            loaded.evaluate(30, dataset=grey())
    elif name == "figures":
        with pytest.raises(InputError, match="it is a link"):
            loaded.draw(dataset=grey())
    else:
        with pytest.raises(InputError, match="it is a link"):
            gone_on_with(run)
    pack(run, tmp_path / "run.zip")
    assert not any(each.startswith(f"{name}/") for each in zipfile.ZipFile(tmp_path / "run.zip").namelist())
    assert state_of(outside) == before


def zipped(packed, path, *entries, leave_out=()):
    """The packed run with more entries, pairs of an entry and a content."""
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(path, "w") as target:
        for each in source.infolist():
            if each.filename not in leave_out:
                target.writestr(each, source.read(each))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for entry, content in entries:
                target.writestr(entry, content)
    return path


def entry(name, mode=stat.S_IFREG | 0o644, compression=zipfile.ZIP_STORED):
    made = zipfile.ZipInfo("x", (1980, 1, 1, 0, 0, 0))
    made.filename, made.external_attr, made.compress_type, made.create_system = name, mode << 16, compression, 3
    return made


def refused(path, reason, folder):
    before = set(os.listdir(folder))
    with pytest.raises(InputError, match=reason) as caught:
        unpack(path, folder / "target")
    assert str(caught.value).isprintable()
    assert set(os.listdir(folder)) == before, "a refusal leaves something"


NAMES = [
    *("../evil.json", "evaluations/../../evil.json", "/etc/evil.json", "evaluations/evil.py", "model.pkl", "figures/x.svg"),
    *("evaluations\\evil.json", "C:/evil.json", "C:evil.json", "evaluations/.hidden.json", "figures/con.png", "figures/"),
    *("figures/\x1b[31m.png", "figures/a\u202eb.png", "evaluations/a/b.json", "checkpoints/1/state.json", "RECIPE.JSON", ""),
]


@pytest.mark.parametrize("name", NAMES)
def test_other_names_are_refused(name, packed, tmp_path):
    refused(zipped(packed, tmp_path / "x.zip", (entry(name), b"{}")), "no file of a run|no file", tmp_path)


@pytest.mark.parametrize("names", [("bounds.json", "bounds.json"), ("figures/a.png", "figures/A.png")])
def test_a_name_twice_is_refused(names, packed, tmp_path):
    refused(zipped(packed, tmp_path / "x.zip", *((entry(name), b"{}") for name in names)), "a name twice", tmp_path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFDIR, stat.S_IFCHR])
def test_links_and_devices_are_refused(kind, packed, tmp_path):
    refused(zipped(packed, tmp_path / "x.zip", (entry("bounds.json", kind | 0o777), b"/etc/passwd")), "a link", tmp_path)


def test_an_encrypted_entry_is_refused(packed, tmp_path):
    path = zipped(packed, tmp_path / "x.zip", (entry("bounds.json"), b"{}"))
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(path, "encrypted", tmp_path)


def test_other_compressions_are_refused(packed, tmp_path):
    path = zipped(packed, tmp_path / "x.zip", (entry("bounds.json", compression=zipfile.ZIP_BZIP2), b"{}"))
    refused(path, "another way than by deflate", tmp_path)


def test_too_many_entries_are_refused(packed, tmp_path):
    many = [(entry(f"figures/{number}.png"), b"") for number in range(1001)]
    refused(zipped(packed, tmp_path / "x.zip", *many), "entries", tmp_path)


@pytest.mark.parametrize("name", ["recipe.json", "weights.safetensors", "figures/x.png", "bounds.json"])
def test_a_bomb_is_refused_before_it_fills_the_memory(name, packed, tmp_path):
    """A gibibyte in a mebibyte; and the same where the header claims a few bytes."""
    bomb = (entry(name, compression=zipfile.ZIP_DEFLATED), bytes(300 * 2**20))
    path = zipped(packed, tmp_path / "x.zip", bomb, leave_out=(name,))
    del bomb
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    refused(path, "more than the [0-9,]+ bytes that its recipe allows", tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 2**20, f"{peak:,} bytes"
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 24 : place + 28] = (16).to_bytes(4, "little")
    path.write_bytes(content)
    refused(path, "expected a packed run", tmp_path)


def test_other_weights_than_the_recipe_has_are_refused(packed, tmp_path):
    from safetensors.torch import save
    from torch import zeros

    weights = (entry("weights.safetensors"), save({"x": zeros(3)}))
    refused(zipped(packed, tmp_path / "x.zip", weights, leave_out=("weights.safetensors",)), "expected tensors", tmp_path)


@pytest.mark.parametrize("ending", [b"comment", b"PK\x05\x06" + bytes(18)])
def test_what_stands_behind_the_end_is_refused(ending, packed, tmp_path):
    (tmp_path / "x.zip").write_bytes(packed.read_bytes() + ending)
    refused(tmp_path / "x.zip", "does not end as a zip file|packed run", tmp_path)


def test_a_giant_in_a_recipe_is_refused_before_it_is_built(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    recipe = json.loads((whole / "recipe.json").read_text())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for giant in (
        {"hidden_sizes": [2**40]},
        {"latent_sizes": [2**30]},
        {"hidden_layers": 10**9},
        {"encoder_layers": 10**9},
        {"prior": "flow", "flow_transforms": 10**9},
    ):
        changed = recipe | {"recipe": recipe["recipe"] | giant}
        (tmp_path / "run" / "recipe.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match="programs of about"):
            Run.load(tmp_path / "run")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 2**10


# What is packed.


def test_what_is_packed_comes_back(whole, packed, tmp_path):
    folder = unpack(packed, tmp_path / "run")
    names = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
    assert {"recipe.json", "environment.json", "history.jsonl", "weights.safetensors", "figures/bound.png"} < names
    assert (folder / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert Run.load(folder).history == Run.load(whole).history
    assert compare(folder, whole).rows[0].difference is None
    assert train(None, folder, dataset=grey()).is_whole
    with pytest.raises(InputError, match="a new or an empty folder"):
        unpack(packed, folder)


def test_the_same_run_gives_the_same_bytes_and_no_unknown_file(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "secret.txt").write_text("x")
    (tmp_path / "run" / "evaluations" / "link.json").symlink_to("/etc/passwd")
    one, other = pack(whole, tmp_path / "one.zip"), pack(tmp_path / "run", tmp_path / "other.zip")
    assert one.read_bytes() == other.read_bytes()
    assert not any(name.startswith("checkpoints") for name in zipfile.ZipFile(one).namelist())


def test_nothing_of_the_sender_is_packed(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    private = "/home/alice/secret"
    for name, key in (("recipe.json", "recipe"), ("evaluations/test.json", None)):
        value = json.loads((run / name).read_text())
        (value[key] if key else value)["dataset"] = f"{private}/faces.npy"
        (run / name).write_text(json.dumps(value))
    environment = json.loads((run / "environment.json").read_text())
    environment |= {"data_root": private, "command": [f"{private}/fit"], "host": "alice-pc", "git": "0123abcd"}
    environment["engines"] = [["eager", f"no compiler in {private}"]]
    environment["gone_on_with"] = [{"command": [private], "torch": "2", "user": "alice"}]
    (run / "environment.json").write_text(json.dumps(environment))
    with (run / "history.jsonl").open("a") as history:
        history.write('{"torn": "/home/alice')
    with zipfile.ZipFile(pack(run, tmp_path / "run.zip", checkpoints=True)) as archive:
        contents = b"".join(archive.read(name) for name in archive.namelist())
        recipe = json.loads(archive.read("recipe.json"))
    for word in (b"alice", b"/home", b"secret", b"0123abcd", b"command", str(tmp_path).encode()):
        assert word not in contents, word
    assert recipe["recipe"]["dataset"] == "faces.npy"


def test_the_command_line_packs_and_unpacks(whole, tmp_path, capsys):
    from pyrovae.cli import main

    for arguments, code in (
        (["pack", str(whole), "-o", str(tmp_path / "x.zip"), "--checkpoints"], 0),
        (["unpack", str(tmp_path / "x.zip"), "-o", str(tmp_path / "x")], 0),
        (["unpack", str(tmp_path / "x.zip"), "-o", str(tmp_path / "x")], 2),
        (["unpack", str(whole / "recipe.json"), "-o", str(tmp_path / "y")], 2),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == code, capsys.readouterr().err
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert Run.load(tmp_path / "x").is_whole
