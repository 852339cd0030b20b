"""What an earlier command left and this one may use: only what belongs to the whole specification, whatever its name.

A folder's name ends in the first digits of an identity, which two specifications may share. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.config.identity import folder_suffix, identity
from experiments.config.schema import Spec
from experiments.config.sweep import Cell, Sweep
from experiments.config.yaml_text import read_mapping
from experiments.errors import RunFailure, UserError
from experiments.rundir import names
from experiments.rundir.attempts import newest
from experiments.rundir.outcome import read_result


def finished(spec: Spec, hashed: str, folder: Path) -> dict[str, Any] | None:
    """Return the result of a run if it has one.

    Raises:
        UserError: if the folder holds another run, whose identity begins with the same digits.
    """
    held = identity_in(folder)
    if held is not None and held != (hashed, spec.seed):
        raise UserError(
            f"holds another run, {_difference(spec, folder)}; its name is the same by chance or because its files were "
            "moved here: give another label or --out, or move it away",
            where=str(folder),
        )
    return read_result(folder)


def check_used(spec: Spec, hashed: str, content_hash: str, initial_weights: str | None, folder: Path) -> None:
    """Make sure that what a run has read is what its identity was made of.

    Args:
        spec: The run.
        hashed: Its identity.
        content_hash: Hash of the data that it has read.
        initial_weights: Hash of the initial weights that it has read, or that its checkpoint began with.
        folder: Its folder.

    Raises:
        RunFailure: if data, initial weights or code have changed since the command hashed them.
    """
    if identity(spec, content_hash, initial_weights) == hashed:
        return
    weights = f", the file of model.weights ({spec.model.weights})" if spec.model.weights else ""
    code = f", the code of {', '.join(spec.imports)}" if spec.imports else ""
    raise RunFailure(
        f"the data{weights}{code} that this run has read are not those that its command has seen; something was "
        "changed meanwhile, and the same command, given again, takes what is there now",
        where=str(folder),
    )


def identity_in(folder: Path) -> tuple[str, int] | None:
    """Return the identity and the seed of the run that a folder holds, or None if there is none."""
    for record in (read_result(folder), newest(folder)):
        if record is not None and isinstance(record.get("identity"), str):
            return record["identity"], record.get("seed", -1)
    return None


def begun(spec: Spec, parent: Path) -> tuple[str, Path] | None:
    """Find the run of a specification by its `spec.yaml`, where its file of initial weights is no longer there to hash.

    Returns:
        Its identity and its folder, or None.
    """
    for path in sorted(parent.glob(f"*-s{spec.seed}/{names.SPEC}")):
        held = identity_in(path.parent)
        if held is not None and next(_differences(spec, path.parent), None) is None:
            return held[0], path.parent
    return None


def pending(cells: Iterable[Cell], folder: Path) -> list[Cell]:
    """Return those of some runs of a sweep that have no result.

    Raises:
        UserError: see `finished`.
    """
    return [cell for cell in cells if finished(cell.spec, cell.identity, folder / cell.path) is None]


def placed(sweep: Sweep, folder: Path) -> Sweep:
    """Give each run of a sweep the folder that it already has, if its row had another label when it was begun."""
    try:
        there = sorted(path.name for path in folder.iterdir() if path.is_dir())
    except FileNotFoundError:
        return sweep
    return replace(sweep, cells=[replace(cell, path=_place(cell, folder, there)) for cell in sweep.cells])


def place(path: Path, hashed: str, seed: int) -> Path:
    """Return the folder of a single run: the one named so, or the one that it already has under another label."""
    there = sorted(one.name for one in path.parent.iterdir() if one.is_dir()) if path.parent.is_dir() else []
    return path.parent / _known(path.name, hashed, seed, path.parent, there)


def _place(cell: Cell, folder: Path, there: list[str]) -> str:
    return _known(cell.path, cell.identity, cell.spec.seed, folder, there)


def _known(name: str, hashed: str, seed: int, folder: Path, there: list[str]) -> str:
    if name in there:
        return name
    alike = [one for one in there if one.endswith(folder_suffix(hashed, seed))]
    own = [one for one in alike if identity_in(folder / one) == (hashed, seed)]
    return next((one for one in own if read_result(folder / one) is not None), own[0] if own else name)


def _difference(spec: Spec, folder: Path) -> str:
    """Name the first key in which the run of a folder differs from a specification."""
    for key, one, other in _differences(spec, folder):
        return f"whose {key} is {one!r} where this one has {other!r}"
    return "which differs in the content of its data, of model.weights or of the modules of imports"


def _differences(spec: Spec, folder: Path) -> Iterator[tuple[str, Any, Any]]:
    there = read_mapping(folder / names.SPEC) if (folder / names.SPEC).is_file() else {}
    for key, one, other in _differing(there, spec.model_dump()):
        if key == "seed" or names.identifies(key):
            yield key, one, other


def _differing(one: Any, other: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from _differing(one.get(key), other.get(key), f"{name}.{key}" if name else str(key))
    elif one != other:
        yield name, one, other
