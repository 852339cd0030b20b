"""From the arguments of a command to what it carries out. Imports inside the functions load torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.config.resolve import Loaded
    from experiments.config.schema import Spec
    from experiments.config.sweep import Sweep


def load(config: str, overrides: list[str] | None) -> Loaded:
    """Read a configuration, see `resolve.load`."""
    from experiments.config import resolve

    return resolve.load(config, overrides or [])


def _content_hash(spec: Spec) -> str:
    from experiments.data import content_hash

    return content_hash(spec.data.name, spec.data.root)


def unchecked(config: str, overrides: list[str]) -> Sweep:
    """Resolve every cell of a sweep; whether each can be carried out is not looked at."""
    from experiments.config.sweep import expand

    return expand(load(config, overrides), content_hash=_content_hash)


def expand_checked(loaded: Loaded) -> Sweep:
    """Resolve every cell of a sweep, and make sure that each can be carried out."""
    from experiments.config.grid import at
    from experiments.config.sweep import expand
    from experiments.run.check import check_all

    table = expand(loaded, content_hash=_content_hash)
    check_all((f"{loaded.config}: row {cell.row!r}{at(cell.column)}", cell.spec) for cell in table.runs)
    return table


def said(folder: Path, result: dict[str, Any]) -> str:
    """Return the result of one run in a line."""
    return f"{folder}: accuracy {result['accuracy']:.2%} on {result['accuracy_on']}, sparsity {result['sparsity']:.2%}"


def single(loaded: Loaded, out: Path) -> tuple[Spec, str, Path]:
    """Resolve a single run, and make sure that it can be carried out; return it, its identity and its folder."""
    from experiments.config.identity import identity_with_data
    from experiments.config.resolve import resolve
    from experiments.config.sweep import run_name
    from experiments.run import reuse
    from experiments.run.check import check_all

    spec = resolve(loaded)
    lacks_file = spec.model.weights is not None and not Path(spec.model.weights).exists()
    if lacks_file and (known := reuse.begun(spec, out)) is not None:
        return spec, *known
    check_all([(loaded.config, spec)])
    hashed = identity_with_data(spec)
    name = run_name(spec.label or loaded.path.stem, hashed, spec.seed)
    return spec, hashed, reuse.place(out / name, hashed, spec.seed)
