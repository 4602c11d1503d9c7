"""Small trained runs of every kind that pictures are drawn of, on six by six pixels in three classes."""

import sys
from pathlib import Path

import torch

from pyrovae.data.datasets import Dataset, with_condition
from pyrovae.data.protocol import Protocol
from pyrovae.experiments.pictures.gallery import views_of
from pyrovae.experiments.training import train

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import gallery

CLASSES = torch.arange(90) % 3
GREY = torch.rand(90, 36, generator=torch.Generator().manual_seed(0)) * (0.2 + 0.4 * CLASSES[:, None]).clamp(0, 1)
SMALLER = {"latent_sizes": 3, "hidden_sizes": 8}


def dataset(condition="none"):
    """Sixty images to train on, twenty for validation, thirty for the test."""
    bits = (GREY > 0.4).float()
    labels = {"train": CLASSES, "valid": CLASSES[:20], "test": CLASSES[:30]}
    whole = Dataset("grey", GREY, bits[:20], bits[:30], labels, (1, 6, 6), Protocol(dataset="grey", sizes=(90, 20, 30)))
    return with_condition(whole, whole, condition)


def recipe(name, **settings):
    """That of the gallery, smaller."""
    each = gallery.RECIPES[name]
    sizes = {
        "latent_sizes": tuple(min(size, 4) for size in each.latent_sizes),
        "hidden_sizes": tuple(8 for _ in each.hidden_sizes),
        "num_components": min(each.num_components, {20: 2, 100: 3, 500: 4}.get(each.num_components, 4)),
    }
    return each.replace(dataset="grey", batch_size=30, epochs=2, warmup_epochs=0.0, **sizes | settings)


def trained(name, folder, **settings):
    """A run of the gallery, and its data."""
    chosen = recipe(name, **settings)
    data = dataset(chosen.condition)
    run = train(chosen, folder, dataset=data, engine="eager")
    run.evaluate(100, dataset=data)
    return run, data


def views(*pairs):
    return views_of([run for run, _ in pairs], [data for _, data in pairs])
