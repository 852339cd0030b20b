"""What `ham config` prints: keys with their meaning, and resolved configurations, in the width of the terminal."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from experiments.config.described import DescribedKey, described
from experiments.config.files import configs_folder, known_configs
from experiments.config.keys import place_of
from experiments.config.problems import show
from experiments.config.schema import Spec, SweepSpec
from experiments.config.yaml_text import Located, read_mapping, shown
from experiments.errors import UserError, nearest
from experiments.rundir.names import identifies

if TYPE_CHECKING:
    from experiments.config.overview import ResolvedKey, RowChanges
    from experiments.config.resolve import Loaded


@cache
def known_keys() -> tuple[DescribedKey, ...]:
    """Describe all keys that a configuration may have."""
    return (*described(Spec, configs_folder() / "base.yaml"), *described(SweepSpec, above="sweep"))


def selected(word: str) -> list[DescribedKey]:
    """Return the key of this name, or those of the section of this name; nothing where there is none."""
    return [key for key in known_keys() if key.path == word or key.path.startswith(f"{word}.")]


def no_such(word: str) -> UserError:
    """Return the error for a word that is neither key nor configuration."""
    keys = [key.path for key in known_keys()]
    last = [path for path in keys if path.rpartition(".")[2] == word]
    close = f"; did you mean {' or '.join(last)}?" if last else nearest(word, [*keys, *known_configs()])
    options = word.startswith(("topology.", "representation."))
    more = "; `ham methods NAME` has the options of a method" if options else ""
    return UserError(f"is neither a key nor a configuration{close}{more}; `ham config` lists the keys", word)


def key_as_dict(key: DescribedKey) -> dict[str, Any]:
    """Return a key as JSON has it."""
    return {
        **{"key": key.path, "allowed": key.allowed, "default": key.default, "meaning": _meaning(key)},
        **{"default_set_in": _default_place(key), "identity": identifies(key.path)},
    }


def one_key(key: DescribedKey) -> str:
    """Describe one key in full."""
    place = _default_place(key)
    default = (key.default or "none") + (f" ({_short(place)})" if place else "")
    again = "trains anew" if identifies(key.path) else "trains nothing again: it is no part of a run's identity"
    example = f"{key.path}={key.default}" if key.default not in ("", "null") else f"{key.path}=VALUE"
    rows = [
        ("meaning", _meaning(key) or "see docs/reference/configuration.md"),
        ("allowed", key.allowed),
        ("default", default),
        ("changing it", again),
        ("set it", f"ham run CONFIG '{example}', or `{key.path}:` in a file"),
    ]
    return "\n".join([key.path, *(_folded(f"  {name:<13}", text) for name, text in rows)])


def many_keys(keys: Sequence[DescribedKey]) -> str:
    """List keys with default and meaning."""
    width = max(len(key.path) for key in keys) + 2
    lines = [_folded(f"{key.path:<{width}}", f"{key.default or '(none)'}: {_meaning(key)}") for key in keys]
    return "\n".join([*lines, "", "`ham config KEY` says more of one, `ham config CONFIG` what a configuration sets"])


def configuration(loaded: Loaded, keys: Iterable[ResolvedKey], rows: Sequence[RowChanges], whole: bool) -> str:
    """Show a resolved configuration: its files, its keys with their places, its table.

    Args:
        loaded: The configuration.
        keys: The keys to show.
        rows: What its rows change.
        whole: Whether keys are all that were asked for, so that nothing is said of others.
    """
    lines = [_folded("files: ", " < ".join(_short(shown(file)) for file in loaded.files)), ""]
    for key in keys:
        lines.append(
            _folded(f"{key.path} = ", f"{_written(key.value)}  ({_short(key.place or 'the default of its section')})")
        )
    if not whole:
        lines.append("all other keys are at their defaults; --all shows them")
    if rows and loaded.sweep is not None:
        columns = loaded.sweep.get("columns") or {}
        across = [f"{key}: {', '.join(map(_written, values))}" for key, values in columns.items()]
        seeds = loaded.sweep.get("seeds")
        lines += ["", _folded("columns: ", "; ".join(across) or "none")]
        lines += [_folded("seeds: ", _written(seeds) if seeds is not None else "that of the configuration"), "rows:"]
        lines += [_folded(f"  {row.row}: ", _changes(row), "      ") for row in rows]
    return "\n".join(lines)


def as_dict(loaded: Loaded, keys: Iterable[ResolvedKey], rows: Sequence[RowChanges]) -> dict[str, Any]:
    """Return a resolved configuration as JSON has it."""
    sweep = loaded.sweep or {}
    table = {
        "columns": sweep.get("columns") or {},
        "seeds": sweep.get("seeds"),
        "rows": {row.row: {"changes": row.values, "tried": row.tried, "chosen": row.chosen} for row in rows},
    }
    return {
        "files": list(map(shown, loaded.files)),
        "keys": {key.path: {"value": key.value, "set_in": key.place} for key in keys},
        "sweep": table if loaded.sweep is not None else None,
    }


def _changes(row: RowChanges) -> str:
    parts = [f"{key}={_written(value)}" for key, value in row.values.items()]
    for key, values in row.tried.items():
        among = f"of {', '.join(map(_written, values))}"
        parts.append(
            f"{key}={_written(row.chosen[key])} (chosen {among})" if row.chosen else f"{key} is tuned: {among}"
        )
    return "; ".join(parts) or "nothing"


def _meaning(key: DescribedKey) -> str:
    """Return the meaning of a key; those of HAM and SAM are in the docstrings of the optimizers, which load torch."""
    if not key.path.startswith(("optimizer.ham.", "optimizer.sam.")):
        return key.meaning
    from experiments.config.optimizer_words import meaning_of

    return meaning_of(key)


def _default_place(key: DescribedKey) -> str | None:
    return None if key.path.startswith("sweep.") else place_of(_base(), tuple(key.path.split(".")))


@cache
def _base() -> Located:
    return read_mapping(configs_folder() / "base.yaml")


def _written(value: Any) -> str:
    if isinstance(value, dict | list):
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf).strip()
    return value if isinstance(value, str) else show(value)


def _short(place: str) -> str:
    """Write a packaged file as ``configs/NAME``, wherever the package lies."""
    return place.replace(f"{shown(configs_folder())}/", "configs/", 1)


def _folded(head: str, text: str, indent: str | None = None) -> str:
    """Write a text behind its head in the width of the terminal; further lines are indented below it."""
    width = max(40, shutil.get_terminal_size().columns)
    further = " " * len(head) if indent is None else indent
    return textwrap.fill(
        head + " ".join(text.split()),
        width,
        subsequent_indent=further if len(further) <= width // 2 else "    ",
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
