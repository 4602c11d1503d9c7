"""``Experiment``: a table or a figure of a paper as plain values: trainings, quantities, and the paper's statements.

Importing this does not import torch: the command line lists experiments without waiting for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyrovae.experiments.recipe import Recipe

# Substitutes for data that cannot be downloaded any more, or only by hand; tables that use them say so.
SUBSTITUTES = {"omniglot": "omniglot-28"}


@dataclass(frozen=True)
class _Pair:
    """A claim about two trainings."""

    quantity: str
    one: str
    other: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the two trainings."""
        return self.one, self.other


@dataclass(frozen=True)
class More(_Pair):
    """The claim that one training has more of a quantity than another: the difference is above ``by``.

    Args:
        quantity: one of ``QUANTITIES``.
        one: the name of a training.
        other: the name of the other.
        by: the number that the difference must exceed; a negative one allows so much less.
    """

    by: float = 0.0


@dataclass(frozen=True)
class Alike(_Pair):
    """The claim that two trainings have as much of a quantity: the difference is within a margin on both sides.

    Args:
        quantity: one of ``QUANTITIES``.
        one: the name of a training.
        other: the name of the other.
        within: the margin.
    """

    within: float


@dataclass(frozen=True)
class InRange:
    """The claim that a quantity of one training lies between two numbers.

    Args:
        quantity: one of ``QUANTITIES``.
        one: the name of the training.
        low: the least.
        high: the most.
    """

    quantity: str
    one: str
    low: float
    high: float

    @property
    def names(self) -> tuple[str, ...]:
        """The name of the training."""
        return (self.one,)


@dataclass(frozen=True)
class Times(_Pair):
    """The claim that one training has a multiple of a quantity of another, between two numbers.

    Args:
        quantity: one of ``QUANTITIES``.
        one: the name of a training.
        other: the name of the other.
        low: the least.
        high: the most.
    """

    low: float
    high: float


Claim = More | Alike | InRange | Times


@dataclass(frozen=True)
class Statement:
    """A statement of a paper about its own table or figure, and the claims about ours that it implies.

    Args:
        says: the statement, in plain words.
        claims: the claims, all of which must hold.
        otherwise: a possible reason where the statement does not hold.
    """

    says: str
    claims: tuple[Claim, ...]
    otherwise: str = ""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table or a figure of a paper.

    Args:
        shows: what it shows, in a line.
        source: the paper, and the number of the table or figure.
        recipes: the trainings in the paper's schedule, by name.
        columns: the quantities in the table, out of ``QUANTITIES``.
        pictures: kinds out of ``KINDS``, and the trainings that each shows; an empty tuple for all.
        published: the figures printed in the paper, by training and quantity.
        quoted: whether these were read elsewhere than in the paper.
        num_samples: the number of importance samples for each image in the paper.
        short_samples: the number of importance samples in a shortened schedule.
        statements: the paper's statements about it.
        differs: differences from the paper, known or possible, by parts of names of trainings.
        remarks: remarks for the reader.
        compute: ``module:function`` for an experiment that is computed without trainings: see ``ComputedResult``.
    """

    shows: str
    source: str
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    columns: tuple[str, ...] = ("elbo", "log_likelihood")
    pictures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    quoted: bool = False
    num_samples: int = 5000
    short_samples: int = 100
    statements: tuple[Statement, ...] = ()
    differs: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    compute: str = ""

    @property
    def epochs(self) -> int:
        """The epochs of its shortest training in the paper's schedule."""
        return min(recipe.total_epochs for recipe in self.recipes.values())
