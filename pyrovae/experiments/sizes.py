"""The limits on the size of programs, which protect against malicious recipes before anything is allocated."""

from __future__ import annotations

from pyrovae.data.preparation import Preparation
from pyrovae.experiments.building import assemble, columns_of
from pyrovae.experiments.checking import short_repr
from pyrovae.experiments.recipe import Recipe

# The most numbers of programs; more are not allocated.
MOST_NUMBERS = 2**28


def refuse_giants(recipe: Recipe, shape: tuple[int, ...], num_classes: int, preparation: Preparation | None = None) -> None:
    """Refuse sizes that only a malicious recipe has, before anything is allocated.

    Raises:
        ValueError: for such sizes, and for an invalid shape of an image.
    """
    pixels, widths = 1, (*recipe.latent_sizes, *recipe.hidden_sizes)
    if len(shape) != 3 or not all(type(each) is int and 0 < each < 2**16 for each in shape):
        raise ValueError(f"expected the shape of an image; got {short_repr(shape)}")
    if not num_classes < 2**20:
        raise ValueError(f"expected a number of classes; got {num_classes}")
    for each in shape:
        pixels *= each
    pixels += sum(2 + len(names) for names in preparation.categories) if preparation else 0
    maps = recipe.flow_transforms * len(recipe.latent_sizes) if "flow" in (recipe.prior, recipe.posterior) else 0
    widest, layers = max(widths), len(widths) * (max(recipe.hidden_layers, recipe.encoder_layers) + 2) + maps
    # The networks of a map have 64 features, and of each unit 23 parameters; which depends on which is a matrix beside them.
    of_maps = maps * 1700 * widest + 17 * widest**2 if maps else 0
    numbers = (
        of_maps + (pixels + num_classes + widest) * widest * 4 + widest**2 * layers + recipe.num_components * (pixels + widest)
    )
    if numbers > MOST_NUMBERS or layers > 10_000:
        raise ValueError(f"programs of about {numbers:,} numbers")
    import torch

    columns = columns_of(preparation) if preparation else None
    # All numbers, also those of widths that networks choose themselves, are counted without any memory.
    with torch.device("meta"):
        numbers = sum(each.numel() for each in assemble(recipe, shape, num_classes, columns=columns).state_dict().values())
    if numbers > MOST_NUMBERS:
        raise ValueError(f"programs of {numbers:,} numbers")
