"""The papers' sweeps as folders of results with the published means and spreads, from the configurations that ship."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fake_runs import result, write_json

from experiments.config.resolve import load
from experiments.config.sweep import Cell, expand, manifest
from experiments.rundir.result import seal
from results.numbers.paper import Figure, of_sources
from results.numbers.reproduction import matching
from results.runs.discover import flatten

FAMILIES = ("random", "acdc", "rigl", "str", "spred", "pilot", "dense")
IMAGES = 50_000


def write_paper(home: Path, seeds: int = 5, families: Sequence[str] = FAMILIES, shift: float = 0.0) -> list[Path]:
    """Write finished sweeps of the HAM paper's tables, as many points above the published figures as `shift`."""
    figures = of_sources(["ham"])

    def accuracy(cell: Cell, place: int) -> float:
        (figure,) = matching(flatten(cell.spec.model_dump()), figures, None)
        return sample(figure, seeds)[place] + shift / 100

    return [write_family(home, family, accuracy, seeds) for family in families]


def write_family(home: Path, family: str, accuracy: Callable[[Cell, int], float | None], seeds: int = 5) -> Path:
    """Write one family's sweep; runs whose accuracy is None have not begun. No run has a ``spec.yaml``."""
    overrides = [f"sweep.seeds={list(range(seeds))}"]
    if family == "str":  # the table of the paper has two more sparsities than the configuration
        overrides.append("sweep.columns={topology.sparsity: [0.8, 0.9, 0.95]}")
    sweep = expand(load(f"paper/imagenet_{family}", overrides))
    folder = home / sweep.name
    write_json(folder / "sweep.json", manifest(sweep))
    for cell in sweep.runs:
        value = accuracy(cell, cell.seed)
        if value is None:
            continue
        path = folder / cell.path
        path.mkdir(parents=True)
        sparsity = cell.spec.topology.sparsity or None
        counted = round(value * IMAGES) / IMAGES
        outcome = result(counted, cell.seed, sparsity, identity=cell.identity, evaluated=IMAGES)
        write_json(path / "result.json", seal(outcome, path))
    return folder


def sample(figure: Figure, seeds: int) -> list[float]:
    """Return accuracies with a figure's mean and its ± as their sample standard deviation."""
    steps = [place - (seeds - 1) / 2 for place in range(seeds)]
    std = (sum(step**2 for step in steps) / (seeds - 1)) ** 0.5 if seeds > 1 else 1.0
    return [(figure.top1 + (figure.spread or 0.1) * step / std) / 100 for step in steps]
