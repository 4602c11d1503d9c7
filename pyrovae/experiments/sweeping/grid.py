"""The members of a sweep: a recipe and a run folder for each combination of settings, and for each seed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError, nearest
from pyrovae.experiments.folder import HISTORY
from pyrovae.experiments.published import RECIPES
from pyrovae.experiments.recipe import Recipe, settings_in

VARIED = ("recipe", *(each.name for each in fields(Recipe) if each.name not in ("seed", "stages")))
KEYS = ("recipe", "seeds", "vary")


@dataclass(frozen=True)
class Member:
    """A training of a sweep.

    Args:
        settings: those that vary, as this member has them, without the seed.
        recipe: the whole recipe.
        folder: the run folder.
    """

    settings: Mapping[str, Any]
    recipe: Recipe
    folder: Path

    @property
    def epochs_done(self) -> int:
        """The epochs in its history so far."""
        try:
            return (self.folder / HISTORY).read_bytes().count(b"\n")
        except OSError:
            return 0


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Settings that hold for all members of a sweep, and those that vary.

    Args:
        recipe: the name of a published recipe that all start from; empty for the architecture of the guide.
        settings: fields of ``Recipe`` that hold for all.
        vary: the values of each field that varies; ``recipe`` may be one of them.
        seeds: trainings of each combination, with the seeds 0, 1, ...

    Raises:
        InputError: for fields that do not exist, and a field that varies and is fixed too.
    """

    recipe: str = ""
    settings: Mapping[str, Any]
    vary: Mapping[str, Sequence[Any]]
    seeds: int = 1

    def __post_init__(self) -> None:
        for name in self.vary:
            if name not in VARIED:
                raise InputError(f"expected a field of a recipe to vary; got {name!r}{nearest(name, VARIED)}")
            if not self.vary[name]:
                raise InputError(f"expected values of {name}; got none: give at least one")
        for name in [self.recipe, *self.vary.get("recipe", ())]:
            if name and name not in RECIPES:
                raise InputError(
                    f"expected a recipe out of {', '.join(RECIPES)}; got {name!r}{nearest(str(name), list(RECIPES))}"
                )
        fixed = set(self.settings) | ({"recipe"} if self.recipe else set())
        if both := sorted(fixed & set(self.vary)):
            raise InputError(f"expected each field fixed or varied; got both of {', '.join(both)}: leave one out")
        if "seed" in self.settings:
            raise InputError("expected the number of seeds of a sweep; got one seed: give seeds in its place")
        if self.seeds < 1:
            raise InputError(f"expected at least one seed; got {self.seeds}")

    @classmethod
    def from_toml(cls, path: str | Path) -> Grid:
        """The grid in a file of TOML: ``recipe``, ``seeds``, a table ``[vary]``, and settings that hold for all.

        Raises:
            InputError: for what is no such file.
        """
        values = settings_in(path, also=KEYS)
        vary, seeds, recipe = values.pop("vary", {}), values.pop("seeds", 1), values.pop("recipe", "")
        if not isinstance(vary, Mapping) or not all(isinstance(each, list | tuple) for each in vary.values()):
            raise InputError(f"{path}: expected a table [vary] of lists of values; got something else")
        if type(seeds) is not int or not isinstance(recipe, str):
            raise InputError(f"{path}: expected a number as seeds and a name as recipe; got something else")
        return cls(recipe=recipe, settings=values, vary=vary, seeds=seeds)

    def combinations(self) -> Iterator[dict[str, Any]]:
        """The values that vary, of each combination in turn."""
        for values in itertools.product(*self.vary.values()):
            yield dict(zip(self.vary, values, strict=True))

    def with_seeds(self, settings: Mapping[str, Any], recipe: Recipe, folder: Path) -> Iterator[Member]:
        """The members of one combination, whose recipe is known."""
        for seed in range(self.seeds):
            yield Member(settings, replace(recipe, seed=seed), folder / name_of(settings, seed))


def name_of(settings: Mapping[str, Any], seed: int) -> str:
    """The name of a member's folder: what it changes.

    >>> name_of({"latent_sizes": (64, 32), "guide": "ladder"}, 1)
    'latent_sizes=64,32--guide=ladder--seed=1'
    """
    parts = [f"{name}={as_text(value)}" for name, value in settings.items()]
    return "--".join(re.sub(r"[^\w.,=+-]", "_", part) for part in [*parts, f"seed={seed}"])


def as_text(value: Any) -> str:
    """A value as a flag takes it."""
    return (",".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)


def fitting(base: Recipe, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add one hidden size for each latent layer to settings that say none: those of the base, the last one repeated.

    >>> fitting(Recipe(latent_sizes=(64, 32), hidden_sizes=(512, 256)), {"latent_sizes": (64,)})
    {'latent_sizes': (64,), 'hidden_sizes': (512,)}
    """
    number = max(1, len(settings.get("latent_sizes", base.latent_sizes)))
    if "hidden_sizes" in settings:
        return dict(settings)
    repeated = (base.hidden_sizes[-1],) * max(0, number - len(base.hidden_sizes))
    return {**settings, "hidden_sizes": (*base.hidden_sizes[:number], *repeated)}
