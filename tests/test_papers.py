"""The papers' experiments: what the table says is possible, verdicts are calibrated, and a call that goes on ends alike."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pyrovae.cli import main
from resumption import SMALL, grey

from pyrovae.data.benchmarks import DATASETS
from pyrovae.errors import InputError
from pyrovae.evaluation.gaps import inference_gaps
from pyrovae.evaluation.latents import kl_by_layer
from pyrovae.experiments import training
from pyrovae.experiments.building import assemble
from pyrovae.experiments.papers import members, one_dimension, reproducing, writing
from pyrovae.experiments.papers.experiment import Alike, Experiment, InRange, More, Statement, Times
from pyrovae.experiments.papers.outcome import Outcome
from pyrovae.experiments.papers.progress import operations, progress_of
from pyrovae.experiments.papers.quantities import QUANTITIES, Estimate, _count, combine_seeds
from pyrovae.experiments.papers.schedules import shorten_recipe
from pyrovae.experiments.papers.table import PAPERS
from pyrovae.experiments.papers.verdicts import FAILS, HOLDS, UNDECIDED, UNTESTED, verdict_on
from pyrovae.experiments.pictures.kinds import KINDS
from pyrovae.experiments.pictures.views import View
from pyrovae.experiments.published import RECIPES
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run

# The table.


@pytest.mark.parametrize("name", PAPERS)
def test_an_experiment_names_only_what_there_is(name):
    experiment = PAPERS[name]
    assert re.fullmatch(
        r"(latent-activity|vampprior-project|ladder-vae|vae-tutorial|iwae)-(figure|table|appendix)-[\d.a]+|pyrovae-(ablation|best)",
        name,
    )
    for claim in (claim for each in experiment.statements for claim in each.claims):
        assert set(claim.names) <= set(experiment.recipes), claim
        assert claim.quantity in QUANTITIES, claim
    for title, trainings in experiment.pictures.items():
        assert title.partition(" ")[0] in KINDS, title
        assert set(trainings) <= set(experiment.recipes), title
    assert set(experiment.columns) <= set(QUANTITIES)
    assert set(experiment.published) <= set(experiment.recipes)
    for figures in experiment.published.values():
        assert set(figures) <= set(experiment.columns)
    assert bool(experiment.compute) != bool(experiment.recipes)


def test_every_recipe_of_the_papers_can_be_built():
    seen = set()
    for name, experiment in PAPERS.items():
        for training_name, recipe in experiment.recipes.items():
            chosen = replace(recipe, likelihood="bernoulli" if recipe.likelihood == "auto" else recipe.likelihood, epochs=1)
            if repr(chosen) not in seen:
                seen.add(repr(chosen))
                examples = torch.zeros(chosen.num_components, int(np.prod(DATASETS[recipe.dataset].shape)))
                vae = assemble(chosen, DATASETS[recipe.dataset].shape, 10, examples)
                assert len(list(vae.parameters())), (name, training_name)
    assert len(seen) > 80


def test_every_published_table_is_in_the_experiments():
    """Of the papers' tables: each figure that is in their texts."""
    printed = {name: sum(len(each) for each in experiment.published.values()) for name, experiment in PAPERS.items()}
    assert printed["vampprior-project-table-1"] == 12
    assert printed["ladder-vae-table-2"] == 2 * 19
    assert printed["iwae-table-1"] == 10
    assert printed["ladder-vae-table-1"] == 4
    assert PAPERS["ladder-vae-table-2"].published["LVAE+BN+WU 64-32-16-8-4"] == {"log_likelihood": -102.11}
    assert PAPERS["vampprior-project-table-1"].published["caltech101-silhouettes VP"] == {"log_likelihood": -135.15}


# Schedules.


