"""The command `ham dashboard`, which lays a table out at W&B."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.tracking.dashboard import CellLabel
    from results.runs.facts import Settings
    from results.runs.schema import SweepResults

from . import complete, menu

app = typer.Typer()


@app.command(**menu.listed(menu.CLUSTERS, "ham dashboard runs/quickstart --dry-run"))
def dashboard(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a sweep.", autocompletion=complete.folders)
    ],
    project: Annotated[str | None, typer.Option("--project", help="Instead of the configuration's.")] = None,
    entity: Annotated[str | None, typer.Option("--entity", help="User or team instead of the configuration's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the views as JSON; send nothing.")] = False,
) -> None:
    """Make, or renew, three saved views of a table at W&B: all of it, one column, one method."""
    import json

    from experiments.rundir import names
    from experiments.tracking import environment, workspace
    from experiments.tracking.content import JOBS, SINGLE
    from experiments.tracking.dashboard import Shown, views
    from results.runs.facts import settings
    from results.runs.store import read
    from results.table.formats import markdown
    from results.table.tables import table

    sweep = read(directory)
    specs = settings(sweep)
    begun = next((spec for spec in specs.values() if spec.get("data.evaluate_on") in JOBS), None)
    if not (sweep.directory / names.MANIFEST).is_file():
        raise UserError(
            f"is no folder of a sweep; at W&B, runs of no sweep stand together as {SINGLE!r}", str(directory)
        )
    if begun is None:
        raise UserError("no run has begun; what it would show is not known yet", str(directory))
    stated = {key: begun.get(f"tracking.{key}") for key in ("project", "entity")}
    found = environment.project_of({**stated, **{k: v for k, v in (("project", project), ("entity", entity)) if v}})
    done = sum(run.status == "done" for run in sweep.runs)
    answer = f"{markdown(table(sweep))}\nOf {done} of {len(sweep.runs)} runs; `ham dashboard {sweep.name}` renews it.\n"
    shown = views(Shown(sweep.name, begun["data.evaluate_on"], answer, cells_of(sweep, specs)))
    if dry_run:
        print(json.dumps(workspace.documents(sweep.name, shown, *found), indent=1, ensure_ascii=False))
        return
    for view, url in zip(shown, workspace.save(sweep.name, shown, *found), strict=True):
        print(f"{view.name}: {url}")


def cells_of(sweep: SweepResults, specs: Settings) -> list[CellLabel]:
    """Return the cells of a table in its order, with the values and the group that W&B has of their runs.

    Args:
        sweep: The table.
        specs: Flattened configuration of each run that has begun; a cell without one is taken to be as its column says.
    """
    from experiments.tracking.content import group
    from experiments.tracking.dashboard import CellLabel
    from results.page.drawing import looks
    from results.runs.schema import variant_of

    palette = looks(sweep)
    cells = []
    for column in sweep.columns:
        for row in sweep.rows:
            runs = sweep.cell(row, column)
            if not runs:
                continue
            spec = specs.get(runs[0].path) or {}
            home = {key: column[key] for key in sweep.home(row, column)}
            cells.append(
                CellLabel(
                    row=row,
                    base_row=sweep.base_of(row),
                    column=column,
                    values={key: spec.get(key) for key in column} if spec else column,
                    group=group(sweep.name, row, home),
                    color=palette[variant_of(sweep, row)].color,
                )
            )
    return cells
