"""Notes of a table: the meaning of its numbers, and warnings about numbers that are not comparable."""

from __future__ import annotations

from collections.abc import Mapping

from results.numbers.measure import TOLERANCE, Measured, Measurements
from results.numbers.stats import ROUNDING
from results.runs.schema import SweepResults, column_id, place

FEW = 3
"""Number of seeds below which a cell gets a warning."""

DAGGER = "†"
BOLD = "Bold: the interval does not hold zero."
STARRED = "Starred (*): the interval does not hold zero."
"""Replacement of `BOLD` in formats without bold type."""


def caption(sweep: SweepResults) -> tuple[str, ...]:
    """Return the explanation of a table's numbers, one element per paragraph."""
    parts = [
        accuracy_definition(sweep)
        + " Cells give mean ± sample standard deviation over seeds (number of seeds in parentheses)."
    ]
    if sweep.baselines:
        parts.append(
            "Δ: the row minus its plain row at the same seed, averaged over seeds, in percentage points, with the"
            f" 95 % confidence interval of that mean (paired Student t; number of seeds in parentheses). {BOLD}"
            f" The intervals are not corrected for the number of rows.{_pairs(sweep)}"
        )
    if sweep.tuning_cells is not None:
        plural = "configuration was" if sweep.tuning_cells == 1 else "configurations were"
        parts.append(f"Tuning: {sweep.tuning_cells} {plural} tried for each row.")
    parts.append(
        "Sparsity: the share of zeros among the weights of all convolutional and linear layers; biases and"
        " normalisation parameters are not counted." + _uncounted(sweep) + _left_dense(sweep) + _allocations(sweep)
    )
    parts.append(
        "FLOPs: multiply-adds of those layers, counted and not measured: f for inference, f forward and 2f backward"
        " for a training step; as fractions of the dense network's inference and of dense training of the same"
        " length. Masks simulate sparsity: no speed-up is claimed."
    )
    parts += [*_levels(sweep), *_started(sweep), *_recalibrated(sweep)]
    if sweep.notes:
        parts.append(" ".join(sweep.notes.split()))
    return tuple(parts)


_DENSE = {"first": "the first layer", "last": "the last layer", "first_last": "first and last layer"}


def _left_dense(sweep: SweepResults) -> str:
    """Name the rows that keep layers dense, and the weights over which their target sparsity holds."""
    found: dict[str, set[str]] = {}
    for run in sweep.runs:
        named = run.result.get("dense_layers")
        layers = ", ".join(map(str, named)) if isinstance(named, list) else _DENSE.get(str(named))
        if layers:
            over = "all weights, the other layers paying" if run.result.get("rebudget", True) else "the others alone"
            found.setdefault(f"{layers} (the sparsity asked for is over {over})", set()).add(run.row)
    rows = {text: ", ".join(row for row in sweep.rows if row in names) for text, names in found.items()}
    return f" Left dense: {'; '.join(f'{names}: {text}' for text, names in rows.items())}." if rows else ""


def _uncounted(sweep: SweepResults) -> str:
    """Name the matrices that no row prunes or counts, such as embeddings, with their share of all matrices."""
    shares: dict[str, float] = {}
    for run in sweep.runs:
        held, counted = run.result.get("uncounted"), run.number("prunable_weights")
        if isinstance(held, Mapping) and counted:
            total = counted + sum(held.values())
            shares |= {str(name): size / total for name, size in held.items()}
    if not shares:
        return ""
    largest = sorted(shares, key=lambda name: -shares[name])
    named = ", ".join(f"{name} ({100 * shares[name]:.2g} %)" for name in largest[:3])
    more = f" and {len(shares) - 3} more" if len(shares) > 3 else ""
    return f" Neither pruned nor counted, with their share of all matrices: {named}{more}."


