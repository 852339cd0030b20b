"""What a page is made of: a sweep, what was measured and recorded in it, and published figures, each read once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from experiments.rundir.reading import Unreadable, typed
from results.numbers.measure import Measurements, measure
from results.numbers.paper import figures, of_sources
from results.numbers.reproduction import Beside, pairs_of
from results.runs.facts import Settings, settings
from results.runs.kinds import EpochLine
from results.runs.schema import RunEntry, SweepResults
from results.runs.store import read_metrics

log = logging.getLogger("results")

Curve = dict[int, float]
"""A fraction by epoch, counted from 1."""

DRAWN = ("validation_accuracy", "sign_flips_initial", "overlap_initial")
"""Entries of an epoch's line that are drawn over epochs."""


@dataclass(frozen=True)
class Material:
    """A sweep, and what is read or computed of it only once, when it is first asked for.

    Attributes:
        sweep: The results.
        sources: Keys of the published sources whose figures are shown; empty: all, of what was read in the source.
    """

    sweep: SweepResults
    sources: Sequence[str] = ()

    @cached_property
    def measurements(self) -> Measurements:
        """The numbers of each cell."""
        return measure(self.sweep)

    @cached_property
    def settings(self) -> Settings:
        """The configuration of each run's folder."""
        return settings(self.sweep)

    @cached_property
    def beside(self) -> Sequence[Beside]:
        """The cells that a published figure of the same data and network stands for."""
        chosen = of_sources(self.sources) if self.sources else [figure for figure in figures() if figure.confirmed]
        return pairs_of([(self.sweep, self.measurements, self.settings)], chosen).pairs

    @cached_property
    def _curves(self) -> Mapping[Path, Mapping[str, Curve]]:
        return {run.path: _read(run) for run in self.sweep.runs if run.status == "done"}

    def curve(self, run: RunEntry, entry: str) -> Curve:
        """Return one of `DRAWN` by epoch; empty for a run that is not finished or did not record it."""
        return self._curves.get(run.path, {}).get(entry, {})


def _read(run: RunEntry) -> dict[str, Curve]:
    """Read the curves of a run; a line that was repeated after a resume replaces the first."""
    found: dict[str, Curve] = {entry: {} for entry in DRAWN}
    for line in read_metrics(run.path, run.result):
        if line.get("kind") != "epoch":
            continue
        try:
            epoch = typed(EpochLine, line)
        except Unreadable as error:
            log.warning("%s: an epoch's line %s; left out of the curves", run.path, error)
            continue
        for entry, curve in found.items():
            if (value := getattr(epoch, entry)) is not None:
                curve[epoch.epoch] = value
    return found
