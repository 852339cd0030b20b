"""The best setting of each row of a tuning, by mean accuracy, and how surely it is the best."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config.choices import edge
from experiments.errors import UserError
from experiments.rundir import names
from results.runs.kinds import Unsolved
from results.runs.schema import RunEntry, SweepResults, column_id
from results.runs.store import read

from .measure import TOLERANCE
from .stats import Summary, summarise

_MARKS = {"smallest": "<", "largest": ">", "": ""}


@dataclass(frozen=True)
class Tried:
    """One setting, over the tuning's seeds.

    Attributes:
        setting: Key to value.
        runs: Its runs; none where no threshold decay was found for it.
        accuracy: Summary of the accuracies, if every seed is done and on target.
    """

    setting: Mapping[str, Any]
    runs: Sequence[RunEntry]
    accuracy: Summary | None

    @property
    def over(self) -> bool:
        """Whether nothing of it is to be trained any more."""
        return not any(run.status == "missing" or run.unexpected for run in self.runs)

    @property
    def mean(self) -> float:
        """The mean accuracy, without what is only the rounding of a sum."""
        return round(self.accuracy.mean, 12) if self.accuracy else -1.0


@dataclass(frozen=True)
class Ranking:
    """All settings of a row in a column, in the order in which they were tried."""

    row: str
    column: Mapping[str, Any]
    settings: Sequence[Tried]

    @property
    def fit(self) -> list[Tried]:
        """The settings that can be chosen, the best first; of equal ones the one that was tried first."""
        return sorted((one for one in self.settings if one.accuracy), key=lambda one: -one.mean)

    @property
    def over(self) -> bool:
        """Whether nothing of it is to be trained any more."""
        return all(one.over for one in self.settings)

    @property
    def images(self) -> int | None:
        """Images on which each run was evaluated, if that is one number."""
        numbers = {run.number("evaluated") for one in self.fit for run in one.runs}
        number = numbers.pop() if len(numbers) == 1 else None
        return int(number) if number else None

    @property
    def error_seeds(self) -> float | None:
        """Standard error of the best mean over seeds."""
        best = self.fit[0].accuracy if self.fit else None
        return None if best is None or best.std is None else best.std / math.sqrt(best.n)

    @property
    def error_images(self) -> float | None:
        """Binomial standard error of an accuracy like the best one, on these images."""
        if not self.fit or not self.images:
            return None
        mean = self.fit[0].mean
        return math.sqrt(mean * (1 - mean) / self.images)

    @property
    def close(self) -> int:
        """Number of settings that the larger standard error does not tell from the best."""
        error = max(self.error_seeds or 0.0, self.error_images or 0.0)
        return sum(self.fit[0].mean - one.mean <= error for one in self.fit[1:])

    @property
    def tried(self) -> dict[str, list[Any]]:
        """The values tried of each key, in order."""
        keys = self.settings[0].setting
        return {key: list(dict.fromkeys(one.setting[key] for one in self.settings)) for key in keys}

    @property
    def name(self) -> str:
        """The row, and the column where there is one."""
        return f"{self.row} at {_written(self.column)}" if self.column else self.row


def rank(sweep: SweepResults) -> list[Ranking]:
    """Rank the settings of each row, by mean accuracy over seeds, separately for what rows are compared at.

    Only settings for which every seed is done and met the target sparsity can be chosen.

    Args:
        sweep: A tuning stage, or a sweep whose columns are settings, read with its results.

    Raises:
        UserError: if the sweep has no settings, or was evaluated on the test part, on which nothing may be selected.
    """
    usual = [key for key in sweep.column_keys if names.below(key, names.COMPARED_AT)]
    compared = sweep.tunes.columns if sweep.tunes else usual
    if not set(sweep.column_keys) - set(compared):
        only = f" but {', '.join(compared)}, which is no setting" if compared else ""
        raise UserError(f"there are no columns to choose among{only}", where=str(sweep.directory))
    on_test = any(entry.result.get("accuracy_on") == "test" for entry in sweep.entries)
    if on_test and not (sweep.tunes and sweep.tunes.on == "test"):
        text = "evaluated on the test part, on which nothing may be chosen; use data.evaluate_on=validation"
        raise UserError(text, where=str(sweep.directory))
    found: dict[str, tuple[RunEntry | Unsolved, dict[str, Any], dict[str, _Runs]]] = {}
    for cell in [*sweep.entries, *(sweep.tunes.unsolved if sweep.tunes else ())]:
        column = {key: value for key, value in cell.column.items() if key in compared}
        setting = {key: value for key, value in cell.column.items() if key not in compared}
        _, _, settings = found.setdefault(f"{cell.row} {column_id(column)}", (cell, column, {}))
        _, runs = settings.setdefault(column_id(setting), (setting, []))
        runs += [cell] if isinstance(cell, RunEntry) else []
    return [
        Ranking(cell.row, column, [_tried(setting, runs) for setting, runs in settings.values()])
        for cell, column, settings in found.values()
    ]


_Runs = tuple[dict[str, Any], list[RunEntry]]


def _tried(setting: Mapping[str, Any], runs: Sequence[RunEntry]) -> Tried:
    fit = bool(runs) and all(map(_candidate, runs))
    return Tried(setting, runs, summarise(run.number("accuracy") or 0.0 for run in runs) if fit else None)


def _candidate(entry: RunEntry) -> bool:
    target, reached = entry.number("target_sparsity"), entry.number("sparsity")
    off = 0.0 if target is None or reached is None else abs(reached - target)
    return entry.status == "done" and off <= TOLERANCE + 1e-9


def render(directory: str | Path, *, as_json: bool = False) -> str:
    """Name the best setting of each row of a tuning; see `rank` for what can be chosen and for the errors raised.

    A value at the end of its tried range is marked, since the best value may lie beyond.

    Returns:
        One line per row and column; as JSON, all settings too.
    """
    ranked = rank(read(directory))
    return json.dumps(as_dict(ranked), indent=1) if as_json else words(ranked)


def as_dict(rankings: Sequence[Ranking]) -> list[dict[str, Any]]:
    """Return the rankings as JSON has them: of each row its settings in the order tried, and the best one."""
    return [
        {
            "row": ranking.row,
            "column": dict(ranking.column),
            "best": dict(ranking.fit[0].setting) if ranking.fit else None,
            "accuracy": ranking.fit[0].mean if ranking.fit else None,
            "error_seeds": ranking.error_seeds,
            "error_images": ranking.error_images,
            "not_told_from": ranking.close if ranking.fit else 0,
            "settings": [
                {
                    "setting": dict(one.setting),
                    "accuracy": one.mean if one.accuracy else None,
                    "std": one.accuracy.std if one.accuracy else None,
                    "seeds": len(one.runs),
                }
                for one in ranking.settings
            ],
        }
        for ranking in rankings
    ]


def words(rankings: Sequence[Ranking]) -> str:
    """Write the best settings, one line per row and column, with standard errors and what is not told from them."""
    lines = [_line(ranking) for ranking in rankings]
    if len({len(ranking.settings) for ranking in rankings}) > 1:
        lines.append("the rows were not given the same number of settings")
    return "\n".join([*lines, "(<: smallest value tried, >: largest)"])


def _line(ranking: Ranking) -> str:
    fit, number = ranking.fit, len(ranking.settings)
    if not fit:
        return f"{ranking.name}: none of {number} settings is complete and on target"
    best, tried = fit[0], ranking.tried
    named = ", ".join(f"{key}={_value(value)}{_MARKS[edge(tried[key], value)]}" for key, value in best.setting.items())
    summary = best.accuracy
    assert summary is not None, "only settings with an accuracy are fit"
    spread = "" if summary.std is None else f" ± {summary.std:.2%}"
    usable = f"{len(fit)} of {number} settings complete and on target"
    errors = [
        *([f"{100 * ranking.error_seeds:.2f} over seeds"] if ranking.error_seeds is not None else []),
        *([f"{100 * ranking.error_images:.2f} over {ranking.images:,} images"] if ranking.error_images else []),
    ]
    error = f"; standard error, points: {', '.join(errors)}" if errors else ""
    return f"{ranking.name}: {named}  {summary.mean:.2%}{spread} ({summary.n}), {usable}{error}{_rivals(ranking)}"


def _rivals(ranking: Ranking) -> str:
    """Say what the best setting cannot be told from, and that more images or seeds would be needed for it."""
    if not ranking.close:
        return ""
    second = ranking.fit[1]
    others = f"{ranking.close} other settings" if ranking.close > 1 else "another setting"
    equal = "equal at" if second.mean == ranking.fit[0].mean else "next at"
    return (
        f"; not told from {others} ({_written(second.setting)} {equal} {second.mean:.2%}): "
        "too few images or seeds to tell them apart"
    )


def _written(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_value(value)}" for key, value in values.items())


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
