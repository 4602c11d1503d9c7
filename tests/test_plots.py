"""What the artists of pictures hold: values in their places, names beside their lines, nothing of pixels."""

import io

import matplotlib
import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm

from pyrovae import plots
from pyrovae.plots.images import tile_images
from pyrovae.plots.style import COLORS, LABEL_GAP, MOST_VECTOR_MARKS, spread
from pyrovae.plots.units import UnitCourse

RNG = np.random.default_rng(0)
EPOCHS = np.arange(1.0, 6)


def course(offset, *, valid=True):
    curve = offset - 100 / EPOCHS
    return plots.Course(EPOCHS, curve, curve - 1 if valid else None, np.minimum(1, EPOCHS / 3))


def labels(axes):
    return {text.get_text(): text for text in axes.texts}


def test_a_learning_curve_is_the_bound_of_both_splits_over_the_weight_of_the_latent_terms():
    bound, weight = plots.learning_curves({"one": course(-80), "other": course(-90)}).axes
    np.testing.assert_allclose([line.get_ydata() for line in bound.lines[::2]], [course(-80).valid, course(-90).valid])
    np.testing.assert_allclose([line.get_ydata() for line in bound.lines[1::2]], [course(-80).train, course(-90).train])
    assert [line.get_linestyle() for line in bound.lines] == ["-", "--", "-", "--"]
    np.testing.assert_allclose(weight.lines[0].get_ydata(), course(0).kl_weight)
    assert bound.get_ylabel() == "ELBO (nats per example)"
    for name, line in zip(("one", "other"), bound.lines[::2], strict=True):
        assert labels(bound)[name].get_color() == line.get_color(), "a name in the colour of its line"


def test_without_validation_data_the_training_bound_is_the_line():
    bound, _ = plots.learning_curves({"one": course(-80, valid=False)}).axes
    (line,) = bound.lines
    np.testing.assert_allclose(line.get_ydata(), course(-80).train)


@pytest.mark.parametrize("seed", range(20))
def test_names_at_the_ends_of_lines_do_not_touch_and_keep_their_order(seed):
    heights = np.random.default_rng(seed).random(6)
    moved = np.array(spread(heights.tolist(), LABEL_GAP))
    assert (np.diff(np.sort(moved)) > LABEL_GAP - 1e-9).all()
    np.testing.assert_array_equal(np.argsort(moved), np.argsort(heights))


def test_names_that_are_far_apart_stay_where_they_are():
    assert spread([0.1, 0.9, 0.5], LABEL_GAP) == pytest.approx([0.1, 0.9, 0.5])


def test_rows_of_a_heat_map_are_units_in_the_order_of_a_chosen_epoch():
    values = RNG.random((5, 4)) + 0.1
    runs = {"one": {"z2": UnitCourse(EPOCHS, values), "z1": UnitCourse(EPOCHS, 10 * values)}}
    for epoch in (0, -1):
        figure = plots.unit_heat_maps(runs, "activity", least=1e-9, sorted_by=epoch, order="it")
        shown = [axes.images[0].get_array() for axes in figure.axes[:2]]
        order = np.argsort(-values[epoch])
        np.testing.assert_allclose(shown[0], np.log10(values[:, order]).T)
        np.testing.assert_allclose(shown[1], shown[0] + 1)
        assert (np.diff(shown[0][:, epoch]) <= 0).all(), "the largest on top"
        assert figure.axes[0].images[0].get_clim() == figure.axes[1].images[0].get_clim(), "one scale"


def test_what_has_no_logarithm_is_drawn_at_the_end_of_the_scale():
    values = np.array([[-0.1, 1.0], [0.0, 1.0]])
    figure = plots.unit_heat_maps({"one": {"z1": UnitCourse(EPOCHS[:2], values)}}, "KL", least=1e-3, sorted_by=0, order="it")
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[0, 0], [-3, -3]])


def test_bars_are_as_high_as_the_divergences_and_stand_at_their_layers():
    runs = {"one": {"z1": 13.5, "z2": 4.25}, "other": {"z1": 9.0}}
    (axes,) = plots.divergence_bars(runs).axes
    for bars, (name, each) in zip(axes.containers, runs.items(), strict=True):
        assert [bar.get_height() for bar in bars] == list(each.values()), name
        assert [round(bar.get_x() + bar.get_width() / 2) for bar in bars] == list(range(len(each)))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["z1", "z2"]