@settings(deadline=None, derandomize=True)
@given(share=st.floats(1e-5, 1.0), name=st.sampled_from(["ladder", "ladder-finetuned", "iwae-1", "activity-warmup"]))
def test_a_shortened_schedule_has_its_share_of_epochs(share, name):
    whole = RECIPES[name]
    short = shorten_recipe(whole, share)
    assert short.total_epochs == max(1, round(whole.total_epochs * share))
    for stage in short.schedule:
        assert stage.epochs >= 1
        assert stage.warmup_epochs <= stage.epochs * whole.schedule[0].warmup_epochs / whole.schedule[0].epochs + 0.01
    rates = [stage.learning_rate for stage in short.schedule]
    assert rates == sorted(rates, reverse=True)
    assert not replace(short, epochs=whole.epochs, stages=whole.stages, warmup_epochs=whole.warmup_epochs).differences(whole)


def test_a_shortened_schedule_has_its_share_of_the_warm_up_of_the_learning_rate():
    whole = Recipe(epochs=300, learning_rate_warmup=2000)
    assert shorten_recipe(whole, 0.01).learning_rate_warmup == 20
    staged = shorten_recipe(whole.replace(stages=({"epochs": 100}, {"learning_rate_warmup": 500})), 0.1)
    assert [stage.learning_rate_warmup for stage in staged.schedule] == [200, 50]


def test_a_whole_share_is_the_recipe_itself():
    assert all(shorten_recipe(recipe, 1.0) is recipe for recipe in RECIPES.values())


def test_a_longer_training_takes_more_operations():
    recipe = RECIPES["iwae-1"]
    assert operations(recipe) > 5 * operations(recipe.replace(num_particles=1))
    assert operations(RECIPES["ladder"]) == pytest.approx(2 * operations(RECIPES["ladder"].replace(epochs=1000)))


# Verdicts.


def estimates(mean, *, size=400, seed=0, common=0.0):
    values = mean + np.random.default_rng(seed).normal(size=size) + common * np.random.default_rng(99).normal(size=size)
    return [Estimate.over_images(values)]


def verdict(claims, **found):
    found = {name: {"elbo": each, "active_units": each} for name, each in found.items()}
    return verdict_on(Statement("so it is", claims, "this is why"), found)


@pytest.mark.parametrize(
    ("claim", "a", "b", "expected"),
    [
        (More("elbo", "a", "b"), 1.0, 0.0, HOLDS),
        (More("elbo", "a", "b"), 0.0, 1.0, FAILS),
        (More("elbo", "a", "b"), 0.02, 0.0, UNDECIDED),
        (More("elbo", "a", "b", by=0.5), 1.0, 0.0, HOLDS),
        (More("elbo", "a", "b", by=2.0), 1.0, 0.0, FAILS),
        (More("elbo", "a", "b", by=-0.5), 0.0, 0.2, HOLDS),
        (Alike("elbo", "a", "b", 1.0), 0.5, 0.0, HOLDS),
        (Alike("elbo", "a", "b", 0.5), 2.0, 0.0, FAILS),
        (Alike("elbo", "a", "b", 0.5), 0.0, 2.0, FAILS),
        (Alike("elbo", "a", "b", 0.5), 0.5, 0.0, UNDECIDED),
        (InRange("elbo", "a", 0.0, 2.0), 1.0, 0.0, HOLDS),
        (InRange("elbo", "a", 0.0, 2.0), 3.0, 0.0, FAILS),
        (InRange("elbo", "a", 0.0, 2.0), 2.0, 0.0, UNDECIDED),
        (InRange("elbo", "a", 0.1, np.inf), 1.0, 0.0, HOLDS),
    ],
    ids=str,
)
def test_a_claim_holds_fails_or_stays_open(claim, a, b, expected):
    found = verdict((claim,), a=estimates(a, common=10.0), b=estimates(b, seed=1, common=10.0))
    if isinstance(claim, InRange):
        found = verdict((claim,), a=estimates(a))
    assert found.verdict == expected, found.evidence
    assert bool(found.reason) == (expected != HOLDS)


def counted(value):
    return [Estimate(float(value), 0.0)]


