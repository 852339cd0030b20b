"""Mistakes in a command line itself, said like all others: which part of it, what is allowed, the nearest name."""

from __future__ import annotations

import re
from typing import Any

import typer

from experiments.errors import UserError, nearest

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
        return UserError(f"is no option of `{command}`{nearest(option, known) or lists}", option)
    if option:
        return UserError("takes no value" if "not take" in error.message else "needs a value", option)
    if unknown := re.match(r"No such command '(.*?)'", error.message):
        close = nearest(unknown[1], error.ctx.command.commands) or lists
        return UserError(f"{unknown[1]!r} is no command{close}")
    return UserError(f"{_words(error.message)}; `{command} --help` says what it takes")


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
