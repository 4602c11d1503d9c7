"""Compression: examples come back to the last bit, at the price of the bound, by every guide, prior and kind of data."""

import json
import math
import zipfile

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from click.testing import CliRunner
from pyrovae.cli import main
from scipy.stats import kstest

from pyrovae import ELBO, CompiledSVI, log_weights
from pyrovae.errors import InputError
from pyrovae.evaluation import bits_back, using
from pyrovae.evaluation.bits_back import DecodingError, compress, decompress
from pyrovae.evaluation.symbols import FAR, NEAR, STEP, Stack
from pyrovae.experiments import compressing
from pyrovae.experiments.building import assemble
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.training import train
from pyrovae.programs.distributions import GaussianMixture
from pyrovae.programs.guides import GUIDES
from pyrovae.programs.priors import PRIORS

SHAPE = (1, 4, 5)
LAYERS = {"latent_sizes": (4, 2), "hidden_sizes": (8, 6), "hidden_layers": 1}
SMALL = Recipe(dataset="bits", likelihood="bernoulli", num_components=3, **LAYERS)


def programs(number=400, steps=80, shape=SHAPE, **changes):
    """Programs, fitted to examples that they drew when their weights were random, and such examples."""
    torch.manual_seed(0)
    recipe = SMALL.replace(**changes)
    vae = assemble(recipe, shape, examples=torch.rand(recipe.num_components, math.prod(shape)))
    x = using.sample(vae.model, number)
    svi = CompiledSVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), 0.03), loss=ELBO(), engine="eager")
    for _ in range(steps):
        svi.step(x[:100])
    return vae, x


def whole(vae, compressed):
    return torch.cat(list(decompress(vae.model, vae.guide, compressed)))


def costs(vae, x, compressed):
    """The bits of an example beyond the first one, and by the bound."""
    first = 32 * len(compress(vae.model, vae.guide, x[-1:], alphabet=compressed.alphabet).words)
    return (32 * len(compressed.words) - first) / (len(x) - 1), compressed.negative_elbo


CASES = [(guide, "standard_normal", sizes) for guide in GUIDES for sizes in ((4, 2), (3,), (3, 3, 2))] + [
    ("mean_field", prior, (4, 2)) for prior in PRIORS if prior not in ("flow", "conditional_gaussian", "standard_normal")
]


@pytest.mark.parametrize(("guide", "prior", "latent_sizes"), CASES)
def test_examples_come_back_at_the_price_of_the_bound(guide, prior, latent_sizes):
    """Intervals, least probabilities and examples for which no bits are left cost less than one and a half percent."""
    hidden = {"hidden_sizes": (8,) * len(latent_sizes)}
    vae, x = programs(guide=guide, prior=prior, latent_sizes=latent_sizes, **hidden)
    found = compress(vae.model, vae.guide, x)
    assert torch.equal(whole(vae, found), x)
    bits, bound = costs(vae, x, found)
    assert bits == pytest.approx(bound, rel=0.015)


def test_the_price_is_the_bound_of_other_draws():
    """The bound at the coded latents against that at draws of the guide: five errors of one draw, once in a million."""
    vae, x = programs(guide="ladder", number=2000)
    found = compress(vae.model, vae.guide, x)
    torch.manual_seed(1)
    with torch.no_grad():
        draws = -log_weights(vae.model, vae.guide, x, num_particles=20) / np.log(2)
    assert found.negative_elbo == pytest.approx(draws.mean().item(), abs=5 * draws.std().item() / 2000**0.5)


@pytest.mark.parametrize("likelihood", ["discretized_logistic", "poisson", "negative_binomial"])
def test_levels_and_counts_come_back(likelihood):
    vae, x = programs(likelihood=likelihood, number=200)
    alphabet = torch.arange(256) / 255 if likelihood == "discretized_logistic" else torch.arange(x.max().item() + 1)
    found = compress(vae.model, vae.guide, x, alphabet=alphabet)
    assert torch.equal(whole(vae, found), x)
    bits, bound = costs(vae, x, found)
    assert bits == pytest.approx(bound, rel=0.015)


@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_few_examples_come_back(number):
    vae, x = programs(number=number)
    found = compress(vae.model, vae.guide, x)
    assert torch.equal(whole(vae, found), x)
    assert not found.batches[-1].has_bits_back
    assert np.isnan(found.negative_elbo) or number > 1


