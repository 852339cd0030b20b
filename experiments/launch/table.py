"""The manifest of a sweep's folder: which table it shows. No other table is replaced without a word."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.config.sweep import Sweep, manifest
from experiments.config.yaml_text import shown
from experiments.errors import UserError
from experiments.rundir import names
from experiments.rundir.files import read_json, write_json


def check(sweep: Sweep, folder: Path) -> str | None:
    """Compare a sweep with the table that its folder shows now.

    Returns:
        What the table will no longer show, in words; None if nothing is lost.

    Raises:
        UserError: if the folder shows the table of another configuration, or of this one with other settings on the
            command line, with runs that this one has not.
    """
    old = read_json(folder / names.MANIFEST)
    cells = old.get("cells") if isinstance(old, dict) else None
    new = {(cell.identity, cell.seed) for cell in sweep.cells}
    gone = [cell for cell in cells or () if isinstance(cell, dict) and _key(cell) not in new]
    if not gone or not isinstance(old, dict):
        return None
    rows = list(dict.fromkeys(str(cell.get("row")) for cell in gone))
    some = ", ".join(rows[:3]) + (" …" if len(rows) > 3 else "")
    config, other = sweep.config, old.get("config")
    if isinstance(other, str) and config is not None and other != _from(folder, config):
        there = (folder / other).resolve()
        if there.exists():  # else it was moved, or nobody has it any more
            raise UserError(
                f"shows the table of {shown(there)}, with runs that {shown(config)} does not have ({some}); "
                f"give this one another sweep.name or --out, or remove {names.MANIFEST} there",
                where=str(folder),
            )
    before, finished = old.get("overrides"), [cell for cell in gone if _finished(folder, cell)]
    if isinstance(before, list) and before != sweep.overrides and finished:
        raise UserError(
            f"shows this table {_with(before)}; {_runs(finished)} of it that are finished ({some}) would be in no "
            f"table {_with(sweep.overrides)}: give this one another sweep.name or --out, or remove {names.MANIFEST}",
            where=str(folder),
        )
    return (
        f"{folder}: {_runs(gone)} of the table so far ({some}) had other settings, seeds, data or code, and are no "
        "longer in it; their folders stay"
    )


def write(sweep: Sweep, folder: Path) -> None:
    """Write the manifest of a sweep; see `check` for the errors raised."""
    check(sweep, folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = _from(folder, sweep.config) if sweep.config is not None else None
    write_json(folder / names.MANIFEST, {**manifest(sweep), "config": config})


def config_of(folder: Path) -> Path:
    """Return the configuration whose table a folder shows.

    Raises:
        UserError: if the manifest does not name one that exists.
    """
    old = read_json(folder / names.MANIFEST)
    config = old.get("config") if isinstance(old, dict) else None
    if not isinstance(config, str):
        raise UserError(f"has no {names.MANIFEST} that names a configuration; give the configuration", str(folder))
    path = (folder.resolve() / config).resolve()
    if not path.is_file():
        raise UserError(f"its configuration, {shown(path)}, is gone; give the configuration", str(folder))
    return path


def check_same(sweep: Sweep, folder: Path) -> None:
    """Make sure that a folder shows exactly this table, cell by cell, so that its cells have the same numbers.

    Raises:
        UserError: if it does not.
    """
    old = read_json(folder / names.MANIFEST)
    cells = old.get("cells") if isinstance(old, dict) else None
    there = [_key(cell) if isinstance(cell, dict) else None for cell in cells or ()]
    if there != [(cell.identity, cell.seed) for cell in sweep.cells]:
        raise UserError(
            f"{shown(sweep.config) if sweep.config else 'its configuration'} no longer describes the table of this "
            "folder (it, its data or code was edited, or settings were added by KEY=VALUE), so the numbers of its "
            "cells are not certain; give the configuration, with the same KEY=VALUE, in place of the folder",
            where=str(folder),
        )


def _from(folder: Path, config: Path) -> str:
    """Return the path of a configuration from a folder, which stays the same when both are moved together."""
    return os.path.relpath(config, folder.resolve())


def _with(overrides: Sequence[object]) -> str:
    return f"with {', '.join(map(str, overrides))}" if overrides else "without settings on the command line"


def _runs(cells: Sequence[object]) -> str:
    return "1 run" if len(cells) == 1 else f"{len(cells)} runs"


def _finished(folder: Path, cell: dict[str, Any]) -> bool:
    return (folder / str(cell.get("path")) / names.RESULT).is_file()


def _key(cell: dict[str, Any]) -> tuple[Any, Any]:
    return cell.get("identity"), cell.get("seed")