def test_counts_without_doubt_are_compared_as_they_are():
    assert verdict((More("active_units", "a", "b"),), a=counted(3), b=counted(3)).verdict == FAILS
    assert verdict((More("active_units", "a", "b"),), a=counted(4), b=counted(3)).verdict == HOLDS
    assert verdict((Alike("active_units", "a", "b", 2),), a=counted(5), b=counted(3)).verdict == HOLDS
    assert verdict((InRange("active_units", "a", 2, 2),), a=counted(2)).verdict == HOLDS


def test_a_statement_needs_all_its_claims_and_says_what_it_lacks():
    up, down = More("elbo", "a", "b"), More("elbo", "b", "a")
    both = {"a": estimates(1.0, common=5), "b": estimates(0.0, seed=1, common=5)}
    assert verdict((up, down), **both).verdict == FAILS
    assert verdict((up, InRange("elbo", "a", 1.0, 2.0)), **both).verdict == UNDECIDED
    missing = verdict((up,), a=both["a"])
    assert missing.verdict == UNTESTED
    assert missing.evidence == ("without b",)
    assert verdict((up, More("elbo", "a", "c")), **both).verdict == UNTESTED
    refuted = verdict((down, More("elbo", "a", "c")), **both)
    assert refuted.verdict == FAILS
    assert refuted.evidence[1:] == ("without c",)


def test_a_statement_of_equal_models_is_decided_wrongly_one_time_in_twenty():
    """500 triples of differences of equal means: the false alarms of all together stay below 0.05 and three errors of it, and
    the little by which percentiles of 50 values are too narrow: 0.09."""
    wrong = 0
    for seed in range(500):
        a, b, c, d = (estimates(0.0, size=50, seed=10_000 + 4 * seed + number) for number in range(4))
        claims = (Alike("elbo", "a", "b", 1e-9), Alike("elbo", "b", "c", 1e-9), Alike("elbo", "c", "d", 1e-9))
        wrong += verdict(claims, a=a, b=b, c=c, d=d).verdict == FAILS
    assert 5 <= wrong <= 45


def test_seeds_widen_what_images_leave_narrow():
    def of_seeds(*means):
        return [estimate for number, mean in enumerate(means) for estimate in estimates(mean, size=10_000, seed=number)]

    one = verdict((More("elbo", "a", "b"),), a=of_seeds(0.5), b=of_seeds(0.0))
    several = verdict((More("elbo", "a", "b"),), a=of_seeds(0.0, 0.5, 1.0), b=of_seeds(-0.5, 0.0, 0.5))
    assert (one.verdict, several.verdict) == (HOLDS, UNDECIDED)
    assert combine_seeds(of_seeds(0.0, 0.5, 1.0)).standard_error == pytest.approx(0.5 / 3**0.5, rel=0.05)


# Quantities.


def test_the_doubt_of_a_count_is_that_of_units_near_the_threshold():
    """1,000 repetitions of 300 images: the spread of the count, whose error of 2.2 % is a fifth of the tolerance."""
    generator = np.random.default_rng(0)
    scales = np.sqrt([0.1, 0.1, 0.095, 0.2, 0.01])
    draws = generator.normal(size=(1000, 300, 5)) * scales
    counts = (draws.var(1, ddof=1) > 0.1).sum(1)
    assert _count(scales**2, 0.1, 300).standard_error == pytest.approx(counts.std(), rel=0.1)


@pytest.mark.parametrize("spread", [1.0, 0.3])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_methods_of_few_seeds_are_told_apart_one_time_in_twenty(seeds, spread):
    """2,000 pairs of counts, without doubt but for their seeds: within three errors of 0.05 (0.065), and not much below, where
    true differences would be missed: with two seeds, whose degrees of freedom are rough, Welch's interval errs at 0.02."""
    generator, wrong = np.random.default_rng(0), 0
    for _ in range(2000):
        a, b = ([Estimate(float(value), 0.0) for value in generator.normal(size=seeds) * each] for each in (1.0, spread))
        wrong += verdict((More("active_units", "a", "b"),), a=a, b=b).verdict != UNDECIDED
    assert 30 <= wrong <= 130


