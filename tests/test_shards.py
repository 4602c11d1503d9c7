"""What is measured in shards, in any order and place, is what is measured at once, to the last bit."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from linear_gaussian import Chain
from pyrovae.cli import main

from pyrovae.engine import choice
from pyrovae.errors import InputError
from pyrovae.evaluation import annealing
from pyrovae.evaluation.chunks import chunks_of_shard
from pyrovae.evaluation.likelihood import IMAGES_AT_ONCE, Estimates, join_shards, log_likelihood
from pyrovae.experiments.building import load_data
from pyrovae.experiments.evaluations import Evaluation
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.sharding import Measurement, Part
from pyrovae.experiments.sweeping.shards import measure_shards

# Two chunks of a hundred images and one of fifty. Of 200 samples the whole hundreds are captured, and the last chunk is not.
IMAGES, SAMPLES = 250, 200
SMALL = {"guide": "ladder", "latent_sizes": (3, 2), "hidden_sizes": (8, 4), "hidden_layers": 1}
SHALLOW = {"guide": "mean_field", "latent_sizes": (2,), "hidden_sizes": (8,)}
KINDS = {
    "images": {"likelihood": "bernoulli", "prior": "vamp", "num_components": 5},
    "conditional": {"likelihood": "bernoulli", "condition": "middle-column", **SHALLOW},
    "regressor": {"likelihood": "bernoulli", "condition": "middle-column", **SHALLOW, "latent_sizes": ()},
    "table": {"likelihood": "gaussian", "missing": True, **SHALLOW},
}
BOUNDS = {"num_images": 10, "num_temperatures": 3, "num_chains": 5, "num_samples": 40}


def untrained(folder, **settings):
    """A run folder as it is before the first epoch, which is one all the same."""
    recipe = Recipe(**SMALL | settings)
    torch.manual_seed(1)
    run = Run.create(folder, recipe, load_data(recipe))
    run.save_weights()
    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    np.savez(folder / "bits.npz", train=random.random((100, 3, 3)) > 0.4, test=random.random((IMAGES, 3, 3)) > 0.4)
    rows = random.normal(size=(10 * IMAGES, 3))
    rows[random.random(rows.shape) < 0.1] = np.nan
    (folder / "rows.csv").write_text("a,b,c\n" + "\n".join(",".join("" if v != v else f"{v:.6f}" for v in row) for row in rows))
    return folder


@pytest.fixture(scope="module", params=KINDS)
def run(request, data, tmp_path_factory):
    name = "rows.csv" if request.param == "table" else "bits.npz"
    return untrained(tmp_path_factory.mktemp("runs") / request.param, dataset=str(data / name), **KINDS[request.param])


@pytest.fixture
def small(data, tmp_path):
    return untrained(tmp_path / "run", dataset=str(data / "bits.npz"), **KINDS["images"])


def assert_same(one, other):
    """The same to the last bit, but for the time."""
    values, others = vars(one).copy(), vars(other).copy()
    assert values.pop("seconds") > 0
    assert others.pop("seconds") > 0
    if isinstance(one, Evaluation):
        images, other_images = values.pop("per_image"), others.pop("per_image")
        assert images.keys() == other_images.keys()
        assert all(np.array_equal(images[name], other_images[name], equal_nan=True) for name in images)
    assert values == others


@pytest.mark.parametrize("count", [1, 2, 3, 16])
@pytest.mark.parametrize("num_chunks", [0, 1, 5, 16, 33])
def test_shards_share_the_chunks_out_evenly(count, num_chunks):
    shards = [chunks_of_shard((number, count), num_chunks) for number in range(1, count + 1)]
    assert [chunk for shard in shards for chunk in shard] == list(range(num_chunks))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("count", [2, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 3, 16))])
def test_merged_shards_are_the_evaluation_at_once(count, run):
    whole = run.measure(SAMPLES, seed=3)
    for number in reversed(range(1, count + 1)):
        # As in a process of its own.
        torch.manual_seed(number)
        Run.load(run.folder).measure_shard((number, count), SAMPLES, seed=3)
    merged = Run.load(run.folder).merge_evaluation()
    assert_same(merged, whole)
    assert_same(Evaluation.load(run.folder), whole)
    assert not list((run.folder / "evaluations").glob("*-shards"))
    assert whole.num_samples == 1 or run.measure(20, seed=4).elbo != run.measure(20, seed=3).elbo


def test_some_shards_are_empty_where_there_are_more_than_chunks(small):
    whole = small.measure(2)
    for number in range(1, 17):
        small.measure_shard((number, 16), 2)
    assert_same(small.merge_evaluation(), whole)


@pytest.mark.parametrize(
    ("run", "count"),
    [("conditional", 2), *(pytest.param(name, 5, marks=pytest.mark.slow) for name in ("images", "conditional", "table"))],
    indirect=["run"],
)
def test_merged_shards_are_the_bounds_at_once(run, count, monkeypatch):
    # Chunks of four, four and two images.
    monkeypatch.setattr(annealing, "STATES_AT_ONCE", {"cpu": 20})
    whole = run.bounds(**BOUNDS, seed=3)
    for number in range(1, count + 1):
        Run.load(run.folder).bound_shard((number, count), **BOUNDS, seed=3)
    assert_same(Run.load(run.folder).merge_bounds(), whole)
    assert not list((run.folder / "evaluations").glob("*-shards"))


@pytest.mark.parametrize(
    "engine", ["eager", "graph", *(pytest.param(each, marks=pytest.mark.slow) for each in ("compiled", "auto"))]
)
def test_every_engine_gives_a_shard_the_bits_of_the_whole(engine, monkeypatch):
    """Under auto all chunks are compiled here, that of three images too."""
    monkeypatch.setattr(choice, "SAVED_SECONDS", {"cpu": (10.0, 0.0)})
    chain, x = Chain(2), torch.randn(2 * IMAGES_AT_ONCE + 3, 3)
    guide = chain.wrong_guide("ladder")

    def measured(shard):
        torch.manual_seed(5)
        return log_likelihood(chain.model, guide, x, 440, engine=engine, shard=shard)

    whole = measured((1, 1))
    for count in (2, 3, 4):
        joined = join_shards([measured((number, count)) for number in range(1, count + 1)])
        assert repr(joined) == repr(whole)
        for name, value in vars(whole).items():
            assert (
                torch.equal(getattr(joined, name), value) if isinstance(value, torch.Tensor) else getattr(joined, name) == value
            )


def test_a_row_outside_the_support_is_named_by_its_place_in_the_whole(small):
    x = (torch.rand(IMAGES, 9) > 0.5).float()
    x[-1] = 0.5
    log_likelihood(small.vae.model, small.vae.guide, x, 2, shard=(1, 3))
    with pytest.raises(ValueError, match=r"row 249 holds 0\.5"):
        log_likelihood(small.vae.model, small.vae.guide, x, 2, shard=(3, 3))
    with pytest.raises(ValueError, match=r"expected a shard from 1/3 to 3/3; got 4/3"):
        log_likelihood(small.vae.model, small.vae.guide, x, 2, shard=(4, 3))


def test_shards_of_other_numbers_of_samples_are_not_joined(small):
    x = (torch.rand(150, 9) > 0.5).float()
    shards = [log_likelihood(small.vae.model, small.vae.guide, x, number, shard=(number, 2)) for number in (1, 2)]
    with pytest.raises(ValueError, match="expected shards with one num_samples; got 1, 2"):
        join_shards(shards)


def invoked(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments])


def refused(words, *arguments):
    result = invoked(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = [each for each in result.stderr.splitlines() if not each.startswith("warning")]
    assert words in line
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["evaluate", "bounds"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--shard", "0/16"), "expected a shard from 1/16 to 16/16; got 0/16"),
        (("--shard", "17/16"), "expected a shard from 1/16 to 16/16; got 17/16"),
        (("--shard", "1/0"), "expected a shard from 1/1 to 1/1; got 1/0"),
        (("--shard", "1/99999"), "expected a shard from 1/10000 to 10000/10000; got 1/99999"),
        (("--shard", "x"), "expected a shard as I/N, such as 3/16; got 'x'"),
        (("--shard", "-1/2"), "expected a shard as I/N, such as 3/16; got '-1/2'"),
        (("--shard", "1/2", "--merge"), "expected one of --shard, --merge and --shards; got more"),
        (("--shards", "99999"), "expected a shard from 1/10000 to 10000/10000"),
        (("--merge",), "to merge; there are none: measure them by --shard 1/N, 2/N, ..."),
    ],
)
def test_bad_shards_are_a_line(command, flags, words, small):
    refused(words, command, small.folder, *flags)


def test_what_does_not_belong_together_is_a_line(small):
    run = str(small.folder)
    first = small.measure_shard((1, 3), 20, seed=1)
    refused(
        f"expected all 3 shards; missing are 2, 3: pyrovae evaluate {run} --shard 2/3 --samples 20 --seed 1",
        "evaluate",
        run,
        "--merge",
    )
    refused("it is one of seed 1 and not 0: remove", "evaluate", run, "--shard", "2/3", "--samples", 20)
    refused(
        "it is one of samples 20 and not 30, 3 shards and not 2", "evaluate", run, "--shards", 2, "--samples", 30, "--seed", 1
    )
    refused("it is one of samples 20 and not 30", "evaluate", run, "--merge", "--samples", 30)
    measured = first.stat().st_mtime_ns
    assert invoked("evaluate", run, "--shard", "1/3", "--samples", 20, "--seed", 1).exit_code == 0
    assert first.stat().st_mtime_ns == measured, "what is there is left alone"
    with torch.no_grad():
        next(small.vae.parameters()).add_(1)
    small.save_weights()
    refused("it is one of other weights", "evaluate", run, "--merge")
    refused("it is one of other weights", "evaluate", run, "--shard", "2/3", "--samples", 20, "--seed", 1)


def test_a_damaged_shard_is_a_line_and_is_measured_again(small):
    paths = [small.measure_shard((number, 2), 20) for number in (1, 2)]
    whole = small.measure(20)
    content = paths[0].read_bytes()
    for damage in (
        content[:100],
        content[:-8],
        b"",
        content.replace(b'\\"shard\\": [1', b'\\"shard\\": [2'),
        paths[1].read_bytes(),
    ):
        paths[0].write_bytes(damage)
        refused(f"{paths[0]}: expected a measured shard; got", "evaluate", small.folder, "--merge")
    small.measure_shard((1, 2), 20)
    assert paths[0].read_bytes() != paths[1].read_bytes()
    assert_same(small.merged_evaluation(), whole)
    paths[1].unlink()
    paths[1].symlink_to(paths[0])
    refused("expected a measured shard; got", "evaluate", small.folder, "--merge")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda estimates: estimates["sampled"].per_image.resize_(3), "expected sampled"),
        (
            lambda estimates: estimates["sampled"].__dict__.update(pareto_k=torch.zeros(100).int()),
            "expected sampled.pareto_k as a number",
        ),
        (lambda estimates: estimates["sampled"].__dict__.update(num_samples=-1), "expected sampled.num_samples as int"),
        (lambda estimates: estimates["sampled"].__dict__.pop("pareto_k"), "pareto_k"),
        (lambda estimates: estimates.update(other=Estimates(torch.zeros(100))), "other"),
    ],
)
def test_estimates_that_do_not_fit_are_refused(change, words, small):
    path = small.measure_shard((1, 2), 20)
    part = Part.load(path, 2**20)
    change(part.estimates)
    part.save(path)
    refused(words, "evaluate", small.folder, "--merge")


def test_shards_that_hold_other_numbers_of_images_are_refused(small):
    for number in (1, 2):
        path = small.measure_shard((number, 2), 20)
    part = Part.load(path, 2**20)
    for name, value in vars(part.estimates["sampled"]).items():
        if isinstance(value, torch.Tensor):
            part.estimates["sampled"].__dict__[name] = value[..., :7]
    part.save(path)
    refused("expected 250 images; got 107", "evaluate", small.folder, "--merge")


def test_the_command_measures_all_shards_and_goes_on_with_those_that_are_there(small):
    """Shards of bounds lie beside them and stay; so does an evaluation of more samples."""
    whole = small.evaluate(20, seed=2)
    small.measure_shard((2, 3), 20, seed=2)
    small.bound_shard((1, 2), **BOUNDS)
    (small.folder / "evaluations" / "test.json").unlink()
    flags = ("--samples", 20, "--seed", 2, "--workers", 1)
    result = invoked("evaluate", small.folder, "--shards", 3, *flags)
    assert result.exit_code == 0, result.output
    assert "shard 1/3 is done" in result.stderr
    assert "shard 2/3" not in result.stderr
    assert_same(Evaluation.load(small.folder), whole)
    assert (small.folder / "evaluations" / "test.bounds-shards").exists()
    sizes = ("--images", 10, "--temperatures", 3, "--samples", 40, "--workers", 1)
    assert invoked("bounds", small.folder, "--shards", 2, *sizes).exit_code == 0
    assert not (small.folder / "evaluations" / "test.bounds-shards").exists()
    result = invoked("evaluate", small.folder, "--shards", 2, "--samples", 10, "--workers", 1)
    assert "this one of 10 is not kept" in result.stderr
    assert_same(Evaluation.load(small.folder), whole)
    assert not list((small.folder / "evaluations").glob("*-shards"))


def test_no_link_leads_out_of_the_run_folder(small, tmp_path):
    small.measure_shard((1, 1), 2)
    for folder in (small.folder / "evaluations" / "test.evaluate-shards", small.folder / "evaluations"):
        folder.rename(tmp_path / folder.name)
        folder.symlink_to(tmp_path / folder.name)
        with pytest.raises(InputError):
            small.merge_evaluation()
        with pytest.raises(InputError):
            small.measure_shard((1, 1), 2)
        folder.unlink()
        (tmp_path / folder.name).rename(folder)
    (tmp_path / "link").symlink_to(small.folder)
    assert Run.load(tmp_path / "link").merge_evaluation().num_samples == 2


@pytest.mark.slow
def test_a_worker_that_is_killed_is_made_up_for(small, data):
    """The processes backend starts what was lost again; the bits are those of the whole."""
    dataset, settings = small.dataset(), {"samples": 2_000, "seed": 0}
    whole = small.measure(2_000, dataset=dataset)
    killed = threading.Event()

    def kill():
        deadline = time.monotonic() + 120
        while not killed.is_set() and time.monotonic() < deadline:
            found = [each for each in children() if "loky" in command_of(each) and "resource" not in command_of(each)]
            if found:
                os.kill(found[0], signal.SIGKILL)
                killed.set()
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    threads = torch.get_num_threads()
    failures = measure_shards(small, "evaluate", 3, settings, dataset, workers=2, threads=threads, root=str(data))
    killer.join()
    assert killed.is_set()
    assert not failures
    assert_same(small.merge_evaluation(), whole)


def children():
    """The processes that this one started."""
    return [int(each) for each in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]


def command_of(process):
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def test_a_measurement_is_of_the_weights_at_hand(small):
    dataset, settings = small.dataset(), {"samples": 2, "seed": 0}
    before = Measurement.of(small, "evaluate", settings, dataset)
    assert Measurement.of(Run.load(small.folder), "evaluate", settings, dataset) == before
    with torch.no_grad():
        next(small.vae.parameters()).mul_(2)
    assert before.differences(Measurement.of(small, "evaluate", settings, dataset)) == ["other weights"]
