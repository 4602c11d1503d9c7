"""Exported functions: the mathematics of their noise, what the files compute, and that they need neither Pyro nor pyrovae."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from click.testing import CliRunner
from linear_gaussian import Chain
from pyrovae.cli import main
from test_combinations import dataset, recipe

from pyrovae.data.conditions import CONDITIONS
from pyrovae.data.preparation import Preparation
from pyrovae.engine.capture import is_random
from pyrovae.errors import InputError
from pyrovae.evaluation.functions import FUNCTIONS, Decode, Encode, LogLikelihood, Sample
from pyrovae.evaluation.noise import NoQuantileError, noise_size, value_of
from pyrovae.experiments import exported_files, model_export
from pyrovae.experiments.building import build, resolve
from pyrovae.experiments.exported_files import EXACT, FORMATS, METADATA, Format, from_torch, to_torch, trace_function
from pyrovae.experiments.model_export import TOLERANCE, example_inputs, export_model
from pyrovae.experiments.original_units import OriginalUnits
from pyrovae.experiments.recipe import Recipe
from pyrovae.experiments.run import Run
from pyrovae.experiments.training import train
from pyrovae.programs.conditionals import scale_of
from pyrovae.programs.distributions import DiscretizedLogistic, GaussianMixture, GreyBernoulli
from pyrovae.programs.flows import NormalizingFlow, SplineTransform
from pyrovae.programs.guides import GUIDES
from pyrovae.programs.likelihoods import LIKELIHOODS
from pyrovae.programs.priors import PRIORS

# The middles of 20,000 slices of equal probability: means over them are integrals, and no chance is left.
SLICES = 20_000
GRID = dist.Normal(0.0, 1.0).icdf((torch.arange(SLICES, dtype=torch.float64) + 0.5) / SLICES)


# The values that noise stands for.


@pytest.mark.parametrize(
    "distribution",
    [
        dist.Normal(0.3, 1.7),
        dist.LogNormal(0.3, 0.4),
        dist.Bernoulli(logits=torch.tensor(-0.8)),
        GreyBernoulli(logits=torch.tensor(1.2)),
        dist.ContinuousBernoulli(probs=torch.tensor(0.8)),
        DiscretizedLogistic(torch.tensor(0.7), torch.tensor(0.05)),
        dist.Normal(0.3, 1.7).mask(torch.tensor(False)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_values_of_all_noise_have_the_mean_of_the_distribution(distribution):
    values = value_of(distribution.expand((SLICES,)), GRID)
    assert values.mean().item() == pytest.approx(distribution.mean.item(), abs=2e-3)


def test_a_grey_level_comes_as_often_as_its_probability():
    levels = DiscretizedLogistic(torch.tensor(0.99), torch.tensor(0.02))
    values = value_of(levels.expand((SLICES,)), GRID)
    shares = torch.bincount((values * 255).round().long(), minlength=256) / SLICES
    torch.testing.assert_close(shares, levels.log_prob(torch.arange(256) / 255).exp(), rtol=0, atol=2e-4)


def test_a_category_comes_as_often_as_its_probability_and_an_absent_one_never():
    logits = torch.tensor([0.3, -1.0, 0.7, -torch.inf])
    values = value_of(dist.Categorical(logits=logits).expand((SLICES,)), GRID)
    shares = torch.bincount(values, minlength=4) / SLICES
    torch.testing.assert_close(shares, logits.softmax(0), rtol=0, atol=2e-4)
    assert value_of(dist.Categorical(logits=logits), torch.tensor(40.0)) == 2


def test_a_mixture_takes_each_component_as_often():
    mixture = GaussianMixture(torch.tensor([[-1.0, 4.0], [2.0, 5.0], [3.0, -1.0]]), torch.tensor([[0.5], [1.0], [2.0]]))
    shuffled = GRID[torch.randperm(SLICES, generator=torch.Generator().manual_seed(0))]
    values = value_of(mixture, torch.stack([GRID, shuffled, shuffled], -1))
    # Within a component the shuffled slices are a sample of 6,666: four errors of the widest component are 0.1.
    torch.testing.assert_close(values.mean(0).float(), mixture.mean, rtol=0, atol=0.1)
    torch.testing.assert_close(values.var(0).float(), mixture.variance, rtol=0.05, atol=0)
    assert noise_size(mixture) == 3


def test_a_flow_knows_the_density_of_the_value_of_noise():
    flow = NormalizingFlow(dist.Normal(torch.zeros(5, 3), 2.0), SplineTransform(3, passes=2)(None))
    with torch.no_grad():
        value = value_of(flow, torch.randn(5, 3))
        torch.testing.assert_close(flow.log_prob(value), flow.log_prob(value.clone()))


def test_counts_have_no_value_of_noise():
    with pytest.raises(NoQuantileError, match="closed form; got a Poisson"):
        value_of(dist.Poisson(torch.tensor(2.0)), torch.zeros(()))


# The functions of any model and guide, on a chain whose posterior and evidence are known.


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("guide", GUIDES)
def test_the_log_likelihood_with_an_exact_guide_is_the_evidence_for_any_noise(guide):
    chain = Chain(1 if guide == "mean_field" else 3)
    x = chain.model(batch_size=4).detach()
    function = LogLikelihood(chain.model, chain.exact_guides()[guide])
    noise = {f"noise_z{layer}": 3 * torch.randn(2, 4, 1) for layer in range(1, chain.depth + 1)}
    torch.testing.assert_close(function({"x": x} | noise)["log_likelihood"], chain.evidence(x))


@pytest.mark.usefixtures("float64")
def test_latents_and_data_are_linear_in_the_noise():
    chain = Chain(2)
    guide, x, noise = chain.exact_guides()["top_down"], torch.randn(4, 3), torch.randn(4, 1)
    found = Encode(chain.model, guide)({"x": x, "noise_z1": torch.zeros(4, 1), "noise_z2": noise})
    top, below = chain.posterior(2)(x), chain.downward(1)(torch.cat([x, found["z2"]], -1))
    torch.testing.assert_close(found["z2"], top.mean + top.variance.sqrt() * noise)
    torch.testing.assert_close(found["z1"], below.mean)
    torch.testing.assert_close(found["z1_scale"], below.variance.sqrt())
    mean = Decode(chain.model, guide)({"z1": found["z1"]})["mean"]
    torch.testing.assert_close(mean, found["z1"] * chain.weight + chain.bias)
    drawn = Sample(chain.model, guide)({"noise_z1": noise, "noise_z2": noise, "noise_x": torch.ones(4, 3)})
    torch.testing.assert_close(drawn["z2"], noise)
    torch.testing.assert_close(drawn["z1"], 0.8 * noise + 0.3 + 0.6 * noise)
    torch.testing.assert_close(drawn["x"], drawn["mean"] + 0.7)


def test_what_onnx_lacks_is_computed_to_ten_digits():
    x = torch.logspace(-6, 8, 400, dtype=torch.float64)
    found = EXACT[torch.ops.aten.lgamma.default](x)
    torch.testing.assert_close(found, x.lgamma(), rtol=1e-10, atol=1e-9)
    small = torch.cat([-x.flip(0), x])[:600]
    torch.testing.assert_close(EXACT[torch.ops.aten.expm1.default](small), small.expm1(), rtol=1e-13, atol=0)
    torch.testing.assert_close(EXACT[torch.ops.aten.log1p.default](x), x.log1p(), rtol=1e-13, atol=0)


DIGITS = {
    "softplus": torch.nn.functional.softplus,
    "logsigmoid": torch.nn.functional.logsigmoid,
    "sigmoid": torch.sigmoid,
    "expm1": torch.expm1,
    "exp": torch.exp,
    "log1p": lambda x: x.abs().log1p(),
    "a small constant": lambda x: (x.abs() + 1e-8).sqrt(),
    "scale": scale_of,
    "logsumexp": lambda x: torch.stack([x, -x]).logsumexp(0),
    "erf": torch.erf,
}


@pytest.mark.parametrize("name", DIGITS)
def test_onnxruntime_keeps_the_digits_of_what_likelihoods_are_made_of(name):
    """Relative to the value, also where it is small: a scale is the root of a sum with 1e-8."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install pyrovae[onnx]")

    class Function(torch.nn.Module):
        def forward(self, inputs):
            return {"y": DIGITS[name](inputs["x"])}

    small = torch.logspace(-12, 1, 300)
    inputs = {"x": torch.cat([torch.linspace(-40, 40, 4001), small, -small])}
    program = torch.export.export(Function(), (inputs,), strict=False)
    form = FORMATS[".onnx"]
    found = form.load(form.write(program, inputs, ["y"], "{}"), ["y"])(inputs)["y"]
    torch.testing.assert_close(found.double(), DIGITS[name](inputs["x"].double()), rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("logit", [-30.0, -1.3, -1e-9, 1e-3, 0.7, 30.0])
def test_a_quantile_of_continuous_bits_is_the_inverse_of_their_distribution_function(logit):
    parameter, noise = torch.tensor(logit, dtype=torch.float64), torch.linspace(-3, 3, 41, dtype=torch.float64)
    values = value_of(dist.ContinuousBernoulli(logits=parameter), noise)
    below = (parameter * values).expm1() / parameter.expm1()
    torch.testing.assert_close(below, dist.Normal(0.0, 1.0).cdf(noise), rtol=0, atol=1e-6)


# Files of runs.


def towns(count, seed=0):
    generator = np.random.default_rng(seed)
    east = generator.normal(5000, 20, count)
    rooms = generator.choice([2, 5], count)
    return pd.DataFrame({"east": east, "north": 0.5 * east + generator.normal(0, 9, count), "rooms": rooms})


@pytest.fixture(scope="module")
def tabled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towns")
    towns(400).to_csv(folder / "towns.csv", index=False)
    small = {"latent_sizes": (2,), "hidden_sizes": (8,), "batch_size": 40, "learning_rate": 1e-2}
    chosen = Recipe(
        dataset=str(folder / "towns.csv"), likelihood="mixed", epochs=10, prior="mixture", num_components=3, **small
    )
    return train(chosen, folder / "run", engine="eager")


@pytest.fixture(scope="module")
def exported(tabled):
    return tabled.export(tabled.folder.parent / "model.pt2")


def loaded(export, name):
    path = export.functions[name].path
    return from_torch(path.read_bytes(), [])


def test_units_are_those_of_the_preparation(tabled):
    preparation, values = tabled.required_preparation, towns(9, seed=1).to_numpy(float)
    units = OriginalUnits(preparation)
    prepared = units.prepare(torch.from_numpy(values))
    torch.testing.assert_close(prepared, preparation.rescale(values), rtol=0, atol=0)
    assert set(prepared[:, 2].tolist()) == {0.0, 1.0}
    between = prepared.double() * 0.75
    np.testing.assert_allclose(units.restore(between), preparation.restore(between), rtol=1e-12)


def test_a_file_scores_examples_of_any_number_in_the_units_of_people_as_the_run_does(tabled, exported):
    """Both estimates are of 4,000 samples: their difference is above five of its errors less than once in a million."""
    new = towns(7, seed=3)
    right = tabled.score(new, num_samples=4000)
    noise = torch.randn(4000, 7, 2, generator=torch.Generator().manual_seed(1))
    inputs = {"x": torch.from_numpy(new.to_numpy(float)), "noise_z1": noise}
    found = loaded(exported, "log_likelihood")(inputs)["log_likelihood"]
    assert (
        abs(found.numpy() - right["log_likelihood"].to_numpy()) < 5 * math.sqrt(2) * right["standard_error"].to_numpy() + 1e-4
    ).all()


def test_files_encode_and_decode_as_the_run_does(tabled, exported):
    new = towns(6, seed=3)
    moments = tabled.encode(new)
    inputs = {"x": torch.from_numpy(new.to_numpy(float)), "noise_z1": torch.zeros(6, 2)}
    found = loaded(exported, "encode")(inputs)
    np.testing.assert_allclose(found["z1_loc"], moments[["z1_1_mean", "z1_2_mean"]], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["z1_scale"], moments[["z1_1_std", "z1_2_std"]], rtol=1e-5, atol=1e-5)
    mean = loaded(exported, "decode")({"z1": found["z1"]})["mean"]
    assert mean.dtype == torch.float64
    assert abs(mean[:, 0].numpy() - new["east"]).max() < 200


WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in {absent!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import numpy as np
"""
TORCH_ALONE = """
import torch
drawn = torch.export.load({path!r}).module()({{"noise_z1": torch.zeros(11, 3), "noise_x": torch.zeros(11, 3)}})
print(drawn["x"].shape, drawn["x"].dtype, float(drawn["x"][4, 0]))
"""
ONNX_ALONE = """
import json, onnxruntime
session = onnxruntime.InferenceSession({path!r})
x, noise = np.zeros((5, 12), np.float32), np.zeros((7, 5, 4), np.float32)
(found,) = session.run(["log_likelihood"], {{"x": x, "noise_z1": noise}})
print(found.shape, float(found[3]), json.loads(session.get_modelmeta().custom_metadata_map["pyrovae.json"])["function"])
"""


def run_without(absent, code, path):
    code = WITHOUT.format(absent=absent) + code.format(path=str(path))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=path.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_file_runs_with_torch_alone(tabled, exported):
    said = run_without(("pyro", "pyrovae", "zuko"), TORCH_ALONE, exported.functions["sample"].path)
    inputs = {"noise_z1": torch.zeros(1, 3), "noise_x": torch.zeros(1, 3)}
    known = loaded(exported, "sample")(inputs)["x"][0, 0]
    words, number = said.rsplit(" ", 1)
    assert words == "torch.Size([11, 3]) torch.float64"
    assert float(number) == pytest.approx(known.item(), rel=1e-6)


def test_a_file_says_what_it_is_and_nothing_of_this_machine(tabled, exported):
    texts = {METADATA: ""}
    torch.export.load(exported.functions["sample"].path, extra_files=texts)
    said = json.loads(texts[METADATA])
    assert said["protocol_hash"] == tabled.protocol_hash
    assert said["inputs"]["noise_z1"] == {"shape": ["B", 3], "dtype": "float32"}
    assert said["outputs"] == ["z1", "mean", "x"]
    assert str(tabled.folder.parent) not in json.dumps(said["recipe"])


def run_of(folder, guide="mean_field", depth=1, likelihood="bernoulli", condition="none", **settings):
    """A run with fresh programs: what a file computes does not depend on a training."""
    chosen = recipe(guide, depth, likelihood=likelihood, condition=condition, **settings)
    data = dataset(likelihood, condition, chosen.missing)
    chosen, protocol = resolve(chosen, data), data.protocol
    vae = build(chosen, data).eval()
    return Run(folder, chosen, data.shape, data.num_classes, str(protocol), protocol.hash, vae, Preparation.of(data))


def test_a_file_runs_with_onnxruntime_alone(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install pyrovae[onnx]")
    # One function of the four, since each takes seconds.
    monkeypatch.setattr(model_export, "FUNCTIONS", {"log_likelihood": LogLikelihood})
    run = run_of(tmp_path, likelihood="negative_binomial")
    found = export_model(run, tmp_path / "model.onnx").functions["log_likelihood"]
    assert found.largest_difference < TOLERANCE
    x, noise = torch.zeros(1, 12), torch.zeros(1, 1, 4)
    with torch.no_grad():
        known = LogLikelihood(run.vae.model, run.vae.guide)({"x": x, "noise_z1": noise})["log_likelihood"]
    shape, number, name = run_without(("pyro", "pyrovae", "torch", "onnx"), ONNX_ALONE, found.path).rsplit(" ", 2)
    assert (shape, name) == ("(5,)", "log_likelihood")
    assert float(number) == pytest.approx(known.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["decode", "sample"])
def test_a_graph_draws_nothing(tmp_path, name):
    run = run_of(tmp_path, likelihood="negative_binomial")
    function = FUNCTIONS[name](run.vae.model, run.vae.guide)
    program = trace_function(function, example_inputs(run, function, 3, 2))
    assert not [node for node in program.graph.nodes if is_random(node)]


def test_a_file_that_differs_is_refused_and_not_written(tmp_path, monkeypatch):
    def off(content, outputs):
        function = from_torch(content, outputs)
        return lambda inputs: {name: each + 1e-3 for name, each in function(inputs).items()}

    monkeypatch.setitem(exported_files.FORMATS, ".pt2", Format(to_torch, off))
    with pytest.raises(
        InputError,
        match=r"expected an exported 'encode' that agrees .* the largest difference is 0.00\d+ in 'z1\w*', where",
    ):
        run_of(tmp_path).export(tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_a_model_whose_values_are_no_numbers_is_refused_and_not_written(tmp_path):
    run = run_of(tmp_path)
    with torch.no_grad():
        for each in run.vae.parameters():
            each.fill_(torch.nan)
    with pytest.raises(InputError, match="expected weights that are numbers"):
        run.export(tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_the_command_line_exports_and_says_what(tabled, tmp_path):
    result = CliRunner().invoke(main, ["export", str(tabled.folder), "-o", str(tmp_path / "m.pt2"), "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["left_out"] == {}
    assert sorted(Path(each["path"]).name for each in said["functions"].values()) == sorted(
        f"m.{name}.pt2" for name in FUNCTIONS
    )
    assert all(Path(each["path"]).exists() and each["largest_difference"] < TOLERANCE for each in said["functions"].values())
    wrong = CliRunner().invoke(main, ["export", str(tabled.folder), "-o", str(tmp_path / "m.pth")])
    assert wrong.exit_code == 2
    assert "expected a file of .pt2, .onnx; got .pth" in wrong.output


# Whatever a recipe can be made of.
CASES = [
    *({"guide": guide, "depth": 2} for guide in GUIDES),
    *({"prior": prior, "depth": 2, "condition": "label"} for prior in PRIORS),
    *({"likelihood": likelihood} for likelihood in LIKELIHOODS),
    *({"condition": condition} for condition in CONDITIONS),
    {"guide": "ladder", "depth": 2, "prior": "flow", "posterior": "flow"},
    {"posterior": "flow", "flow": "autoregressive"},
    {"guide": "top_down", "depth": 2, "prior": "vamp", "skip_connections": True},
    {"missing": True, "likelihood": "mixed"},
    {"missing": True},
    {"depth": 0, "condition": "label"},
    {"network": "convolutional"},
    {"network": "residual", "depth": 2},
]


# Flows, and all of them in ONNX, take from ten seconds to minutes each.
USUAL = [case for case in CASES if "flow" not in case.values()]
OFTEN = [(case, ".pt2") for case in USUAL[::3]] + [({"guide": "ladder", "depth": 2}, ".onnx")]


@pytest.mark.parametrize(
    ("case", "ending"),
    [pytest.param(*each, marks=pytest.mark.slow) for each in OFTEN]
    + [
        pytest.param(case, ending, marks=pytest.mark.hours)
        for case in CASES
        for ending in FORMATS
        if (case, ending) not in OFTEN
    ],
    ids=str,
)
def test_whatever_can_be_trained_is_exported(case, ending, tmp_path):
    run = run_of(tmp_path, **case)
    found = export_model(run, tmp_path / f"model{ending}")
    assert max(each.largest_difference for each in found.functions.values()) < TOLERANCE, found
    unnormalized, regressor = not LIKELIHOODS[run.recipe.likelihood].normalized, not run.recipe.latent_sizes
    assert set(FUNCTIONS) - set(found.functions) == ({"log_likelihood"} if unnormalized else set()) | (
        {"encode"} if regressor else set()
    )
