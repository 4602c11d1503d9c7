"""Five small programs as people write them, for histories of changes; each says what may be changed in it.

A subject holds model, guide and loss, and names by dotted paths what people change between steps: ``parts`` are modules,
``numbers`` plain attributes with the values that they take. Everything is small: a capture costs more than the step.
"""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.distributions import constraints

from pyrovae.inference.objectives import ELBO
from pyrovae.programs.architecture import Architecture
from pyrovae.programs.guides import GUIDES
from pyrovae.programs.models import GenerativeModel
from pyrovae.programs.priors import PRIORS, PriorSettings

COLUMNS = 6
WEIGHTS = (0.1, 0.5, 1.0, 2.0)


class Table(dict):
    """A dictionary of one's own."""


FORMS = {
    "tensor": lambda x: x,
    "numpy": lambda x: x.numpy(),
    "dictionary": lambda x: {"x": x},
    "dictionary of numpy": lambda x: {"x": x.numpy()},
    "subclass of dict": lambda x: Table(x=x),
    "namespace": lambda x: SimpleNamespace(x=x),
    "list": lambda x: [x],
    "float64": lambda x: x.double(),
    "int64": lambda x: x.round().long(),
    "transposed": lambda x: x.T.contiguous().T,
    "every second row": lambda x: x.repeat_interleave(2, 0)[::2],
    "expanded": lambda x: x[:1].expand(len(x), -1),
}


def values(batch):
    """The tensor in a batch of any form."""
    if isinstance(batch, dict):
        batch = batch["x"]
    elif isinstance(batch, SimpleNamespace):
        batch = batch.x
    elif isinstance(batch, list):
        (batch,) = batch
    return torch.from_numpy(batch) if isinstance(batch, np.ndarray) else batch


class Subject:
    """Programs of a history; the defaults of what they may be asked for."""

    bits = False
    weighted = True
    # Pyro's store puts weak references into the parameters that it holds, which cannot be pickled.
    picklable = False
    observed = "x"
    transform = None
    parts: tuple[str, ...] = ()
    replaceable: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    numbers: ClassVar[dict[str, tuple]] = {}
    # Those of plain Pyro too, which trains what its store holds.
    stored = True
    # What engine graph may refuse in the programs as they are: its message must hold one of them.
    words: tuple[str, ...] = ()

    @classmethod
    def batch(cls, size, seed):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(size, COLUMNS, generator=generator, dtype=torch.float32)
        return (noise > 0.5).float() if cls.bits else 3 * noise - 1

    @classmethod
    def other_data(cls, size):
        """What a handler may put in the place of the observed values."""
        return {cls.observed: torch.zeros(size, COLUMNS) if cls.bits else torch.zeros(size)}

    def part(self, path):
        """A module, or whatever stands at a dotted path."""
        found = self
        for name in path.split("."):
            found = getattr(found, name)
        return found

    def put(self, path, value):
        """Another value at a dotted path."""
        *parents, name = path.split(".")
        setattr(self.part(".".join(parents)) if parents else self, name, value)

    def modules(self):
        return {name: self.part(name) for name in self.roots}


class TutorialVAE(nn.Module):
    """The class of Pyro's tutorial, whose model and guide are methods, with what people keep as attributes."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(COLUMNS, 5), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.Linear(5, 4))
        self.decoder = nn.Linear(2, COLUMNS)
        self.register_buffer("shift", torch.zeros(COLUMNS))
        self.register_buffer("examples_seen", torch.zeros(()))
        self.kl_weight, self.temperature, self.activation, self.shifted = 1.0, 1.0, "tanh", True
        self.settings = {"prior_scale": 1.0}
        self.gain = torch.tensor(1.0)

    def model(self, batch, weight=1.0):
        x = values(batch).to(self.decoder.weight.dtype)
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=self.kl_weight):
                prior = dist.Normal(torch.zeros(len(x), 2), self.settings["prior_scale"])
                z = pyro.sample("z", prior.to_event(1))
            logits = self.decoder(z) * self.gain
            if self.shifted:
                logits = logits + self.shift
            with poutine.scale(scale=weight):
                pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, batch, weight=1.0):
        x = values(batch).to(self.decoder.weight.dtype)
        pyro.module("encoder", self.encoder)
        # A buffer that moves in a method: no forward of its module runs.
        self.examples_seen += len(x)
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)), poutine.scale(scale=self.kl_weight):
            scale = getattr(torch, self.activation)(log_scale).exp() * self.temperature
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


class TutorialSubject(Subject):
    """A VAE as methods of one module, with batch norm and dropout."""

    bits = True
    parts = ("vae", "vae.encoder", "vae.decoder")
    replaceable = ("vae.encoder", "vae.decoder")
    roots = ("vae",)
    numbers: ClassVar = {
        "vae.kl_weight": WEIGHTS,
        "vae.temperature": WEIGHTS,
        "vae.activation": ("tanh", "sigmoid"),
        "vae.shifted": (True, False),
        "vae.encoder.1.momentum": (0.1, 0.3, None),
        "vae.encoder.1.eps": (1e-5, 1e-2),
        "vae.encoder.2.p": (0.0, 0.5, 2.0),
        "vae.gain": tuple(map(torch.tensor, WEIGHTS)),
        "prior_scale": WEIGHTS,
    }

    def __init__(self):
        self.vae, self.loss = TutorialVAE(), Trace_ELBO()

    model = property(lambda self: self.vae.model)
    guide = property(lambda self: self.vae.guide)

    @property
    def words(self):
        """Without momentum, batch norm of torch's reads how many batches it has seen."""
        norms = [each for each in self.vae.modules() if isinstance(each, nn.BatchNorm1d)]
        return ("by if",) if any(each.momentum is None and each.training for each in norms) else ()

    def __setattr__(self, name, value):
        if name == "prior_scale":
            self.vae.settings["prior_scale"] = value
        else:
            super().__setattr__(name, value)


