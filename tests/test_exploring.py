"""A trained model to play with: what it answers, who it answers, and what a page in a browser makes of it."""

import base64
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pictured import trained
from pyrovae.cli import main

from pyrovae.errors import InputError
from pyrovae.evaluation.likelihood import log_likelihood
from pyrovae.experiments.exploring.explorer import QUESTIONS, Explorer
from pyrovae.experiments.exploring.pixels import as_text, from_text
from pyrovae.experiments.exploring.server import Server
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.training import train

SHAPE = (1, 6, 6)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {name: trained(name, folder / name) for name in ("ladder-3", "vamp-100")}


@pytest.fixture(scope="module", params=["ladder-3", "vamp-100"])
def explorer(runs, request):
    return Explorer(*runs[request.param])


@pytest.fixture(scope="module")
def ladder(runs):
    return Explorer(*runs["ladder-3"])


def latents_of(explorer, index=0):
    return explorer.answer("encode", {"index": index})["latents"]


def layers(explorer, latents):
    """Mean and scale of p(z_l | z_{l+1}) of every layer but the top one."""
    sites = explorer._traced({name: torch.tensor([each]) for name, each in latents.items()})
    return {name: (sites[name]["fn"].mean[0], sites[name]["fn"].stddev[0]) for name in list(latents)[:-1]}


# Answers.


def test_what_is_decoded_is_the_mean_of_the_likelihood(explorer):
    latents = latents_of(explorer, 2)
    sites = explorer._traced({name: torch.tensor([each]) for name, each in latents.items()})
    expected = np.rint(255 * sites["x"]["fn"].mean[0].detach().numpy())
    found = explorer.answer("decode", {"latents": latents})
    np.testing.assert_array_equal(255 * from_text(found["image"], SHAPE)[0], expected.astype(np.float32))
    assert found["latents"] == latents


def test_layers_below_keep_their_distances_when_one_moves(ladder):
    before = latents_of(ladder, 3)
    for layer in ("z3", "z2"):
        new = [value + 0.5 for value in before[layer]]
        after = ladder.answer("set_layer", {"latents": before, "layer": layer, "new": new})["latents"]
        assert after[layer] == pytest.approx(new)
        old, moved = layers(ladder, before), layers(ladder, after)
        for name in list(before)[: int(layer[1:]) - 1]:
            distances = [
                (torch.tensor(z[name]) - loc) / scale for z, (loc, scale) in ((before, old[name]), (after, moved[name]))
            ]
            torch.testing.assert_close(*distances, rtol=1e-3, atol=1e-3)
            assert after[name] != before[name]
        back = ladder.answer("set_layer", {"latents": after, "layer": layer, "new": before[layer]})["latents"]
        for name, values in before.items():
            assert back[name] == pytest.approx(values, abs=1e-3), name


@pytest.mark.parametrize("axes", ["components", [0, 2]])
def test_a_point_of_the_map_is_gone_to_and_what_is_off_the_plane_stays(ladder, axes):
    place = {"layer": "z3", "axes": axes}
    before, plane = latents_of(ladder, 1), ladder.answer("map", place)
    after = ladder.answer("go_to", {**place, "latents": before, "point": [0.7, -0.4]})["latents"]
    center, directions = np.array(plane["center"]), np.array(plane["directions"])
    assert (np.array(after["z3"]) - center) @ directions.T == pytest.approx([0.7, -0.4], abs=1e-5)
    off = np.eye(4) - directions.T @ directions
    assert off @ np.array(after["z3"]) == pytest.approx(off @ np.array(before["z3"]), abs=1e-5)


def test_encodings_lie_where_the_map_has_them(explorer):
    found = explorer.answer("map", {"layer": "z1", "axes": [0, 1]})
    assert len(found["points"]) == len(explorer.x) == 30
    assert found["points"][4] == pytest.approx(latents_of(explorer, 4)["z1"][:2], abs=1e-3)
    assert found["names"] == ["unit 1", "unit 2"]


