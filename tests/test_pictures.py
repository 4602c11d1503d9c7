"""Pictures of runs: each kind of the gallery, what it is of, and why it cannot be drawn of other runs."""

import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pictured import dataset, gallery, trained, views
from pyrovae.cli import main

from pyrovae import plots
from pyrovae.errors import InputError
from pyrovae.experiments.pictures.gallery import draw, drawable, obstacle, save_picture
from pyrovae.experiments.pictures.kinds import KINDS
from pyrovae.experiments.pictures.views import SHOWN, names_of
from pyrovae.experiments.run import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for name in gallery.RECIPES:
        found[name] = trained(name, folder / name)
    run, data = found["ladder-3"]
    run.bounds(4, num_temperatures=3, num_chains=2, num_samples=10, dataset=data)
    return found


def of_gallery(runs, kind):
    return views(*(runs[name] for name in gallery.RUNS.get(kind, ("ladder-3",))))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_drawn_the_same_each_time_and_moves_nothing(runs, kind):
    shown = of_gallery(runs, kind)
    before = [{name: value.clone() for name, value in view.run.vae.state_dict().items()} for view in shown]
    noise, mode = torch.get_rng_state(), [view.run.vae.training for view in shown]
    one, other = (plots.encode_figure(draw(kind, of_gallery(runs, kind))) for _ in range(2))
    assert one == other
    assert torch.equal(torch.get_rng_state(), noise)
    assert [view.run.vae.training for view in shown] == mode
    for view, state in zip(shown, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in view.run.vae.state_dict().items())


def test_every_kind_says_what_it_shows_and_how_to_read_it():
    for name, kind in KINDS.items():
        assert kind.shows, name
        assert kind.reading.endswith("."), name
        assert kind.source, name


SENSELESS = {
    "by-depth": (("vae", "iwae"), "it takes runs of different numbers of layers; these have 1"),
    "by-components": (("vamp-20",), "it takes runs of different numbers of pseudo-inputs; these have 2"),
    "encodings": (("ladder-3",), "it takes one latent layer of 2 units; the sizes of its layers are 4, 4, 4"),
    "manifold": (("vae",), "it takes one latent layer of 2 units; the sizes of its layers are 4"),
    "pseudo-inputs": (("vae",), "its prior is standard_normal, which has no pseudo-inputs"),
    "completions": (("vae",), "it is no conditional model"),
    "samples": (("cvae",), "it is a conditional model: see completions"),
    "layers": (("vae",), "it has one latent layer, and nothing above it to keep"),
    "kl-bars": (("regressor",), "it is a regressor, which has no latent"),
    "reconstructions": (("regressor",), "it is a regressor, which has no latent"),
    "interpolations": (("cvae",), "it is a conditional model"),
    "kl-heat-map": (("vamp-20",), "its prior is vamp, under which no unit has a KL of its own"),
}


@pytest.mark.parametrize("kind", SENSELESS)
def test_a_kind_that_makes_no_sense_says_why(runs, kind):
    names, reason = SENSELESS[kind]
    shown = views(*(runs[name] for name in names))
    assert reason in obstacle(kind, shown)
    assert kind not in set(drawable(shown))
    with pytest.raises(InputError, match=f"expected runs that {kind} can be drawn of"):
        draw(kind, shown)


def test_of_several_runs_those_are_drawn_that_can_be(runs):
    (axes,) = draw("kl-bars", views(runs["regressor"], runs["vae"])).axes
    assert len(axes.containers) == 1


def test_bars_and_heat_maps_are_those_of_evaluation_and_history(runs):
    (view,) = views(runs["ladder-3"])
    (axes,) = draw("kl-bars", [view]).axes
    assert [bar.get_height() for bar in axes.containers[0]] == list(view.evaluation.kl_by_layer.values())
    last = view.history[-1]["kl_by_unit"]
    for axes, layer in zip(draw("kl-heat-map", [view]).axes, ("z3", "z2", "z1"), strict=False):
        shown = 10 ** axes.images[0].get_array()[:, -1]
        np.testing.assert_allclose(shown, np.maximum(sorted(last[layer], reverse=True), 1e-3), rtol=1e-6)


def test_the_curve_of_importance_weighting_is_the_bound_that_was_trained(runs):
    (view,) = views(runs["iwae"])
    bound, _ = draw("learning-curves", [view]).axes
    assert bound.get_ylabel() == "L_5 (nats per example)"
    np.testing.assert_allclose(bound.lines[0].get_ydata(), [row["valid_iwelbo_5_nats"] for row in view.history])


