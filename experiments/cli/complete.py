"""What the shell offers behind a command: configurations, keys, methods, folders of runs; nothing here loads torch."""

from __future__ import annotations

from pathlib import Path

ARCHIVE = ".ham.zip"


def configs(incomplete: str) -> list[str]:
    """Offer names of packaged configurations, and YAML files."""
    from experiments.config.files import known_configs

    here = [path for path in _entries(incomplete) if path.endswith((".yaml", ".yml", "/"))]
    return [name for name in known_configs() if name.startswith(incomplete)] + here


def keys(incomplete: str) -> list[str]:
    """Offer keys of configurations, and names of packaged configurations."""
    from experiments.config.described import described
    from experiments.config.files import configs_folder, known_configs
    from experiments.config.schema import Spec

    known = [key.path for key in described(Spec, configs_folder() / "base.yaml")]
    return [name for name in (*known, *known_configs()) if name.startswith(incomplete)]


def methods(incomplete: str) -> list[str]:
    """Offer names of methods, as the base configuration lists them."""
    from experiments.config.described import listed_methods
    from experiments.config.files import configs_folder

    return [name for name in listed_methods(configs_folder() / "base.yaml") if name.startswith(incomplete)]


def folders(incomplete: str) -> list[str]:
    """Offer folders and archives; those below ``runs`` where nothing was typed yet."""
    start = incomplete or ("runs/" if Path("runs").is_dir() else "")
    return [path for path in _entries(start) if path.endswith(("/", ARCHIVE))]


def _entries(incomplete: str) -> list[str]:
    """Return what a path may become; folders end in a slash, hidden files are left out."""
    above, slash, begun = incomplete.rpartition("/")
    try:
        found = sorted(Path(f"{above}{slash}" or ".").iterdir())
    except OSError:
        return []
    fit = [path for path in found if path.name.startswith(begun) and not path.name.startswith(".")]
    return [f"{above}{slash}{path.name}{'/' * path.is_dir()}" for path in fit]


def folders_and_configs(incomplete: str) -> list[str]:
    """Offer folders, archives and configurations."""
    return list(dict.fromkeys([*folders(incomplete), *configs(incomplete)]))
