"""The caption of a table: what was trained, and the meaning of its numbers."""

from __future__ import annotations

from collections.abc import Container, Mapping

from results.numbers.measure import Measurements, family
from results.numbers.power import reach
from results.numbers.stats import FEW, ROUNDING, pooled
from results.runs.facts import Settings
from results.runs.schema import SweepResults

from .origin import notes, trained
from .tuned import tuned

DAGGER = "†"
BOLD = "Bold: p < .05 after Holm's correction"
STARRED = "Starred (*): p < .05 after Holm's correction"
"""Replacement of `BOLD` in formats without bold type."""


def caption(
    sweep: SweepResults, measurements: Measurements, settings: Settings, kinds: Container[str]
) -> tuple[str, ...]:
    """Return the explanation of a table's numbers, one element per paragraph; `kinds` are those that it shows."""
    cells = " Cells give mean ± sample standard deviation over seeds (number of seeds in parentheses)."
    parts = [*trained(sweep, settings), accuracy_definition(sweep) + cells * ("accuracy" in kinds)]
    if sweep.baselines and ("delta" in kinds or "p" in kinds):
        parts.append(
            "Δ: the row minus its plain row at the same seed, averaged over seeds, in percentage points, with the"
            " 95 % confidence interval of that mean (paired Student t, each interval by itself; number of seeds in"
            f" parentheses).{_judged(sweep, measurements)}{_pairs(sweep)}"
        )
    parts += tuned(sweep)
    parts.append(sparsity_definition(sweep))
    if "flops" in kinds:
        parts.append(
            "FLOPs: multiply-adds of those layers, counted and not measured: f for inference, f forward and 2f backward"
            " for a training step; as fractions of the dense network's inference and of dense training of the same"
            " length. Masks simulate sparsity: no speed-up is claimed."
        )
    parts += [*_levels(sweep), *_started(sweep), *_recalibrated(sweep)]
    return (*parts, *notes(sweep))


def _judged(sweep: SweepResults, measurements: Measurements) -> str:
    """Say what is judged together, and how large a difference must be to be told from none."""
    differences = family(sweep, measurements)
    if not differences:
        return f" None is judged: that takes {FEW} seeds, a spread among them, and rows on target."
    number = len(differences)
    text = f" {BOLD} over the table's {number} differences of {FEW} seeds or more." if number > 1 else f" {BOLD}."
    seeds = max(difference.n for difference in differences)
    std = pooled((difference.n, difference.std or 0.0) for difference in differences)
    if not std:
        return text
    over = f" over {number} rows" if number > 1 else ""
    return (
        f"{text} With the pooled spread of these differences, {100 * std:.2f} points, one cannot reach .05{over} at"
        f" n = {seeds} unless |Δ| > {100 * reach(std, seeds, number):.1f} points."
    )


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


def sparsity_definition(sweep: SweepResults) -> str:
    """Say of which weights the share of zeros is a sparsity."""
    return (
        "Sparsity: the share of zeros among the weights of all convolutional and linear layers; biases and"
        " normalisation parameters are not counted." + _uncounted(sweep) + _left_dense(sweep)
    )


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


def points(fraction: float, digits: int = 2) -> str:
    """Write a signed difference of fractions in percentage points, with a true minus sign.

    A small negative number stays "−0.00", so that an interval that just misses zero does not seem to contain it.
    """
    if abs(fraction) < ROUNDING:
        return f"{0:.{digits}f}"
    return f"{100 * fraction:+.{digits}f}".replace("-", "−")
