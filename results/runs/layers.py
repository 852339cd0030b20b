"""The layers of one finished run as text: share, density, and why some are not pruned."""

from __future__ import annotations

from pathlib import Path

from experiments.errors import UserError

from .schema import RunEntry
from .store import read

HEAD = ("layer", "weights", "share, %", "density, %", "not pruned, since")


def render(directory: str | Path) -> str:
    """Return a line for each layer of a run, and how many of its parameters sparsity is counted over.

    Args:
        directory: The folder of one run, or a sweep's with a single run.

    Raises:
        UserError: as for `results.load`, and if it has several runs, or one that is not finished.
    """
    run, *others = read(directory).runs
    if others:
        text = f"has {1 + len(others)} runs; name the folder of one, such as {run.path.name}"
        raise UserError(text, str(directory))
    if run.status != "done":
        raise UserError(f"has no result: {run.error or 'it is not finished'}", str(directory))
    return _table(run)


def _table(run: RunEntry) -> str:
    counted, unpruned = run.result.get("layers") or {}, run.result.get("unpruned") or {}
    others = {name: one for name, one in unpruned.items() if name not in counted}
    total = sum(one["size"] for one in (*counted.values(), *others.values()))
    rows = [
        (
            name,
            f"{one['size']:,}",
            f"{100 * one['size'] / total:.2f}",
            f"{100 * one.get('nonzero', one['size']) / one['size']:.2f}",
            unpruned.get(name, {}).get("why", ""),
        )
        for name, one in {**counted, **others}.items()
    ]
    first, *widths, _ = (max(map(len, column)) for column in zip(HEAD, *rows, strict=True))
    lines = [
        "  ".join([name.ljust(first), *map(str.rjust, numbers, widths), why]).rstrip()
        for name, *numbers, why in (HEAD, *rows)
    ]
    known = run.result.get("unpruned") is not None  # an earlier version did not note the others
    of = f" of {total:,} parameters" if known else " weights; of the other parameters the run has noted nothing"
    return "\n".join([*lines, f"sparsity is counted over {sum(one['size'] for one in counted.values()):,}{of}"])
