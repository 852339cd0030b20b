"""The code of a user's own modules, as part of a run's identity: their source and all they import beside them."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

_OURS = ("ham", "sparsity", "experiments", "results", "slurm")


@cache
def digest(module: ModuleType) -> str:
    """Hash a module's source and, of all that it imports, what lies in its own folder, or in its package if installed.

    Any edit counts. What is imported by a computed name is not found, and files that are read as data are not code.
    Called when a module has been imported; later edits do not change the answer, since they do not change what runs.

    Returns:
        The first 16 hexadecimal digits of the SHA-256; "" for a module without a source file.
    """
    names = [module.__name__]
    root = _root(module)
    seen: dict[str, bytes] = {}
    while names and root is not None:
        name = names.pop()
        path = _file(root, name)
        if path is None or path.relative_to(root).as_posix() in seen:
            continue
        source = path.read_bytes()
        seen[path.relative_to(root).as_posix()] = source
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        names += [found for found in _imported(source, package) if _followed(root, found, module.__name__)]
    hashed = hashlib.sha256()
    for name, source in sorted(seen.items()):
        hashed.update(f"{name}\0{hashlib.sha256(source).hexdigest()}\n".encode())
    return hashed.hexdigest()[:16] if seen else ""


def _root(module: ModuleType) -> Path | None:
    """Return the folder in which a module's top-level package or file lies."""
    path = getattr(module, "__file__", None)
    if path is None or not path.endswith(".py"):
        return None
    depth = module.__name__.count(".") + (Path(path).name == "__init__.py")
    return Path(path).resolve().parents[depth]


def _followed(root: Path, name: str, of: str) -> bool:
    """Return whether an imported module counts: all beside the user's file, but in site-packages its own package.

    The suite's packages never do, also where a snapshot of them lies beside the user's file.
    """
    if name.partition(".")[0] in _OURS:
        return False
    installed = {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib", "stdlib")}
    return root not in installed or name.partition(".")[0] == of.partition(".")[0]


def _file(root: Path, name: str) -> Path | None:
    base = root.joinpath(*name.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def _imported(source: bytes, package: str) -> Iterator[str]:
    """Yield the names of all modules that a source may import, wherever in it, and of the packages around them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package) if package else base
            found = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in found:
            parts = name.split(".")
            yield from (".".join(parts[: end + 1]) for end in range(len(parts)) if parts[0])