GAUSSIANS = {
    "usual": (torch.randn, lambda *shape: torch.rand(*shape) + 0.1),
    "narrow": (torch.randn, lambda *shape: 1e-5 * torch.rand(*shape) + 1e-6),
    "wide": (lambda *shape: 100 * torch.randn(*shape), lambda *shape: 1000 * torch.rand(*shape) + 1),
    "of all scales": (torch.randn, lambda *shape: torch.exp(3 * torch.randn(*shape))),
}


@pytest.mark.parametrize("width", [NEAR, FAR])
@pytest.mark.parametrize("name", [*GAUSSIANS, "mixture"])
def test_what_is_taken_and_put_again_leaves_the_same_bits(name, width):
    torch.manual_seed(0)
    if name == "mixture":
        distribution = GaussianMixture(3 * torch.randn(5, 6), torch.rand(5, 6) + 0.1, batch_shape=(40,))
    else:
        loc, scale = (make(40, 6) for make in GAUSSIANS[name])
        distribution = dist.Normal(loc, scale).to_event(1)
    stack = Stack(np.random.default_rng(0).integers(1, 2**32, 2000, dtype=np.uint32))
    before = stack.words
    symbols = stack.take_latents((40, 6), distribution, width)
    assert stack.num_bits < 32 * 2000
    stack.put_latents(symbols, distribution, width)
    assert np.array_equal(stack.words, before)


