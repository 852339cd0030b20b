"""Discovery of runs in a folder without a manifest, and naming of their table rows."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.config.yaml_text import read_mapping
from experiments.errors import UserError
from experiments.rundir import names

from .kinds import one_line
from .schema import RunEntry

log = logging.getLogger("results")

NOT_COMPARED = (*names.NOT_IDENTIFYING, "imports", "checks")
"""Keys in which runs of one row may differ: those outside the identity, and where code is and what is checked."""


def read_spec(path: Path) -> dict[str, Any]:
    """Read a run's resolved configuration, flattened to dotted keys; return an empty one if it is absent or damaged.

    Args:
        path: The run's folder.
    """
    if not os.path.lexists(path / names.SPEC):
        return {}
    try:
        return flatten(read_mapping(path / names.SPEC, quick=True))
    except UserError as error:
        log.warning("%s; left out", error)
        return {}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted keys; empty mappings stay as values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def compared(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a flattened configuration that distinguish methods (no seed, labels or bookkeeping)."""
    return {key: value for key, value in spec.items() if not names.below(key, NOT_COMPARED)}


def run_folders(directory: Path) -> list[Path]:
    """Return the folders of runs: the directory itself, or each of its sub-folders with a ``spec.yaml``."""
    own = (directory / names.SPEC).is_file()
    return [directory] if own else sorted(path for path in directory.iterdir() if _is_run(path))


def found_cells(folders: Iterable[Path]) -> list[RunEntry]:
    """Make one entry per run folder.

    The row is the configuration's label or, without one, the folder's name without hash and seed. Runs of one label
    that differ in more than their seed become different rows, named by what differs, since averaging them would be
    wrong.

    Returns:
        Entries sorted by row, then seed; without results.
    """
    found: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in folders:
        spec = read_spec(path)
        match = names.RUN.fullmatch(path.name)
        label = one_line(str(spec.get("label") or (match["slug"] if match else path.name)))
        found.setdefault(label, []).append((path, spec))
    entries = [entry for label in sorted(found) for entry in _rows(label, found[label])]
    return _once(entries)


def strays(directory: Path, named: Collection[str]) -> tuple[str, ...]:
    """Name the folders of runs in a sweep's directory that are none of those named, such as a renamed sweep's."""
    return tuple(
        sorted(one_line(name) for name in os.listdir(directory) if names.RUN.fullmatch(name) and name not in named)
    )


def _is_run(path: Path) -> bool:
    """Return whether a folder is a run's: its result counts even if its configuration is lost, which is said."""
    if os.path.lexists(path / names.SPEC):
        return True
    if (path / names.RESULT).is_file():
        log.warning("%s: has a result and no %s; its row is the name of its folder", path, names.SPEC)
        return True
    return False


def _rows(label: str, runs: list[tuple[Path, dict[str, Any]]]) -> list[RunEntry]:
    """Return entries of all runs of one label; several configurations make several rows."""
    specs = [{key: json.dumps(value, default=str) for key, value in compared(spec).items()} for _, spec in runs]
    keys = sorted({key for spec in specs for key in spec})
    readable = [spec for spec in specs if spec]
    differing = [key for key in keys if len({spec.get(key) for spec in readable}) > 1]
    entries = []
    for (path, spec), values in zip(runs, specs, strict=True):
        match = names.RUN.fullmatch(path.name)
        stated = spec.get("seed")
        seed = stated if isinstance(stated, int) else match["seed"] if match else 0
        what = ", ".join(f"{key}={values[key]}" for key in differing if key in values)
        row = f"{label} ({what})" if what else label
        entries.append(RunEntry(row, {}, int(seed), match["identity"] if match else "", path))
    return sorted(entries, key=lambda entry: (entry.row, entry.seed))


def _once(entries: list[RunEntry]) -> list[RunEntry]:
    """Remove copies of a run, since a seed that is counted twice would make the spread too small."""
    seen: dict[tuple[str, int], Path] = {}
    for entry in entries:
        first = seen.setdefault((entry.row, entry.seed), entry.path)
        if first != entry.path:
            log.warning("%s: repeats %s (same configuration and seed); left out", entry.path, first.name)
    return [entry for entry in entries if seen[entry.row, entry.seed] == entry.path]


def inner(directory: Path) -> list[Path]:
    """Return the folders of sweeps and of runs in a folder."""
    found = {path.parent for path in directory.glob(f"*/{names.MANIFEST}")}
    return sorted(found | {path.parent.parent for path in directory.glob(f"*/*/{names.SPEC}")})


def places(directory: str | Path) -> list[Path]:
    """Return the directories that `read_plan` reads: a directory itself, or, of a folder of sweeps, those in it.

    A folder of sweeps that holds runs of its own, such as those of `ham run`, comes before the sweeps in it.
    """
    directory = Path(directory)
    if not directory.is_dir() or (directory / names.MANIFEST).is_file() or (directory / names.SPEC).is_file():
        return [directory]
    found = inner(directory)
    return [directory, *found] if not found or any(directory.glob(f"*/{names.SPEC}")) else found