def _allocations(sweep: SweepResults) -> str:
    """Say how the density is distributed over layers, where rows differ in it."""
    found: dict[str, list[str]] = {}
    for run in sweep.runs:
        allocation = run.result.get("allocation")
        if isinstance(allocation, str) and run.row not in found.setdefault(allocation, []):
            found[allocation].append(run.row)
    if len(found) < 2:
        return ""
    named = [f"{name}: {', '.join(rows)}" for name, rows in found.items()]
    return f" Layers' densities: {'; '.join(named)}."


def _recalibrated(sweep: SweepResults) -> list[str]:
    """Name the rows whose batch statistics were computed after training, since that changes their accuracy."""
    found: dict[str, set[str]] = {}
    for run in sweep.runs:
        if batches := run.number("recalibrated"):
            found.setdefault(f"{batches:,.0f}", set()).add(run.row)
    named = [f"{', '.join(row for row in sweep.rows if row in rows)} ({n} batches)" for n, rows in found.items()]
    text = "Batch statistics computed anew on the final network, over training batches"
    return [f"{text}: {'; '.join(named)}."] if named else []


def _started(sweep: SweepResults) -> list[str]:
    """Name the rows that start from trained weights, since they have been trained for longer than the others."""
    found = {run.row for run in sweep.runs if run.result.get("initial_weights")}
    rows = ", ".join(row for row in sweep.rows if row in found)
    return [f"Started from the weights of another run: {rows}; FLOPs of that run are not counted."] if rows else []


def _levels(sweep: SweepResults) -> list[str]:
    """Name the rows whose runs train several times, since their cost is that of all trainings."""
    found: dict[str, set[int]] = {}
    for run in sweep.runs:
        levels = run.number("levels")
        if levels is not None and levels > 1:
            found.setdefault(run.row, set()).add(int(levels))
    if not found:
        return []
    named = ", ".join(f"{row} ({_span(numbers)})" for row, numbers in found.items())
    return [f"Several trainings a run: {named}. FLOPs of training are those of all, against one dense training."]


def _span(numbers: set[int]) -> str:
    return f"{min(numbers)}" if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def accuracy_definition(sweep: SweepResults) -> str:
    """Return a sentence that says on which images, when and how often accuracy was evaluated."""
    done = [entry for entry in sweep.entries if entry.status == "done"]
    parts = {str(entry.result.get("accuracy_on") or "test") for entry in done} or {"test"}
    sizes = {entry.number("evaluated") for entry in done}
    size = sizes.pop() if len(sizes) == 1 else None
    count = f"the {int(size):,} images of the" if size else "the"
    if parts == {"test"}:
        return f"Accuracy: top-1 on {count} test part after the last epoch, evaluated once; no epoch was picked."
    if parts == {"validation"}:
        return (
            f"Accuracy: top-1 on {count} validation part after the last epoch; no epoch was picked and the test part"
            " was not used."
        )
    return "Accuracy: top-1 after the last epoch, on the test part for some runs and on the validation part for others."


def _pairs(sweep: SweepResults) -> str:
    """Name the plain rows that cannot be recognised from the labels."""
    unclear = [f"{row} − {base}" for row, base in sweep.baselines.items() if not row.startswith(f"{base} ")]
    return f" Compared: {'; '.join(unclear)}." if unclear else ""


def warnings(sweep: SweepResults, measurements: Measurements) -> tuple[str, ...]:
    """Return warnings about rows that are not comparable.

    Reasons are few seeds, missed targets, unfinished runs, emptied layers, evaluation on different parts, and
    different versions of the suite.
    """
    cells = [measurements[row, column_id(column)] for row, column in sweep.first_cells()]
    found = [_few_seeds(sweep, cells), *_off_targets(sweep, cells), _unfinished(sweep, cells)]
    found += [_emptied(sweep), _lost_at_cut(sweep), _mixed(sweep), _versions(sweep)]
    return tuple(text for text in found if text)


