"""Reading of results from run folders and manifests."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from experiments.errors import UserError, nearest
from experiments.rundir import names, reading
from experiments.rundir.reading import Unreadable
from experiments.rundir.result import check, is_sealed

from .archive import unpacked
from .discover import flatten, found_cells, inner, run_folders, strays
from .kinds import Manifest, one_line
from .schema import RunEntry, SweepResults, column_id

log = logging.getLogger("results")


def read(directory: str | Path) -> SweepResults:
    """Read a sweep with its results.

    Args:
        directory: A sweep's folder (with ``sweep.json``), a folder whose sub-folders are runs, or a run's folder.

    Raises:
        UserError: if the folder does not exist, holds no runs, or its manifest is damaged.
    """
    return outcomes(read_plan(directory))


def outcomes(sweep: SweepResults) -> SweepResults:
    """Read the results of the runs that `read_plan` found."""
    finished: dict[Path, Mapping[str, Any]] = {}
    entries = []
    for entry in sweep.entries:
        if entry.path not in finished:
            finished[entry.path] = _outcome(entry)
        found = finished[entry.path]
        identity = entry.identity or str(found.get("result", {}).get("identity", ""))
        entries.append(replace(entry, identity=identity, **found))
    return replace(sweep, entries=tuple(entries))


def read_plan(directory: str | Path) -> SweepResults:
    """Read which runs a directory has or will have, without their results; every status is "missing"."""
    directory = Path(directory)
    if not directory.exists():
        raise UserError(_absent(directory), where=str(directory))
    directory = directory.resolve()
    if not directory.is_dir():
        directory = unpacked(directory) if directory.suffix == ".zip" else _refused(directory)
    if (directory / names.MANIFEST).is_file():
        return _from_manifest(directory)
    entries = found_cells(run_folders(directory))
    if not entries:
        raise UserError(_empty(directory), where=str(directory))
    name = one_line(directory.name)
    return SweepResults(directory, name, name, (), {}, None, None, tuple(entries))


def _refused(path: Path) -> NoReturn:
    raise UserError("is a file; give the folder of a sweep or of a run, or what `ham archive` wrote", where=str(path))


def _absent(directory: Path) -> str:
    parent = directory.parent
    siblings = sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    near = f"; {parent} has: {', '.join(siblings[:8])}" if siblings else ""
    return f"no such folder{nearest(directory.name, siblings)}{near}"


def _empty(directory: Path) -> str:
    found = [path.name for path in inner(directory)]
    near = f"; give one of the folders in it: {', '.join(found[:8])}" if found else ""
    return f"holds no runs (no {names.MANIFEST}, and no sub-folder with a {names.SPEC}){near}"


def read_object(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Read a JSON object.

    Returns:
        The object and None; None and None if the file does not exist; otherwise None and what is wrong.
    """
    try:
        return reading.read_object(path), None
    except FileNotFoundError:
        return None, None
    except Unreadable as error:
        return None, f"{path.name} {error}"


def _from_manifest(directory: Path) -> SweepResults:
    where = str(directory / names.MANIFEST)
    manifest, problem = read_object(directory / names.MANIFEST)
    if manifest is None:
        raise UserError(f"damaged manifest: {problem}; run `ham sweep` again to rewrite it", where=where)
    try:
        head = reading.typed(Manifest, manifest)
    except Unreadable as error:
        raise UserError(f"damaged manifest: {error}", where=where) from error
    name = one_line(head.name or directory.name)
    sweep = SweepResults(
        directory=directory,
        name=name,
        title=one_line(head.title or name),
        column_keys=tuple(map(one_line, head.column_keys)),
        baselines={one_line(row): one_line(plain) for row, plain in head.baselines.items()},
        tuning_cells=head.tuning_cells,
        notes=one_line(head.notes or "") or None,
        entries=tuple(
            RunEntry(one_line(cell.row), cell.column, cell.seed, cell.identity, directory / cell.path)
            for cell in head.cells
        ),
        overrides=tuple(map(one_line, head.overrides)),
        strays=strays(directory, {cell.path for cell in head.cells}),
        specs={identity: flatten(spec) for identity, spec in head.specs.items()},
        tuning=head.tuning,
        tunes=head.tunes,
    )
    _check(sweep, where)
    return sweep


def _check(sweep: SweepResults, where: str) -> None:
    if not sweep.entries:
        raise UserError("the manifest lists no runs", where=where)
    seen = set()
    runs: dict[Path, tuple[str, int]] = {}
    for entry in sweep.entries:
        if runs.setdefault(entry.path, (entry.identity, entry.seed)) != (entry.identity, entry.seed):
            raise UserError(f"gives the folder {entry.path.name} to two runs; run `ham sweep` again", where=where)
        key = (entry.row, column_id(entry.column), entry.seed)
        if key in seen:
            raise UserError(f"lists row {entry.row!r} with seed {entry.seed} twice in one column", where=where)
        seen.add(key)
        given, known = set(entry.column), set(sweep.column_keys)
        # the rows of a tuning may each have settings of their own
        if not given <= known or (given != known and sweep.tunes is None):
            keys = ", ".join(sweep.column_keys) or "none"
            raise UserError(f"the column of {entry.path.name} has other keys than column_keys: {keys}", where=where)
    for row, plain in sweep.baselines.items():
        for name in (row, plain):
            if name not in sweep.rows:
                raise UserError(
                    f"baselines name {name!r}, which is not a row; rows: {', '.join(sweep.rows)}", where=where
                )


def _outcome(entry: RunEntry) -> Mapping[str, Any]:
    """Read status, result and error of one run folder; unreadable files are reported and count as missing."""
    result, problem = read_object(entry.path / names.RESULT)
    if result is not None:
        try:
            check(result, identity=entry.identity or None, seed=entry.seed)
            return {"status": "done", "result": result}
        except Unreadable as error:
            problem = f"{names.RESULT} {error}"
    failure, unreadable = read_object(entry.path / names.FAILURE)
    for message in filter(None, (problem, unreadable)):
        log.warning("%s: %s; counted as missing", entry.path, message)
    if failure is not None:
        return {"status": "failed", "error": _words(failure), "unexpected": failure.get("unexpected") is True}
    return {"status": "missing", "error": problem or unreadable}


def _words(failure: Mapping[str, Any]) -> str:
    lines = (one_line(line) for line in str(failure.get("error") or "").splitlines())
    return "\n".join(filter(None, lines)) or "failed without a message"


def read_metrics(path: Path, result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run's ``metrics.jsonl``; the incomplete last line of a killed run is skipped silently.

    Args:
        path: The run's folder.
        result: Its result, whose checksum the file must have; empty without one.
    """
    where = path / names.METRICS
    try:
        content = reading.read_regular(where)
    except FileNotFoundError:
        return
    except Unreadable as error:
        log.warning("%s: %s; left out", where, error)
        return
    if not is_sealed(result, names.METRICS, content):
        log.warning("%s: was changed after the run had ended; left out", where)
        return
    lines = content.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            value = reading.parse_json(line)
        except Unreadable as error:
            if number < len(lines):
                log.warning("%s:%d: %s; line left out", where, number, error)
            continue
        if isinstance(value, dict):
            yield value
