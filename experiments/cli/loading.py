"""From the arguments of a command to what it carries out. Imports inside the functions load torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from experiments.config.resolve import Loaded
    from experiments.config.schema import Spec
    from experiments.config.sweep import Cell, Sweep
    from experiments.config.tuning import Chooser


def load(config: str, overrides: list[str] | None) -> Loaded:
    """Read a configuration, see `resolve.load`."""
    from experiments.config import resolve

    return resolve.load(config, overrides or [])


def content_hash(spec: Spec) -> str:
    """Hash the data of a specification, for its identity."""
    from experiments.data import content_hash

    return content_hash(spec.data.name, spec.data.root)


def tuning_folder(loaded: Loaded, out: Path) -> Path | None:
    """Return the folder of the tuning of a configuration's sweep; None if there is no tuning."""
    from experiments.config.stage import ENDING
    from experiments.config.sweep import grid_of, name_of

    if loaded.sweep is None or loaded.sweep.get("tuning") is None:
        return None
    return out / f"{name_of(grid_of(loaded))}{ENDING}"


def chooser(loaded: Loaded, out: Path) -> Chooser:
    """Return what finds the settings of tuned rows: beside the configuration's files, else in the tuning's folder."""
    from experiments.config.choices import read_choices, stored_paths
    from experiments.config.tuning import known
    from experiments.rundir import names

    folder = tuning_folder(loaded, out)
    further = [folder / names.CHOICES] if folder else []
    return known(read_choices([*stored_paths(loaded.files), *further]), content_hash)


def unchecked(loaded: Loaded, out: Path) -> Sweep:
    """Resolve every cell of a sweep; whether each can be carried out is not looked at."""
    from experiments.config.sweep import expand

    return expand(loaded, content_hash=content_hash, choose=chooser(loaded, out))


def expand_checked(loaded: Loaded, out: Path) -> Sweep:
    """Resolve every cell of a sweep, and make sure that each can be carried out."""
    from experiments.config.grid import at
    from experiments.run.check import check_all

    table = unchecked(loaded, out)
    check_all((f"{loaded.config}: row {cell.row!r}{at(cell.column)}", cell.spec) for cell in table.runs)
    return table


def check_cells_here(config: str, cells: Iterable[Cell]) -> None:
    """Make sure that cells of a table can be trained on this machine.

    Raises:
        UserError: naming the first row that cannot.
    """
    from experiments.config.grid import at
    from experiments.run.check import check_here

    check_here((f"{config}: row {cell.row!r}{at(cell.column)}", cell.spec) for cell in cells)


def said(folder: Path, result: dict[str, Any], spec: Spec) -> str:
    """Return the result of one run in a line: what was trained, and how well."""
    accuracy = f"accuracy {result['accuracy']:.2%} on {result['accuracy_on']}, sparsity {result['sparsity']:.2%}"
    updates = result.get("mask_updates")
    more = "" if updates is None else f", {updates:,} mask update{'s' * (updates != 1)}"
    return f"{folder}: {trained(spec)}, {accuracy}{more}"


def trained(spec: Spec) -> str:
    """Name what a run trains: topology, representation and what is around the optimizer, as in "RiGL + HAM"."""
    from sparsity import registry

    topology, representation = spec.topology.name, spec.representation.name
    parts = [registry.topology(topology).title] if topology != "dense" or representation == "plain" else []
    parts += [registry.representation(representation).title] if representation != "plain" else []
    parts += [name for name, section in (("HAM", spec.optimizer.ham), ("SAM", spec.optimizer.sam)) if section]
    return " + ".join(parts)


def single(loaded: Loaded, out: Path) -> tuple[Spec, str, Path]:
    """Resolve a single run, and make sure that it can be carried out; return it, its identity and its folder."""
    from experiments.config.identity import identity_with_data
    from experiments.config.resolve import resolve
    from experiments.config.sweep import run_name
    from experiments.run import reuse
    from experiments.run.check import check_all, check_here

    spec = resolve(loaded)
    lacks_file = spec.model.weights is not None and not Path(spec.model.weights).exists()
    if lacks_file and (known := reuse.begun(spec, out)) is not None:
        return spec, *known
    check_all([(loaded.config, spec)])
    hashed = identity_with_data(spec)
    name = run_name(spec.label or loaded.path.stem, hashed, spec.seed)
    folder = reuse.place(out / name, hashed, spec.seed)
    if reuse.finished(spec, hashed, folder) is None:
        check_here([(loaded.config, spec)])
    return spec, hashed, folder
