"""The provenance of results: configurations, versions and hardware of a sweep's runs, as text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

from experiments.rundir import names
from results.runs.discover import compared
from results.runs.facts import Settings
from results.runs.schema import SweepResults, column_label
from results.runs.store import read_object

NOT_SET = "not set"

KeysAndValues = list[tuple[str, str]]
"""Pairs of a dotted key and its value as text."""


def configuration(sweep: SweepResults, settings: Settings) -> tuple[KeysAndValues, list[tuple[str, KeysAndValues]]]:
    """Separate the settings that the rows share from those that each row changes.

    A value is shared if more than half of the rows have it. Keys that vary between columns are left out.

    Args:
        sweep: The results.
        settings: The configurations of its runs.

    Returns:
        The shared settings, and (row, its deviating settings) in table order.
    """
    rows = {row: _settings(sweep, settings, row) for row in sweep.rows}
    read = {row: settings for row, settings in rows.items() if settings}
    keys = dict.fromkeys(key for settings in read.values() for key in settings)
    shared: dict[str, str] = {}
    for key in keys:
        value, count = Counter(settings.get(key, NOT_SET) for settings in read.values()).most_common(1)[0]
        if value != NOT_SET and 2 * count > len(read):
            shared[key] = value
    return list(shared.items()), [(row, _deviations(settings, shared)) for row, settings in read.items()]


def _deviations(settings: Mapping[str, str], shared: Mapping[str, str]) -> KeysAndValues:
    changed = [(key, value) for key, value in settings.items() if shared.get(key) != value]
    # a key that a mapping replaces (optimizer.ham: null) is not listed, since the keys of the mapping are
    gone = [key for key in shared if key not in settings and not any(name.startswith(f"{key}.") for name in settings)]
    return changed + [(key, NOT_SET) for key in gone]


def _settings(sweep: SweepResults, settings: Settings, row: str) -> dict[str, str]:
    """Return a row's configuration; values that differ between its columns are listed with their columns."""
    values: dict[str, dict[str, list[str]]] = {}
    seen = set()
    for column in sweep.columns:
        label = column_label(column, sweep.home(row, column))
        for path in dict.fromkeys(entry.path for entry in sweep.cell(row, column)):
            if path in seen:
                continue
            seen.add(path)
            for key, value in compared(settings[path]).items():
                if key not in sweep.column_keys:
                    labels = values.setdefault(key, {}).setdefault(_text(value), [])
                    if label not in labels:
                        labels.append(label)
    return {key: _joined(found) for key, found in values.items()}


def _joined(found: Mapping[str, list[str]]) -> str:
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{value} ({', '.join(filter(None, labels))})" for value, labels in found.items())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def environments(sweep: SweepResults) -> list[tuple[str, list[tuple[str, int]]]]:
    """Collect the distinct values of each key of the runs' environments.

    Returns:
        (key, [(value, number of runs)]) in the order in which they appear; keys without a value are left out.
    """
    found: dict[str, Counter[str]] = {}
    for run in sweep.runs:
        environment, _ = read_object(run.path / names.ENVIRONMENT)
        for key, value in (environment or {}).items():
            if value is not None:
                found.setdefault(key, Counter())[_text(value)] += 1
    return [(key, list(counts.items())) for key, counts in found.items()]
