"""The parts of an experiment: settings, measured values with bounds, the numbers behind them, and a figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import model_validator

from experiments.config.schema import Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

S = TypeVar("S", bound=Section)


class Bound(Section):
    """An interval, including its ends, in which a value must lie; None leaves an end open."""

    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Bound:
        if self.low is None and self.high is None:
            raise ValueError("needs low, high or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low ({self.low:g}) is above high ({self.high:g})")
        return self

    def __contains__(self, value: float) -> bool:
        above = self.low is None or value >= self.low
        below = self.high is None or value <= self.high
        return above and below

    def __str__(self) -> str:
        if self.low is None:
            return f"≤ {self.high:g}"
        return f"≥ {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Check:
    """A measured value and its bound.

    Attributes:
        quantity: What was measured, with its unit if it has one.
        value: The value; NaN meets no bound.
        bound: Interval in which the value must lie; None for a value that is only reported.
    """

    quantity: str
    value: float
    bound: Bound | None = None

    @property
    def met(self) -> bool:
        """Whether the value lies within its bound."""
        return self.bound is None or self.value in self.bound


@dataclass(frozen=True)
class TheoryOutcome:
    """The outcome of an experiment.

    Attributes:
        bars: Measured values, each with its bound.
        records: The numbers behind bars and figure, as JSON values.
        draw: Function that draws them into an empty figure.
    """

    bars: tuple[Check, ...]
    records: list[dict[str, Any]]
    draw: Callable[[Figure], None]


@dataclass(frozen=True)
class Experiment(Generic[S]):
    """A statement of the theory that can be measured.

    Attributes:
        title: What the experiment shows, in one line.
        source: Where the statement comes from.
        settings: Model of its configuration, whose values are in ``configs/theory``.
        run: Function that carries out the measurement.
    """

    title: str
    source: str
    settings: type[S]
    run: Callable[[S], TheoryOutcome]


def worst(values: Iterable[float], bound: Bound) -> float:
    """Return the value that comes closest to missing a bound, or misses it most; NaN if any value is NaN.

    For a bound with two ends, this is the value farthest from their middle.
    """
    values = list(values)
    if any(math.isnan(value) for value in values):
        return math.nan
    if bound.low is None:
        return max(values)
    if bound.high is None:
        return min(values)
    middle = (bound.low + bound.high) / 2
    return max(values, key=lambda value: abs(value - middle))


def order(rates: Sequence[float], errors: Sequence[float]) -> float:
    """Return the order of errors in the rate: the slope of a straight line through their logarithms."""
    if min(errors) <= 0:
        return math.nan
    return statistics.linear_regression([*map(math.log, rates)], [*map(math.log, errors)]).slope
