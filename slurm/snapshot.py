"""Snapshots: copies of the code for jobs to run, so that later edits do not affect submitted jobs.

A snapshot is named by the hash of its content and shared by all submissions of the same content. It is created
atomically, and its name is believed by nobody: a submission mends it, and a job that finds other content refuses.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from experiments.config.files import configs_folder
from experiments.config.yaml_text import shown
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
    """Return the name of a snapshot of these files, a hash of their content.

    It is the hash of what ``sha256sum`` prints for the files, so that a job's shell can work it out (`verification`).
    """
    return _name({name: _hash(path) for name, path in files.items()})


def take(runs_root: Path, files: dict[str, Path]) -> Path:
    """Make a snapshot below ``.snapshots``, or mend an existing one of the same content.

    Args:
        runs_root: Folder that holds the folders of all sweeps.
        files: The files, from `contents`.

    Returns:
        The absolute path of its folder.

    Raises:
        UserError: if a file changes meanwhile.
    """
    hashes = {name: _hash(path) for name, path in files.items()}
    target = runs_root.resolve() / FOLDER / _name(hashes)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        if not target.exists():
            for name, path in files.items():
                _copy(path, draft / name, hashes[name])
            (draft / COMMIT).write_text(f"{git_commit() or ''}\n")
            with suppress(OSError):  # another submission was faster
                draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _mend(target, files, hashes)
    return target


def verification(snapshot: Path) -> str:
    """Return a command of the shell that succeeds if a snapshot holds what its name says, and nothing else.

    Coreutils and findutils are enough for it: Python itself would have to be imported from somewhere.
    """
    files = f"find . -name __pycache__ -prune -o ! -type d ! -path ./{COMMIT} -print0"
    lines = f"{files} | LC_ALL=C sort -z | {{ xargs -0 sha256sum || echo damaged; }}"
    hashed = f"{lines} | sha256sum | cut -c -{_LENGTH}"
    return f'[ "$(cd {shlex.quote(str(snapshot))} 2> /dev/null && {hashed})" = {snapshot.name} ]'


def _mend(target: Path, files: dict[str, Path], hashes: dict[str, str]) -> None:
    """Put back what was changed in a snapshot or removed from it, file by file, since jobs may be importing from it."""
    there = {
        path.relative_to(target).as_posix(): path
        for path in target.rglob("*")
        if (path.is_symlink() or not path.is_dir()) and "__pycache__" not in path.relative_to(target).parts
    }
    for name in there.keys() - hashes.keys() - {COMMIT}:
        there[name].unlink()
    for name, path in files.items():
        own = there.get(name)
        if own is None or own.is_symlink() or _hash(own) != hashes[name]:
            _copy(path, target / name, hashes[name])


def _copy(path: Path, target: Path, digest: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError("is being edited; give the command again when the code is as it should be", shown(path))
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    draft.write_bytes(content)
    draft.replace(target)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _name(hashes: dict[str, str]) -> str:
    lines = sorted((os.fsencode(f"./{name}"), digest) for name, digest in hashes.items())
    digest = hashlib.sha256(b"".join(f"{digest}  ".encode() + name + b"\n" for name, digest in lines))
    return digest.hexdigest()[:_LENGTH]


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
        # no program imports names that sha256sum would write in another way
        plain = relative.as_posix().isprintable() and "\\" not in relative.as_posix()
        if path.is_file() and plain and not hidden and path.suffix != ".pyc":
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
