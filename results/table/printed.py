"""Results in the style of a paper: one LaTeX grid of rows and columns, best in bold, its equals underlined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter

from results.numbers.measure import Measured, Measurements, measure
from results.numbers.stats import FEW, holm, paired
from results.numbers.student import LEVEL
from results.runs.facts import settings
from results.runs.schema import SweepResults, column_groups, column_id, column_label, inner_key, is_number

from .markup import fitted, label
from .notes import DAGGER, caption
from .origin import joint_title, notes, title
from .tex import MISSING, is_missing, tex
from .tuned import tuned
from .warned import warnings

PACKAGES = "% needs \\usepackage{booktabs} and \\usepackage{graphicx}"


def printed(sweeps: Sequence[SweepResults], digits: int = 2) -> str:
    """Write sweeps as LaTeX tables, one for all sweeps with the same kind of columns, each followed by its notes.

    Args:
        sweeps: Sweeps that have been read with their results.
        digits: Decimal places.
    """
    alike: dict[object, list[SweepResults]] = {}
    for sweep in sweeps:
        alike.setdefault((sweep.column_keys, _trained_on(sweep)), []).append(sweep)
    groups = [joined(group) for group in alike.values()]
    said: dict[str, None] = {}
    floats = [_float(sweep, texts, digits, said) for sweep, texts in groups]
    written = "\n".join([PACKAGES, *floats])
    return written + (f"\n{tex(MISSING)}\n" if is_missing(written) else "")


def _trained_on(sweep: SweepResults) -> frozenset[tuple[str, str]]:
    """Return data and networks of a sweep, where its columns do not say them: only equal ones have a best row."""
    specs = settings(sweep)
    known = [specs[run.path] or sweep.specs.get(run.identity, {}) for run in sweep.runs]
    keys = [key for key in ("data.name", "model.name") if key not in sweep.column_keys]
    return frozenset((key, str(spec[key]).rpartition(":")[2]) for spec in known for key in keys if key in spec)


def joined(sweeps: Sequence[SweepResults]) -> tuple[SweepResults, list[str]]:
    """Join sweeps of the same column keys into one, and return it with the notes of all.

    A row's label that several sweeps have gets its sweep's name.
    """
    rows = [row for sweep in sweeps for row in sweep.rows]

    def own(sweep: SweepResults, row: str) -> str:
        return row if rows.count(row) == 1 else f"{row} ({sweep.name})"

    entries = [replace(entry, row=own(sweep, entry.row)) for sweep in sweeps for entry in sweep.entries]
    several = len(sweeps) > 1
    told = [(title(s), text) for s in sweeps for text in [*(tuned(s) if several and s.tuning else []), *notes(s)]]
    texts = [f"{name}: {text}" if several else text for name, text in told]
    counts = {sweep.tuning_cells for sweep in sweeps}
    return (
        replace(
            sweeps[0],
            name="-".join(sweep.name for sweep in sweeps),
            title=joint_title(sweeps),
            baselines={own(s, row): own(s, plain) for s in sweeps for row, plain in s.baselines.items()},
            entries=tuple(entries),
            tuning_cells=counts.pop() if len(counts) == 1 else None,
            tuning=None if several else sweeps[0].tuning,
            notes=None,
            overrides=(),
            strays=tuple(name for sweep in sweeps for name in sweep.strays),
        ),
        texts,
    )


def _float(sweep: SweepResults, texts: Sequence[str], digits: int, said: dict[str, None]) -> str:
    """Write one grid, and below it what it needs to be understood and is not among what was `said` before."""
    measurements = measure(sweep)
    marks, judged = _marks(sweep, measurements)
    seeds = {cell.done for cell in measurements.values() if cell.done}
    many = len(seeds) > 1
    number = max(seeds, default=0)
    over = " over seeds (their number in parentheses)" if many else f" over {number} seed{'s' * (number != 1)}"
    parts = {str(run.result["accuracy_on"]).capitalize() for run in sweep.runs if "accuracy_on" in run.result}
    part = parts.pop() if len(parts) == 1 else "Top-1"
    short = f"{sweep.title}. {part} accuracy in per cent, mean and sample standard deviation{over}.{judged}"
    lines = [r"\begin{table}[t]", r"\centering", rf"\caption{{{tex(short)}}}", rf"\label{{tab:{label(sweep.name)}}}"]
    lines += fitted(_grid(sweep, measurements, marks, digits, many=many))
    lines += [
        r"\end{table}",
        "",
        "% What the numbers mean, to be put where there is room:",
        r"\begingroup\footnotesize\sloppy",
    ]
    specs = settings(sweep)
    below = [*warnings(sweep, measurements, specs), *caption(sweep, measurements, specs, ()), *texts]
    lines += [rf"\noindent {tex(each)}\par" for each in dict.fromkeys(below) if each not in said]
    said.update(dict.fromkeys(below))
    return "\n".join([*lines, r"\endgroup", ""])


def _columns(sweep: SweepResults) -> list[tuple[str, list[Mapping[str, object]]]]:
    """Return the columns by group, those of numbers ascending, since sweeps that are joined have some of them each."""
    key = inner_key(sweep)
    groups = column_groups(sweep)
    if key is None or not all(is_number(column.get(key)) for column in sweep.columns):
        return groups
    return [(name, sorted(columns, key=itemgetter(key))) for name, columns in groups]


def _grid(
    sweep: SweepResults, measurements: Measurements, marks: Mapping[tuple[str, str], str], digits: int, *, many: bool
) -> list[str]:
    groups, key = _columns(sweep), inner_key(sweep)
    columns = [column for _, group in groups for column in group]
    lines = [rf"\begin{{tabular}}{{l{'c' * len(columns)}}}", r"\toprule"]
    if any(name for name, _ in groups):
        first, rules = 2, []
        for _, group in groups:
            rules.append(rf"\cmidrule(lr){{{first}-{first + len(group) - 1}}}")
            first += len(group)
        spans = "".join(rf" & \multicolumn{{{len(group)}}}{{c}}{{{tex(name)}}}" for name, group in groups)
        lines += [spans + r" \\", " ".join(rules)]
    heads = [column_label(column, (key,)).removesuffix(" sparse") if key else "Accuracy" for column in columns]
    lines += [" & ".join(["Method", *map(tex, heads)]) + r" \\", r"\midrule"]
    last = None
    for row in sweep.rows:
        if last not in (None, sweep.base_of(row)):
            lines.append(r"\addlinespace")
        last = sweep.base_of(row)
        found = [(row, column_id(column)) for column in columns]
        cells = [_cell(measurements.get(place), marks.get(place, ""), digits, many=many) for place in found]
        lines.append(" & ".join([tex(row), *cells]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _cell(cell: Measured | None, mark: str, digits: int, *, many: bool) -> str:
    if cell is None:
        return ""
    if cell.accuracy is None:
        return "--"
    mean, std = f"{100 * cell.accuracy.mean:.{digits}f}", cell.accuracy.std
    mean = rf"\{mark}{{{mean}}}" if mark else mean
    spread = "" if std is None else rf"$_{{\pm {100 * std:.{digits}f}}}$"
    dagger = tex(DAGGER) if cell.off_target is not None else ""
    return f"{mean}{spread}{dagger}" + (f" ({cell.done})" if many else "")


def _marks(sweep: SweepResults, measurements: Measurements) -> tuple[dict[tuple[str, str], str], str]:
    """Choose what is bold and underlined, and say it: by column, the best mean, and what the test cannot tell from it.

    Each row is tested against the best of its column, paired by seed, with Holm's correction over all of the table.
    Left out are rows off target or of fewer than three seeds, and dense ones where others are sparse.
    """
    marks: dict[tuple[str, str], str] = {}
    doubts: dict[tuple[str, str], float] = {}
    for name in map(column_id, sweep.columns):
        rivals = _rivals([measurements[row, name] for row in sweep.rows if (row, name) in measurements])
        best = max(map(_mean, rivals), default=None)
        leading = [cell.accuracies for cell in rivals if _mean(cell) == best]
        for cell in rivals if len(rivals) > 1 else ():
            if _mean(cell) == best:
                marks[cell.row, name] = "textbf"
            elif (found := paired(leading[0], cell.accuracies)) and found.n >= FEW and found.p is not None:
                doubts[cell.row, name] = found.p
    corrected = dict(zip(doubts, holm(doubts.values()), strict=True))
    marks |= {place: "underline" for place, p in corrected.items() if p >= LEVEL}
    if not marks:
        return marks, f" None is marked as best: that takes two rows of {FEW} seeds or more."
    apart = {cell.target is None for cell in measurements.values() if cell.accuracy}
    sparse = " of the sparse rows" if len(apart) == 2 else ""
    told = f" Bold: the best mean{sparse}. Underlined: what a paired t-test cannot tell from it"
    return marks, f"{told} (5 %, Holm over {len(doubts)} comparisons)." if doubts else f" Bold: the best mean{sparse}."


def _rivals(cells: Iterable[Measured]) -> list[Measured]:
    fit = [cell for cell in cells if cell.accuracy and cell.done >= FEW and cell.off_target is None]
    sparse = [cell for cell in fit if cell.target is not None]
    return sparse or fit


def _mean(cell: Measured) -> float:
    return cell.accuracy.mean if cell.accuracy else 0.0