def test_decoding_takes_given_latents_and_draws_or_means_of_the_others(runs):
    (view,) = views(runs["ladder-3"])
    latents = view.posterior(*view.test)
    model = view.run.vae.model
    with torch.no_grad():
        expected = model.likelihood(latents["z1"]).mean
        below = model.conditionals[1](latents["z3"]).mean
        at_means = model.likelihood(model.conditionals[0](below).mean).mean
    np.testing.assert_allclose(view.decode(latents), expected, atol=1e-6)
    np.testing.assert_allclose(view.decode({"z3": latents["z3"]}, at_means=True), at_means, atol=1e-6)
    assert not np.allclose(view.decode({"z3": latents["z3"]}), at_means), "draws are no means"
    drawn = view.draw_layer("z2", {"z3": latents["z3"]}, None, SHOWN)
    assert drawn.shape == latents["z2"].shape


def test_interpolations_begin_and_end_at_reconstructions(runs):
    (view,) = views(runs["vae"])
    axes = draw("interpolations", [view]).axes[0]
    canvas = axes.images[0].get_array()
    torch.manual_seed(0)
    x, context = view.some_images(6)
    latents = view.posterior(x, context)
    first, last = (view.decode({"z1": latents["z1"][[place]]}).reshape(6, 6) for place in (0, 1))
    np.testing.assert_allclose(canvas[:, 6:12], first, atol=1e-6)
    np.testing.assert_allclose(canvas[:, -12:-6], last, atol=1e-6)
    np.testing.assert_allclose(canvas[:, :6], x[0].reshape(6, 6))


def test_annealed_bounds_stand_as_far_above_the_curve_as_they_are_on_their_own_images(runs):
    (view,) = views(runs["ladder-3"])
    (axes,) = draw("sampled-curve", [view]).axes
    (band,) = axes.patches
    assert view.bounds.num_samples == 10
    assert band.get_y() == pytest.approx(view.evaluation.curve["10"] + view.bounds.test.difference)
    assert band.get_height() == pytest.approx(view.bounds.simulated.gap)


def test_families_are_named_by_what_they_differ_in(runs):
    shown = views(*(runs[name] for name in ("ladder-1", "ladder-2", "vae")))
    bound, likelihood = draw("by-depth", shown).axes
    assert {text.get_text() for text in bound.texts} == {"ladder, batch norm", "mean_field"}
    (line, *_), *_ = likelihood.containers
    expected = [view.evaluation.log_likelihood for view in shown[:2]]
    assert line.get_ydata().tolist() == pytest.approx(expected)


def test_extremes_are_the_images_of_the_highest_and_lowest_values(runs):
    (view,) = views(runs["vae"])
    highest, lowest = draw("extremes", [view]).axes
    values = np.sort(view.evaluation.per_image["log_likelihood"])
    assert [tick.get_text() for tick in highest.get_xticklabels()] == [f"{each:.0f}" for each in values[::-1][:SHOWN]]
    assert [tick.get_text() for tick in lowest.get_xticklabels()] == [f"{each:.0f}" for each in values[:SHOWN]]


def test_names_are_those_of_folders_and_the_one_setting_that_differs(runs):
    assert names_of([runs["vae"][0]]) == ["vae"]
    assert names_of([runs[name][0] for name in ("vamp-20", "vamp-100")]) == [
        "vamp-20 (num components 2)",
        "vamp-100 (num components 3)",
    ]
    assert names_of([runs["vae"][0], runs["ladder-3"][0]]) == ["vae", "ladder-3"]
    assert names_of([runs["vae"][0], runs["vae"][0]]) == ["1: vae", "2: vae"], "none vanishes behind another"


