"""The tables of docs/results/alpha_study.md from the runs of `studies/alpha_short` or `studies/alpha_long`.

    python scripts/alpha_study.py runs/alpha-short [ARM ...]

A cell is a method, a network, a batch and a rate; an arm is what its row adds to the method ("c=0.1", "al=3") or
"plain". Differences are paired by seed; only seeds that all arms of a cell have are used, or all those named.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import fmean

import pandas

import results
from results.numbers.stats import Difference, paired

PLAIN = "plain"
FEWEST = 3  # seeds, for a cell to be shown


def read(directory: str, arms: Sequence[str]) -> pandas.DataFrame:
    """Accuracy in per cent by cell and seed, one column an arm: those named, or all."""
    frame = results.load(directory)
    frame = frame.loc[frame["status"] == "done"].copy()
    words = [[*row.split(), PLAIN] for row in frame["row"]]
    frame["method"], frame["arm"] = [first for first, *_ in words], [second for _, second, *_ in words]
    frame["percent"] = 100 * frame["accuracy"]
    keys = ["method", *(key for key in frame.columns if key in ("model.name", "data.batch_size", "optimizer.lr"))]
    table = frame.pivot_table(index=[*keys, "seed"], columns="arm", values="percent")
    table = (table[list(arms)] if arms else table).dropna()
    return pandas.concat([cell for _, cell in cells(table) if len(cell) >= FEWEST])


def difference(cell: pandas.DataFrame, arm: str, other: str) -> Difference:
    """Mean paired difference of two arms over the seeds of a cell."""
    found = paired(dict(enumerate(cell[arm])), dict(enumerate(cell[other])))
    assert found is not None
    return found


def show(one: Difference) -> str:
    """Mean and 95 % interval; bold where it misses zero."""
    if one.low is None or one.high is None:
        return f"{one.mean:+.2f}"
    text = f"{one.mean:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"
    return f"**{text}**" if one.side else text


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def groups(frame: pandas.DataFrame, levels: Sequence[str]) -> list[tuple[list[str], pandas.DataFrame]]:
    """Parts of equal levels, in the order of the frame."""
    found = frame.groupby(level=list(levels), sort=False)
    return [([str(one) for one in (key if isinstance(key, tuple) else (key,))], part) for key, part in found]


def cells(frame: pandas.DataFrame) -> list[tuple[list[str], pandas.DataFrame]]:
    """The cells in the order of the frame."""
    return groups(frame, [str(name) for name in frame.index.names if name != "seed"])


def by_cell(frame: pandas.DataFrame) -> str:
    """Plain accuracy and every arm's difference to it, a row a cell."""
    arms = [arm for arm in frame.columns if arm != PLAIN]
    head = ["method", *frame.index.names[1:-1], "n", PLAIN, *arms]
    rows = [
        [*key, len(cell), f"{cell[PLAIN].mean():.2f}", *(show(difference(cell, arm, PLAIN)) for arm in arms)]
        for key, cell in cells(frame)
    ]
    return table(head, rows)


def summary(frame: pandas.DataFrame, group: Sequence[str]) -> str:
    """How often each arm is best, its mean difference to plain, its regret, and its wins after Bonferroni.

    The correction is for all comparisons of an arm with plain in the frame, whatever the group.
    """
    rows = []
    count = len(cells(frame)) * (len(frame.columns) - 1)
    for key, part in groups(frame, group):
        inner = cells(part)
        means = pandas.DataFrame([cell.mean() for _, cell in inner])
        regret = means.rsub(means.max(axis=1), axis=0)
        for arm in frame.columns:
            found = [difference(cell, arm, PLAIN) for _, cell in inner] if arm != PLAIN else []
            up, down = (sum(corrected(one, count) == sign for one in found) for sign in (1, -1))
            rows.append(
                [
                    *key,
                    arm,
                    f"{(means.idxmax(axis=1) == arm).sum()} of {len(inner)}",
                    f"{fmean(one.mean for one in found):+.2f}" if found else "",
                    f"{up} up, {down} down" if found else "",
                    f"{regret[arm].mean():.2f}",
                    f"{regret[arm].max():.2f}",
                ]
            )
    head = [*group, "arm", "best in", "mean Δ to plain", "Bonferroni", "mean regret", "worst regret"]
    return table(head, rows)


def corrected(one: Difference, count: int) -> int:
    """The sign of a difference whose p-value passes 0.05 / `count`, else 0."""
    return 0 if one.p is None or one.p * count > 0.05 else (1 if one.mean > 0 else -1)


def strengths(frame: pandas.DataFrame, group: Sequence[str]) -> str:
    """Which c is the best of those tried, and how far c = 0.1 leads the others, averaged over cells seed by seed."""
    tried = [arm for arm in frame.columns if arm.startswith("c=")]
    rows = []
    for key, part in groups(frame, group):
        best = pandas.DataFrame([cell[tried].mean() for _, cell in cells(part)]).idxmax(axis=1)
        seeds = pandas.DataFrame(part.groupby(level="seed").mean())
        rows.append(
            [
                *key,
                len(best),
                *((best == arm).sum() for arm in tried),
                *(show(difference(seeds, "c=0.1", arm)) for arm in frame.columns if arm != "c=0.1"),
            ]
        )
    others = [f"c=0.1 − {arm}" for arm in frame.columns if arm != "c=0.1"]
    return table([*group, "cells", *(f"{arm} best" for arm in tried), *others], rows)


def best_rates(frame: pandas.DataFrame, group: Sequence[str]) -> str:
    """Each arm at the rate that is best for it, in the larger batch; the rates are chosen on the accuracies shown."""
    frame = pandas.DataFrame(frame.xs(max(frame.index.get_level_values("data.batch_size")), level="data.batch_size"))
    rows = []
    for key, part in groups(frame, group):
        rates = {rate: cell for (rate,), cell in groups(part, ["optimizer.lr"])}
        means = pandas.DataFrame({rate: cell.mean() for rate, cell in rates.items()})
        best = means.idxmax(axis=1)
        at = {arm: rates[str(best[arm])][arm].droplevel("optimizer.lr") for arm in frame.columns}
        compared = pandas.DataFrame(at).dropna()
        shown = [
            f"{compared[arm].mean():.2f} ({best[arm]})"
            + ("" if arm == PLAIN else f" {show(difference(compared, arm, PLAIN))}")
            for arm in frame.columns
        ]
        rows.append([*key, len(compared), *shown])
    return table([*group, "n", *frame.columns], rows)


def main(directory: str, *arms: str) -> None:
    """Print all tables."""
    frame = read(directory, arms)
    networks = [name for name in ("method", "model.name") if name in frame.index.names]
    for title, text in (
        ("Each cell", by_cell(frame)),
        ("By method and network", summary(frame, networks)),
        ("By method", summary(frame, ["method"])),
        ("c = 0.1 against the others", strengths(frame, networks)),
        ("Each arm at its best rate", best_rates(frame, networks) if "optimizer.lr" in frame.index.names else ""),
    ):
        print(f"\n### {title}\n\n{text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
