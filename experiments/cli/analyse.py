"""The commands that make something of results: choices, reports, plans. They load torch only where they say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.errors import UserError

from . import complete, menu
from .options import AsJson, Dir
from .tables import Against, several

if TYPE_CHECKING:
    from results.numbers.planning import SeedPlan

app = typer.Typer()


@app.command(**menu.listed(menu.RESULTS, "ham best runs/quickstart-tuning"))
def best(directory: Dir, as_json: AsJson = False) -> None:
    """Name the best setting of each row of a tuning sweep, by mean accuracy on the validation part."""
    from results.numbers import best as chooser

    print(chooser.render(directory, as_json=as_json))


@app.command(**menu.listed(menu.RESULTS, "ham layers runs/quickstart/RUN"))
def layers(directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]) -> None:
    """Print each layer of a finished run: its share of all parameters, its density, and why it is not pruned."""
    from results.runs.layers import render

    print(render(directory))


@app.command(**menu.listed(menu.RESULTS, "ham report runs/quickstart", "ham report runs/quickstart -o page.html"))
def report(
    directory: Dir,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file; default: DIR/report.html.")] = None,
    against: Against = None,
) -> None:
    """Write one self-contained HTML page: table, curves, configuration, versions."""
    from results.page import report as writer

    print(writer.write_report(directory, output, several(against, "--against")))


@app.command(**menu.listed(menu.RESULTS, "ham compare runs/base-035c537c-s0 runs/base-035c537c-s1"))
def compare(
    one: Annotated[
        Path, typer.Argument(metavar="RUN", help="A finished run's folder: A.", autocompletion=complete.folders)
    ],
    other: Annotated[Path, typer.Argument(metavar="RUN", help="Another one: B.", autocompletion=complete.folders)],
) -> None:
    """Compare two runs: configuration, curves, and McNemar's test where both kept their predictions."""
    from results.table.comparison import compare as words

    print(words(one, other), end="")


@app.command(**menu.listed(menu.RESULTS, "ham archive runs/quickstart", "ham table runs/quickstart.ham.zip"))
def archive(
    directory: Dir,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file; default: DIR.ham.zip.")] = None,
) -> None:
    """Write a sweep into one file without weights, which every command that reads a folder reads."""
    from results.runs import archive as writer
    from results.runs.output import writing
    from results.runs.store import read_plan

    if output is None and directory.is_file():
        raise UserError("is an archive already; give --output to write it again", where=str(directory))
    sweep = read_plan(directory)
    path = output or sweep.directory.with_name(f"{sweep.directory.name}{writer.SUFFIX}")
    if path.suffix != ".zip":
        raise UserError("must end in .zip, by which the commands know it", where=str(path))
    with writing("the archive", path):
        number = writer.write(sweep, path)
    files, runs = (f"{n} {noun}{'s' * (n != 1)}" for n, noun in ((number, "file"), (len(sweep.runs), "run")))
    print(f"{path}: {files} of {runs}, {path.stat().st_size:,} bytes; without weights")


@app.command(
    **menu.listed(
        menu.RESULTS, "ham power runs/quickstart --difference 0.5", "ham power paper/imagenet_rigl --difference 0.5"
    )
)
def power(
    what: Annotated[
        str,
        typer.Argument(
            metavar="DIR|CONFIG",
            help="A sweep's folder, or its configuration.",
            autocompletion=complete.folders_and_configs,
        ),
    ],
    difference: Annotated[float, typer.Option(help="True difference to be found, in percentage points.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Say how many seeds per row a difference takes, for one test and with Holm's correction over the table."""
    from results.numbers import planning

    if not 0 < abs(difference) <= 100:
        raise UserError(f"{difference:g} is out of range: above 0, up to 100 points", "--difference")
    found = _planned_folder(what, difference) if Path(what).exists() and not _is_yaml(what) else None
    found = found or _planned_config(what, difference)
    print(json.dumps(planning.as_dict(found), indent=1) if as_json else planning.words(found))


def _is_yaml(what: str) -> bool:
    return Path(what).suffix in (".yaml", ".yml")


def _planned_folder(what: str, difference: float) -> SeedPlan:
    from results.numbers import planning
    from results.runs.store import read

    sweep = read(what)
    spread = planning.spread_of(sweep)
    if spread is None:
        raise UserError("has no difference to a plain row from three seeds, so no spread is known", where=what)
    return planning.plan(difference, planning.planned(sweep), spread)


def _planned_config(what: str, difference: float) -> SeedPlan:
    """Plan a sweep that has not begun, with the published spreads of its methods."""
    from experiments.config.sweep import expand
    from experiments.config.tuning import first
    from results.numbers import planning

    from .loading import load

    sweep = expand(load(what, None), calibrate=False, choose=first)
    specs = [cell.spec for cell in sweep.runs]
    methods = {(s.data.name, s.model.name, s.topology.name, s.representation.name) for s in specs}
    spread = planning.published((data, name.rpartition(":")[2], t, r) for data, name, t, r in methods)
    if spread is None:
        raise UserError("no published spread is known for its methods, data and network; give a finished sweep", what)
    paths = {(cell.row, str(cell.column), cell.seed): cell.path for cell in sweep.cells}
    judged = {
        (cell.path, paths.get((sweep.baselines[cell.row], str(cell.column), cell.seed)))
        for cell in sweep.cells
        if cell.row in sweep.baselines and cell.seed == sweep.cells[0].seed
    }
    if not judged:
        raise UserError("has no baselines, so nothing is compared; add sweep.baselines", what)
    return planning.plan(difference, len(judged), spread)