def test_what_was_measured_before_the_training_went_on_is_no_figure_of_it(runs, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(runs["ladder-3"][0].folder, folder)
    (view,) = views((Run.load(folder), dataset()))
    assert view.evaluation is not None
    assert view.bounds is not None
    lines = (folder / "history.jsonl").read_text()
    (folder / "history.jsonl").write_text(lines + lines.splitlines()[-1] + "\n")
    (view,) = views((Run.load(folder), dataset()))
    assert view.evaluation is None
    assert view.bounds is None
    assert "it was not evaluated as it is now" in obstacle("kl-bars", [view])


def test_a_folder_that_holds_what_no_training_writes_is_one_reason(runs, tmp_path):
    folder = tmp_path / "odd"
    shutil.copytree(runs["vae"][0].folder, folder)
    row = {"epoch": 1, "kl_weight": 1.0, "seconds": 1.0, "train_elbo_nats": -1.0, "kl_by_unit": {"z1": 3}}
    (folder / "history.jsonl").write_text(f"{json.dumps(row)}\n")
    (view,) = views((Run.load(folder), dataset()))
    assert "its folder holds what no training writes" in obstacle("kl-heat-map", [view])


@pytest.mark.parametrize("condition", ["label", "left-half", "mask"])
def test_conditional_models_of_every_kind_are_drawn(condition, tmp_path):
    (view,) = views(trained("vae", tmp_path / "r", condition=condition))
    for kind in ("completions", "reconstructions", "traversals"):
        assert draw(kind, [view]).axes, kind


def test_a_name_is_text_whatever_is_in_it(runs, tmp_path):
    folder = tmp_path / "$x_1$ & <b>\n"
    shutil.copytree(runs["vae"][0].folder, folder)
    (view,) = views((Run.load(folder), dataset()))
    figure = draw("kl-bars", [view, *views(runs["ladder-2"])])
    drawn = plots.encode_figure(figure, "svg").decode()
    assert "$x_1$ &amp; &lt;b&gt;" in drawn


def test_a_run_draws_one_picture_or_leaves_the_usual_ones(runs):
    run, data = runs["ladder-3"]
    assert run.draw("kl-bars", dataset=data).axes
    names = run.draw(dataset=data)
    assert "learning-curves.png" in names
    assert all((run.folder / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in names)
    with pytest.raises(InputError, match="got 'manifolt'; did you mean 'manifold'"):
        run.draw("manifolt", dataset=data)


def test_a_picture_goes_into_a_folder_that_is_made(runs, tmp_path):
    path = save_picture("kl-bars", views(runs["vae"]), tmp_path / "a" / "b", "svg")
    assert path == tmp_path / "a" / "b" / "kl-bars.svg"
    assert b"</svg>" in path.read_bytes()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="expected a folder to write the run into; got Not a directory"):
        save_picture("kl-bars", views(runs["vae"]), tmp_path / "file" / "b")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run of real digits, as the command line finds it."""
    folder = tmp_path_factory.mktemp("fitted") / "r"
    small = ("--latent-sizes", "2", "--hidden-sizes", "8", "--epochs", "2", "--samples", "5", "--json", "--engine", "eager")
    result = CliRunner().invoke(main, ["fit", *small, "--output", str(folder)])
    assert result.exit_code == 0, result.output
    return folder


def invoked(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.mark.slow
def test_the_command_line_draws_what_makes_sense_and_says_so(fitted, tmp_path):
    listed = invoked("plot", fitted, "--list")
    assert listed.exit_code == 0, listed.output
    for kind in KINDS:
        assert kind in listed.stdout
    assert "nothing above it to keep" in " ".join(listed.stdout.split())
    result = invoked("plot", fitted, "--format", "svg", "-o", tmp_path / "all")
    assert result.exit_code == 0, result.output
    drawn = {path.stem for path in (tmp_path / "all").iterdir()}
    assert drawn == {"learning-curves", "active-units", "activity-heat-map", "kl-heat-map", "kl-bars", "projections"} | {
        *("encodings", "manifold", "reconstructions", "samples", "images", "log-likelihoods", "interpolations"),
        *("traversals", "sampled-curve", "extremes"),
    }


@pytest.mark.slow
def test_the_command_line_says_what_cannot_be_drawn_and_draws_the_others(fitted, tmp_path):
    unknown = invoked("plot", fitted, "--kind", "manifolt")
    assert unknown.exit_code == 2
    assert unknown.stderr.endswith("did you mean 'manifold'?\n")
    both = invoked("plot", fitted, "--kind", "layers", "--kind", "kl-bars", "-o", tmp_path)
    assert both.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kl-bars.png"]
    assert len(both.stderr.splitlines()) == 2
    assert "nothing above it to keep" in both.stderr


@pytest.mark.slow
def test_a_run_that_was_cut_short_is_drawn_as_far_as_it_goes(fitted, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(fitted, cut)
    shutil.rmtree(cut / "evaluations")
    (cut / "history.jsonl").write_text("")
    result = invoked("plot", cut, "--kind", "learning-curves", "--kind", "kl-bars", "--kind", "samples", "-o", tmp_path / "o")
    assert result.exit_code == 2
    assert "it has not ended an epoch" in result.stderr
    assert "it was not evaluated as it is now: run 'pyrovae evaluate'" in result.stderr
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["samples.png"]