def test_a_bound_that_still_rises_leaves_a_difference_open():
    def risen(mean, rise, seed):
        return [replace(each, rise=rise) for each in estimates(mean, seed=seed, common=10.0)]

    claim = (More("elbo", "a", "b"),)
    assert verdict(claim, a=risen(0.5, 0.3, 0), b=risen(0.0, 0.3, 1)).verdict == HOLDS
    assert verdict(claim, a=risen(0.5, 0.3, 0), b=risen(0.0, 1.3, 1)).verdict == UNDECIDED


def test_a_multiple_is_an_interval_of_the_ratio():
    times = [Estimate(3.0, 0.01)], [Estimate(1.0, 0.01)]
    assert verdict((Times("elbo", "a", "b", 2.5, 3.5),), a=times[0], b=times[1]).verdict == HOLDS
    assert verdict((Times("elbo", "a", "b", 4.0, 6.0),), a=times[0], b=times[1]).verdict == FAILS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = training.train(SMALL.replace(epochs=3), tmp_path_factory.mktemp("papers") / "run", dataset=grey(), engine="eager")
    made.evaluate(20, dataset=grey())
    return made


def test_quantities_of_a_run_are_those_of_its_evaluation(run):
    view = View(run, "run", grey())
    found = {name: each.of(view) for name, each in QUANTITIES.items()}
    assert found["elbo"].value == pytest.approx(run.evaluation.elbo, rel=1e-5)
    assert found["log_likelihood"].standard_error == pytest.approx(run.evaluation.standard_error, rel=1e-5)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        right = kl_by_layer(run.vae.model, run.vae.guide, grey().test)
    assert found["kl_z1"].value == pytest.approx(right["z1"], abs=5 * found["kl_z1"].standard_error + 1e-3)
    assert found["class_purity"] is None  # no classes
    assert found["kl_z3"] is None
    assert found["seconds_per_epoch"].value > 0
    assert found["annealed"] is None  # no bounds


def test_the_parts_of_the_loss_make_up_the_bound_and_its_gap(run):
    view = View(run, "run", grey())
    found = {name: each.of(view) for name, each in QUANTITIES.items()}
    assert found["rate"].value == pytest.approx(sum(found[f"kl_z{layer}"].value for layer in (1, 2)))
    assert -found["rate"].value - found["distortion"].value == pytest.approx(found["elbo"].value)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        gaps = inference_gaps(run.vae.model, run.vae.guide, grey().test[:100])
    for name in ("approximation", "amortization"):
        # False alarm at 5 standard errors: below one in a million.
        error = math.hypot(getattr(gaps, name).standard_error, found[f"{name}_gap"].standard_error)
        assert abs(found[f"{name}_gap"].value - getattr(gaps, name).mean) < 5 * error + 1e-3
    marginal_kl, top = found["marginal_kl"], found["kl_z2"]
    assert marginal_kl.value < top.value + 5 * math.hypot(marginal_kl.standard_error, top.standard_error)


# Reproducing.


TINY = {
    "one layer": SMALL.replace(latent_sizes=(3,), hidden_sizes=(8,), epochs=4),
    "two layers": SMALL.replace(epochs=4),
}
reproduce = partial(reproducing.reproduce, engine="eager")
EXPERIMENT = Experiment(
    shows="a small thing",
    source="Nobody, table 1",
    recipes=TINY,
    columns=("elbo", "log_likelihood", "active_units"),
    pictures={"learning-curves": (), "manifold of one": ("one layer",)},
    published={"one layer": {"log_likelihood": -7.0}},
    num_samples=20,
    short_samples=10,
    statements=(Statement("more is more", (More("log_likelihood", "two layers", "one layer"),), "who knows"),),
    remarks=("read this",),
)


def load(recipe):
    if recipe.dataset == "elsewhere":
        raise InputError("dataset 'elsewhere': expected its files; download them from https://example.org")
    return grey()


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(DATASETS, "grey", replace(DATASETS["mnist-5k"], shape=(1, 3, 4), sizes=(120, 30, 20)))
    monkeypatch.setitem(PAPERS, "tiny-table-1", EXPERIMENT)
    monkeypatch.setitem(PAPERS, "tiny-table-2", replace(EXPERIMENT, recipes={"one layer": TINY["one layer"]}, statements=()))
    lost = TINY | {"lost": SMALL.replace(dataset="elsewhere")}
    monkeypatch.setitem(PAPERS, "tiny-table-3", replace(EXPERIMENT, recipes=lost, statements=()))