def test_the_top_layer_is_drawn_anew_from_its_prior(ladder):
    """400 draws: means of four units, each off by more than five standard errors of 0.05 less than once in 10^5."""
    before = latents_of(ladder)
    torch.manual_seed(0)
    drawn = np.array([ladder.answer("resample", {"latents": before, "layer": "z3"})["latents"]["z3"] for _ in range(400)])
    assert np.abs(drawn.mean(0)).max() < 0.25
    assert np.abs(drawn.std(0) - 1).max() < 0.2


def test_a_layer_that_is_drawn_anew_leaves_those_above_it(ladder):
    before = latents_of(ladder)
    after = ladder.answer("resample", {"latents": before, "layer": "z2"})["latents"]
    assert after["z3"] == pytest.approx(before["z3"])
    assert after["z2"] != before["z2"]


def test_the_ends_of_an_interpolation_are_what_was_pinned(explorer):
    first, second = latents_of(explorer, 0), latents_of(explorer, 5)
    for share, end in ((0, first), (1.0, second)):
        found = explorer.answer("interpolate", {"first": first, "second": second, "share": share})
        for name, values in end.items():
            assert found["latents"][name] == pytest.approx(values, abs=1e-6)


def test_figures_are_those_of_an_evaluation_and_images_have_their_own_numbers(tmp_path):
    """Real values, standardised for the model: densities are of the original ones; 2,100 test images, 2,000 of them shown."""
    values = np.random.default_rng(0).normal(5, 3, (2150, 2, 2))
    values[0, 0, 0] = np.nan
    np.savez(tmp_path / "a.npz", train=values[:50], test=values[50:])
    recipe = Recipe(
        dataset=str(tmp_path / "a.npz"), missing=True, latent_sizes=(1,), hidden_sizes=(4,), epochs=1, batch_size=25
    )
    run = train(recipe, tmp_path / "run", engine="eager")
    real = Explorer(run)
    places = real.answer("begin", {})["points"]
    assert (len(places), places[-1]) == (2000, 2099)
    chosen = real.view.dataset.test[[places[700]]]
    torch.manual_seed(0)
    right = log_likelihood(real.model, real.guide, chosen, 50, engine="eager").mean - 4 * np.log(run.preparation.scale[0])
    assert real.answer("measure", {"index": 700, "samples": 50})["log_likelihood"] == pytest.approx(right, abs=1e-4)
    assert real.answer("measure", {"index": 700, "samples": 1})["standard_error"] is None
    moved = real.answer("set_layer", {"latents": {"z1": [0]}, "layer": "z1", "new": [0]})
    assert set(from_text(moved["image"], run.shape)[0]) != {0.0}


def test_a_loss_that_is_no_density_has_no_log_likelihood(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((60, 3, 3)))
    settings = {"likelihood": "cross_entropy", "latent_sizes": (2,), "hidden_sizes": (4,), "epochs": 1, "batch_size": 20}
    run = train(Recipe(dataset=str(tmp_path / "a.npy"), **settings), tmp_path / "run", engine="eager")
    found = Explorer(run).answer("measure", {"index": 0, "samples": 5})
    assert found["log_likelihood"] is None
    assert np.isfinite(found["elbo"])


def test_an_image_that_is_drawn_is_measured_as_bits(explorer):
    drawn = np.zeros(36, np.float32)
    drawn[[7, 8, 14]] = 1.0, 0.6, 0.4
    found = explorer.answer("measure", {"drawn": as_text(drawn, SHAPE), "samples": 50})
    torch.manual_seed(0)
    right = log_likelihood(explorer.model, explorer.guide, torch.from_numpy(drawn[None] > 0.5).float(), 50, engine="eager")
    assert found["log_likelihood"] == right.mean
    assert found["elbo"] == right.elbo
    assert found["standard_error"] == right.standard_error_per_image[0]
    shown = from_text(explorer.answer("encode", {"drawn": as_text(drawn, SHAPE)})["encoded"], SHAPE)[0]
    np.testing.assert_array_equal(shown, drawn > 0.5)


