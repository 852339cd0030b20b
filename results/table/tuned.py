"""How the settings of a table's rows were chosen, as its caption says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from experiments.config.choices import Choice
from results.runs.kinds import one_line
from results.runs.schema import SweepResults, column_label
from results.runs.tuning import TuningRecord, tuning_of

_PARTS = {"validation": "the validation part", "test": "the test part"}


def tuned(sweep: SweepResults) -> list[str]:
    """Say how each row was tuned, whether all were alike, and how far the choice can be believed."""
    tuning = tuning_of(sweep)
    if tuning is None or not tuning.choices:
        return _stated(sweep.tuning_cells)
    counts = {_name(tuning, choice): choice.settings for choice in tuning.choices}
    number = Counter(counts.values()).most_common(1)[0][0]
    per = "row and column" if len({choice.row for choice in tuning.choices}) < len(tuning.choices) else "row"
    images = {choice.images for choice in tuning.choices if choice.images}
    on = f"{_PARTS[tuning.on]}, {images.pop():,} images" if len(images) == 1 else _PARTS[tuning.on]
    seeds = f"seed{'s' if len(tuning.seeds) > 1 else ''} {', '.join(map(str, tuning.seeds))}"
    parts = [
        f"Tuning: for each {per} the best of {number} settings by mean accuracy ({on}; {seeds}).",
        _uneven(counts, number),
        f"Not tuned: {', '.join(tuning.untuned)}." if tuning.untuned else "",
        f"Chosen at {_written(tuning.at)} for all its values." if tuning.at else "",
        _same_part(sweep, tuning),
        _edges(tuning),
        _named(tuning, "Failed, or missed the target sparsity", _lost),
        _errors(tuning.choices),
        _named(tuning, "Too few images or seeds to tell the best setting from others", _close),
        _unrecorded(tuning),
    ]
    return [one_line(" ".join(filter(None, parts)))]


def same_part(sweep: SweepResults) -> str:
    """Warn where settings were chosen on the images on which the table evaluates."""
    tuning = tuning_of(sweep)
    return _same_part(sweep, tuning) if tuning else ""


def _stated(number: int | None) -> list[str]:
    if number is None:
        return []
    return [f"Tuning: {number} {'configuration was' if number == 1 else 'configurations were'} tried for each row."]


def _same_part(sweep: SweepResults, tuning: TuningRecord) -> str:
    parts = {str(run.result["accuracy_on"]) for run in sweep.runs if "accuracy_on" in run.result} or {"test"}
    if tuning.on not in parts:
        return ""
    return f"Settings were chosen on {_PARTS[tuning.on]}, on which the table evaluates: its accuracies are too high."


def _uneven(counts: dict[str, int], number: int) -> str:
    others = [f"{name} {count}" for name, count in counts.items() if count != number]
    return f"Not the same number of settings: {', '.join(others)}." if others else ""


def _edges(tuning: TuningRecord) -> str:
    """Name the rows whose best value lies at an end of those tried, by key and value."""
    found: dict[str, list[str]] = {}
    for choice in tuning.choices:
        for key, end in choice.edges.items():
            value = f"{key} {_value(choice.chosen[key])} ({end})"
            found.setdefault(value, []).append(_name(tuning, choice))
    said = "; ".join(f"{value}: {', '.join(names)}" for value, names in sorted(found.items()))
    return f"At an end of the values tried, so that a better one may lie beyond: {said}." if said else ""


def _lost(choice: Choice) -> str:
    return f"{choice.lost} of {choice.settings}" if choice.lost else ""


def _close(choice: Choice) -> str:
    if not choice.close or choice.second is None or choice.accuracy is None:
        return ""
    gap = 100 * (choice.accuracy - choice.second.accuracy)
    return f"{choice.close} within it, the next {gap:.2f} points lower"


def _errors(choices: Iterable[Choice]) -> str:
    """Give the range of the standard errors of the best means, over seeds and over images."""
    kinds = {
        "over seeds": [choice.error_seeds for choice in choices if choice.error_seeds is not None],
        "over images": [choice.error_images for choice in choices if choice.error_images is not None],
    }
    said = [f"{_range([100 * value for value in values])} {kind}" for kind, values in kinds.items() if values]
    return f"Standard error of the best mean, in points: {', '.join(said)}." if said else ""


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _unrecorded(tuning: TuningRecord) -> str:
    rows = list(dict.fromkeys(choice.row for choice in tuning.choices if not choice.recorded))
    which = "" if len(rows) == len({choice.row for choice in tuning.choices}) else f" of {', '.join(rows)}"
    return f"The accuracies behind the choice{which} were not kept." if rows else ""


def _named(tuning: TuningRecord, head: str, of: Callable[[Choice], str]) -> str:
    said = [f"{_name(tuning, choice)}: {text}" for choice in tuning.choices if (text := of(choice))]
    return f"{head}: {'; '.join(said)}." if said else ""


def _name(tuning: TuningRecord, choice: Choice) -> str:
    """Name a row, with those columns in which its choices differ."""
    own = [other.column for other in tuning.choices if other.row == choice.row]
    keys = tuple(key for key in choice.column if any(other.get(key) != choice.column[key] for other in own))
    return f"{choice.row} ({column_label(choice.column, keys)})" if keys else choice.row


def _written(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={_value(value)}" for key, value in values.items())


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
