"""Results as pandas frames: one row a run, one row a measurement, one row a layer."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .discover import compared, read_spec
from .schema import RunEntry, SweepResults, is_number
from .store import outcomes, read_metrics, read_plan

if TYPE_CHECKING:
    import pandas

log = logging.getLogger("results")

Directory = str | Path

NUMBERS = (
    "accuracy",
    "loss",
    "train_loss",
    "train_accuracy",
    "best_validation_accuracy",
    "best_validation_epoch",
    "sparsity",
    "target_sparsity",
    "mask_updates",
    "inference_flops_fraction",
    "training_flops_fraction",
    "prunable_weights",
    "nonzero",
    "evaluated",
    "epochs",
    "steps",
    "seconds",
)


def load(*directories: Directory, spec: bool = True) -> pandas.DataFrame:
    """Load the results of sweeps, of folders of runs, or of single runs.

    Example:
        >>> import results
        >>> frame = results.load("runs/quickstart")
        >>> frame.groupby("row")["accuracy"].agg(["mean", "count"]).round(3)
                  mean  count
        row
        Dense     0.82      2
        RiGL      0.80      2
        RiGL+HAM  0.81      2

    Args:
        directories: Each a sweep's folder (with ``sweep.json``), a folder whose sub-folders are runs, or a run's own.
        spec: Whether to read the configurations, too; thousands of runs load faster without.

    Returns:
        One row for every run in every cell of the tables, in table order. Columns, NaN where a run has none:

        - ``table`` (the folder's name), ``row``, ``base_row`` (the plain row of one that adds something, otherwise the
          row), one column for each configuration key that varies between a sweep's columns (``topology.sparsity``),
          ``seed``, ``identity``, ``status`` ("done", "failed", "missing"), ``error``, ``path`` (absolute);
        - fractions in [0, 1]: ``accuracy``, ``train_accuracy``, ``best_validation_accuracy``, ``sparsity``,
          ``target_sparsity``; fractions of the dense network's and training's, which may exceed 1:
          ``inference_flops_fraction``, ``training_flops_fraction``;
        - counts: ``prunable_weights``, ``nonzero``, ``evaluated`` (images), ``epochs``, ``steps``, ``mask_updates``,
          ``best_validation_epoch``; ``seconds`` of training; ``loss`` and ``train_loss`` (mean cross-entropy);
        - ``accuracy_on`` ("test" or "validation"), ``events`` and ``layers`` (mappings);
        - with `spec`, the keys in which configurations differ, as ``spec.optimizer.lr``.

    Raises:
        UserError: if a folder does not exist, holds no runs, or its manifest is damaged.

    Notes:
        A run that is repeated over columns, such as a dense row in a sweep over sparsities, appears once per column. A
        run that several folders have (same configuration and seed, such as one that `ham sweep` has reused) is in the
        first folder that has finished it, and left out of the others with a warning.
    """
    import pandas

    records = []
    sweeps = _read(directories)
    keys = _column_keys(sweeps)
    for sweep in sweeps:
        for entry in sweep.entries:
            record = {"table": sweep.name, "row": entry.row, "base_row": sweep.base_of(entry.row)}
            record |= {key: entry.column.get(key) for key in keys}
            record |= {"seed": entry.seed, "identity": entry.identity, "status": entry.status, "error": entry.error}
            record |= {name: entry.number(name) for name in NUMBERS}
            record |= {"accuracy_on": entry.result.get("accuracy_on")}
            record |= {name: dict(entry.result.get(name) or {}) for name in ("events", "layers")}
            record |= {"path": str(entry.path)}
            records.append(record)
    frame = pandas.DataFrame.from_records(records).astype(dict.fromkeys(NUMBERS, "float64"))
    return frame.join(_differing([record["path"] for record in records])) if spec else frame


def curves(*directories: Directory) -> pandas.DataFrame:
    """Load what runs recorded while they trained, in tidy form.

    Example:
        >>> import results
        >>> curves = results.curves("runs/quickstart").query("metric == 'validation_accuracy'")
        >>> curves.pivot_table(index="epoch", columns="row", values="value").shape  # epochs, rows
        (4, 3)

    Args:
        directories: As for `load`.

    Returns:
        One row per measured number, in order of time within a run: ``table``, ``row``, the keys of columns as in
        `load`, ``seed``, ``path``, ``kind`` ("epoch", "event", "ham"), ``event`` (the kind of a mask event), ``level``
        (of a run of several trainings), ``step``, ``epoch`` (a float; that of a step within an epoch is between two
        whole ones), ``metric`` and ``value``. Numbers by layer are in `layers`. A run is read once, also if several
        columns show it.

    Raises:
        UserError: as for `load`.
    """
    import pandas

    sweeps = _read(directories)
    keys = _column_keys(sweeps)
    rows = [
        {**_cell(sweep, entry, keys), **line}
        for sweep in sweeps
        for entry in sweep.runs
        for line in _tidy(list(read_metrics(entry.path, entry.result)))
    ]
    names = ["table", "row", *keys, "seed", "path", "kind", "event", "level", "step", "epoch", "metric", "value"]
    return pandas.DataFrame.from_records(rows, columns=names)


def layers(*directories: Directory, history: bool = False) -> pandas.DataFrame:
    """Load the density of each layer of each run.

    Example:
        >>> import results
        >>> layers = results.layers("runs/quickstart")
        >>> layers.pivot_table(index="layer", columns="row", values="density").shape  # layers, rows
        (4, 3)

    Args:
        directories: As for `load`.
        history: Whether to return the densities at the end of each epoch; otherwise those of the final network.

    Returns:
        One row per layer (and epoch): ``table``, ``row``, the keys of columns as in `load`, ``seed``, ``path``,
        ``layer``; ``size`` (weights), ``nonzero`` and ``density`` in [0, 1], or ``epoch`` and ``density``.

    Raises:
        UserError: as for `load`.
    """
    import pandas

    sweeps = _read(directories)
    keys = _column_keys(sweeps)
    numbers = ["epoch", "density"] if history else ["size", "nonzero", "density"]
    rows = [
        {**_cell(sweep, entry, keys), **line}
        for sweep in sweeps
        for entry in sweep.runs
        for line in (_past(entry) if history else _final(entry))
    ]
    return pandas.DataFrame.from_records(rows, columns=["table", "row", *keys, "seed", "path", "layer", *numbers])


def _read(directories: Sequence[Directory]) -> list[SweepResults]:
    return _once([outcomes(read_plan(directory)) for directory in directories])


def _once(sweeps: Sequence[SweepResults]) -> list[SweepResults]:
    """Leave out, with a word, runs that another folder has too: a run is one sample, however often it lies there."""
    homes: dict[tuple[str, int], int] = {}
    for done in (True, False):  # a finished one stands for others
        for number, sweep in enumerate(sweeps):
            for run in (one for one in sweep.runs if (one.status == "done") is done):
                homes.setdefault(_same(run), number)
    kept = []
    for number, sweep in enumerate(sweeps):
        entries = [one for one in sweep.entries if homes[_same(one)] == number or not _same(one)[0]]
        elsewhere = Counter(homes[_same(run)] for run in sweep.runs if homes[_same(run)] != number and _same(run)[0])
        for other, count in elsewhere.items():
            log.warning(
                "%s: %d of its runs are those of %s (same configuration and seed); left out here",
                *(sweep.directory, count, sweeps[other].directory),
            )
        kept.append(replace(sweep, entries=tuple(entries)))
    return kept


def _same(run: RunEntry) -> tuple[str, int]:
    return str(run.result.get("identity") or run.identity), run.seed


def _column_keys(sweeps: Sequence[SweepResults]) -> list[str]:
    return list(dict.fromkeys(key for sweep in sweeps for key in sweep.column_keys))


def _cell(sweep: SweepResults, entry: RunEntry, keys: Sequence[str]) -> dict[str, Any]:
    column = {key: entry.column.get(key) for key in keys}
    return {"table": sweep.name, "row": entry.row, **column, "seed": entry.seed, "path": str(entry.path)}


def _differing(paths: Sequence[str]) -> pandas.DataFrame:
    """Return the configuration keys in which runs differ, one column each."""
    import pandas

    specs = {path: compared(read_spec(Path(path))) for path in dict.fromkeys(paths)}
    keys = list(dict.fromkeys(key for spec in specs.values() for key in spec))
    columns = {f"spec.{key}": [specs[path].get(key) for path in paths] for key in keys}
    kept = {name: values for name, values in columns.items() if any(value != values[0] for value in values)}
    return pandas.DataFrame(kept, index=range(len(paths)))


_PLACE = frozenset({"kind", "event", "level", "step", "epoch"})


def _tidy(lines: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    ends = [
        line for line in lines if line.get("kind") == "epoch" and is_number(line.get("epoch")) and line["epoch"] > 0
    ]
    steps = ends[0].get("step", 0) / ends[0]["epoch"] if ends else None
    for line in lines:
        step, epoch = line.get("step"), line.get("epoch")
        if epoch is None and steps and is_number(step):
            epoch = step / steps
        place = {"kind": line.get("kind"), "event": line.get("event"), "level": line.get("level"), "step": step}
        for metric, value in line.items():
            if metric not in _PLACE and is_number(value):
                yield {**place, "epoch": epoch, "metric": metric, "value": value}


def _final(entry: RunEntry) -> Iterator[dict[str, Any]]:
    for name, layer in (entry.result.get("layers") or {}).items():
        density = layer["nonzero"] / layer["size"]
        yield {"layer": name, "size": layer["size"], "nonzero": layer["nonzero"], "density": density}


def _past(entry: RunEntry) -> Iterator[dict[str, Any]]:
    for line in read_metrics(entry.path, entry.result):
        densities = line.get("layer_density")
        if line.get("kind") == "epoch" and isinstance(densities, dict):
            yield from ({"layer": name, "epoch": line.get("epoch"), "density": one} for name, one in densities.items())