def _few_seeds(sweep: SweepResults, cells: list[Measured]) -> str:
    few = [cell for cell in cells if 0 < cell.done < FEW]
    if not few:
        return ""
    if len(few) == sum(cell.done > 0 for cell in cells):
        where = "in every cell"
    else:
        where = "in " + ", ".join(f"{place(sweep, cell.row, cell.column)} ({cell.done})" for cell in few)
    return f"Fewer than {FEW} seeds {where}: spread and intervals say little."


def _off_targets(sweep: SweepResults, cells: list[Measured]) -> list[str]:
    texts = []
    for cell in cells:
        if cell.off_target is not None and cell.target is not None:
            where = place(sweep, cell.row, cell.column)
            texts.append(
                f"{DAGGER} {where}: not comparable, off target by {points(cell.off_target)} points"
                f" (asked for {100 * cell.target:.2f} % sparse; up to {100 * TOLERANCE:g} points are allowed)."
            )
    return texts


def _unfinished(sweep: SweepResults, cells: list[Measured]) -> str:
    texts = []
    for cell in cells:
        if cell.done < cell.planned:
            counts = [
                f"{number} {word}" for number, word in ((cell.failed, "failed"), (cell.missing, "missing")) if number
            ]
            texts.append(
                f"{place(sweep, cell.row, cell.column)}: {cell.done} of {cell.planned} seeds ({', '.join(counts)})"
            )
    return f"Unfinished: {'; '.join(texts)}." if texts else ""


def _emptied(sweep: SweepResults) -> str:
    """Name the runs in which a layer had no active weights at some time, so that no signal passed through it."""
    seeds: dict[str, list[int]] = {}
    for run in sweep.runs:
        if run.result.get("empty_layers"):
            seeds.setdefault(place(sweep, run.row, run.column), []).append(run.seed)
    texts = []
    for name, found in seeds.items():
        noun = "seed" if len(found) == 1 else "seeds"
        texts.append(f"{name} ({noun} {', '.join(map(str, found))})")
    return f"A layer had no weights left for a while or to the end: {', '.join(texts)}." if texts else ""


def _lost_at_cut(sweep: SweepResults) -> str:
    """Name the cells in which the cut at the last step took most of what the network knew."""
    falls: dict[str, tuple[float, float]] = {}
    for run in sweep.runs:
        before, after = run.number("accuracy_before_cut"), run.number("accuracy")
        if before is not None and after is not None:
            falls.setdefault(place(sweep, run.row, run.column), (before, after))
    named = ", ".join(f"{where} (from {100 * a:.1f} to {100 * b:.1f} %)" for where, (a, b) in falls.items())
    return f"The cut at the last step took the network near chance: {named}." if falls else ""


def _mixed(sweep: SweepResults) -> str:
    parts = {
        str(e.result.get("accuracy_on")) for e in sweep.entries if e.status == "done" and "accuracy_on" in e.result
    }
    return "Some runs were evaluated on the test part, others on the validation part." if len(parts) > 1 else ""


def _versions(sweep: SweepResults) -> str:
    """Name the versions of the suite's code with which the runs were trained, if there are several."""
    rows: dict[str, dict[str, None]] = {}
    for run in sweep.runs:
        codes = run.result.get("code") or ()
        text = " then ".join(map(str, codes)) if isinstance(codes, (list, tuple)) else str(codes)
        if run.status == "done":
            rows.setdefault(text or "unknown", {})[run.row] = None
    if len(rows) < 2 and not any(" then " in text for text in rows):
        return ""
    named = "; ".join(f"{text} ({', '.join(names)})" for text, names in rows.items())
    return f"Trained by different versions of the suite's code: {named}."


def points(fraction: float, digits: int = 2) -> str:
    """Write a signed difference of fractions in percentage points, with a true minus sign.

    A small negative number stays "−0.00", so that an interval that just misses zero does not seem to contain it.
    """
    if abs(fraction) < ROUNDING:
        return f"{0:.{digits}f}"
    return f"{100 * fraction:+.{digits}f}".replace("-", "−")