class LadderSubject(Subject):
    """A ladder of one layer with VampPrior, batch norm and a transform."""

    bits = True
    weighted = False
    parts = ("model", "guide", "guide.encoder", "model.likelihood", "model.prior")
    replaceable = ("model.likelihood",)
    roots = ("model", "guide")
    stored = False
    picklable = True
    numbers: ClassVar = {"guide.encoder.networks.0.1.momentum": (0.1, 0.3), "guide.encoder.networks.0.1.eps": (1e-5, 1e-2)}

    def __init__(self):
        sizes = Architecture(shape=(1, 2, 3), latent_sizes=(2,), hidden_sizes=(4,), batch_norm=True)
        self.model = GenerativeModel.of(sizes)
        self.guide = GUIDES["ladder"].of(self.model, sizes)
        self.model.prior = PRIORS["vamp"].of(sizes, PriorSettings(num_components=3, posterior=self.guide.top_posterior))
        self.loss = ELBO()

    def transform(self, batch):
        return values(batch).to(next(self.model.parameters()).dtype)


class Regression(PyroModule):
    """A Bayesian line with a PyroParam for the noise, and a branch on a number."""

    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](COLUMNS, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, COLUMNS]).to_event(2))
        self.noise = PyroParam(torch.tensor(0.5), constraint=constraints.positive)
        self.spread = 1.0

    def forward(self, batch, weight=1.0):
        x = values(batch).to(self.linear.bias.dtype)
        mean = self.linear(x).squeeze(-1)
        if weight > 0.7:
            mean = mean * weight
        with pyro.plate("data", len(x)):
            return pyro.sample("x", dist.Normal(mean, self.noise * self.spread), obs=x.sum(-1))


def hand_written(batch, weight=1.0):
    """The guide of a regression, whose initial values are drawn at every run and used at the first."""
    loc = pyro.param("loc", 0.1 * torch.randn(1, COLUMNS))
    scale = pyro.param("scale", torch.full((1, COLUMNS), 0.3), constraint=constraints.positive)
    pyro.sample("linear.weight", dist.Normal(loc, scale).to_event(2))


class RegressionSubject(Subject):
    """A regression with ``pyro.param`` and a ``PyroModule``."""

    parts = ("model", "model.linear")
    replaceable = ()
    roots = ("model",)
    numbers: ClassVar = {"model.spread": WEIGHTS}

    def __init__(self):
        self.model, self.guide, self.loss = Regression(), hand_written, Trace_ELBO()


SPREAD = 0.3


def mixture_programs():
    """Closures over numbers and tensors, which only the last of the three functions can change."""
    temperature, centres = 1.0, torch.tensor([-1.0, 2.0])

    @config_enumerate
    def model(batch, weight=1.0):
        x = values(batch)[:, 0] * 1.0
        share = pyro.param("share", torch.tensor(0.3), constraint=constraints.unit_interval)
        spread = pyro.sample("spread", dist.LogNormal(0.0, temperature))
        with pyro.plate("data", len(x)):
            cluster = pyro.sample("cluster", dist.Bernoulli(share)).long()
            pyro.sample("x", dist.Normal(centres[cluster] * weight, spread), obs=x)

    def guide(batch, weight=1.0):
        pyro.sample("spread", dist.LogNormal(pyro.param("loc", torch.tensor(0.2)), SPREAD))

    def change(name, value):
        nonlocal temperature, centres
        if name == "temperature":
            temperature = value
        else:
            centres = centres * value

    return model, guide, change


class MixtureSubject(Subject):
    """A mixture whose assignments are summed out: functions that close over what they use."""

    numbers: ClassVar = {"temperature": WEIGHTS, "centres": WEIGHTS, "spread": WEIGHTS}

    def __init__(self):
        self.model, self.guide, self.change = mixture_programs()
        self.loss = TraceEnum_ELBO(max_plate_nesting=1)

    def put(self, path, value):
        if path == "spread":
            globals()["SPREAD"] = value
        else:
            self.change(path, value)


class Curve(PyroModule):
    """A line whose coefficients are latent; a namespace of settings as people make from a command line."""

    def __init__(self):
        super().__init__()
        self.settings = SimpleNamespace(noise=0.5)
        self.width = 1.0
        self.hidden = nn.Linear(COLUMNS, 2)

    def forward(self, batch, weight=1.0):
        x = self.hidden(values(batch).to(self.hidden.weight.dtype))
        slope = pyro.sample("slope", dist.Normal(0.0, self.width).expand([2]).to_event(1))
        level = pyro.sample("level", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)), poutine.scale(scale=weight):
            pyro.sample("x", dist.Normal(x @ slope.to(x.dtype), level * self.settings.noise), obs=values(batch)[:, 0] * 1.0)


class AutoguideSubject(Subject):
    """A model with a guide from ``pyro.infer.autoguide``."""

    parts = ("model", "model.hidden", "guide")
    replaceable = ("model.hidden",)
    roots = ("model", "guide")
    numbers: ClassVar = {"model.width": WEIGHTS, "model.settings.noise": WEIGHTS}

    def __init__(self):
        self.model = Curve()
        self.guide, self.loss = AutoNormal(self.model), Trace_ELBO()


SUBJECTS = {
    "vae": TutorialSubject,
    "ladder": LadderSubject,
    "regression": RegressionSubject,
    "mixture": MixtureSubject,
    "autoguide": AutoguideSubject,
}
