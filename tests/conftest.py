import os
import shutil

# Before torch is imported: processes beside each other would fight for the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyro
import pytest
import torch
from file_server import FileServer
from torch.distributions import Distribution

from pyrovae.data.published_files import downloads, sources
from pyrovae.data.published_files.sources import DATA_VARIABLE
from pyrovae.engine import compilation, matmul_kernels


def settings():
    """What belongs to the process, and not to any call."""
    return torch.is_grad_enabled(), torch.get_default_dtype(), Distribution._validate_args, pyro.settings.get()


@pytest.fixture(autouse=True)
def _reproducible():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    # A test file that imports zuko has turned torch's off.
    pyro.enable_validation(True)
    before = settings()
    yield
    assert not torch.is_inference_mode_enabled()
    assert settings() == before, "a test, or what it called, left settings of torch or of Pyro changed"


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A root, a folder for the variable and a cache, all empty; impatient downloads."""
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "variable"))
    monkeypatch.setattr(sources, "_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(downloads, "PAUSES_SECONDS", (0.01, 0.01, 0.01))
    monkeypatch.setattr(downloads, "STALLED_AFTER_SECONDS", 0.2)
    return tmp_path


@pytest.fixture
def server():
    """A server of two small files."""
    with FileServer() as serving:
        yield serving


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache of compiled graphs and of the speed of products."""
    for module in (compilation, matmul_kernels):
        monkeypatch.setattr(module, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "pyrovae"


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        except sync_api.Error as error:
            pytest.skip(f"Chromium does not start on this machine: {str(error).splitlines()[0]}")
        yield started
        started.close()
