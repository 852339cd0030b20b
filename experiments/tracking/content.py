"""What W&B learns about a run, all of it from the run's folder: so a mirror and a later push tell the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config.sweep import slug
from experiments.config.yaml_text import read_mapping
from experiments.rundir import attempts, names
from experiments.rundir.files import read_json
from experiments.rundir.result import REUSED_FROM

SINGLE = "single runs"
"""The table of runs that belong to no sweep."""

SHORT = {
    "method": "topology.name",
    "representation": "representation.name",
    "sparsity": "topology.sparsity",
    "dataset": "data.name",
    "model": "model.name",
}
"""Keys of W&B's configuration for keys of ours; all of ours are below ``spec``."""

TUNE = "tune"
JOBS = {"test": "train", "validation": TUNE}
"""Job type of runs that are evaluated on a part."""

MOST_TAG, MOST_GROUP = 64, 128  # characters that W&B takes


@dataclass(frozen=True)
class TablePlace:
    """Where a run is in its table.

    Attributes:
        table: Name of the sweep.
        row: Label of the row.
        base_row: The row that it is compared with, or the row itself.
        column: Those column keys, with their values, on which the run depends; none for a dense row over sparsities.
    """

    table: str
    row: str
    base_row: str
    column: dict[str, Any]


@dataclass(frozen=True)
class Content:
    """A W&B run.

    Attributes:
        id: Identity, seed and, in a sweep, a hash of its name: two sweeps never take each other's runs.
        group: Table, row and column, over whose seeds W&B averages.
        job_type: ``tune`` for runs of a tuning and all that are evaluated on the validation part, else ``train``.
        config: Short keys to group and filter by, and the whole specification below ``spec``.
    """

    id: str
    name: str
    group: str
    job_type: str
    tags: list[str]
    config: dict[str, Any]


def content(folder: Path) -> Content:
    """Say what W&B learns about the run in a folder.

    Raises:
        UserError: if there is no specification, or it is damaged.
    """
    spec = dict(read_mapping(folder / names.SPEC, quick=True))
    place, identity, seed = place_of(folder, spec), _identity(folder), spec["seed"]
    values = [str(value) for value in place.column.values()]
    added = [name.upper() for name in ("ham", "sam") if spec["optimizer"].get(name) is not None]
    short = {
        "table": place.table,
        "row": place.row,
        "base_row": place.base_row,
        "addition": " + ".join(added) or "none",
        **{key: _at(spec, own) for key, own in SHORT.items()},
    }
    tags = [short[key] for key in ("table", "method", "representation", "dataset", "model")]
    suffix = "" if place.table == SINGLE else f"-{hashlib.sha256(place.table.encode()).hexdigest()[:8]}"
    return Content(
        id=f"{identity[:32]}-s{seed}{suffix}",
        name=" ".join([slug(place.row), *values, f"s{seed}"])[:MOST_GROUP],
        group=group(place.table, place.row, place.column),
        job_type=TUNE if _tunes(folder) else JOBS[spec["data"]["evaluate_on"]],
        tags=list(dict.fromkeys(tag[:MOST_TAG] for tag in [*tags, *(name.lower() for name in added)])),
        config={**short, **_reused(folder), "column": place.column, "seed": seed, "identity": identity, "spec": spec},
    )


def group(table: str, row: str, column: Mapping[str, Any]) -> str:
    """Return the group of a row's runs in a column of which only the keys that they depend on are given."""
    values = ", ".join(str(value) for value in column.values())
    return " @ ".join([f"{table} / {row}", *filter(None, [values])])[:MOST_GROUP]


def name_of(key: str) -> str:
    """Return the key of W&B's configuration under which a key of ours stands."""
    return next((short for short, own in SHORT.items() if own == key), f"spec.{key}")


def place_of(folder: Path, spec: dict[str, Any]) -> TablePlace:
    """Find the place of a run in the table that the folder above it shows."""
    manifest = read_json(folder.resolve().parent / names.MANIFEST)
    label = str(spec.get("label") or folder.resolve().name)
    if not isinstance(manifest, dict):
        return TablePlace(SINGLE, label, label, {})
    listed = [cell for cell in manifest.get("cells") or () if isinstance(cell, dict) and "row" in cell]
    cells = [cell for cell in listed if cell.get("path") == folder.resolve().name]
    row = str(cells[0]["row"]) if cells else label
    columns = [cell.get("column") or {} for cell in cells if cell["row"] == row]
    own = {
        key: value
        for key, value in (columns[0] if columns else {}).items()
        if all(column.get(key) == value for column in columns) and _at(spec, key) == value
    }
    return TablePlace(str(manifest.get("name")), row, (manifest.get("baselines") or {}).get(row, row), own)


def _tunes(folder: Path) -> bool:
    """Return whether the folder above a run is that of a tuning, on whatever part it decides."""
    manifest = read_json(folder.resolve().parent / names.MANIFEST)
    return isinstance(manifest, dict) and manifest.get("tunes") is not None


def _at(spec: Any, key: str) -> Any:
    for part in key.split("."):
        spec = spec.get(part) if isinstance(spec, dict) else None
    return spec


def _reused(folder: Path) -> dict[str, str]:
    """Say from which folder a run was taken over, so that a project of several sweeps can leave copies out."""
    result = read_json(folder / names.RESULT)
    found = result.get(REUSED_FROM) if isinstance(result, dict) else None
    return {REUSED_FROM: str(found)} if found else {}


def _identity(folder: Path) -> str:
    """Return the identity that the attempts, or the result, of a run have recorded."""
    for record in (attempts.newest(folder), read_json(folder / names.RESULT)):
        if isinstance(record, dict) and isinstance(record.get("identity"), str):
            return record["identity"]
    match = names.RUN.fullmatch(folder.resolve().name)
    return match["identity"] if match else hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
