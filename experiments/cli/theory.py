"""The command `ham theory`, which measures what the theory of HAM predicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from experiments.errors import SuiteError

from . import menu

app = typer.Typer()


@app.command(**menu.listed(menu.KNOW, "ham theory metric", "ham theory rate --json"))
def theory(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]... [KEY=VALUE]...", help="Which experiments, default all; and settings."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder that numbers and figures are written to.")] = Path(
        "runs/theory"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Measure what the theory of HAM says, and fail where a number misses its bar."""
    from experiments.theory import command
    from results.page.drawing import style

    outcomes = {}
    for one, outcome in command.measure(command.plan(words or []), out, style):
        if not as_json:
            print(command.table(one.name, outcome, head=not outcomes), flush=True)
        outcomes[one.name] = (one, outcome)
    if as_json:
        print(json.dumps({name: command.to_json(*pair) for name, pair in outcomes.items()}, indent=1))
    missed = [f"{name}: {bar.quantity}" for name, (_, o) in outcomes.items() for bar in o.bars if not bar.met]
    if missed:
        raise SuiteError(f"{len(missed)} missed: {'; '.join(missed)}", "theory")
