"""Small trainings, stopped anywhere and gone on with; what is left of them, to be compared to the last bit."""

import json

import torch
from safetensors.torch import load_file

from pyrovae.data.datasets import Dataset
from pyrovae.data.protocol import Protocol
from pyrovae.experiments import checkpoints
from pyrovae.experiments.recipe import Recipe

GREY = torch.rand(120, 12, generator=torch.Generator().manual_seed(0))
SMALL = Recipe(
    dataset="grey",
    likelihood="bernoulli",
    latent_sizes=(3, 2),
    hidden_sizes=(8, 6),
    hidden_layers=1,
    batch_size=30,
)
LADDER = SMALL.replace(
    guide="ladder",
    prior="vamp",
    num_components=5,
    batch_norm=True,
    average_decay=0.9,
    warmup_epochs=1.5,
    clip_norm=5.0,
    skip_norm=400.0,
    epochs=2,
    patience=2,
    stages=({}, {"learning_rate": 3e-4, "epochs": 2}),
)
IWAE = SMALL.replace(latent_sizes=(3,), hidden_sizes=(8,), objective="iwelbo", num_particles=3, epochs=3)
STAGED = SMALL.replace(
    guide="top_down",
    optimizer="RMSprop",
    optimizer_arguments={"momentum": 0.5},
    stages=({"epochs": 2}, {"epochs": 1, "num_particles": 2}),
)
# All that stages may change without another graph, and all parts of networks and guides that draw or are fitted in training.
SCHEDULED = SMALL.replace(
    guide="residual_top_down",
    prior="flow",
    posterior="flow",
    flow_transforms=1,
    hidden_layers=2,
    encoder_layers=3,
    layer_norm=True,
    residual_layers=True,
    dropout=0.2,
    encoder_weight_decay=0.1,
    learning_rate_schedule="cosine",
    learning_rate_warmup=2,
    stages=({"epochs": 2}, {"epochs": 1, "average_decay": 0.8, "learning_rate_schedule": "step"}),
)
# As short as a training can be that writes everything twice.
FAULTY = IWAE.replace(epochs=2, batch_size=60)
RECIPES = {"ladder": LADDER, "iwae": IWAE, "two objectives": STAGED, "schedules": SCHEDULED}


def grey():
    """Sixty-odd images are trained on in four batches, others hold back."""
    bits = (GREY > 0.5).float()
    return Dataset("grey", GREY, bits[:30], bits[:20], {}, (1, 3, 4), Protocol(dataset="grey", sizes=(120, 30, 20)))


class StoppedError(Exception):
    """Where a training was told to stop."""


def stop_after(step):
    def track(status):
        if status.steps == step and status.record is None:
            raise StoppedError

    return track


def remains(folder):
    """Everything that a training leaves behind but for seconds and machines: tensors by name, and plain values."""
    newest = checkpoints.newest_folder(folder)
    state = json.loads((newest / checkpoints.STATE).read_text())
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for row in history:
        del row["seconds"]
    del state["values"]["progress"]["seconds"], state["values"]["history_bytes"]
    tensors = {f"weights.{name}": each for name, each in load_file(folder / "weights.safetensors").items()}
    tensors |= {f"checkpoint.{name}": each for name, each in load_file(newest / checkpoints.TENSORS).items()}
    return tensors, {"history": history, "state": state, "recipe": json.loads((folder / "recipe.json").read_text())}


def assert_same(one, other, where):
    (tensors, values), (others, other_values) = one, other
    assert tensors.keys() == others.keys(), where
    for name, each in tensors.items():
        assert torch.equal(each, others[name]), f"{where}: {name} differs by {(each - others[name]).abs().max()}"
    for name, each in values.items():
        assert each == other_values[name], f"{where}: {name}"