def plain(outcome):
    return json.loads(json.dumps(outcome.as_dict()))


def remade(folder):
    values = json.loads((folder / "outcome.json").read_text())
    for row in values["rows"]:
        row["seconds"] = 0
        row["figures"].pop("seconds per epoch", None)
    return {**values, "seconds": 0, "environment": {}}


def test_bounds_made_later_enter_the_table(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(PAPERS, "tiny-table-1", replace(EXPERIMENT, columns=("log_likelihood", "annealed")))
    first = reproduce("tiny-table-1", tmp_path / "one", epochs=1, load=load)
    assert not any("annealed" in title for row in first.rows for title in row.figures)
    for row in first.rows:
        Run.load(tmp_path / "runs" / row.runs[0]).bounds(4, num_samples=5, num_temperatures=3, num_chains=2, dataset=grey())
    second = reproduce("tiny-table-1", tmp_path / "one", epochs=1, load=load)
    assert all(math.isfinite(row.figures["annealed less sampled log p, nats"].value) for row in second.rows)


def test_a_table_is_made_once(tiny, tmp_path, monkeypatch):
    made = reproduce("tiny-table-1", tmp_path / "one", epochs=2, load=load)
    assert [row.name for row in made.rows] == list(TINY)
    assert made.rows[0].differs == ["2 of 4 epochs", "K = 10, not 20"]
    assert "| one layer | 2 | " in made.markdown()
    assert re.search(r"\| -7\.00 \| [+-]\d+\.\d\d \|", made.markdown())
    assert any("Not drawn: manifold of one" in each for each in made.remarks)
    assert (tmp_path / "one" / "figures" / "learning-curves.png").exists()
    page = (tmp_path / "one" / "report.html").read_text()
    assert all(text in page for text in ("more is more", "shortened", "read this", "<svg"))
    assert plain(Outcome.load(tmp_path / "one" / "outcome.json")) == plain(made)
    assert len(list((tmp_path / "runs").glob("grey*"))) == 2

    monkeypatch.setattr(members, "train", None)
    monkeypatch.setattr(Run, "measure", None)
    monkeypatch.setattr(writing, "draw", None)
    again = reproduce("tiny-table-1", tmp_path / "one", load=load)
    assert plain(again) == plain(made)


def test_experiments_share_runs(tiny, tmp_path, monkeypatch):
    reproduce("tiny-table-1", tmp_path / "one", epochs=2, load=load)
    monkeypatch.setattr(members, "train", None)
    shared = reproduce("tiny-table-2", tmp_path / "two", epochs=2, load=load)
    assert [row.name for row in shared.rows] == ["one layer"]
    assert progress_of("tiny-table-2", tmp_path / "two", 1e9).at_hand == "made, 1 of 1 trainings"
    assert progress_of("tiny-table-1", tmp_path / "other", 1e9).at_hand == "not made, 2 of 2 trainings"


def test_a_schedule_of_minutes_is_measured_once_and_shares_what_is_at_hand(tiny, tmp_path):
    first = reproduce("tiny-table-1", tmp_path / "one", minutes=0.003, load=load)
    plan = json.loads((tmp_path / "one" / "plan.json").read_text())
    assert 1 <= plan["epochs"] <= 4
    assert first.num_samples == 10
    reproduce("tiny-table-2", tmp_path / "two", minutes=0.003, load=load)
    assert len(list((tmp_path / "runs").glob("grey*"))) == 2


def test_only_trains_some_and_keeps_the_others_in_the_table(tiny, tmp_path):
    first = reproduce("tiny-table-1", tmp_path / "one", epochs=1, only=("two",), load=load)
    assert [row.name for row in first.rows] == ["two layers"]
    assert first.missing == {"one layer": "left out by --only, and not made before"}
    assert not first.full
    reproduce("tiny-table-1", tmp_path / "one", only=("one layer",), load=load)
    again = reproduce("tiny-table-1", tmp_path / "one", only=("two layers",), load=load)
    assert [row.name for row in again.rows] == list(TINY)
    assert not again.missing


def test_a_table_has_one_number_of_samples(tiny, tmp_path):
    reproduce("tiny-table-2", tmp_path / "two", epochs=1, num_samples=30, load=load)
    made = reproduce("tiny-table-1", tmp_path / "one", epochs=1, num_samples=10, load=load)
    assert made.num_samples == 30
    evaluations = [Run.load(tmp_path / "runs" / name).evaluation.num_samples for row in made.rows for name in row.runs]
    assert evaluations == [30, 30]


def test_a_table_is_not_replaced_by_one_whose_data_are_gone(tiny, tmp_path):
    made = reproduce("tiny-table-3", tmp_path / "one", epochs=1, load=lambda recipe: replace(grey(), name=recipe.dataset))
    assert not made.missing
    with pytest.raises(InputError, match="expected the data of the table that was made there; lost: dataset 'elsewhere'"):
        reproduce("tiny-table-3", tmp_path / "one", load=load)
    assert plain(Outcome.load(tmp_path / "one" / "outcome.json")) == plain(made)


def test_a_death_before_the_plan_blocks_nothing(tiny, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / ".plan.json.new").write_text("{")
    assert reproduce("tiny-table-2", tmp_path / "one", epochs=1, load=load).rows


def test_seeds_make_trainings_of_their_own(tiny, tmp_path):
    made = reproduce("tiny-table-2", tmp_path / "one", epochs=1, seeds=2, load=load)
    assert len(made.rows[0].runs) == 2
    assert len({Run.load(tmp_path / "runs" / name).recipe.seed for name in made.rows[0].runs}) == 2
    assert "2 seeds" in made.schedule


def test_data_that_are_not_at_hand_are_told_of_and_the_rest_is_made(tiny, tmp_path):
    made = reproduce("tiny-table-3", tmp_path / "one", epochs=1, load=load)
    assert [row.name for row in made.rows] == list(TINY)
    assert "https://example.org" in made.missing["lost"]
    assert "Left out: lost" in made.markdown()
    with pytest.raises(InputError, match=r"tiny-table-3: dataset 'elsewhere'.*https://example.org"):
        reproduce("tiny-table-3", tmp_path / "two", epochs=1, only=("lost",), load=load)


def test_what_another_process_trains_is_waited_for(tiny, tmp_path, monkeypatch):
    """The folder of the first training is held; when it is let go of, it is trained too."""
    reproduce("tiny-table-1", tmp_path / "before", epochs=1, load=load)
    first = next((tmp_path / "runs").glob("grey*"))
    (first / "evaluations" / "test.json").unlink()
    held = members._alone(first)
    held.__enter__()
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        if len(waited) == 2:
            held.__exit__(None, None, None)

    monkeypatch.setattr(members.time, "sleep", sleep)
    made = reproduce("tiny-table-1", tmp_path / "one", epochs=1, load=load)
    assert len(made.rows) == 2
    assert waited.count(members.WAIT_SECONDS) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "ladder-vae-figur-3"}, "did you mean 'ladder-vae-figure-3'"),
        ({"name": "tiny-table-1", "epochs": 1, "full": True}, "expected one of --epochs, --full and --minutes"),
        ({"name": "tiny-table-1", "epochs": 5}, "expected at most 4 epochs, which is the paper's schedule; got 5"),
        ({"name": "tiny-table-1", "only": ("three",)}, "expected names of trainings out of one layer; two layers; got 'three'"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_bad_input_is_refused_in_a_line(arguments, words, tiny, tmp_path):
    with pytest.raises(InputError, match=re.escape(words)):
        reproduce(**arguments, folder=tmp_path / "one", load=load)
    assert not (tmp_path / "one").exists()


def test_the_folder_of_another_experiment_is_refused(tiny, tmp_path):
    reproduce("tiny-table-2", tmp_path / "one", epochs=1, load=load)
    with pytest.raises(InputError, match="expected a folder of tiny-table-1; it holds 'tiny-table-2': choose another --output"):
        reproduce("tiny-table-1", tmp_path / "one", epochs=1, load=load)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="expected a new or an empty folder"):
        reproduce("tiny-table-1", tmp_path / "full", epochs=1, load=load)
    (tmp_path / "one" / "plan.json").write_text("[")
    with pytest.raises(InputError, match=r"expected a plan.json of 'pyrovae reproduce'.*remove it"):
        reproduce("tiny-table-2", tmp_path / "one", epochs=1, load=load)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import test_papers as t
