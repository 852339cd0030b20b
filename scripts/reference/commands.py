"""The page of the command line, from the Typer app."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Iterator
from typing import Any

import typer

from experiments.cli.main import app
from experiments.cli.menu import shown

from .markdown import code, table

_HEAD = """# Command line

Every command has `-h`. A configuration is a YAML file or the name of one that comes with the package; settings
are written `key=value` behind it, see [configuration](configuration.md). `DIR` is the folder of a sweep or of a
run, below `runs/` unless `--out` says otherwise.

What a command finds is on standard output; warnings, progress and the next step (`next: ...`) are on standard error.
For programs: `--json` of `status`, `hours`, `best`, `methods`, `config`, `power`, `bench`, `theory`, and of `sweep
--dry-run` and `tune --dry-run`; `ham table --format json` or `csv`. On a terminal, tables and lists leave out what
has no room in its width, and say so; a pipe or a file gets all. `NO_COLOR=1` switches colours off, and so does a
pipe.

## Exit codes

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | a run failed, or a result is missing or does not hold |
| 2 | the command, the configuration or a file is wrong; nothing has been started |
| 75 | `ham run-cell` only: not finished, call it again ([other schedulers](../howto/schedulers.md)) |
| 124 | `ham wait --timeout` only: the time is over |
| 130 | interrupted by Ctrl-C; the same command resumes |
"""


def page() -> str:
    """Return the page, with the commands in alphabetical order."""
    parts = [_HEAD]
    for name, command in sorted(commands()):
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
        usage = " ".join(["ham", name, *(["[OPTIONS]"] if options else []), *map(shown, arguments)])
        examples = "\n".join((command.epilog or "").splitlines()[1:])
        parts += [f"## ham {name}", command.help or "", f"```text\n{usage}\n```", f"```bash\n{examples}\n```"]
        rows = [(code(shown(one)), one.help or "", "") for one in arguments]
        rows += [(code(_names(one)), one.help or "", code(_default(one.default))) for one in options]
        if rows:
            parts.append(table(("argument", "meaning", "default"), rows))
    return "\n\n".join(parts)


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command with its name; those of a group with both words."""
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", one) for inner, one in command.commands.items())
        else:
            yield name, command


def _names(option: Any) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    kind = option.type_descriptor.annotation
    choices = "|".join(kind) if inspect.isclass(kind) and issubclass(kind, enum.StrEnum) else kind.__name__.upper()
    return names if option.is_flag else f"{names} {option.metavar or choices}"


def _default(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return str(value.value)
    return "" if value is None or value is False or callable(value) else str(value)
