"""The pages of the Python API: each public name with its sentence; the site adds docstrings and signatures."""

from __future__ import annotations

import importlib
import inspect
from types import FunctionType, ModuleType

from .markdown import table

PACKAGES = {
    "ham": "HAM and SAM, optimizers that need torch alone.",
    "sparsity": "What a training loop needs of sparse methods; imports torch alone.",
    "sparsity.testing": "The checks of a method of your own.",
    "results": "Runs as pandas frames; never imports torch.",
}


def pages() -> dict[str, str]:
    """Return a page for each package, and their index."""
    rows = [(f"[{name}]({_file(name)}.md)", words) for name, words in PACKAGES.items()]
    index = "# Python API\n\n`help(NAME)` shows the same texts in Python.\n\n" + table(("package", "what it is"), rows)
    return {"index": index, **{_file(name): _page(name, words) for name, words in PACKAGES.items()}}


def names(package: str) -> list[str]:
    """Return the public names of a package: its classes, functions and modules."""
    module = importlib.import_module(package)
    return [name for name in module.__all__ if isinstance(getattr(module, name), type | FunctionType | ModuleType)]


def _file(package: str) -> str:
    return package.replace(".", "_")


def _page(package: str, words: str) -> str:
    module = importlib.import_module(package)
    rows = [(f"`{package}.{name}`", _sentence(getattr(module, name))) for name in names(package)]
    parts = [f"# {package}", words, table(("name", "what it does"), rows), "## Docstrings"]
    parts += [_directive(package, name, getattr(module, name)) for name in names(package)]
    return "\n\n".join(parts)


def _directive(package: str, name: str, thing: object) -> str:
    kind = "class" if inspect.isclass(thing) else "module" if inspect.ismodule(thing) else "function"
    target = thing.__name__ if inspect.ismodule(thing) else f"{package}.{name}"
    members = "   :members:\n" if kind != "function" else ""
    return f"```{{eval-rst}}\n.. auto{kind}:: {target}\n{members}```"


def _sentence(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())
