"""From a configuration to a complete specification: load, override, check, resolve, fill in calibrated values.

Resolution normalises what does not change a run (a sparsity nobody aims at becomes 0) and writes every option out, so
that equal runs have equal specifications.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from experiments.errors import UserError

from . import methods
from .files import CALIBRATION, find_config, read_chain
from .identity import CALIBRATED, THRESHOLD_DECAY, calibration_identity
from .keys import KeyPath, assign_text, place_of
from .problems import Problem, complain, validate
from .rules import contradictions
from .schema import Spec
from .yaml_text import Located, read_yaml, shown


@dataclass(frozen=True)
class Loaded:
    """A configuration with what it extends and the command line merged, not yet checked.

    Attributes:
        config: As the user named it.
        path: Its file.
        files: All files merged, the packaged base first.
        tree: The merged mapping, without ``extends`` and ``sweep``.
        sweep: The section ``sweep``, or None.
        overrides: What the command line set, as written.
    """

    config: str
    path: Path
    files: tuple[Path, ...]
    tree: Located
    sweep: Located | None
    overrides: tuple[str, ...] = ()

    def place(self, path: KeyPath) -> str | None:
        """Say where a key path was written, as ``FILE:LINE`` or ``command line``."""
        return place_of(self.sweep, path[1:]) if path[:1] == ("sweep",) else place_of(self.tree, path)


def load(config: str, overrides: Sequence[str] = ()) -> Loaded:
    """Read a configuration.

    Args:
        config: A path, or a name among the packaged configurations.
        overrides: ``key=value`` of the command line, applied in order.

    Raises:
        UserError: if a file is not found or not readable, or an override malformed.
    """
    path = find_config(config)
    files, tree = read_chain(path)
    for text in overrides:
        tree = assign_text(tree, text)
    place = tree.places.get("sweep")
    sweep = tree.pop("sweep", None)
    if sweep is not None and not isinstance(sweep, Located):
        raise UserError(f"sweep: must be a mapping with rows, columns, seeds, or null, not {sweep!r}", place)
    return Loaded(config, path, files, tree, sweep, tuple(overrides))


def resolve(loaded: Loaded, tree: Located | None = None, *, calibrate: bool = True, context: str = "") -> Spec:
    """Check a configuration and complete it.

    Args:
        loaded: The configuration.
        tree: Its mapping after further overrides; the one it was loaded with if None.
        calibrate: Whether a threshold decay of ``calibrated`` is replaced by the calibration file's number.
        context: What is being resolved, for messages.

    Raises:
        UserError: with one line per problem.
    """
    tree = loaded.tree if tree is None else tree
    spec = _build(tree, (loaded.path.parent, Path()), context)
    options = spec.representation.options
    if calibrate and getattr(options, THRESHOLD_DECAY, None) == CALIBRATED:
        number = _calibrated(loaded, tree, spec, context)
        spec = with_threshold_decay(spec, number)
    return spec


def with_threshold_decay(spec: Spec, number: float) -> Spec:
    """Return a copy of a specification with another decay of STR's thresholds."""
    options = dataclasses.replace(spec.representation.options, **{THRESHOLD_DECAY: number})
    return spec.model_copy(update={"representation": spec.representation.with_options(options)})


def from_mapping(mapping: Mapping[str, Any]) -> Spec:
    """Rebuild the specification of a run from what its ``spec.yaml`` holds, `Spec.model_dump()`.

    A key that did not exist yet when the file was written has its neutral value, what the code did then.

    Raises:
        UserError: with one line per problem.
    """
    return _build(_completed(mapping, Spec), (Path(),), "")


def _completed(mapping: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    full = dict(mapping)
    for name, field in model.model_fields.items():
        inner, extra, found = field.annotation, field.json_schema_extra, full.get(name, {})
        if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(found, Mapping):
            content = _completed(found, inner)
            full |= {name: content} if name in full or content.keys() == inner.model_fields.keys() else {}
        elif name not in full and isinstance(extra, dict) and "neutral" in extra:
            full[name] = extra["neutral"]
    return full


def calibration_path(config: Path) -> Path:
    """Return the calibration file of a configuration: ``NAME.calibration.yaml`` beside it."""
    return config.with_name(f"{config.stem}{CALIBRATION}.yaml")


def _build(tree: Mapping[str, Any], folders: Sequence[Path], context: str) -> Spec:
    spec, problems = validate(Spec, tree, also=("extends", "sweep"))
    imports = tree.get("imports")
    if not any(problem.path[:1] == ("imports",) for problem in problems) and isinstance(imports, list):
        methods.import_modules(imports, folders, place_of(tree, ("imports",)))
    problems += methods.unknown_names(tree)
    if spec is None:
        raise complain([*problems, *methods.problems_of_parts(tree)], tree, context)
    spec, found = methods.with_methods(spec)
    problems += found or contradictions(spec)
    if problems:
        raise complain(problems, tree, context)
    return spec


def _calibrated(loaded: Loaded, tree: Located, spec: Spec, context: str) -> float:
    """Look up the decay for a specification: in the calibration of its own file, else of the files it extends."""
    wanted = calibration_identity(spec)
    for config in reversed(loaded.files):
        number = read_calibration(calibration_path(config)).get(wanted)
        if number is not None:
            return number
    text = (
        f"not calibrated for {spec.topology.name} + {spec.representation.name} at topology.sparsity="
        f"{spec.topology.sparsity:g} with these settings (identity {wanted}): "
        f"run `ham calibrate {shlex.quote(loaded.config)}`"
    )
    raise complain([Problem(("representation", THRESHOLD_DECAY), text)], tree, context)


def read_calibration(path: Path) -> dict[str, float]:
    """Read a calibration file, a list of ``{identity: TEXT, threshold_decay: NUMBER, ...}``.

    Returns:
        Identity to threshold decay; empty where there is no file.

    Raises:
        UserError: if the file is not of that form.
    """
    if not path.exists():
        return {}
    entries = read_yaml(path)
    form = "must be a list of mappings with identity (text) and threshold_decay (a number >= 0)"
    found: dict[str, float] = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, Located):
            raise UserError(form, shown(path))
        key, number = entry.get("identity"), entry.get(THRESHOLD_DECAY)
        if not isinstance(key, str) or not isinstance(number, int | float) or isinstance(number, bool) or number < 0:
            raise UserError(form, next(iter(entry.places.values()), shown(path)))
        found[key] = float(number)
    return found
