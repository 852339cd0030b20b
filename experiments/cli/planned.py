"""What a dry run says as JSON: which runs are left to do, and which are taken from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.config.sweep import Cell


def as_json(stage: str, folder: Path, runs: Sequence[Cell], todo: Collection[str], found: Mapping[str, Path]) -> str:
    """Return a dry run as JSON.

    Args:
        stage: ``table``, or ``tuning`` where settings are chosen first.
        folder: The folder of the sweep.
        runs: Its runs, in order.
        todo: Paths of those that are left to do.
        found: Path of a run to the folder it is taken from.
    """
    listed = [
        {"path": str(folder / cell.path), "row": cell.row, "column": cell.column, "seed": cell.seed}
        for cell in runs
        if cell.path in todo
    ]
    reused = {str(folder / path): str(source) for path, source in found.items()}
    return json.dumps({"stage": stage, "runs": len(runs), "to_do": listed, "reused": reused}, indent=1)
