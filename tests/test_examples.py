"""The examples, and the Python of the README and of the documentation, run as they stand, with fewer epochs."""

import re
import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch

HOUSE = Path(__file__).parent.parent
EXAMPLES = {
    "contact_sheets.py": ["mnist-5k"],
    "gallery.py": [".", "--epochs", "1", "--samples", "60"],
    "complete_digits.py": ["--epochs", "1"],
    "fill_digits.py": ["--epochs", "2", "--number", "20"],
    "ladder_on_digits.py": ["--epochs", "2"],
}
FEWER = {
    "epochs=100": "epochs=1",
    "linear_warmup(50)": "linear_warmup(1)",
    "num_samples=1000": "num_samples=10",
    "num_steps=100": "num_steps=5",
    "num_temperatures=20": "num_temperatures=3",
    "epochs=20": "epochs=1",
    "linear_warmup(10)": "linear_warmup(1)",
    "warmup_epochs=10": "warmup_epochs=1",
    "range(1, 3)": "range(1, 2)",
    "num_samples=100)": "num_samples=10)",
    "num_samples=100,": "num_samples=10,",
    "num_images=10": "num_images=2",
    "num_temperatures=100": "num_temperatures=3",
    "range(3)": "range(2)",
    "[(2,), (10,)]": "[(2,)]",
}
# These make the runs that the other pages go on with.
FIRST_PAGES = ("start.md", "guide/data.md")


def test_every_example_is_listed():
    assert sorted(EXAMPLES) == sorted(path.name for path in (HOUSE / "examples").glob("*.py"))


# The gallery trains twelve models: two to three minutes.
@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(each, marks=[pytest.mark.hours] * (each == "gallery.py")) for each in EXAMPLES])
def test_example(name, tmp_path):
    command = [sys.executable, str(HOUSE / "examples" / name), *EXAMPLES[name]]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    assert {"contact_sheets.py": "mnist-5k", "gallery.py": "manifold.png"}.get(name, "log p(") in result.stdout
    assert list(tmp_path.glob("*.png" if name != "gallery.py" else "gallery/*.png"))


def python_of(page):
    """The Python of a page, shortened, each block at its own lines for tracebacks; those marked "not run" are left out."""
    text = page.read_text()
    for found in re.finditer(r"(<!-- not run -->\n)?```python\n(.*?)```", text, re.DOTALL):
        marked, block = found.groups()
        for many, few in FEWER.items():
            block = block.replace(many, few)
        if not marked:
            yield compile("\n" * text[: found.start(2)].count("\n") + block, str(page), "exec")


def documentation():
    """The pages with Python, those first that others go on from."""
    docs = HOUSE / "docs"
    made = {"_build", "generated", "notebooks"}
    pages = [path.relative_to(docs) for path in sorted(docs.rglob("*.md"))]
    pages = [str(path) for path in pages if path.parts[0] not in made and "```python" in (docs / path).read_text()]
    return [*FIRST_PAGES, *(path for path in pages if path not in FIRST_PAGES)]


@pytest.mark.slow
def test_documentation(tmp_path, monkeypatch):
    """In one folder, as a reader would: a training that an earlier page has made is not made again."""
    monkeypatch.chdir(tmp_path)
    for page in documentation():
        names = run_python_of(HOUSE / "docs" / page)
        if page == "guide/own_programs.md":
            assert names["same_top"].shape == (64, 784)
            check_that_drawing_is_conditional(names["vae"].model)


@pytest.mark.slow
def test_readme(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_python_of(HOUSE / "README.md")
    printed = capsys.readouterr().out
    assert "log_likelihood, nats per image; mnist-5k" in printed
    assert "runs/ladder: " in printed
    assert printed.count("LogLikelihood(") == 1
    assert names["run"].folder.joinpath("figures").is_dir()
    assert len((HOUSE / "README.md").read_text().splitlines()) <= 150


def run_python_of(page):
    """Run a page's Python; return its names."""
    pyro.clear_param_store()
    names = {"__name__": str(page)}
    for block in python_of(page):
        exec(block, names)
    return names


def check_that_drawing_is_conditional(model):
    """In training mode, batch norm over equal rows would hide what is conditioned on."""
    model.eval()
    tops = [pyro.poutine.condition(model, {"z5": torch.full((2, 4), value)}) for value in (0.0, 9.0)]
    locations = [pyro.poutine.trace(each).get_trace(batch_size=2).nodes["z4"]["fn"].mean for each in tops]
    assert not torch.allclose(*locations, atol=1e-3)
