import pyro
import pytest
import torch


@pytest.fixture(autouse=True)
def _reproducible():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    assert not torch.is_inference_mode_enabled()


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