def test_pseudo_inputs_are_starting_points(runs):
    vamp = Explorer(*runs["vamp-100"])
    count = vamp.answer("begin", {})["pseudo_inputs"]
    assert count == len(vamp.answer("pseudo_inputs", {})["images"]) == 3
    assert vamp.answer("begin_at", {"index": count - 1})["latents"].keys() == {"z1"}
    assert "z1" not in vamp.answer("begin", {})["kl"]


def test_a_question_moves_no_weight_and_no_buffer(explorer):
    before = {name: each.clone() for name, each in explorer.view.run.vae.state_dict().items()}
    latents = latents_of(explorer)
    for question in QUESTIONS:
        values = {"latents": latents, "first": latents, "second": latents, "layer": "z1", "index": 0, "share": 0.3}
        explorer.answer(question, values | {"axes": "components", "point": [0.1, 0.2], "new": latents["z1"]}) if (
            question != "begin_at" or len(explorer._pseudo_inputs)
        ) else None
    for name, each in explorer.view.run.vae.state_dict().items():
        assert torch.equal(each, before[name]), name


GOOD = {"z1": [0.0] * 4, "z2": [0.0] * 4, "z3": [0.0] * 4}


@pytest.mark.parametrize(
    ("question", "values", "words"),
    [
        ("delete", {}, "expected a question out of begin, map"),
        ("__class__", {}, "expected a question out of"),
        ("decode", {}, "expected finite numbers, 4 of z1"),
        ("decode", {"latents": {"z1": [0.0] * 4}}, "expected finite numbers"),
        ("decode", {"latents": GOOD | {"z1": [float("nan"), 0.0, 0.0, 0.0]}}, "expected finite numbers"),
        ("decode", {"latents": GOOD | {"z1": [True, 0.0, 0.0, 0.0]}}, "expected finite numbers"),
        ("decode", {"latents": GOOD | {"z1": ["0"] * 3}}, "expected finite numbers"),
        ("encode", {"index": -1}, "expected the number of one of 30 images, counted from 0"),
        ("encode", {"index": 30}, "expected the number of one of 30 images, counted from 0"),
        ("encode", {"index": "0"}, "expected the number of one of 30 images, counted from 0"),
        ("encode", {"drawn": "no base64!"}, "expected 6 x 6 pixels of 1 channels as bytes in base64"),
        ("encode", {"drawn": base64.b64encode(b"short").decode()}, "expected 6 x 6 pixels"),
        ("encode", {"drawn": None}, "expected 6 x 6 pixels"),
        ("measure", {"index": 0, "samples": 10**9}, "from 1 to 5000"),
        ("map", {"layer": "z9"}, "expected a layer out of z1, z2, z3"),
        ("map", {"layer": ["z1"]}, "expected a layer out of"),
        ("map", {"layer": "z1", "axes": [0, 4]}, "two units of z1, from 0 to 3"),
        ("map", {"layer": "z1", "axes": "x"}, "two units of z1"),
        ("go_to", {"latents": GOOD, "layer": "z1", "axes": [0, 1], "point": [1]}, "expected two finite numbers"),
        ("interpolate", {"first": GOOD, "second": GOOD, "share": 2}, "from 0 to 1"),
        ("begin_at", {"index": 0}, "expected the number of one of 0 images"),
    ],
)
def test_what_is_no_question_is_refused_in_a_line(ladder, question, values, words):
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        ladder.answer(question, values)
    assert "\n" not in str(caught.value)


def test_a_conditional_model_is_refused(tmp_path):
    run, data = trained("cvae", tmp_path / "run")
    with pytest.raises(InputError, match="expected a model of whole images with latents; it is a conditional model"):
        Explorer(run, data)


# The server.


@pytest.fixture(scope="module")
def server(ladder):
    made = Server(ladder)
    threading.Thread(target=made.run, daemon=True).start()
    return made


