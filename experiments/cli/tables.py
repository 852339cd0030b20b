"""The command that prints tables; it loads torch only to verify."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.errors import UserError

if TYPE_CHECKING:
    from results.runs.schema import SweepResults

from . import complete, menu

app = typer.Typer()

Dirs = Annotated[
    list[Path],
    typer.Argument(
        metavar="DIR...", help="Folders of sweeps, or of runs, which become one table.", autocompletion=complete.folders
    ),
]
Against = Annotated[
    list[str] | None,
    typer.Option(metavar="SOURCE", help="Published figures: ham, sign_in, acdc, ...; several, or a list with commas."),
]


DROPPED = ("flops", "sparsity")
"""What a table leaves out first on a narrow terminal."""
WIDEST = 100


class Format(StrEnum):
    """Output format of a table."""

    text = "text"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"
    html = "html"


class Style(StrEnum):
    """What a LaTeX table looks like."""

    full = "full"
    paper = "paper"


@app.command(
    **menu.listed(
        menu.RESULTS,
        "ham table runs/quickstart",
        "ham table runs/quickstart -f latex > table.tex",
        "ham table runs/quickstart --show accuracy,delta -f json",
    )
)
def table(
    directories: Dirs,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to write it.")] = Format.text,
    show: Annotated[
        str | None,
        typer.Option(
            metavar="KIND,...", help="What it shows: accuracy, train, delta, p, sparsity, updates, flops, layers."
        ),
    ] = None,
    digits: Annotated[int, typer.Option(min=0, max=6, help="Decimal places of accuracies and differences.")] = 2,
    style: Annotated[
        Style, typer.Option(help="With --format latex: all numbers, or one grid for a paper.")
    ] = Style.full,
    baseline: Annotated[
        str | None, typer.Option(metavar="ROW", help="For folders of runs: the row that the others are compared with.")
    ] = None,
    against: Against = None,
    margin: Annotated[
        float | None, typer.Option(help="With --against: points within which a figure is reproduced; default: 0.3.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Evaluate the weights of all runs again.")] = False,
) -> None:
    """Print tables: mean ± sample standard deviation, paired differences, sparsity, FLOPs; or published figures."""
    from results.runs.several import read_several
    from results.table.against import against as beside
    from results.table.formats import write
    from results.table.printed import printed
    from results.table.tables import SHOWN
    from results.table.tables import table as make

    from . import terminal

    sources = several(against, "--against")
    _fit(format, show, style, sources, margin)
    sweeps = read_several(directories, baseline)
    if style is Style.paper:
        written = printed(sweeps, digits)
    elif sources:
        written = write([beside(sweeps, sources, margin, digits)], format)
    else:
        shown = SHOWN if show is None else tuple(kind.strip() for kind in show.split(","))
        columns = terminal.width() if format is Format.text else None
        if columns is not None:
            written = _fitting(sweeps, shown, digits, columns, may_drop=show is None)
        else:
            written = write([make(sweep, shown, digits) for sweep in sweeps], format)
    print(written, end="")
    if verify:
        _verify(sweeps)


def _fitting(sweeps: Sequence[SweepResults], shown: Sequence[str], digits: int, columns: int, *, may_drop: bool) -> str:
    """Write tables for a terminal, without the numbers for which it has no room; say which these are."""
    from results.table.formats import grid_width, text
    from results.table.tables import table as make

    kept, tables = list(shown), [make(sweep, shown, digits) for sweep in sweeps]
    for kind in DROPPED if may_drop else ():
        if max(map(grid_width, tables)) <= columns:
            break
        kept.remove(kind)
        tables = [make(sweep, kept, digits) for sweep in sweeps]
    written = "\n".join(text(one, max(40, min(columns, WIDEST))) for one in tables)
    left_out = [kind for kind in shown if kind not in kept]
    words = f"({', '.join(left_out)} left out to fit {columns} columns; --show {','.join(shown)} has all)\n"
    return f"{written}\n{words}" if left_out else written


def several(values: Sequence[str] | None, option: str) -> list[str]:
    """Return what an option names that may be repeated, and each time be a list with commas.

    Raises:
        UserError: for a name that is empty.
    """
    names = [name.strip() for value in values or () for name in value.split(",")]
    if not all(names):
        raise UserError("names nothing before or after a comma", option)
    return names


def _fit(format: Format, show: str | None, style: Style, sources: Sequence[str], margin: float | None) -> None:
    """Refuse options that do not go together."""
    if margin is not None and not sources:
        raise UserError("belongs to --against SOURCE", "--margin")
    if margin is not None and not (math.isfinite(margin) and 0 < margin <= 100):
        raise UserError(f"{margin:g} is out of range: above 0, up to 100 points", "--margin")
    if style is Style.paper and format is not Format.latex:
        raise UserError("belongs to --format latex", "--style paper")
    for option, value in (("--style paper", style is Style.paper), ("--against", bool(sources))):
        if value and show is not None:
            raise UserError(f"does not go with {option}, which shows what it shows", "--show")
    if style is Style.paper and sources:
        raise UserError("does not go with --against; --format latex alone writes it", "--style paper")


def _verify(sweeps: Sequence[SweepResults]) -> None:
    """Evaluate the weights of all finished runs again, and say on stderr which are not what their results say."""
    from experiments.run.verify import fault

    runs = {run.path: run for sweep in sweeps for run in sweep.runs if run.status == "done"}
    faults = {path.name: found for path, run in runs.items() if (found := fault(path, run.result)) is not None}
    for name, text in faults.items():
        print(f"{name}: {text}", file=sys.stderr)
    print(f"{len(runs) - len(faults)} of {len(runs)} results verified by their weights", file=sys.stderr)
    if faults:
        raise typer.Exit(1)
