"""Results beside published ones: a line for each figure of a source that some runs, finished or planned, stand for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import count, product
from string import ascii_lowercase
from typing import Any

from results.numbers.measure import Measurements, measure
from results.numbers.paper import Figure, of_sources
from results.numbers.reproduction import MARGIN, VERDICTS, Beside, Compared, most_spread, pairs_of, sparsity_of
from results.numbers.stats import FEW
from results.runs.facts import Settings, settings
from results.runs.schema import SweepResults

from .notes import accuracy_definition, points, sparsity_definition
from .origin import joint_title, trained
from .tables import DASH, align
from .values import Table, TableCell, TableGrid, TableHead, TableRow
from .warned import warnings


def against(
    sweeps: Sequence[SweepResults], sources: Sequence[str], margin: float | None = None, digits: int = 2
) -> Table:
    """Make the table of one or several sweeps beside the figures of published sources.

    Args:
        sweeps: Sweeps that have been read with their results.
        sources: Keys of the sources, such as "ham"; each is compared with by itself.
        margin: Percentage points within which two accuracies count as the same; None: `MARGIN`.
        digits: Decimal places of accuracies.

    Raises:
        UserError: for a source that does not exist.
    """
    figures, margin = of_sources(sources), MARGIN if margin is None else margin
    known = [(sweep, measure(sweep), settings(sweep)) for sweep in sweeps]
    compared = pairs_of(known, figures)
    pairs, letters = compared.pairs, lettered(_said(pair.figure) for pair in compared.pairs)
    keys = list(dict.fromkeys(figure.key for figure in figures))
    rows = [row for sweep in sweeps for row in sweep.rows]
    several = len(set(rows)) < len(rows)  # a row's name does not say of which table it is
    lines, last = [], None
    for pair in pairs:
        named = [TableCell(("", pair.sweep.name))] if several else []
        stated = [TableCell(("", pair.figure.key))] if len(keys) > 1 else []
        cells = [TableCell((pair.name,)), *named, *stated, *_cells(pair, margin, digits, letters)]
        base = pair.sweep.name, pair.sweep.base_of(pair.ours.row)
        lines.append(TableRow(tuple(cells), opens_group=base != last))
        last = base
    heads = ["Method", *["Table"] * several, *["Source"] * (len(keys) > 1), "Sparsity, %", "Ours, %", "Published, %"]
    heads += ["Difference, points [90 % CI]", "Verdict", "Differs (ours / published)"]
    found = ((sweep, warnings(sweep, measurements, specs)) for sweep, measurements, specs in known)
    said = [text for sweep, texts in found for text in _named(sweep, texts, len(sweeps) > 1)]
    return Table(
        name="-".join([*(sweep.name for sweep in sweeps), *keys]),
        title=f"{joint_title(sweeps)}, beside published figures",
        grids=(TableGrid("", tuple(map(TableHead, heads)), align(lines)),),
        caption=tuple(_caption(known, figures, compared, margin, letters)),
        warnings=tuple(said),
        column_keys=(),
        measurements={},
        records=tuple(_record(pair, margin) for pair in pairs),
    )


def _cells(pair: Beside, margin: float, digits: int, letters: Mapping[str, str]) -> Iterable[TableCell]:
    ours, figure, found = pair.ours, pair.figure, pair.apart
    yield TableCell((f"{100 * sparsity_of(pair.spec):g}",))
    seeds = f" ({ours.done})" if ours.done == ours.planned else f" ({ours.done} of {ours.planned})"
    if ours.accuracy is None:
        yield TableCell((DASH, seeds))
    else:
        std = DASH if ours.accuracy.std is None else f"{100 * ours.accuracy.std:.{digits}f}"
        yield TableCell((f"{100 * ours.accuracy.mean:.{digits}f}", " ± ", std, seeds))
    spread = () if figure.spread is None else (" ± ", f"{figure.spread:.2f}")
    yield TableCell((f"{figure.top1:.2f}", *spread))
    if ours.accuracy is None:
        yield TableCell((DASH,))
    elif found is None:
        yield TableCell((points(ours.accuracy.mean - figure.top1 / 100, digits), "", "", "", "", ""))
    else:
        mean, low, high = (points(value / 100, digits) for value in (found.mean, found.low, found.high))
        yield TableCell((mean, " [", low, ", ", high, "]"))
    yield TableCell(("", pair.verdict(margin)))
    yield TableCell(
        (
            "",
            ", ".join([*pair.differing(), *filter(None, [letters.get(_said(figure))])]),
        )
    )


def _said(figure: Figure) -> str:
    """Return what must be known of a figure."""
    return "; ".join(filter(None, ["" if figure.confirmed else figure.known, figure.note]))


def lettered(remarks: Iterable[str]) -> dict[str, str]:
    """Give each remark a letter, in the order in which they come; after z come aa, ab, ..."""
    names = ("".join(letters) for length in count(1) for letters in product(ascii_lowercase, repeat=length))
    return dict(zip(dict.fromkeys(filter(None, remarks)), names, strict=False))


def _caption(
    known: Sequence[tuple[SweepResults, Measurements, Settings]],
    figures: Sequence[Figure],
    compared: Compared,
    margin: float,
    letters: Mapping[str, str],
) -> Iterable[str]:
    pairs, citations = compared.pairs, {figure.key: figure.source for figure in figures}
    several = len(citations) > 1
    for key, citation in citations.items():
        counts = Counter(pair.verdict(margin) for pair in pairs if pair.figure.key == key)
        told = ", ".join(f"{counts[each]} {each}" for each in VERDICTS if counts[each])
        head = f"{counts.total()} published figures of {citation}" + (f": {told}." if told else ".")
        yield f"{key}: {head}" if several else head
    yield (
        "Ours: mean ± sample standard deviation over seeds (number of seeds). Difference: ours minus published, with"
        " the 90 % confidence interval of Student's t, so that each verdict by itself is wrong in at most 5 % of cases."
        f" Reproduced: the interval lies within ±{margin:g} points. Above, below: it lies beyond them. Undecided: it"
        f" does neither. Fewer than {FEW} seeds are not judged.{_needed(pairs, margin)}"
    )
    if any(pair.figure.spread is not None for pair in pairs):
        unknown = sum(pair.figure.spread is not None and pair.figure.spread_of is None for pair in pairs)
        what = "No published ± enters" if unknown else "The published ± enter"
        yield f"{what} the interval" + (f": of {unknown} it is not stated what they are." if unknown else ".")
    yield from dict.fromkeys(accuracy_definition(sweep) for sweep, _, _ in known)
    yield from dict.fromkeys(f"Ours: {sparsity_definition(sweep)}" for sweep, _, _ in known)
    yield from (text for sweep, _, specs in known for text in _named(sweep, trained(sweep, specs), len(known) > 1))
    remarks = "; ".join(f"({letter}) {remark}" for remark, letter in letters.items())
    if remarks:
        yield f"Of published figures: {remarks}."
    if compared.alone:
        yield f"Without a figure in {'these sources' if several else 'this source'}: {', '.join(compared.alone)}."
    if compared.unknown:
        names = ", ".join(compared.unknown)
        yield f"Their configurations are not known, `ham sweep` again writes them down: {names}."
    for key in citations:
        if rest := _rest([figure for figure in figures if figure.key == key], pairs):
            yield f"Of {key if several else 'this source'} and in none of these folders: {rest}."


def _needed(pairs: Sequence[Beside], margin: float) -> str:
    """Say how much seeds may scatter, since three that scatter as published seldom decide."""
    seeds = max((pair.ours.done for pair in pairs), default=0)
    if seeds < FEW:
        return ""
    spread = math.floor(100 * most_spread(seeds, margin)) / 100
    return f" From {seeds} seeds, reproduced takes a standard deviation of at most {spread:.2f} points."


def _rest(figures: Sequence[Figure], pairs: Sequence[Beside]) -> str:
    """Name the figures of one source that no cell stands for; with data and network where it has several."""
    shown = {id(pair.figure) for pair in pairs}
    several = len({(figure.dataset, figure.model) for figure in figures}) > 1
    alike = Counter(map(_place, figures))
    rows: dict[str, dict[str, None]] = {}
    for figure in figures:
        if id(figure) not in shown:
            row = f"{figure.row} ({figure.dataset}, {figure.model})" if several else figure.row
            where = f"{100 * figure.sparsity:g} %" if figure.sparsity else f"{figure.epochs or '?'} epochs"
            kind = [figure.layers, f"{figure.epochs} epochs" if figure.epochs and figure.sparsity else None]
            known = ", ".join(filter(None, kind))
            rows.setdefault(row, {})[f"{where} ({known})" if known and alike[_place(figure)] > 1 else where] = None
    return "; ".join(f"{row} at {', '.join(found)}" for row, found in rows.items())


def _place(figure: Figure) -> tuple[str, str, str, float]:
    return figure.row, figure.dataset, figure.model, figure.sparsity


def _named(sweep: SweepResults, texts: Iterable[str], several: bool) -> Iterable[str]:
    return (f"{sweep.name}: {text}" if several else text for text in texts)


def _record(pair: Beside, margin: float) -> dict[str, Any]:
    ours, figure, found = pair.ours, pair.figure, pair.apart
    accuracy = ours.accuracy
    return {
        "table": pair.sweep.name,
        "row": ours.row,
        **ours.column,
        "n": ours.done,
        "planned": ours.planned,
        "accuracy_mean": accuracy and accuracy.mean,
        "accuracy_std": accuracy and accuracy.std,
        "published_mean": figure.top1 / 100,
        "published_spread": None if figure.spread is None else figure.spread / 100,
        "difference": accuracy and accuracy.mean - figure.top1 / 100,
        **{f"difference_{end}": found and getattr(found, end) / 100 for end in ("low", "high")},
        "margin": margin / 100,
        "verdict": pair.verdict(margin),
        "sparsity": ours.sparsity.mean if ours.sparsity else None,
        "target_sparsity": sparsity_of(pair.spec),
        "published_sparsity": figure.sparsity,
        "epochs": pair.spec.get("schedule.epochs"),
        "published_epochs": figure.epochs,
        "layers": pair.layers,
        "published_layers": figure.layers,
        "differs": "; ".join(pair.differing()),
        "published_row": figure.row,
        "published_note": figure.note,
        "known": figure.known,
        "source_key": figure.key,
        "source": figure.source,
    }