t.PAPERS["tiny-table-1"] = t.EXPERIMENT
t.reproduce("tiny-table-1", sys.argv[1], epochs=3, load=t.load)
"""


@pytest.mark.slow
def test_whenever_it_is_killed_the_next_call_ends_in_the_same_table(tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parent))

    def start(folder):
        command = [sys.executable, "-c", code, str(folder)]
        return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)

    begun = time.monotonic()
    assert start(tmp_path / "straight" / "one").wait() == 0
    whole = time.monotonic() - begun
    generator, kills = np.random.default_rng(0), 0
    for number in range(2):
        folder = tmp_path / str(number) / "one"
        for _ in range(3):
            process = start(folder)
            time.sleep(whole * generator.uniform(0.3, 0.8))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        assert start(folder).wait() == 0
        assert remade(folder) == remade(tmp_path / "straight" / "one")
    assert kills >= 3


def test_the_divergence_in_one_dimension_falls_with_the_square_of_sigma():
    x = torch.linspace(-3, 4, 15, dtype=torch.float64)
    (coarse, _), (fine, evidence) = (one_dimension.divergences(x, sigma) for sigma in (0.01, 0.005))
    assert (fine > -1e-12).all()
    assert fine.max() < 1e-3
    torch.testing.assert_close(coarse.sum() / fine.sum(), torch.tensor(4.0).double(), rtol=0.02, atol=0)
    torch.testing.assert_close(evidence, one_dimension.data_log_density(x), rtol=0, atol=1e-3)


def test_the_command_line_lists_experiments_and_makes_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = CliRunner().invoke(main, ["reproduce", "--json"])
    assert set(json.loads(listed.stdout)) == set(PAPERS)
    made = CliRunner().invoke(main, ["reproduce", "vae-tutorial-appendix-a"])
    assert made.exit_code == 0, made.output
    assert "reproduced/vae-tutorial-appendix-a: table.md, table.csv, report.html, figures/falling-divergence.png" in made.stdout
    assert "holds" in (tmp_path / "reproduced" / "vae-tutorial-appendix-a" / "table.md").read_text()
    again = CliRunner().invoke(main, ["reproduce", "vae-tutorial-appendix-a", "--json"])
    assert json.loads(again.stdout)["experiment"] == "vae-tutorial-appendix-a"
    wrong = CliRunner().invoke(main, ["reproduce", "vae-tutorial-apendix-a"])
    assert isinstance(wrong.exception, SystemExit)


# What is kept.


def kept_pages():
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    try:
        import results
    finally:
        sys.path.pop(0)
    return results


def test_the_pages_are_those_of_the_records_that_are_kept():
    differing = [path.name for path, text in kept_pages().pages().items() if path.read_text() != text]
    assert not differing, f"{differing}: run 'python benchmarks/results.py'"


def test_a_record_is_kept_without_what_nobody_needs(tiny, tmp_path, monkeypatch):
    results = kept_pages()
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    reproduce("tiny-table-1", tmp_path / "one", epochs=1, load=load)
    results.keep(tmp_path / "one")
    again = Outcome.load(tmp_path / "tiny-table-1.json")
    assert again.rows[0].figures["ELBO, nats"].value < 0
    assert "command" not in again.environment
    assert (tmp_path / "tiny-table-1.json").stat().st_size < 10_000
