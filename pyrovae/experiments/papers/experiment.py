"""``Experiment``: a table or a figure of a paper as plain values: trainings, what is measured of them, and what the paper says.

Importing this does not import torch: the command line lists experiments without waiting for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyrovae.experiments.recipe import Recipe

# Data that stand in for others that nobody can download any more, or only by hand; a table that holds them says so.
SUBSTITUTES = {"omniglot": "omniglot-28"}


@dataclass(frozen=True)
class _Pair:
    """A claim about two trainings."""

    quantity: str
    one: str
    other: str

    @property
    def names(self) -> tuple[str, ...]:
        """The trainings that it is about."""
        return self.one, self.other


@dataclass(frozen=True)
class More(_Pair):
    """The claim that one training has more of a quantity than another: the difference is above ``by``.

    Args:
        quantity: one of ``QUANTITIES``.
        one: the name of a training.
        other: the name of the other.
        by: what the difference must be above; below zero, "no less than".
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
class Between:
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
        """The training that it is about."""
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


Claim = More | Alike | Between | Times


@dataclass(frozen=True)
class Statement:
    """What a paper says of its own table or figure, and what must be true of ours for it to hold.

    Args:
        says: the statement, in plain words.
        claims: all of them must hold.
        otherwise: offered as a reason where it does not hold.
    """

    says: str
    claims: tuple[Claim, ...]
    otherwise: str = ""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table or a figure of a paper.

    Args:
        shows: what it shows, in a line.
        source: the paper, and the number there.
        recipes: the trainings in the paper's schedule, by name.
        columns: what the table shows of each: of ``QUANTITIES``.
        pictures: kinds of ``KINDS``, and the trainings that each is drawn of; an empty tuple for all.
        published: what the paper printed, by training and quantity.
        quoted: whether these were read elsewhere than in the paper.
        num_samples: importance samples for each image in the paper.
        short_samples: the same in a shortened schedule.
        statements: what the paper says of it.
        differs: by parts of names of trainings, what is not as in the paper, or not known to be.
        remarks: what a reader must know.
        compute: ``module:function`` for what is computed without trainings: see ``Computed``.
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
        """Those of its shortest training in the paper's schedule."""
        return min(recipe.total_epochs for recipe in self.recipes.values())
