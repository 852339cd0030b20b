"""Mistakes in a command line itself, said like all others: which part of it, what is allowed, the nearest name."""

from __future__ import annotations

import re
from typing import Any

import typer

from experiments.errors import UserError, nearest, synonym

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for a line that it cannot parse; of its errors, it exports only one that is derived from this."""


def helped(error: Any) -> bool:
    """Show what a command can do if nothing was given to it; return whether that is the error."""
    asked = type(error).__name__ == "NoArgsIsHelpError"
    if asked:
        error.show()
    return asked


def said(error: Any) -> UserError:
    """Return an error of typer's in the words of the suite."""
    context: Any = error.ctx
    param, option = getattr(error, "param", None), getattr(error, "option_name", "")
    command = context.command_path if context is not None else "ham"
    lists = f"; `{command} --help` lists them"
    if param is not None:
        return UserError(_of_value(error, param, command), _name(param))
    if hasattr(error, "possibilities") and context is not None:
        known = [one for param in context.command.params for one in param.opts if one.startswith("-")]
        close = _setting(option, context.command) or nearest(option, known)
        return UserError(f"is no option of `{command}`{close or lists}", option)
    if option:
        return UserError("takes no value" if "not take" in error.message else "needs a value", option)
    if unknown := re.match(r"No such command '(.*?)'", error.message):
        close = nearest(unknown[1], error.ctx.command.commands) or lists
        return UserError(f"{unknown[1]!r} is no command{close}")
    return UserError(f"{_words(error.message)}; `{command} --help` says what it takes")


def _setting(option: str, command: Any) -> str:
    """Say how a key is set that was written as an option, for commands that take settings."""
    if not any("KEY=VALUE" in (param.metavar or "") for param in command.params):
        return ""
    from .settings import known_keys

    name = synonym(option.lstrip("-"))
    found = [key.path for key in known_keys() if name in (key.path, key.path.rpartition(".")[2])]
    return (
        f"; settings are written without dashes: did you mean {' or '.join(f'{one}=...' for one in found[:3])}?"
        if found
        else ""
    )


def _of_value(error: Any, param: Any, command: str) -> str:
    """Say that a value is missing or not allowed."""
    if type(error).__name__ == "MissingParameter":
        allowed = " ".join(error.format_message().partition("Choose from:")[2].split())
        about = " ".join((param.help or "").split()).rstrip(".")
        parts = [f"is missing: {about}", allowed and f"allowed: {allowed}", f"`{command} --help` says more"]
        return "; ".join(filter(None, parts))
    given, *allowed = re.findall(r"'([^']*)'", error.message) if "is not one of" in error.message else [""]
    return f"{_words(error.message)}{nearest(given, allowed)}"


def _name(param: Any) -> str:
    """Name an option by its longest form, and an argument as the help does."""
    return max(param.opts, key=len) if param.param_type_name == "option" else param.metavar or param.name.upper()


def _words(message: str) -> str:
    text = message.removeprefix("Value error, ").replace("Input should", "must").rstrip(".")
    return text[:1].lower() + text[1:]