def requested(server, path="/", *, method="GET", token=None, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    wanted = {"Host": f"127.0.0.1:{server.port}", "X-Token": server.token if token is None else token}
    connection.request(method, path, body, wanted | {name.title(): value for name, value in headers.items()})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content, response


def test_questions_are_answered_over_the_loopback_interface(server, ladder):
    status, content, response = requested(server, "/ask", method="POST", body=json.dumps({"question": "encode", "index": 0}))
    assert status == 200
    assert json.loads(content)["latents"] == latents_of(ladder)
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert requested(server)[0] == 200
    for body in ("no json", "[]", "{}", '{"question": 3}', "[" * 100_000):
        status, content, _ = requested(server, "/ask", method="POST", body=body)
        assert (status, "expected a question in JSON" in content.decode()) == (400, True), body[:20]
    status, content, _ = requested(server, "/ask", method="POST", body="x" * (2**22 + 1))
    assert (status, "4,194,304 bytes" in content.decode()) == (400, True)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {"token": "wrong"}),
        ("/", {"token": ""}),
        ("/?token=wrong", {"token": ""}),
        ("/explorer.js", {"token": ""}),
        ("/", {"host": "evil.example"}),
        ("/", {"host": "127.0.0.1:1"}),
        ("/", {"origin": "http://evil.example"}),
        ("/", {"origin": "null"}),
        ("/../recipe.json", {}),
        ("/%2e%2e/recipe.json", {}),
        ("/..%2f..%2fetc/passwd", {}),
        ("//etc/passwd", {}),
        ("/server.py", {}),
        ("/ask", {}),
    ],
)
def test_everyone_else_is_refused(server, path, headers):
    assert requested(server, path, **headers)[:2] == (403, b"refused")


def test_a_fault_of_ours_is_told_as_one(server, monkeypatch, caplog):
    def broken(*_):
        raise ZeroDivisionError("by nobody's fault")

    monkeypatch.setitem(QUESTIONS, "begin", broken)
    status, content, _ = requested(server, "/ask", method="POST", body=json.dumps({"question": "begin"}))
    assert status == 500
    assert json.loads(content)["error"] == "this is a fault of pyrovae: ZeroDivisionError: by nobody's fault"
    assert "in broken" in caplog.text


def test_only_this_machine_is_listened_to(server):
    assert server.socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(InputError, match=rf"expected a free port; {server.port} is not"):
        Server(server.explorer, server.port)