def test_latents_that_bits_draw_have_their_distribution():
    """Kolmogorov and Smirnov over 20,000 draws of a Gaussian: a false alarm once in a thousand seeds."""
    stack = Stack(np.random.default_rng(1).integers(1, 2**32, 40_000, dtype=np.uint32))
    loc, scale = torch.linspace(-2, 2, 20_000)[:, None], torch.linspace(0.05, 3, 20_000)[:, None]
    symbols = stack.take_latents((20_000, 1), dist.Normal(loc, scale).to_event(1), NEAR)
    standardized = (torch.as_tensor(symbols * STEP) - loc) / scale
    assert kstest(standardized[:, 0].numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("shape", [(1, 1, 13), (1, 1, 17), (1, 7, 7), (3, 2, 5)], ids=str)
@pytest.mark.parametrize("guide", ["mean_field", "ladder"])
def test_examples_of_any_size_come_back(shape, guide):
    """Of 13 numbers each, most examples begin where a product of matrices may differ in the last digit."""
    vae, x = programs(number=250, steps=20, shape=shape, guide=guide)
    assert torch.equal(whole(vae, compress(vae.model, vae.guide, x)), x)


def test_values_beside_those_of_the_alphabet_become_these():
    vae, x = programs(number=60, steps=5, likelihood="discretized_logistic")
    levels = torch.arange(256) / 255
    beside = (x * 255).round() * torch.tensor(1 / 255)
    assert not torch.equal(beside, x)
    assert torch.equal(whole(vae, compress(vae.model, vae.guide, beside, alphabet=levels)), x)


@pytest.mark.parametrize("latent_sizes", [(3,), (4, 2), (3, 3, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_other_arithmetic_is_noticed_before_a_wrong_example_is_given_out(seed, latent_sizes):
    """Weights that differ in some digits stand for the arithmetic of another machine."""
    vae, x = programs(number=300, guide="ladder", latent_sizes=latent_sizes, hidden_sizes=(8,) * len(latent_sizes))
    found = compress(vae.model, vae.guide, x)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in vae.parameters():
            each.mul_(1 + 10.0 ** -(seed + 3) * torch.randn(each.shape, generator=generator))
    given = []

    def take():
        for batch in decompress(vae.model, vae.guide, found):
            given.append(batch)

    with pytest.raises(DecodingError, match="the programs decode others here"):
        take()
    assert torch.equal(torch.cat([x[:0], *given]), x[: sum(map(len, given))])


def test_what_cannot_be_coded_is_refused():
    vae, x = programs(number=3)
    with pytest.raises(ValueError, match="expected one of 2 values from 0 to 1; got"):
        compress(vae.model, vae.guide, x + 0.5 * (x == 0))
    for changes in ({"posterior": "flow"}, {"prior": "flow"}):
        vae, x = programs(number=3, steps=0, flow_transforms=1, **changes)
        with pytest.raises(ValueError, match="got a NormalizingFlow, of whose intervals no probability is known"):
            compress(vae.model, vae.guide, x)
    vae, x = programs(number=3)
    with torch.no_grad():
        for name, each in vae.guide.named_parameters():
            if "readout" in name or name.endswith("weight"):
                each.mul_(1e5)
    with pytest.raises(ValueError, match=r"of where the model expects them|between -65,536 and 65,536"):
        compress(vae.model, vae.guide, x)


# Files of runs.


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Runs of bits, of grey values as bits, of levels, of counts and of real numbers, with their data."""
    folder = tmp_path_factory.mktemp("runs")
    grey = np.random.default_rng(0).integers(0, 256, (260, 4, 5)).astype(np.uint8)
    arrays = {
        "bits": grey > 128,
        "grey": grey,
        "levels": grey,
        "real": grey / 50 - 3,
        "counts": grey.astype(np.int64) // 20 + 290 * (grey > 250),
    }
    likelihoods = {"bits": "bernoulli", "grey": "bernoulli", "levels": "discretized_logistic"}
    likelihoods |= {"real": "gaussian", "counts": "poisson"}
    for name, x in arrays.items():
        np.savez(folder / f"{name}.npz", train=x[:200], valid=x[200:230], test=x[230:])
        np.save(folder / f"{name}.npy", x[:100])
        recipe = SMALL.replace(dataset=str(folder / f"{name}.npz"), likelihood=likelihoods[name], epochs=1, batch_size=50)
        train(recipe, folder / f"run-{name}")
    return folder


@pytest.mark.parametrize("name", ["bits", "levels", "counts"])
def test_a_run_compresses_and_decompresses(world, tmp_path, name):
    run, path = Run.load(world / f"run-{name}"), tmp_path / "x.bits"
    found = run.compress(world / f"{name}.npy", path)
    assert found.examples == 100
    assert found.bytes == path.stat().st_size
    assert found.bits_per_example == 8 * found.bytes / 100
    assert np.array_equal(run.decompress(path).reshape(100, 4, 5), np.load(world / f"{name}.npy"))


def call(*arguments, fails=False):
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert (result.exit_code != 0) == fails, result.output
    return result


def test_the_commands_compress_and_decompress(world, tmp_path):
    run, path = world / "run-bits", tmp_path / "x.bits"
    found = json.loads(call("compress", run, world / "bits.npy", "-o", path, "--json").stdout)
    assert found["bytes"] == path.stat().st_size
    assert "bits per example" in call("compress", run, world / "bits.npy", "-o", path).output
    assert json.loads(call("decompress", run, path, "-o", tmp_path / "x.npy", "--json").stdout)["rows"] == 100
    assert np.array_equal(np.load(tmp_path / "x.npy").reshape(100, 4, 5), np.load(world / "bits.npy"))


def test_grey_values_of_a_model_of_bits_are_said_to_be_lost(world, tmp_path):
    run = Run.load(world / "run-grey")
    with pytest.warns(UserWarning, match="holds bits that grey values became, drawn with seed 3"):
        run.compress(world / "grey.npy", tmp_path / "x.bits", seed=3)
    x = run.decompress(tmp_path / "x.bits")
    assert set(np.unique(x)) == {0.0, 1.0}
    run.compress(x.astype(bool), tmp_path / "again.bits")
    assert np.array_equal(run.decompress(tmp_path / "again.bits"), x)
    assert np.corrcoef(x.reshape(-1), np.load(world / "grey.npy").reshape(-1))[0, 1] > 0.5


@pytest.mark.parametrize("values", [(128,), (0, 128), (7, 255)], ids=str)
def test_grey_values_are_grey_whatever_others_there_are(world, tmp_path, values):
    x = np.resize(np.array(values, np.uint8), (9, 4, 5))
    with pytest.warns(UserWarning, match="holds bits that grey values became"):
        Run.load(world / "run-grey").compress(x, tmp_path / "x.bits")


def test_counts_of_zero_alone_come_back(world, tmp_path):
    run = Run.load(world / "run-counts")
    run.compress(np.zeros((9, 4, 5)), tmp_path / "x.bits")
    assert not run.decompress(tmp_path / "x.bits").any()


def test_damaged_truncated_and_foreign_files_are_refused(world, tmp_path):
    run, path = Run.load(world / "run-bits"), tmp_path / "x.bits"
    run.compress(world / "bits.npy", path)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for place in generator.integers(len(content), size=60).tolist():
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(InputError, match=r"is damaged or truncated|got another"):
            run.decompress(path)
    for length in (0, 1, 8, 11, 30, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"is damaged or truncated|got another"):
            run.decompress(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(InputError, match="wrote; got another"):
        run.decompress(path)
    path.unlink()
    with pytest.raises(InputError, match="got No such file or directory"):
        run.decompress(path)


def resealed(content, change=lambda words: words, **changes):
    """A file with another header, as somebody who means harm would write it."""
    import struct
    import zlib

    start = len(compressing.MARK) + 4
    (length,) = struct.unpack_from("<I", content, start - 4)
    header = json.loads(zlib.decompress(content[start : start + length])) | changes
    deflated = zlib.compress(json.dumps(header).encode())
    words = change(content[start + length : -compressing.DIGEST_BYTES])
    new = compressing.MARK + struct.pack("<I", len(deflated)) + deflated + words
    return new + compressing._digest(new)


OTHER_DATA = "got one of other data than those of"
HARM = {
    "no batch": ({"batches": [3]}, "wrote; got"),
    "an empty batch": ({"batches": [[0, True, 1]]}, "expected batches of one example or more"),
    "a huge batch": ({"batches": [[10**9, True, 1]]}, OTHER_DATA),
    "a batch of text": ({"batches": [["3", True, 1]]}, "expected size as int"),
    "other batches": ({"batches": [[7, True, 1]]}, "expected the arithmetic that it was compressed by"),
    "no letters": ({"letters": 0}, OTHER_DATA),
    "one letter": ({"letters": 1}, OTHER_DATA),
    "more letters": ({"letters": 60_000}, OTHER_DATA),
    "a huge alphabet": ({"letters": 10**12}, "expected counts below 65,536"),
    "another shape": ({"shape": [1]}, OTHER_DATA),
    "other data": ({"data": "levels"}, OTHER_DATA),
    "no model": ({"model": 3}, "expected model as str"),
    "another model": ({"model": "ab" * 32}, "expected the run that compressed it, of the model abababab"),
}


@pytest.mark.parametrize("name", HARM)
def test_headers_that_mean_harm_are_refused(world, tmp_path, name):
    run, path = Run.load(world / "run-counts"), tmp_path / "x.bits"
    run.compress(world / "counts.npy", path)
    changes, message = HARM[name]
    path.write_bytes(resealed(path.read_bytes(), **changes))
    with pytest.raises(InputError, match=message):
        run.decompress(path)


WORDS = {
    "two less": lambda words: words[:-8],
    "few": lambda words: words[:40],
    "none": lambda words: b"",
    "a zero more": lambda words: words + bytes(4),
    "reversed": lambda words: words[::-1],
}


@pytest.mark.parametrize("name", WORDS)
def test_other_words_are_refused(world, tmp_path, name):
    run, path = Run.load(world / "run-bits"), tmp_path / "x.bits"
    run.compress(world / "bits.npy", path)
    path.write_bytes(resealed(path.read_bytes(), WORDS[name]))
    with pytest.raises(InputError, match="expected the arithmetic that it was compressed by"):
        run.decompress(path)


def test_the_arithmetic_that_differs_is_named(world, tmp_path):
    run, path = Run.load(world / "run-bits"), tmp_path / "x.bits"
    run.compress(world / "bits.npy", path)
    path.write_bytes(resealed(path.read_bytes(), batches=[[7, True, 1]], arithmetic={"torch": "1.0"}))
    with pytest.raises(InputError, match=r"use torch 1\.0 \(here "):
        run.decompress(path)


def test_runs_that_cannot_compress_say_why(world, tmp_path):
    with pytest.raises(InputError, match="expected a model of bits, grey levels or counts"):
        Run.load(world / "run-real").compress(world / "real.npy", tmp_path / "x.bits")
    refused = call("compress", world / "run-bits", world / "grey.npy", "-o", tmp_path / "x.bits", fails=True)
    assert "expected whole numbers from 0 to 1" in refused.output + refused.stderr
    refused = call("decompress", world / "run-levels", world / "bits.npy", "-o", tmp_path / "x.npy", fails=True)
    assert "expected a file that 'pyrovae compress' wrote; got another" in refused.output + refused.stderr
    assert not list(tmp_path.glob("x.*"))


def test_batches_grow_and_the_last_example_is_alone():
    vae, x = programs(number=800)
    sizes = [each.size for each in compress(vae.model, vae.guide, x).batches]
    assert sum(sizes) == 800
    assert sizes[-1] == 1
    assert max(sizes) <= bits_back.MOST_AT_ONCE
    assert len(sizes) < 200
