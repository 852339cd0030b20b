"""The pages of the Python API: each public name with its sentence; the site adds docstrings and signatures."""

from __future__ import annotations

import importlib
import inspect
from types import FunctionType, ModuleType
from typing import Any

from .markdown import table

PACKAGES = {
    "ham": "HAM and SAM, optimizers that need torch alone.",
    "sparsity": "What a training loop needs of sparse methods; imports torch alone.",
    "sparsity.testing": "The checks of a method of your own.",
    "results": "Runs as pandas frames; never imports torch.",
    "results.numbers": "The statistics of tables, for numbers of your own.",
    "experiments.data": "Data sets of your own, see [own data](../../howto/own_data.md).",
}
DOCUMENTED = {
    "results.numbers": (
        *("stats.paired", "stats.holm", "unpaired.welch", "unpaired.from_published", "unpaired.hedges_g"),
        *("unpaired.mann_whitney", "counts.mcnemar", "power.paired_power", "power.unpaired_power", "power.needed"),
    ),
    "experiments.data": ("Arrays", "ArraySource"),
}
"""The names of a package that pages describe, where these are not all that it exports."""


def pages() -> dict[str, str]:
    """Return a page for each package, and their index."""
    rows = [(f"[{name}]({_file(name)}.md)", words) for name, words in PACKAGES.items()]
    index = "# Python API\n\n`help(NAME)` shows the same texts in Python.\n\n" + table(("package", "what it is"), rows)
    return {"index": index, **{_file(name): _page(name, words) for name, words in PACKAGES.items()}}


def names(package: str) -> list[str]:
    """Return the public names of a package: its classes, functions and modules."""
    if package in DOCUMENTED:
        return list(DOCUMENTED[package])
    module = importlib.import_module(package)
    return [name for name in module.__all__ if isinstance(getattr(module, name), type | FunctionType | ModuleType)]


def thing(package: str, name: str) -> Any:
    """Return what a public name names; it may be one of a module of the package, as ``stats.paired``."""
    inner, _, last = f"{package}.{name}".rpartition(".")
    return getattr(importlib.import_module(inner), last)


def _file(package: str) -> str:
    return package.replace(".", "_")


def _page(package: str, words: str) -> str:
    rows = [(f"`{package}.{name}`", _sentence(thing(package, name))) for name in names(package)]
    parts = [f"# {package}", words, table(("name", "what it does"), rows), "## Docstrings"]
    parts += [_directive(package, name, thing(package, name)) for name in names(package)]
    return "\n\n".join(parts)


def _directive(package: str, name: str, named: Any) -> str:
    kind = "class" if inspect.isclass(named) else "module" if inspect.ismodule(named) else "function"
    target = named.__name__ if inspect.ismodule(named) else f"{package}.{name}"
    members = "   :members:\n" if kind != "function" else ""
    return f"```{{eval-rst}}\n.. auto{kind}:: {target}\n{members}```"


def _sentence(named: object) -> str:
    return " ".join((inspect.getdoc(named) or "").partition("\n\n")[0].split())
