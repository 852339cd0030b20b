"""A sweep of three rows whose table can be worked out by hand, and ways to change it."""

from __future__ import annotations

from fake_runs import write_json, write_sweep

from experiments.rundir.result import seal
from results.runs.store import read
from results.table.tables import table
from results.table.values import FIGURE_SPACE

RIGL, HAM = {"topology.name": "rigl"}, {"topology.name": "rigl", "optimizer.ham": {"alpha": 20.0}}
ROWS = {"Dense": {}, "RiGL": RIGL, "RiGL + HAM": HAM}
VALUES = {"Dense": [0.88, 0.90, 0.89], "RiGL": [0.80, 0.82, 0.84], "RiGL + HAM": [0.81, 0.82, 0.86]}


AT95 = [{"topology.sparsity": 0.95}]


SEVERAL = [{"topology.sparsity": value} for value in (0.8, 0.95)]
FORMATS = ("text", "markdown", "csv", "json", "latex", "html")


def sweep(directory, values=VALUES, rows=None, columns=AT95, seeds=(0, 1, 2), **manifest):
    rows = rows or {row: ROWS[row] for row in values}
    baselines = {"RiGL + HAM": "RiGL"} if "RiGL + HAM" in rows else {}
    return write_sweep(directory, values, rows, columns, seeds, manifest.pop("baselines", baselines), **manifest)


def grid(directory, number=0):
    """The texts of a grid without padding, row label first."""
    rows = table(read(directory)).grids[number].rows
    return [[cell.text.replace(FIGURE_SPACE, "") for cell in line.cells] for line in rows]


def edit(directory, row, seed=None, **changes):
    for entry in read(directory).runs:
        if entry.row == row and seed in (None, entry.seed):
            if "sparsity" in changes:
                left = round(100_000 * (1 - changes["sparsity"]))
                changes |= {"prunable_weights": 100_000, "nonzero": left, "layers": {}}
            write_json(entry.path / "result.json", seal({**entry.result, **changes}, entry.path))


def path_of(directory, row, seed, column=None):
    (path,) = {
        e.path for e in read(directory).entries if (e.row, e.seed) == (row, seed) and column in (None, dict(e.column))
    }
    return path
