"""Finding configuration files by path or name, and merging the files they extend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.errors import UserError, nearest

from .keys import merge, unfold
from .yaml_text import Located, read_mapping, shown

SUFFIX = ".yaml"
CALIBRATION, TUNING = ".calibration", ".tuning"  # before the suffix of what was found out for a configuration
THEORY = "theory"  # folder of the settings of `ham theory`, which are no runs


def configs_folder() -> Path:
    """Return the folder of the packaged configurations: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.exists() else package.parent / "configs"


def known_configs() -> list[str]:
    """Return the names of the packaged configurations of runs, without suffix, sorted."""
    folder = configs_folder()
    names = (path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob(f"*{SUFFIX}"))
    runs = (name for name in names if not name.endswith((CALIBRATION, TUNING)))
    return sorted(name for name in runs if not name.startswith(f"{THEORY}/"))


def find_config(name: str, beside: Path | None = None, where: str | None = None) -> Path:
    """Find a configuration.

    Args:
        name: A path, or a name among the packaged configurations; ``.yaml`` may be left out.
        beside: The file that extends it, whose folder is searched before the packaged ones; the current folder if None.
        where: Place in messages.

    Raises:
        UserError: if there is none, with the nearest name and the names there are.
    """
    folders = [beside.parent if beside else Path(), configs_folder()]
    candidates = [folder / f"{name}{suffix}" for folder in folders for suffix in ("", SUFFIX)]
    found = [path for path in candidates if name and _is_file(path)]
    # a configuration named like the packaged one it extends means that one, not itself
    others = [path for path in found if beside is None or not path.samefile(beside)]
    if found:
        path = (others or found)[0]
        if path.resolve().parent == (configs_folder() / THEORY).resolve():
            raise UserError(f"has the settings of `ham theory {path.stem}`, and describes no run", where or shown(path))
        return path
    if name and _is_folder(candidates[0]):
        raise UserError(f"{shown(candidates[0])} is a directory; name a file in it", where)
    known = known_configs()
    raise UserError(
        f"no configuration {name!r}: neither a file nor a name under {shown(configs_folder())}; "
        f"known names: {', '.join(known)}{nearest(name, known)}",
        where,
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name longer than the file system allows
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def read_chain(path: Path) -> tuple[tuple[Path, ...], Located]:
    """Read a configuration and all it extends, over the packaged ``base``.

    Each file counts once, where it is first named, so that a common parent of two files does not undo the first.

    Returns:
        The files, first merged first, and the merged mapping without ``extends``.

    Raises:
        UserError: for a file that cannot be read, an unknown name or a cycle.
    """
    files: list[Path] = []
    tree = Located()
    for start in (configs_folder() / f"base{SUFFIX}", path):
        tree = _add(start, tree, files, ())
    return tuple(files), tree


def _add(path: Path, tree: Located, files: list[Path], chain: tuple[Path, ...]) -> Located:
    path = path.resolve()
    if path in chain:
        names = " -> ".join(shown(one) for one in (*chain[chain.index(path) :], path))
        raise UserError(f"extends goes round in a circle: {names}", shown(chain[-1]))
    if path in files:
        return tree
    document = unfold(read_mapping(path))
    place = document.places.get("extends", shown(path))
    for name in _parents(document.pop("extends", None), place):
        tree = _add(find_config(name, beside=path, where=place), tree, files, (*chain, path))
    files.append(path)
    return merge(tree, document)


def _parents(value: Any, place: str) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError("extends: must be a list of configurations, such as [recipes/short]", place)
    return names
