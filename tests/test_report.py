"""The report as it is read: in a browser, narrow and wide, by mouse and by keyboard, with names from a stranger."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner
from pictured import dataset, trained, views
from pyrovae.cli import main

from pyrovae.errors import InputError
from pyrovae.experiments.nearest import nearest_publication
from pyrovae.experiments.published import RECIPES
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.report import page, write_report
from pyrovae.experiments.run import Run

HOSTILE = "<script>alert(1)</script> #000000 $x_1$ \" onload='alert(2)' &amp;"
MOST_BYTES = 2 * 10**6


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    found = {name: trained(name, folder / name) for name in ("vae", "ladder-3")}
    run, data = found["ladder-3"]
    run.bounds(4, num_temperatures=3, num_chains=2, num_samples=10, dataset=data)
    return found


@pytest.fixture(scope="module")
def both(runs):
    return page(views(*runs.values()))


class Tags(HTMLParser):
    """Every tag and its attributes, and what text there is."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_the_same_runs_give_the_same_bytes(runs, both):
    assert page(views(*runs.values())) == both


def test_one_run_takes_no_more_than_two_megabytes(runs):
    assert len(page(views(runs["ladder-3"])).encode()) < MOST_BYTES


def test_a_page_holds_nothing_that_is_elsewhere(both):
    tags = Tags(both).tags
    for tag, attributes in tags:
        assert tag not in ("iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes[name][:80])
    assert not re.search(r"url\((?!#)", both)
    (policy,) = (each["content"] for tag, each in tags if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_no_two_things_have_one_name_and_every_reference_meets_one(both):
    tags = Tags(both).tags
    names = [each["id"] for _, each in tags if "id" in each]
    assert len(names) == len(set(names))
    referred = re.findall(r'(?:url\(#|href="#)([^")]+)', both)
    assert referred
    assert set(referred) <= set(names)


def test_a_page_says_what_was_measured_and_how_far_to_trust_it(runs, both):
    text = " ".join(Tags(both).text.split())
    for run, _ in runs.values():
        assert f"{run.evaluation.log_likelihood:.2f} ± {run.evaluation.standard_error:.2f}" in text
    for part in (
        "grey, 90 / 20 / 30",
        "100 importance samples each",
        "heavy tails",
        "annealed, from above",
        "What was published",
        "pyrovae fit --config run.toml --output run --samples 100",
        "pyrovae bounds run --images 4 --temperatures 3 --chains 2 --samples 10",
        "it takes one latent layer of 2 units",
    ):
        assert part in text, part


def test_the_recipe_on_the_page_is_that_of_the_run(runs, tmp_path):
    run, _ = runs["ladder-3"]
    parts = re.findall(r"<summary>the recipe</summary><pre>(.*?)</pre>", page(views(runs["ladder-3"])), re.DOTALL)
    text = Tags(parts[0]).text
    (tmp_path / "run.toml").write_text(text)
    assert Recipe.from_toml(tmp_path / "run.toml") == run.recipe


def test_names_and_protocols_of_a_stranger_stay_text(runs, tmp_path):
    folder = tmp_path / HOSTILE.replace("/", "_")
    shutil.copytree(runs["vae"][0].folder, folder)
    recipe = (folder / "recipe.json").read_text()
    (folder / "recipe.json").write_text(recipe.replace('"protocol": "grey', '"protocol": "</td><img src=x onerror=alert(3)>'))
    content = page(views((Run.load(folder), dataset()), runs["ladder-3"]))
    parsed = Tags(content)
    assert sum(tag == "script" for tag, _ in parsed.tags) == 1, "ours alone"
    assert not [each for _, each in parsed.tags if "onload" in each or "onerror" in each]
    assert "<script>alert(1)<_script>" in parsed.text


def test_a_page_that_cannot_be_written_is_one_line(runs, tmp_path):
    with pytest.raises(InputError, match="expected a folder to write the run into; got No such file"):
        write_report(views(runs["vae"]), tmp_path / "none" / "report.html")


def test_the_nearest_publication_says_what_differs(runs):
    evaluation = replace(runs["vae"][0].evaluation, num_samples=5000, epochs=2000, log_likelihood=-82.0)
    same = nearest_publication(RECIPES["ladder"].replace(seed=3), evaluation)
    assert same["log p(x), nats per image"] == "-82.12 (5,000 samples)"
    assert same["this run less the paper"] == "+0.12"
    assert same["protocol"].startswith("the same")
    resolved = RECIPES["ladder"].replace(likelihood="bernoulli", binarization="dynamic")
    assert nearest_publication(resolved, evaluation)["protocol"].startswith("the same")
    fewer = nearest_publication(RECIPES["ladder"].replace(epochs=20), replace(evaluation, epochs=20))
    assert fewer["protocol"] == "another: epochs 2000 there, 20 here"
    cut = nearest_publication(RECIPES["ladder"], replace(evaluation, epochs=20))
    assert cut["protocol"] == "another: epochs trained 2000 there, 20 here"
    other = nearest_publication(RECIPES["ladder"].replace(likelihood="continuous_bernoulli", binarization="none"), evaluation)
    assert "this run less the paper" not in other
    assert "likelihood bernoulli there, continuous_bernoulli here" in other["protocol"]
    assert nearest_publication(RECIPES["ladder"], None)["protocol"] == "not compared: this run has no log-likelihood"
    assert "none was published of such a model on mnist-5k" in nearest_publication(Recipe(), None)["log p(x)"]


@pytest.fixture
def opened(browser, both, tmp_path, request):
    """The page in a window of a width; what it asked for, and what it complained of."""
    (tmp_path / "report.html").write_text(both)
    window = browser.new_page(viewport={"width": request.param, "height": 900})
    asked, said = [], []
    window.on("request", lambda each: asked.append(each.url))
    window.on("console", lambda each: said.append(each.text))
    window.on("pageerror", lambda each: said.append(str(each)))
    window.goto((tmp_path / "report.html").as_uri())
    yield window
    window.close()
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
    assert not said


wide = pytest.mark.parametrize("opened", [1400], indirect=True)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("opened", [400, 1400], indirect=True)
def test_it_is_readable_at_any_width(opened):
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    assert opened.evaluate("[...document.images].every((each) => each.complete && each.naturalWidth > 0)")
    assert opened.evaluate("document.images.length") > 3
    widths = opened.evaluate("[...document.querySelectorAll('figure svg')].map((each) => each.getBoundingClientRect().width)")
    assert min(widths) > 200
    size = opened.evaluate("parseFloat(getComputedStyle(document.querySelector('figcaption')).fontSize)")
    assert size >= 14


def column(window, number):
    rows = window.query_selector_all("table.sortable >> nth=0 >> tbody tr")
    return [float(row.query_selector_all("td")[number].inner_text().split()[0]) for row in rows]


@wide
def test_tables_sort_by_mouse_and_by_keyboard(opened):
    button = opened.locator("table.sortable").first.locator("th button").nth(1)
    button.click()
    values = column(opened, 1)
    assert values == sorted(values)
    assert opened.locator("table.sortable th").nth(1).get_attribute("aria-sort") == "ascending"
    button.focus()
    opened.keyboard.press("Enter")
    assert column(opened, 1) == sorted(values, reverse=True)
    assert opened.locator("table.sortable th").nth(1).get_attribute("aria-sort") == "descending"


@wide
def test_pictures_are_enlarged_by_mouse_and_by_keyboard(opened):
    picture, dialog = opened.locator("#samples .zoom"), opened.locator("dialog")
    before = opened.locator("#samples img").bounding_box()["width"]
    assert not dialog.is_visible()
    picture.click()
    assert dialog.is_visible()
    assert dialog.locator("img").bounding_box()["width"] > before
    opened.keyboard.press("Escape")
    assert not dialog.is_visible()
    opened.locator("#kl-bars .zoom").focus()
    opened.keyboard.press("Enter")
    assert dialog.locator("svg").is_visible()
    dialog.locator("button").click()
    assert not dialog.is_visible()


@wide
def test_it_is_light_or_dark(opened):
    colors = "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    light = opened.evaluate(colors)
    opened.locator("#theme").click()
    assert opened.evaluate(colors) == ["rgb(230, 232, 236)", "rgb(20, 22, 26)"]
    opened.locator("#theme").click()
    assert opened.evaluate(colors) == light
    drawn = "getComputedStyle(document.querySelector('#kl-bars svg text')).fill"
    before = opened.evaluate(drawn)
    opened.locator("#theme").click()
    assert opened.evaluate(drawn) != before, "text of drawings follows the page"


@wide
def test_it_is_printed_without_what_is_pressed(opened):
    opened.emulate_media(media="print")
    assert not opened.locator("#theme").is_visible()


@pytest.mark.slow
def test_the_command_line_writes_a_page(tmp_path):
    small = ("--latent-sizes", "2", "--hidden-sizes", "8", "--epochs", "1", "--samples", "5", "--json", "--engine", "eager")
    assert CliRunner().invoke(main, ["fit", *small, "--output", str(tmp_path / "r")]).exit_code == 0
    result = CliRunner().invoke(main, ["report", str(tmp_path / "r"), "-o", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    again = Run.load(tmp_path / "r").report()
    assert again == tmp_path / "r" / "report.html"
