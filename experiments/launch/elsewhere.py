"""Finished runs that lie in other folders: the same identity and seed need not be trained twice.

Such a run is taken over as a run directory of this sweep's own, which everything that reads runs finds as usual. Its
`result.json` says where it was trained (`reused_from`). Large files get a second name rather than a copy, where the
file system can do so. Loads no torch.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.config.identity import folder_suffix
from experiments.config.schema import Spec
from experiments.config.sweep import Cell
from experiments.config.yaml_text import dump
from experiments.errors import Busy, SuiteError, UserError
from experiments.run import reuse
from experiments.rundir import attempts, names, waiting
from experiments.rundir.files import check_regular, remove_leftovers, write_json, write_text
from experiments.rundir.outcome import read_result
from experiments.rundir.reading import Unreadable
from experiments.rundir.result import FILES, REUSED_FROM, SEALED, digest_of, seal

log = logging.getLogger(__name__)


def find(cells: Iterable[Cell], folder: Path, roots: Sequence[Path]) -> dict[str, Path]:
    """Find finished runs of the same identity and seed in other folders.

    Args:
        cells: Runs that have no result.
        folder: The sweep's folder, which is not looked at.
        roots: Folders of sweeps, of runs, or of many sweeps.

    Returns:
        The folder of each run that was found, by the path of the run it is the same as.

    Raises:
        UserError: if one of the roots is no folder; the first one, `--out`, need not exist yet.
    """
    for root in roots[1:]:
        if not root.is_dir():
            raise UserError(f"{root} is no folder; give one of runs or sweeps", "--reuse")
    cells = list(cells)
    wanted = {folder_suffix(cell.identity, cell.seed) for cell in cells}
    there: dict[str, list[Path]] = {}
    for path in dict.fromkeys(path for root in roots for path in _run_folders(root)):
        match = names.RUN.fullmatch(path.name)
        suffix = folder_suffix(match["identity"], int(match["seed"])) if match else ""
        if suffix in wanted and path.parent.resolve() != folder.resolve():
            there.setdefault(suffix, []).append(path)
    found = {}
    for cell in cells:
        for path in there.get(folder_suffix(cell.identity, cell.seed), ()):
            try:
                if _usable(cell, path) is not None:
                    found[cell.path] = path
                    break
            except (Unreadable, OSError) as error:
                log.warning("%s: is not reused: %s", path, error)
    return found


def take(cells: Iterable[Cell], folder: Path, found: Mapping[str, Path]) -> None:
    """Take finished runs of other folders over into a sweep's folder, and say which; what has changed is left there.

    Args:
        cells: Runs of the sweep.
        folder: Its folder.
        found: What `find` returned.
    """
    taken: dict[Path, int] = {}
    for cell in cells:
        source = found.get(cell.path)
        if source is None:
            continue
        try:
            if _take(cell, folder / cell.path, source):
                taken[source.parent] = taken.get(source.parent, 0) + 1
        except (Unreadable, OSError, SuiteError) as error:
            log.warning("%s: is not reused: %s", source, error)
    for parent, number in taken.items():
        runs = "1 run is" if number == 1 else f"{number} runs are"
        log.warning("%s: %s reused from %s, not trained again (--no-reuse trains)", folder, runs, parent)


def _run_folders(root: Path) -> Iterator[Path]:
    """Yield what may be a run's folder: a root, what is in it, and what is in what is in it."""
    yield root
    for one in _entries(root):
        yield one
        if names.RUN.fullmatch(one.name) is None:
            yield from _entries(one)


def _entries(folder: Path) -> list[Path]:
    with suppress(OSError):  # most of them are no folders
        return sorted(folder.iterdir())
    return []


def _usable(cell: Cell, source: Path) -> dict[str, Any] | None:
    """Return the result of a folder if it can stand for a run; None if the folder has none.

    Raises:
        Unreadable: if it has one that cannot, with the reason.
    """
    result = read_result(source)
    if result is None:
        return None
    if (result["identity"], result["seed"]) != (cell.identity, cell.seed):
        raise Unreadable("it is another run, whose identity begins with the same digits")
    files = result.get(FILES)
    stated = list(files) if isinstance(files, Mapping) else []
    for name in dict.fromkeys([*stated, names.WEIGHTS, *_wanted(cell.spec)]):
        if not (source / name).is_file():
            why = ", since it was evaluated without evaluate.predictions" if name == names.PREDICTIONS else ""
            raise Unreadable(f"it has no {name}{why}")
    return result


def _wanted(spec: Spec) -> list[str]:
    return [names.PREDICTIONS] if spec.evaluate.predictions else []


def _take(cell: Cell, target: Path, source: Path) -> bool:
    """Fill a run directory from another one, the result last; return whether it has been filled now."""
    result = _usable(cell, source)
    if result is None:
        return False
    _check_files(result, {name: digest_of(source / name) for name in result.get(FILES) or ()})
    target.mkdir(parents=True, exist_ok=True)
    try:
        claim = attempts.claim(target, identity=cell.identity, seed=cell.seed)
    except Busy:
        return False  # somebody trains it just now
    with attempts.held(claim):
        for _ in waiting.for_earlier(claim):
            pass
        if reuse.finished(cell.spec, cell.identity, target) is not None:
            return False
        remove_leftovers(target)
        try:
            write_text(target / names.SPEC, dump(cell.spec.model_dump()), claim.check)
            for name in (*SEALED, names.ENVIRONMENT, names.LOG):
                own_log = name == names.LOG and (target / name).exists()
                if (source / name).is_file() and not own_log:
                    _duplicate((source / name).resolve(), target / name, claim)
            origin = result.get(REUSED_FROM) or str(source.resolve())
            sealed = seal({**result, REUSED_FROM: origin}, target)
            _check_files(result, sealed[FILES])
        except BaseException:
            for name in SEALED:  # of a run that was begun here, its checkpoint has the metrics too
                (target / name).unlink(missing_ok=True)
            raise
        (target / names.FAILURE).unlink(missing_ok=True)
        write_json(target / names.RESULT, sealed, claim.check)
    return True


def _check_files(result: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    for name, digest in (result.get(FILES) or {}).items():
        if digests.get(name) != digest:
            raise Unreadable(f"{name} is not the file that the run left")


def _duplicate(source: Path, target: Path, claim: attempts.Attempt) -> None:
    """Give a file that is written once a second name, or copy it: to another disk, and what may be appended to."""
    check_regular(target)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            if target.name not in SEALED:
                raise OSError
            os.link(source, draft)
        except OSError:
            shutil.copyfile(source, draft)
        claim.check()
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)  # a name of the same file as the target's, after a kill, is not moved
