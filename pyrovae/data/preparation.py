"""``Preparation``: the steps from stored examples to the tensors of programs, so that new examples go through the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pyrovae.data.datasets import Dataset
from pyrovae.data.kinds import KINDS, LARGEST_COUNT, misfits
from pyrovae.errors import InputError, nearest, visible

if TYPE_CHECKING:
    from torch import Tensor

# The kinds of values that can become bits.
GREY = ("levels", "grey")
# The largest scale and shift of a column; and the largest value after scaling, which networks in single precision can bear.
MOST, FURTHEST = 1e30, 1e6
RANGES = {
    "bits": (0.0, 1.0),
    "levels": (0.0, 255.0),
    "grey": (0.0, 1.0),
    "counts": (0.0, LARGEST_COUNT),
    "real": (-np.inf, np.inf),
    "mixed": (-np.inf, np.inf),
}


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The steps from stored examples to the tensors of programs: checks, scaling, and drawing of bits.

    Args:
        shape: channels, height and width; a table has one channel and one row.
        values: what is stored: ``bits``, ``levels``, ``grey``, ``counts``, ``real``, or ``mixed`` for columns of several kinds.
        binarize: ``no``; ``drawn``: bits are drawn from grey values; ``above``: bits are 1 above one half.
        columns: the names of the columns, for a table that has them.
        kinds: the kinds of the columns, where they are mixed.
        categories: for each column the names of its categories; none where it holds numbers.
        classes: the names of the labels, where they have any.
        shift: the numbers subtracted from real values, one for each column or one for all.
        scale: the numbers that the differences are divided by.
        missing: whether NaN stands for a missing entry.
    """

    shape: tuple[int, int, int]
    values: str
    binarize: str = "no"
    columns: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    categories: tuple[tuple[str, ...], ...] = ()
    classes: tuple[str, ...] = ()
    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    missing: bool = False

    @classmethod
    def of(cls, dataset: Dataset) -> Preparation:
        """The preparation of a dataset."""
        return cls(
            shape=dataset.shape,
            values=dataset.stored_values or dataset.values,
            binarize="drawn" if dataset.binarize else "above" if dataset.stored_values else "no",
            columns=dataset.columns,
            kinds=dataset.kinds,
            categories=dataset.categories,
            classes=dataset.classes,
            shift=dataset.shift,
            scale=dataset.scale,
            missing=dataset.missing,
        )

    @property
    def size(self) -> int:
        """The number of entries of an example."""
        return int(np.prod(self.shape))

    @property
    def is_table(self) -> bool:
        """True where examples are rows of a table."""
        return self.shape[:2] == (1, 1)

    def as_dict(self) -> dict[str, Any]:
        """The fields as a dictionary, to be written as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preparation:
        """Make a preparation from the dictionary of ``as_dict``, as read back from JSON.

        Raises:
            ValueError: for values that do not fit together.
        """
        made = cls(**{name: _immutable(each) for name, each in values.items()})
        numbers = [*made.shift, *made.scale]
        fits = {len(made.shift), len(made.scale)} <= {1, made.size} and len(made.shift) == len(made.scale)
        fits = (
            fits and made.values in RANGES and made.binarize in (("no", "drawn", "above") if made.values in GREY else ("no",))
        )
        fits = fits and all(isinstance(each, float) and abs(each) < MOST for each in numbers) and isinstance(made.missing, bool)
        fits = fits and all(each > 1 / MOST for each in made.scale) and len(made.columns) in (0, made.size)
        names = (*made.columns, *made.kinds, *made.classes, *(name for each in made.categories for name in each))
        fits = fits and all(isinstance(each, str) and visible(each) == each for each in names)
        if not fits or len(set(made.columns)) < len(made.columns) or not made._kinds_fit:
            raise ValueError("a preparation whose parts do not fit together")
        return made

    @property
    def _kinds_fit(self) -> bool:
        """True where mixed columns have a kind each, and binary columns and categories have their names."""
        if self.values != "mixed":
            return not self.kinds and not self.categories
        named = [2 if kind == "binary" else len(names) if kind == "category" else 0 for kind, names in self._typed]
        return (
            len(self.kinds) == len(self.categories) == len(self.columns) == self.size
            and set(self.kinds) <= set(KINDS)
            and all(len(set(names)) == number for (_, names), number in zip(self._typed, named, strict=True))
            and all(number for (kind, _), number in zip(self._typed, named, strict=True) if kind in ("binary", "category"))
        )

    @property
    def _typed(self) -> list[tuple[str, tuple[str, ...]]]:
        return list(zip(self.kinds, self.categories, strict=False))

    def match_columns(self, columns: Sequence[str]) -> tuple[list[int], list[str]]:
        """The places of the training's columns among the given ones, by name, and the names of all other columns.

        Raises:
            InputError: for a column of the training that is missing.
        """
        for name in self.columns:
            if name not in columns:
                near = nearest(name, columns) or f", among {', '.join(map(repr, columns[:20]))}"
                raise InputError(f"expected the columns that it was trained on; {name!r} is missing{near}")
        return [list(columns).index(name) for name in self.columns], [each for each in columns if each not in self.columns]

    def apply(self, values: np.ndarray, *, seed: int = 0) -> Tensor:
        """Original values ``(N, ...)`` as programs take them ``(N, D)``: scaled, and as bits where the model is one of bits."""
        return self.with_bits(self.rescale(values), seed=seed)

    def with_bits(self, scaled: Tensor, *, seed: int = 0) -> Tensor:
        """Scaled examples ``(N, D)`` as bits, drawn or rounded, where programs take bits; else as they are."""
        import torch

        if self.binarize == "drawn":
            return torch.bernoulli(scaled, generator=torch.Generator().manual_seed(seed))
        return (scaled > 0.5).float() if self.binarize == "above" else scaled

    def rescale(self, values: np.ndarray) -> Tensor:
        """Original values ``(N, ...)`` on the scale of the training ``(N, D)``: grey in [0, 1], real ones standardised.

        Args:
            values: examples as they are in files; images with channels first or without channels.

        Raises:
            InputError: for examples of another size, and for values of another kind or scale.
        """
        import torch

        values = np.asarray(values)
        if values.dtype == bool and self.values == "levels" and self.binarize != "no":
            # Bits of a model of bits stay as they are.
            values = values * np.float64(255)
        known = {self.shape, (self.size,)} | ({self.shape[1:]} if self.shape[0] == 1 and not self.is_table else set())
        if values.shape[1:] not in known:
            what = f"{self.size} columns" if self.is_table else f"images of {' x '.join(map(str, self.shape))}"
            came = " x ".join(map(str, values.shape[1:]))
            raise InputError(f"expected {what}, as it was trained on; got {came} numbers in each example")
        flat = values.astype(np.float64).reshape(len(values), -1)
        for place, numbers in self.numbered.items():
            flat[:, place] = self._places(flat[:, place], numbers, self.columns[place])
        self._check(flat, is_bool=values.dtype == bool)
        if self.values in ("real", "mixed"):
            flat = (flat - np.array(self.shift)) / np.array(self.scale)
            if (np.abs(flat[:, self._of_kind("real")]) > FURTHEST).any():
                raise InputError(
                    f"expected values within {FURTHEST:,.0f} standard deviations of those of the training; got some further "
                    "away: bring them to that scale"
                )
        return torch.from_numpy((flat / 255 if self.values == "levels" else flat).astype(np.float32))

    def _check(self, flat: np.ndarray, *, is_bool: bool) -> None:
        wrong = np.isinf(flat) if self.missing else ~np.isfinite(flat)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            name = repr(self.columns[column]) if self.columns else str(column + 1)
            raise InputError(f"expected numbers that are finite; got {flat[row, column]} in row {row + 1}, column {name}")
        low, high = RANGES[self.values]
        whole = self.values in ("bits", "levels", "counts")
        self._check_kinds(flat)
        known = flat[~np.isnan(flat)]
        if self.values == "levels" and (is_bool or (len(known) and known.max() == 1)):
            raise InputError("expected whole numbers from 0 to 255, as it was trained on; got 0 to 1: multiply them by 255")
        if len(known) and (known.min() < low or known.max() > high or (whole and (known != np.rint(known)).any())):
            kind = "whole numbers" if whole else "numbers"
            raise InputError(
                f"expected {kind} from {low:g} to {high:g}, as it was trained on; got {known.min():g} to {known.max():g}: "
                "bring them to that scale"
            )

    @property
    def numbered(self) -> dict[int, np.ndarray]:
        """The numbers of each binary column or category whose names are all numbers, by its place."""
        found: dict[int, np.ndarray] = {}
        for place, names in enumerate(self.categories):
            with suppress(ValueError):
                numbers = [float(name) for name in names]
                # '01' is a word.
                if names and all(repr(each).removesuffix(".0") == name for each, name in zip(numbers, names, strict=True)):
                    found[place] = np.array(numbers)
        return found

    @staticmethod
    def _places(x: np.ndarray, numbers: np.ndarray, column: str) -> np.ndarray:
        """The place of each value among the numbers that a column holds; gaps stay gaps.

        Raises:
            InputError: for another number.
        """
        is_it = np.isclose(x[:, None], numbers, rtol=1e-6, atol=0)
        if (wrong := ~(is_it.any(1) | np.isnan(x))).any():
            row = int(wrong.argmax())
            shown = ", ".join(f"{each:g}" for each in numbers[:10])
            raise InputError(f"expected one of {shown} in column {column!r}, as in the training; got {x[row]:g}, row {row + 1}")
        return np.where(np.isnan(x), np.nan, is_it.argmax(1))

    def _check_kinds(self, flat: np.ndarray) -> None:
        """Refuse numbers that do not fit the kind of their column.

        Raises:
            InputError: for the first such number; it names the row and the column.
        """
        for place, (kind, names) in enumerate(self._typed):
            wrong, words = misfits(kind, flat[:, place], len(names))
            if wrong.any():
                row = int(wrong.argmax())
                came = f"got {flat[row, place]:g} in row {row + 1}"
                raise InputError(f"expected {words} in column {self.columns[place]!r}, a {kind} column; {came}")

    def column_values(self, place: int, x: np.ndarray) -> np.ndarray:
        """The values of a column, from original units to what the file holds: a category's word or nearest number, else x."""
        names = self.categories[place] if self.categories else ()
        if not names:
            return x
        numbers = self.numbered.get(place)
        if numbers is None:
            return np.array(names, dtype=object)[np.clip(np.rint(x), 0, len(names) - 1).astype(int)]
        return numbers[np.abs(x[:, None] - numbers).argmin(1)]

    def has_numeric_names(self, place: int) -> bool:
        """True for a binary column or category whose names are numbers."""
        return place in self.numbered

    def _of_kind(self, kind: str) -> np.ndarray | slice:
        """The mask of the columns of a kind; all columns where they are not mixed."""
        return np.array([each == kind for each in self.kinds]) if self.kinds else slice(None)

    def restore(self, x: Tensor) -> np.ndarray:
        """Return prepared examples ``(N, D)`` to their original units: a table ``(N, D)``, images ``(N, C, H, W)``.

        A column of words holds the place of each word; a column of two numbers may hold values between them.
        """
        values = x.detach().cpu().double().numpy()
        if self.values in ("real", "mixed"):
            values = values * np.array(self.scale) + np.array(self.shift)
            for place, numbers in self.numbered.items():
                values[:, place] = np.interp(values[:, place], np.arange(len(numbers)), numbers)
        elif self.values == "levels" and self.binarize == "no":
            values = values * 255
        return values if self.is_table else values.reshape(len(values), *self.shape)


def _immutable(value: Any) -> Any:
    return tuple(map(_immutable, value)) if isinstance(value, list) else value