def test_principal_components_are_orthonormal_and_of_the_largest_variance():
    mixing = RNG.normal(size=(5, 5))
    points = RNG.normal(size=(4000, 5)) * np.array([5, 3, 1, 0.5, 0.1]) @ np.linalg.qr(mixing)[0]
    directions, shares = plots.principal_components(points, 5)
    np.testing.assert_allclose(directions @ directions.T, np.eye(5), atol=1e-10)
    covariance = np.cov(points.T)
    np.testing.assert_allclose(
        directions @ covariance @ directions.T, np.diag(np.sort(np.linalg.eigvalsh(covariance))[::-1]), atol=1e-8
    )
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(plots.principal_components(-points, 2)[0], directions[:2], atol=1e-10)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_projections_keep_what_they_are_projections_of(size):
    points, classes = RNG.normal(size=(50, size)), np.arange(50) % 3
    axes = plots.projections({"one": {"z1": points}}, classes).axes[0]
    drawn = np.concatenate([each.get_offsets() for each in axes.collections])
    assert len(drawn) == 50
    if size <= 2:
        assert (drawn**2).sum() == pytest.approx(((points - points.mean(0)) ** 2).sum()), "a turn changes no distance"
    assert set(labels(axes)) == {"0", "1", "2"}


def test_classes_are_named_at_the_median_of_their_points():
    points, classes = RNG.normal(size=(90, 2)), np.arange(90) % 3
    (axes,) = plots.encodings({"one": points}, classes).axes
    for each in range(3):
        assert labels(axes)[str(each)].get_position() == pytest.approx(np.median(points[classes == each], 0))
        assert labels(axes)[str(each)].get_color() == COLORS[each]


def test_a_lattice_has_its_corners_at_quantiles_of_the_prior():
    points, quantiles = plots.lattice(5)
    corners = points.reshape(5, 5, 2)[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(norm.cdf(corners), [[0.1, 0.9], [0.9, 0.9], [0.1, 0.1], [0.9, 0.1]])
    np.testing.assert_allclose(quantiles, [0.1, 0.3, 0.5, 0.7, 0.9])


def test_a_manifold_has_the_images_of_its_points_and_says_which_they_are():
    images = RNG.random((9, 4))
    (axes,) = plots.manifold({"one": images}, (1, 2, 2)).axes
    np.testing.assert_array_equal(axes.images[0].get_array()[:2, :2], images[0].reshape(2, 2))
    np.testing.assert_array_equal(axes.images[0].get_array()[-2:, -2:], images[-1].reshape(2, 2))
    named = [tick.get_text().split("\n") for tick in axes.get_yticklabels()]
    assert named[0] == [f"{norm.ppf(1 / 6):.2f}", "(16.7%)"]
    low, high = axes.get_yticks()[[0, -1]]
    assert low > high, "the second unit grows upwards, and rows of an image downwards"


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_are_images_in_their_order(channels):
    images = RNG.random((5, channels * 6))
    canvas = tile_images(images, (channels, 2, 3), 3)
    for number, image in enumerate(images):
        row, column = divmod(number, 3)
        tile = canvas[2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
        expected = image.reshape(channels, 2, 3).transpose(1, 2, 0)
        np.testing.assert_array_equal(tile, expected.squeeze(-1) if channels == 1 else expected)
    assert (canvas[2:, 6:] == 1).all(), "what is left is white"


def test_rows_of_images_have_names_and_words():
    rows = {"highest": RNG.random((3, 4)), "lowest": RNG.random((2, 4))}
    figure = plots.image_rows(rows, (1, 2, 2), above=["a", "b", "c"], after={"lowest": ["-5", "-6"]})
    assert [axes.get_ylabel() for axes in figure.axes] == ["highest", "lowest"]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["a", "b", "c"]
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == ["-5", "-6"]
    widths = {round(axes.get_window_extent().width / axes.get_window_extent().height, 3) for axes in figure.axes}
    assert widths == {3.0}, "no image is stretched, and a short row is as wide as the others"


def test_histograms_share_one_scale_and_have_the_area_of_one():
    values = {"digits": np.array([-90.0, -80.0, -85.0]), "noise": np.array([-400.0, -390.0])}
    (axes,) = plots.histogram(values).axes
    steps = [patch.get_data() for patch in axes.patches]
    assert all(np.array_equal(each.edges, steps[0].edges) for each in steps)
    for each in steps:
        assert (each.values * np.diff(each.edges)).sum() == pytest.approx(1)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["digits, mean -85.0", "noise, mean -395.0"]
    assert [line.get_xdata()[0] for line in axes.lines] == [-85.0, -395.0]


def test_a_sampled_curve_has_the_annealed_bounds_around_its_end():
    curve = plots.SampledCurve(np.array([1, 10, 100]), np.array([-92.0, -88.0, -87.0]), 0.2, lower=(-86.5, 0.1), gap=0.5)
    (axes,) = plots.sampled_curves({"one": curve}).axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1, -92], [10, -88], [100, -87]])
    (band,) = axes.patches
    assert (band.get_y(), band.get_height()) == (-86.5, 0.5)
    assert "gap to above, simulated images: 0.50" in axes.texts[0].get_text()