def test_ctrl_c_ends_the_command(runs, tmp_path):
    _, data = runs["ladder-3"]
    np.savez(tmp_path / "a.npz", train=data.train.reshape(-1, 6, 6), test=data.test.reshape(-1, 6, 6))
    fit = ["fit", "--dataset", str(tmp_path / "a.npz"), "--latent-sizes", "2", "--hidden-sizes", "4", "--epochs", "1"]
    made = CliRunner().invoke(main, [*fit, "--batch-size", "30", "--output", str(tmp_path / "run")])
    assert made.exit_code == 0, made.output
    command = [sys.executable, "-c", "from pyrovae.cli import main; main()", "explore", str(tmp_path / "run"), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=\S+\n", address), process.stderr.read()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) in (0, 130)
        assert "Traceback" not in process.stderr.read()


def test_bad_input_of_the_command_is_a_line(runs, tmp_path):
    result = CliRunner().invoke(main, ["explore", str(tmp_path / "none"), "--no-browser"])
    assert result.exit_code == 2
    assert "expected a run folder" in result.stderr
    assert len(result.stderr.splitlines()) == 1


# The widget.


def test_a_widget_answers_the_messages_of_its_page(runs):
    run, data = runs["ladder-3"]
    widget, sent = run.explore(dataset=data), []
    widget.send = sent.append
    widget._handle_custom_msg({"question": "begin", "id": 7}, [])
    widget._handle_custom_msg({"question": "nonsense", "id": 8}, [])
    assert sent[0]["id"] == 7
    assert sent[0]["answer"]["sizes"] == {"z1": 4, "z2": 4, "z3": 4}
    assert sent[1] == {"id": 8, "answer": {"error": sent[1]["answer"]["error"]}}
    assert "export default { render }" in str(widget._esm)
    widget.close()


# The page.


class Page:
    """The page of an explorer in a browser, and what is wrong with it."""

    def __init__(self, browser, server, **options):
        self.explorer = server.explorer
        self.context = browser.new_context(**({"viewport": {"width": 1400, "height": 1000}} | options))
        self.page, self.errors = self.context.new_page(), []
        own = f"http://127.0.0.1:{server.port}/"
        self.page.on("request", lambda each: each.url.startswith((own, "data:")) or self.errors.append(each.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda each: each.type == "error" and self.errors.append(each.text))
        self.page.goto(server.address)
        self.page.wait_for_selector(".figures[data-log-likelihood]")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()
        assert not self.errors

    def latents(self):
        return self.page.evaluate("window.explorer.get('latents')")

    def moved(self, before, until=lambda latents: True):
        """The latents after something moved them as expected, once what is shown is what Python decodes of them."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            latents = self.latents()
            shown = self.pixels("Decoded")
            if latents != before and until(latents):
                expected = self.explorer.answer("decode", {"latents": latents})["image"]
                if np.array_equal(shown, 255 * from_text(expected, SHAPE)[0]):
                    return latents
            time.sleep(0.05)
        raise AssertionError("the page does not show what Python decodes")

    def pixels(self, section):
        code = """section => {
            const canvas = document.querySelector(`section[aria-label="${section}"] canvas`);
            const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            return Array.from(data).filter((_, at) => at % 4 === 0);
        }"""
        return np.array(self.page.evaluate(code, section), np.float32)


@pytest.fixture
def page(browser, server):
    with Page(browser, server) as opened:
        yield opened


def test_a_slider_decodes_by_keyboard_and_by_mouse(page):
    before = page.latents()
    slider = page.page.locator("[data-unit='z3 1']")
    slider.focus()
    for _ in range(5):
        page.page.keyboard.press("ArrowRight")
    step = page.explorer.answer("begin", {})["reach"]["z3"] / 200
    by_key = page.moved(before, lambda latents: latents["z3"][1] > before["z3"][1] + 3.5 * step)
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
    page.moved(by_key, lambda latents: latents["z3"][1] > 100 * step)


def test_no_key_is_lost_while_an_answer_is_awaited(page):
    """Five keys, faster than the answers: five steps of a slider, and five of the point on the map."""
    page.page.evaluate(
        """() => { const ask = window.fetch;
        window.fetch = (...asked) => new Promise((go) => setTimeout(() => go(ask(...asked)), 250)); }"""
    )
    before, (layer, unit) = page.latents(), ("z3", 1)
    step = page.explorer.answer("begin", {})["reach"][layer] / 200
    page.page.locator(f"[data-unit='{layer} {unit}']").focus()
    for _ in range(5):
        page.page.keyboard.press("ArrowRight", delay=75)
    moved = page.moved(before, lambda latents: latents[layer][unit] > before[layer][unit] + 4.4 * step)
    assert moved[layer][unit] < before[layer][unit] + 5.6 * step
    page.page.locator("canvas.map").focus()
    page.page.keyboard.press("ArrowUp")
    once = page.moved(moved)
    for _ in range(5):
        page.page.keyboard.press("ArrowUp", delay=75)
    wanted = np.array(once[layer]) + 5 * (np.array(once[layer]) - np.array(moved[layer]))
    page.moved(once, lambda latents: np.allclose(latents[layer], wanted, atol=1e-4))


def place_of(page, chosen):
    """Where on the screen an image is that ``chosen`` picks of all points of the map, with its number and its point."""
    left, top, width = page.page.evaluate(
        """() => { const map = document.querySelector('canvas.map'); const box = map.getBoundingClientRect();
        return [box.left, box.top, box.width]; }"""
    )
    points = np.array(page.explorer.answer("map", {"layer": "z3", "axes": "components"})["points"])
    middle, span = (points.max(0) + points.min(0)) / 2, 1.1 * (points.max(0) - points.min(0)).max()
    index = int(chosen(points))
    x, y = (points[index] - middle) / span * width * [1, -1] + width / 2
    return index, points[index], (left + x, top + y)


def test_the_map_decodes_along_a_drag_and_by_the_arrows(page):
    before, map_ = page.latents(), page.page.locator("canvas.map")
    map_.scroll_into_view_if_needed()
    # Away from the first image, which is pinned as A: what is pinned as B here is another.
    _, point, (x, y) = place_of(page, lambda points: np.abs(points - points[0]).sum(1).argmax())
    box = map_.bounding_box()
    page.page.mouse.move(box["x"] + 30, box["y"] + 40)
    page.page.mouse.down()
    page.page.mouse.move(x, y, steps=5)
    page.page.mouse.up()
    asked = {"layer": "z3", "axes": "components", "point": point.tolist(), "latents": before}
    end = page.explorer.answer("go_to", asked)["latents"]["z3"]
    dragged = page.moved(before, lambda latents: np.allclose(latents["z3"], end, atol=0.05))
    map_.focus()
    page.page.keyboard.press("ArrowUp")
    page.page.keyboard.press("+")
    assert page.moved(dragged)["z3"] != dragged["z3"]
    page.page.keyboard.press("Shift+Enter")
    page.page.locator(".figures[data-log-likelihood]").nth(1).wait_for()
    share = page.page.get_by_label("Between A and B")
    share.focus()
    pinned = page.latents()
    page.page.keyboard.press("Home")
    page.page.keyboard.press("ArrowRight")
    assert page.moved(pinned) != pinned


def test_hovering_shows_an_image_and_a_click_pins_it(page):
    chosen, _, place = place_of(page, lambda points: np.abs(points - (points.max(0) + points.min(0)) / 2).sum(1).argmax())
    page.page.mouse.move(*place)
    page.page.wait_for_selector(".hint:not([hidden])")
    assert f"image {chosen}," in page.page.locator(".hint figcaption").inner_text()
    page.page.mouse.click(*place)
    page.page.locator(".figures", has_text=re.compile(f"^image {chosen}, class")).wait_for()
    assert page.latents() == latents_of(page.explorer, chosen)


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_a_drawing_has_the_log_likelihood_that_python_gives_it(page, way):
    drawing = page.page.locator("canvas.drawing")
    drawing.scroll_into_view_if_needed()
    if way == "mouse":
        box = drawing.bounding_box()
        page.page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.2 * box["height"])
        page.page.mouse.down()
        page.page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.8 * box["height"], steps=4)
        page.page.mouse.up()
    else:
        drawing.focus()
        for key in (" ", "ArrowRight", "ArrowDown", "ArrowDown", " "):
            page.page.keyboard.press(key)
    page.page.locator(".figures", has_text=re.compile("^drawing: ELBO")).wait_for()
    drawing.blur()
    drawn = page.pixels("Draw an image") / 255
    assert 0 < (drawn > 0.5).sum() < 36
    right = page.explorer.answer("measure", {"drawn": as_text(drawn, SHAPE), "samples": 500})
    assert float(page.page.locator(".figures").first.get_attribute("data-log-likelihood")) == right["log_likelihood"]
    assert f"log p(x) {right['log_likelihood']:.2f} ± {right['standard_error']:.2f} nats" in page.page.inner_text("body")


def test_a_layer_is_drawn_anew_and_units_are_sorted_by_their_divergence(page):
    before = page.latents()
    page.page.get_by_role("button", name="Resample z2").click()
    after = page.moved(before)
    assert after["z3"] == pytest.approx(before["z3"])
    kl = page.explorer.kl["z1"]
    units = page.page.eval_on_selector_all(
        "[data-unit^='z1 ']", "all => all.map(each => Number(each.dataset.unit.split(' ')[1]))"
    )
    assert [kl[unit] for unit in units] == sorted(kl, reverse=True)
    assert page.page.locator(".mark:visible").count() == 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_narrow_window(browser, server, scheme):
    with Page(browser, server, viewport={"width": 400, "height": 800}, color_scheme=scheme) as opened:
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400
        paper = opened.page.eval_on_selector("#explorer", "each => getComputedStyle(each).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_everything_is_reached_by_keyboard_and_has_a_name(page):
    nameless = page.page.eval_on_selector_all(
        "button, select, input, canvas[tabindex]",
        "all => all.filter(each => !(each.ariaLabel || each.textContent || each.labels?.length)).map(each => each.outerHTML)",
    )
    assert nameless == []
    for _ in range(4):
        page.page.keyboard.press("Tab")
    outline = page.page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
