"""The command `ham bench`, which measures the cost of the suite's mask work and of HAM."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from . import menu

app = typer.Typer()


class BenchWhat(StrEnum):
    """What can be measured."""

    methods = "methods"
    optimizer = "optimizer"


@app.command(**menu.listed(menu.KNOW, "ham bench methods rigl set", "ham bench optimizer --model resnet20"))
def bench(
    what: Annotated[
        BenchWhat, typer.Argument(metavar="WHAT", help="What to measure: methods, or optimizer, which is HAM.")
    ],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Which methods, or forms of HAM; default: all.")
    ] = None,
    model: Annotated[str, typer.Option(help="Network whose shapes are taken.")] = "torchvision:resnet50",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions; medians are shown.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Compute threads, for optimizer; default: one per core.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Measure what the mask work of each method, or HAM's step, costs beside the base optimizer, on random weights."""
    from experiments import bench as benchmark
    from experiments.errors import UserError

    if what is BenchWhat.optimizer:
        timed = benchmark.optimizer(names or [], model=model, device=device, rounds=rounds, threads=threads)
        print(benchmark.to_json(timed) if as_json else benchmark.optimizer_table(timed))
        return
    if threads is not None:
        raise UserError("belongs to ham bench optimizer", "--threads")
    found = benchmark.methods(names or [], model=model, device=device, rounds=rounds)
    print(benchmark.to_json(found) if as_json else benchmark.table(found))