def test_the_share_of_heavy_tails_is_counted_of_those_that_are_known_infinite_ones_too():
    shapes = np.array([0.2, 0.9, np.nan, 1.1, 0.3, np.inf, -np.inf])
    (axes,) = plots.tail_shapes({"one": shapes, "other": shapes[:2]}, {"one": 0.7, "other": 0.1}).axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [-1, 0.2, 0.3, 0.9, 1.1, 5])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "one: 50.0% above 0.70",
        "other: 100.0% above 0.10",
    ]


def test_the_best_epoch_is_never_beyond_the_axis():
    early = np.array([-200, -150, -95.0, *[-96.0 - number for number in range(60)]])
    course = plots.Course(np.arange(63.0), None, early, np.ones(63))
    bound, _ = plots.learning_curves({"one": course}).axes
    assert bound.get_ylim()[1] > -95


def test_epochs_that_are_not_finite_stop_no_picture():
    values = np.array([-np.inf, np.nan, -90.0, -80.0, np.nan])
    course = plots.Course(EPOCHS, None, values, np.ones(5))
    assert np.isfinite(plots.learning_curves({"one": course}).axes[0].get_ylim()).all()
    (axes,) = plots.histogram({"one": values}).axes
    assert axes.get_legend().get_texts()[0].get_text() == "one, mean -85.0"


def test_layers_of_runs_of_different_depth_are_in_order_and_have_names():
    course = UnitCourse(EPOCHS, RNG.random((5, 2)) + 0.1)
    runs = {"shallow": {"z1": course}, "deep": {"z3": course, "z2": course, "z1": course}}
    figure = plots.unit_heat_maps(runs, "KL", least=1e-3, sorted_by=0, order="it")
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == ["deep: z3", "deep: z2", "shallow: z1", "deep: z1"]


def test_measured_figures_stand_at_their_places_with_two_standard_errors():
    panels = {"log p(x)": {"ladder": [plots.Measurement(3, -85.0, 0.5), plots.Measurement(1, -90.0, 0.25)]}}
    (axes,) = plots.measurements_over(panels, "layers").axes
    line, _, (bars,) = axes.containers[0]
    np.testing.assert_array_equal(line.get_xydata(), [[1, -90], [3, -85]])
    np.testing.assert_array_equal([each[:, 1] for each in bars.get_segments()], [[-90.5, -89.5], [-86, -84]])
    assert axes.get_xticks().tolist() == [1, 3]


def test_counts_are_drawn_over_their_epochs():
    lines = {"z1": (EPOCHS, {"above 0.01": np.arange(5), "above 0.1": np.zeros(5)})}
    (axes,) = plots.counts_over_epochs(lines, "active units").axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[0, 1, 2, 3, 4], [0] * 5]
    assert [line.get_linestyle() for line in axes.lines] == ["-", ":"]
    assert axes.get_title() == "above 0.01, dotted: above 0.1"


@pytest.mark.parametrize(("points", "rasterized"), [(MOST_VECTOR_MARKS, False), (MOST_VECTOR_MARKS + 1, True)])
def test_many_marks_are_rasterised_in_vector_files(points, rasterized):
    figure = plots.encodings({"one": RNG.normal(size=(points, 2))}, None)
    assert figure.axes[0].collections[0].get_rasterized() == rasterized
    assert (b"<image" in plots.encode_figure(figure, "svg")) == rasterized


@pytest.mark.parametrize("kind", plots.FORMATS)
def test_the_same_figure_gives_the_same_bytes_and_no_setting_is_left_changed(kind):
    before = dict(matplotlib.rcParams)
    one, other = (plots.encode_figure(plots.learning_curves({"one": course(-80)}), kind) for _ in range(2))
    assert one == other
    assert dict(matplotlib.rcParams) == before
    assert one[:4] == {"png": b"\x89PNG", "svg": b"<?xm", "pdf": b"%PDF"}[kind]


def distances(simulate):
    """How far apart any two of the first colours are, as seen by ``simulate``."""
    colors = np.array([matplotlib.colors.to_rgb(color) for color in COLORS[:6]])
    seen = simulate(colors**2.2)
    return [np.linalg.norm(one - other) for number, one in enumerate(seen) for other in seen[:number]]


# Viénot, Brettel and Mollon (1999), on linear light: what is left without the cones for long or for medium waves.
MATRICES = {
    "long": np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    "medium": np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
}


@pytest.mark.parametrize("cones", MATRICES)
def test_lines_are_told_apart_without_some_cones(cones):
    assert min(distances(lambda light: light @ MATRICES[cones].T)) > 0.1


def test_a_figure_is_readable_on_a_dark_page():
    """It brings its own paper along."""
    content = plots.encode_figure(plots.divergence_bars({"one": {"z1": 1.0}}))
    assert Image.open(io.BytesIO(content)).convert("RGBA").getpixel((1, 1)) == (255, 255, 255, 255)
