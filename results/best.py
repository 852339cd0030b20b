"""The best setting of each row of a tuning sweep: a sweep whose columns are the settings tried."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.errors import UserError

from .store import MANIFEST, load

OFF_TARGET = 0.005
"""Cells whose realised sparsity is farther from the target (a share of weights) are no candidates."""


def render(directory: str | Path) -> str:
    """Name the best column of each row by mean accuracy over seeds.

    Only cells in which every seed is done and the target sparsity was met are candidates. A value at the end of its
    tried range is marked, since the best may lie beyond.

    Args:
        directory: A sweep's folder whose runs were evaluated on the validation part.

    Returns:
        Lines of text.

    Raises:
        UserError: if the sweep was evaluated on the test part, on which nothing may be chosen, or has no columns.
    """
    frame = load(directory)
    manifest = Path(directory) / MANIFEST
    keys = json.loads(manifest.read_text())["column_keys"] if manifest.exists() else []
    if not keys:
        raise UserError("there are no columns to choose among", where=str(directory))
    if (frame["accuracy_on"] == "test").any():
        raise UserError(
            "these runs were evaluated on the test part, on which nothing may be chosen; set data.evaluate_on=validation",
            where=str(directory),
        )
    lines = []
    for row, cells in frame.groupby("row", sort=False):
        good = cells.assign(off=(cells["sparsity"] - cells["target_sparsity"]).abs().fillna(0.0))
        table = good.groupby(keys, sort=False).agg(
            mean=("accuracy", "mean"),
            std=("accuracy", "std"),
            done=("status", lambda status: (status == "done").sum()),
            runs=("status", "size"),
            off=("off", "max"),
        )
        fit = table[(table["done"] == table["runs"]) & (table["off"] <= OFF_TARGET)].sort_values(
            "mean", ascending=False
        )
        if fit.empty:
            lines.append(f"{row}: none of {len(table)} settings is complete and on target")
            continue
        values = fit.index[0] if isinstance(fit.index[0], tuple) else (fit.index[0],)
        settings = [f"{key}={value:g}{_edge(cells[key], value)}" for key, value in zip(keys, values, strict=True)]
        top = fit.iloc[0]
        lines.append(
            f"{row}: {', '.join(settings)}  {top['mean']:.2%} ± {top['std']:.2%} ({top['runs']:.0f}), "
            f"{len(fit)} of {len(table)} settings complete and on target"
        )
    return "\n".join([*lines, "(<: smallest value tried, >: largest)"])


def _edge(tried: object, value: float) -> str:
    values = sorted(set(tried))  # pyright: ignore[reportArgumentType]
    if len(values) < 3:
        return ""
    return "<" if value == values[0] else ">" if value == values[-1] else ""
