"""The command that removes what nothing needs any more; it loads no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments.errors import SuiteError, UserError

from . import complete, menu

app = typer.Typer()


@app.command(**menu.listed(menu.LOOK, "ham clean runs/quickstart", "ham clean runs --yes"))
def clean(
    directories: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...", help="Folders of sweeps, of runs, or of many sweeps.", autocompletion=complete.folders
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
) -> None:
    """List what no result and no run that may resume needs, with sizes, and remove it after a question.

    These are snapshots of code, pickles of submissions that are over, checkpoints of finished runs, temporary files.
    """
    from results.progress.logs import near
    from slurm import clean as cleaning

    found = cleaning.look(directories)
    for line in found.kept:
        print(f"kept: {line}")
    for one in found.leftovers:
        number = f", {len(one.paths)} files" if len(one.paths) > 1 else ""
        print(f"{size(one.size):>9}  {near(one.where)}{number}: {one.why}")
    if not found.leftovers:
        print("nothing to remove")
        return
    if not yes and not sys.stdin.isatty():
        raise UserError("nothing was removed, since nobody can be asked here; --yes removes it", "ham clean")
    if not yes and not typer.confirm(f"remove these, {size(found.size)} in all?"):
        print("nothing was removed")
        return
    freed, problems = cleaning.remove(found, directories)
    print(f"{size(freed)} removed")
    if problems:
        raise SuiteError("not all could be removed: " + "; ".join(problems))


def size(number: float) -> str:
    """Write a number of bytes in the largest unit of which it has at least one."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
