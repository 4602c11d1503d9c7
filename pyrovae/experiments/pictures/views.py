"""``View``: a run for pictures, with its name among others, the contents of its folder, and draws of its programs.

Random numbers are the same each time, so that the same run gives the same picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger, init_to_mean

from pyrovae.errors import InputError, visible
from pyrovae.evaluation.latents import activity, latent_sites
from pyrovae.evaluation.measuring import measuring
from pyrovae.experiments.bounding import Bounds
from pyrovae.experiments.evaluations import Evaluation
from pyrovae.experiments.folder import RunFolder
from pyrovae.plots.style import as_text

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from pyrovae.data.datasets import Dataset

Array = Any
Latents = Mapping[str, "Tensor"]
# The numbers of test images that are shown one by one, and that are scattered as points.
SHOWN, SCATTERED = 10, 2000
MOST_OF_A_NAME = 60


class View:
    """The view of a run for pictures.

    Args:
        run: the run.
        name: the name of the run among others in the picture.
        dataset: the run's own dataset, if it is loaded already.
    """

    def __init__(self, run: RunFolder, name: str, dataset: Dataset | None = None) -> None:
        self.run, self.title, self._dataset = run, name, dataset

    @property
    def name(self) -> str:
        """The title, escaped for matplotlib."""
        return as_text(self.title)

    @cached_property
    def dataset(self) -> Dataset:
        """The run's own data; the programs are moved to their device.

        Raises:
            InputError: for data that cannot be found.
        """
        dataset = self._dataset or self.run.dataset()
        self.run.vae.to(dataset.test.device)
        return dataset

    @property
    def layers(self) -> list[str]:
        """The latent layers from the top down."""
        return [f"z{layer}" for layer in range(len(self.run.recipe.latent_sizes), 0, -1)]

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """The records of the epochs."""
        return self.run.history

    @cached_property
    def measured(self) -> list[dict[str, Any]]:
        """The records of the T epochs at whose end the programs were measured."""
        return [row for row in self.history if "train_elbo_nats" in row]

    def over_epochs(self, name: str) -> NDArray[np.floating] | None:
        """A number at every measured epoch ``(T,)``; None where one does not have it."""
        values = [row.get(name) for row in self.measured]
        return np.array(values, float) if values and None not in values else None

    def units_over_epochs(self, name: str) -> dict[str, NDArray[np.floating]]:
        """A number of each unit at every measured epoch ``(T, U)``, by layer from the top down, for layers that have it."""
        rows = [row.get(name) or {} for row in self.measured]
        kept = [layer for layer in self.layers if rows and all(len(row.get(layer, ())) for row in rows)]
        sizes = {layer: {len(row[layer]) for row in rows} for layer in kept}
        return {layer: np.array([row[layer] for row in rows], float) for layer in kept if len(sizes[layer]) == 1}

    @property
    def bound(self) -> tuple[str, str, str]:
        """The bound that was trained, if each epoch has it, else the ELBO: its keys in the history, and its name."""
        found = [name for name in (self.history[-1] if self.history else ()) if "_iwelbo_" in name]
        if found and self.over_epochs(found[0]) is not None:
            particles = found[0].rsplit("_", 2)[1]
            return f"train_iwelbo_{particles}_nats", f"valid_iwelbo_{particles}_nats", f"L_{particles}"
        return "train_elbo_nats", "valid_elbo_nats", "ELBO"

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """The last evaluation on its own test set, if there is one of the current programs."""
        try:
            found = self.run.evaluation
        except InputError:
            return None
        return found if found.epochs == len(self.history) else None

    @cached_property
    def bounds(self) -> Bounds | None:
        """The last bounds from both sides, if there are any of the current programs."""
        try:
            found = Bounds.load(self.run.folder)
        except InputError:
            return None
        return found if found.epochs == len(self.history) else None

    @property
    def test(self) -> tuple[Tensor, Tensor | None]:
        """The test images that are shown, spread evenly over the set, and their contexts."""
        return self.some_images(SHOWN)

    def some_images(self, number: int) -> tuple[Tensor, Tensor | None]:
        """Take a number of test images, spread evenly over the set, and their contexts."""
        return self.rows(self.places(number))

    def rows(self, places: Tensor) -> tuple[Tensor, Tensor | None]:
        """Take the test images at some places, and their contexts."""
        contexts = self.dataset.contexts.get("test")
        return self.dataset.test[places], None if contexts is None else contexts[places]

    def classes(self, number: int) -> NDArray[Any] | None:
        """The classes of the images of ``some_images``, by name or number; None without classes."""
        labels = self.dataset.labels.get("test")
        if labels is None:
            return None
        numbers = labels[self.places(number)].cpu().numpy()
        return np.array(self.dataset.classes)[numbers] if self.dataset.classes else numbers

    def places(self, number: int) -> Tensor:
        """The numbers of the images that ``some_images`` gives, among the test images."""
        size = len(self.dataset.test)
        return torch.linspace(0, size - 1, min(number, size), device=self.dataset.test.device).long()

    def posterior(self, x: Tensor, context: Tensor | None) -> dict[str, Tensor]:
        """Draw each layer of the guide for each image ``(B, D_l)``."""
        rows = [x] if context is None else [x, context]
        with measuring(self.run.vae):
            return {name: site["value"] for name, site in latent_sites(self.run.vae.guide, rows).items()}

    def decode(self, latents: Latents, context: Tensor | None = None, *, rows: int = 1, at_means: bool = False) -> Array:
        """Compute the means of p(x | z) for given latents, and draws of the other latents ``(B, D)``.

        Args:
            latents: the given latents by layer ``(B, D_l)``.
            context: the contexts ``(B, C)``.
            rows: the number of rows B, without latents and contexts.
            at_means: use the means of the other latents in place of draws.
        """
        trace = self._run_model(latents, context, rows, at_means=at_means)
        means = trace.nodes["x"]["fn"].mean
        return self.run.vae.model.complete(means, context).cpu().numpy()

    def draw_layer(self, layer: str, latents: Latents, context: Tensor | None, rows: int) -> Tensor:
        """Draw a layer from the model given the layers above it ``(B, D_l)``."""
        return self._run_model(latents, context, rows, at_means=False).nodes[layer]["value"]

    def _run_model(self, latents: Latents, context: Tensor | None, rows: int, *, at_means: bool) -> Any:
        rows = next((len(each) for each in (*latents.values(), context) if each is not None), rows)
        means = InitMessenger(init_to_mean) if at_means else nullcontext()
        with measuring(self.run.vae), poutine.trace() as handler, means, poutine.condition(data=dict(latents)):
            self.run.vae.model(None, context, batch_size=rows)
        return handler.trace

    def reconstruct(self, x: Tensor, context: Tensor | None) -> Array:
        """Compute the means of p(x | z) at a draw of the guide ``(B, D)``."""
        return self.decode(self.posterior(x, context), context, rows=len(x))

    @cached_property
    def activity(self) -> dict[str, Tensor]:
        """The activity of each unit ``(D_l,)``, by layer."""
        return activity(self.run.vae.guide, *self.some_images(SCATTERED // 4))


def names_of(runs: Sequence[RunFolder]) -> list[str]:
    """Distinct names of runs: of their folders, with a setting if a single one differs, and with numbers if needed."""
    names = [visible(run.folder.resolve().name) for run in runs]
    differing = dict.fromkeys(name for run in runs for name in runs[0].recipe.differences(run.recipe) if name != "seed")
    if len(differing) == 1:
        (setting,) = differing
        values = (getattr(run.recipe, setting) for run in runs)
        said = [", ".join(map(str, each)) or "none" if isinstance(each, tuple) else f"{each}" for each in values]
        names = [f"{name} ({setting.replace('_', ' ')} {each})" for name, each in zip(names, said, strict=True)]
    names = [name if len(name) <= MOST_OF_A_NAME else f"{name[:MOST_OF_A_NAME]}..." for name in names]
    counts = Counter(names)
    return [f"{number}: {name}" if counts[name] > 1 else name for number, name in enumerate(names, start=1)]
