"""Snapshots: copies of the code for jobs to run, so that later edits do not affect submitted jobs.

A snapshot is named by the hash of its content and shared by all submissions of the same content; it is created
atomically.
"""

from __future__ import annotations

import hashlib
import importlib.util
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from experiments.config.files import configs_folder
from experiments.errors import UserError
from experiments.rundir.environment import COMMIT, git_commit

PACKAGES = ("ham", "sparsity", "experiments", "results", "slurm")
FOLDER = ".snapshots"
_LENGTH = 16  # hexadecimal digits of a snapshot's name


def contents(imports: Iterable[str] = ()) -> dict[str, Path]:
    """Return the files of a snapshot by their relative paths.

    Args:
        imports: The user's own modules. Modules that are not installed are included, together with all modules that
            have been imported from their folders.

    Raises:
        UserError: if a module is not found.
    """
    folders = {name: _package_folder(name) for name in PACKAGES}
    configs = configs_folder()
    if not configs.is_relative_to(folders["experiments"]):
        folders["configs"] = configs
    files: dict[str, Path] = {}
    for name, folder in folders.items():
        files |= _tree(name, folder)
    for path in _own_modules(imports):
        files |= _tree(path.name, path) if path.is_dir() else {path.name: path}
    return files


def homes(imports: Iterable[str]) -> set[Path]:
    """Return the folders of the user's own modules that are not installed."""
    return {path.parent for path in _own_modules(imports)}


def name_of(files: dict[str, Path]) -> str:
    """Return the name of a snapshot of these files, a hash of their content."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:_LENGTH]


def take(runs_root: Path, files: dict[str, Path]) -> Path:
    """Make a snapshot below ``.snapshots``, or find an existing one of the same content.

    Args:
        runs_root: Folder that holds the folders of all sweeps.
        files: The files, from `contents`.

    Returns:
        The absolute path of its folder.
    """
    target = runs_root.resolve() / FOLDER / name_of(files)
    if target.exists():
        return target
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        for name, path in files.items():
            copy = draft / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        (draft / COMMIT).write_text(f"{git_commit() or ''}\n")
        with suppress(OSError):  # another submission was faster
            draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _package_folder(name: str) -> Path:
    # found, not imported: `sparsity` would load torch
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise UserError(f"the package {name} is not complete: reinstall ham-suite")
    return Path(found.origin).parent


def _tree(name: str, folder: Path) -> dict[str, Path]:
    files = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part == "__pycache__" or part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            files[f"{name}/{relative.as_posix()}"] = path
    return files


def _own_modules(imports: Iterable[str]) -> Iterator[Path]:
    """Yield the path of each module that is not installed, and of modules beside one that have been imported."""
    installed = [Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib", "stdlib")]
    folders = set()
    for top in sorted({name.partition(".")[0] for name in imports} - set(PACKAGES)):
        path = _location(top)
        if path is None:
            raise UserError(f"the module {top!r} has no file that could be taken along", "imports")
        if not any(path.is_relative_to(folder) for folder in installed):
            folders.add(path.parent)
            yield path
    for top in sorted(name for name in sys.modules if "." not in name and name not in PACKAGES):
        path = _location(top)
        if path is not None and path.parent in folders:
            yield path


def _location(name: str) -> Path | None:
    """Return the file of a module or the folder of a package; None for a module without either."""
    with suppress(ImportError, ValueError):  # ValueError: modules without a specification, such as __main__
        found = importlib.util.find_spec(name)
        if found is not None and found.submodule_search_locations:
            return Path(next(iter(found.submodule_search_locations))).resolve()
        if found is not None and found.has_location and found.origin:
            return Path(found.origin).resolve()
    return None
