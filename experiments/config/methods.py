"""Names in a configuration against what is registered: topologies, representations, data sets, models.

The registries stand behind the import of torch, so they are imported inside the functions.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from experiments.errors import UserError, nearest, words_of

from . import code
from .problems import Problem, unknown_key
from .schema import MethodSpec, RepresentationSpec, Spec, TopologySpec
from .yaml_text import shown

KINDS: dict[str, type[MethodSpec]] = {"topology": TopologySpec, "representation": RepresentationSpec}
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
            with _nothing_left_behind(), _nobody_leaves():
                code.digest(importlib.import_module(name))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the user's module raises, sys.exit of a script included
            absent = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
            if absent:
                looked = ", ".join(dict.fromkeys(shown(folder) for folder in folders))
                text = f"there is no module {name!r} in {looked} or on the Python path"
            else:
                frame = [one for one in traceback.extract_tb(error.__traceback__) if one.filename != __file__][-1]
                fault = f"{type(error).__name__}: {words_of(error)} ({frame.filename}:{frame.lineno})"
                text = f"the module {name!r} fails on import: {fault}"
            raise UserError(f"imports: {text}", place) from error


@contextmanager
def _nothing_left_behind() -> Iterator[None]:
    """Write no compiled files, which Python takes for those of a source that is edited within the same second."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextmanager
def _nobody_leaves() -> Iterator[None]:
    """Let a module that ends the process at once, without an exception, raise one."""
    leave, here = os._exit, os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != here:  # a process that it has forked
            leave(status)
        raise SystemExit(f"calls os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave


def unknown_names(tree: Mapping[str, Any]) -> list[Problem]:
    """Find names of data sets and networks that nothing is registered under."""
    from experiments.data import DATASETS
    from experiments.models.zoo import MODELS, in_a_library

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
            close = in_a_library(model) or nearest(model, allowed)
            text = f"{model!r} is not a model; allowed: {', '.join(allowed)}{close}"
            problems.append(Problem(("model", "name"), text))
    return problems


def with_methods(spec: Spec) -> tuple[Spec, list[Problem]]:
    """Build the options of topology and representation, once, and check them with each other.

    A sparsity that neither aims at becomes 0, and times given at another batch size become steps of this run, so that
    equal runs have equal specifications.

    Returns:
        The specification with both `Options` objects, and the problems found.
    """
    from sparsity.options import OptionError
    from sparsity.registry import refusal

    built: dict[str, Any] = {}
    problems: list[Problem] = []
    for kind in KINDS:
        section = getattr(spec, kind)
        built[kind], found = _build(kind, section.name, section.model_extra or {})
        problems += found
    if problems:
        return spec, problems
    topology, representation = spec.topology, spec.representation
    reason = refusal(topology.name, representation.name)
    if reason is not None:
        return spec, [Problem(("topology", "name"), reason)]
    classes = [method_class(kind, getattr(spec, kind).name) for kind in KINDS]
    sparsity = topology.sparsity if any(cls.uses_sparsity for cls in classes) else 0.0
    try:
        built["topology"] = classes[0].in_steps(built["topology"], batch_size=spec.data.batch_size)
        if sparsity > 0:
            classes[0].check(built["topology"], sparsity)
    except OptionError as error:
        problems.append(Problem(("topology", error.key), error.reason))
    try:
        classes[1].check(built["representation"], spec.optimizer.lr)
    except OptionError as error:
        problems.append(Problem(("representation", error.key), error.reason))
    sections = {
        "topology": topology.with_options(built["topology"], sparsity=sparsity),
        "representation": representation.with_options(built["representation"]),
    }
    return spec.model_copy(update=sections), problems


def problems_of_parts(tree: Mapping[str, Any]) -> list[Problem]:
    """Find what is wrong with the methods of a configuration that is not well typed elsewhere."""
    problems = []
    for kind, model in KINDS.items():
        section = tree.get(kind)
        if isinstance(section, Mapping) and isinstance(name := section.get("name"), str):
            given = {key: value for key, value in section.items() if key not in model.model_fields}
            problems += _build(kind, name, given)[1]
    return problems


def _build(kind: str, name: str, given: Mapping[str, Any]) -> tuple[Any, list[Problem]]:
    """Build the options of a method from the keys beside its name, or say what is wrong with them."""
    from sparsity.options import OptionError, build_options
    from sparsity.registry import UnknownMethodError

    try:
        options = method_class(kind, name).Options
    except UnknownMethodError as error:
        return None, [Problem((kind, "name"), error.reason)]
    allowed = [*KINDS[kind].model_fields, *(field.name for field in dataclasses.fields(options))]
    unknown = [key for key in given if key not in allowed]
    if unknown:
        of = f" of {kind} {name!r}"
        return None, [Problem((kind, key), unknown_key(key, allowed, of)) for key in unknown]
    try:
        return build_options(options, given), []
    except OptionError as error:
        return None, [Problem((kind, error.key), error.reason)]
    except ValueError as error:  # an Options class that checks its fields against each other
        return None, [Problem((kind,), str(error))]


def method_class(kind: str, name: str) -> Any:
    """Look up the registered class of a topology or representation.

    Raises:
        UnknownMethodError: if there is none of this name.
    """
    from sparsity import registry

    return registry.topology(name) if kind == "topology" else registry.representation(name)


def neutral_options(kind: str, name: str) -> dict[str, Any]:
    """Return the options of a method that have a neutral value, with that value."""
    fields = dataclasses.fields(method_class(kind, name).Options)
    return {
        field.name: field.metadata["neutral"]
        for field in fields
        if field.metadata.get("neutral", dataclasses.MISSING) is not dataclasses.MISSING
    }
