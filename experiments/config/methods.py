"""Names in a configuration against what is registered: topologies, representations, data sets, models.

The registries stand behind the import of torch, so they are imported inside the functions.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.errors import UserError, nearest

from .problems import Problem, unknown_key
from .yaml_text import shown

KINDS = ("topology", "representation")
_OWN_KEYS = {"topology": ("name", "sparsity"), "representation": ("name",)}
_LIBRARIES = ("torchvision", "timm")


def import_modules(names: Sequence[str], folders: Sequence[Path], place: str | None) -> None:
    """Import the modules that bring methods of the user's own.

    The folders are appended to `sys.path` and stay there, so that worker processes find the modules too; appended, so
    that they hide nothing that is installed.

    Args:
        names: Module names.
        folders: Where to look besides the Python path.
        place: Where the names are written.

    Raises:
        UserError: if a module is not found or fails on import.
    """
    if names:
        absolute = [str(folder.resolve()) for folder in folders]
        sys.path.extend(folder for folder in dict.fromkeys(absolute) if folder not in sys.path)
        importlib.invalidate_caches()
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever the user's module raises
            absent = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
            if absent:
                looked = ", ".join(dict.fromkeys(shown(folder) for folder in folders))
                text = f"there is no module {name!r} in {looked} or on the Python path"
            else:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                fault = f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
                text = f"the module {name!r} fails on import: {fault}"
            raise UserError(f"imports: {text}", place) from error


def complete(tree: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Fill in the options of both methods and check every name that is looked up in a registry.

    Args:
        tree: The configuration; parts of the wrong shape are passed over, the typed check reports them.

    Returns:
        A copy with all options, and the problems found.
    """
    result: dict[str, Any] = dict(tree)
    problems = []
    for kind in KINDS:
        section = tree.get(kind)
        if isinstance(section, Mapping) and isinstance(section.get("name"), str):
            result[kind], found = _complete_method(kind, section)
            problems += found
    if not problems:
        problems = _combination(result)
    return result, problems + _unknown_names(tree)


def _complete_method(kind: str, section: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    from sparsity.options import OptionError, build_options
    from sparsity.registry import UnknownMethodError

    own = _OWN_KEYS[kind]
    try:
        options = method_class(kind, section["name"]).Options
    except UnknownMethodError as error:
        return dict(section), [Problem((kind, "name"), error.reason)]
    allowed = [*own, *(field.name for field in dataclasses.fields(options))]
    unknown = [key for key in section if key not in allowed]
    if unknown:
        of = f" of {kind} {section['name']!r}"
        return dict(section), [Problem((kind, key), unknown_key(key, allowed, of)) for key in unknown]
    given = {key: value for key, value in section.items() if key not in own}
    try:
        built = build_options(options, given)
    except OptionError as error:
        return dict(section), [Problem((kind, error.key), error.reason)]
    except ValueError as error:  # an Options class that checks its fields against each other
        return dict(section), [Problem((kind,), str(error))]
    return {**{key: section[key] for key in own if key in section}, **dataclasses.asdict(built)}, []


def _combination(tree: Mapping[str, Any]) -> list[Problem]:
    from sparsity.registry import refusal

    names = [tree[kind].get("name") if isinstance(tree.get(kind), Mapping) else None for kind in KINDS]
    if not all(isinstance(name, str) for name in names):
        return []
    reason = refusal(str(names[0]), str(names[1]))
    return [Problem(("topology", "name"), reason)] if reason else []


def _unknown_names(tree: Mapping[str, Any]) -> list[Problem]:
    from experiments.data import DATASETS
    from experiments.models.zoo import MODELS

    problems = []
    data, model = (
        section.get("name") if isinstance(section := tree.get(key), Mapping) else None for key in ("data", "model")
    )
    if isinstance(data, str) and data not in DATASETS:
        text = f"{data!r} is not a data set; allowed: {', '.join(sorted(DATASETS))}{nearest(data, DATASETS)}"
        problems.append(Problem(("data", "name"), text))
    if isinstance(model, str) and model not in MODELS:
        library, _, inner = model.partition(":")
        if library not in _LIBRARIES or not inner:
            allowed = [*MODELS, *(f"{prefix}:NAME" for prefix in _LIBRARIES)]
            text = f"{model!r} is not a model; allowed: {', '.join(allowed)}{nearest(model, allowed)}"
            problems.append(Problem(("model", "name"), text))
    return problems


def method_class(kind: str, name: str) -> Any:
    """The registered class of a topology or representation.

    Raises:
        UnknownMethodError: if there is none of this name.
    """
    from sparsity import registry

    return registry.topology(name) if kind == "topology" else registry.representation(name)


def aims_at_sparsity(tree: Mapping[str, Any]) -> bool:
    """Whether the topology or the representation of a configuration uses ``topology.sparsity``."""
    return any(method_class(kind, tree[kind]["name"]).uses_sparsity for kind in KINDS)


def settle(topology: Mapping[str, Any], batch_size: int) -> tuple[dict[str, Any], list[Problem]]:
    """Put times of a complete topology section that are given at another batch size into steps of this run.

    Returns:
        The section, and what is wrong with its options at its sparsity and batch size.
    """
    from sparsity.options import OptionError, build_options

    cls = method_class("topology", topology["name"])
    given = {key: value for key, value in topology.items() if key not in _OWN_KEYS["topology"]}
    try:
        options = cls.in_steps(build_options(cls.Options, given), batch_size=batch_size)
        if topology["sparsity"] > 0:
            cls.check(options, topology["sparsity"])
    except OptionError as error:
        return dict(topology), [Problem(("topology", error.key), error.reason)]
    return {**topology, **dataclasses.asdict(options)}, []


def neutral_options(kind: str, name: str) -> dict[str, Any]:
    """The options of a method that have a neutral value, and that value."""
    fields = dataclasses.fields(method_class(kind, name).Options)
    return {
        field.name: field.metadata["neutral"]
        for field in fields
        if field.metadata.get("neutral", dataclasses.MISSING) is not dataclasses.MISSING
    }
