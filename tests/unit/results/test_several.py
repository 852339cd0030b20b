"""Several folders in one command: sweeps below each other, folders of runs as one table with a baseline."""

from __future__ import annotations

import csv
import io
import json
import logging
from pathlib import Path

import pytest
from fake_runs import overridden, result, write_run, write_sweep

from experiments.errors import UserError
from results.runs.several import read_several
from results.table.formats import FORMATS, write
from results.table.tables import table

RIGL = {"topology.name": "rigl", "topology.sparsity": 0.9}


def run(path: Path, row: str, seed: int, accuracy: float, **overrides: object) -> Path:
    spec = overridden({**RIGL, **overrides, "label": row, "seed": seed})
    return write_run(path, spec, result(accuracy, seed, 0.9))


@pytest.fixture
def loose(tmp_path: Path) -> list[Path]:
    """Two rows of three seeds, in a folder of runs and in folders of their own."""
    for seed in range(3):
        run(tmp_path / "some" / f"a{seed}", "RiGL", seed, 0.8 + seed / 100)
    lr = {"optimizer.lr": 0.2}
    fast = [run(tmp_path / f"b{seed}", "fast", seed, value, **lr) for seed, value in enumerate((0.83, 0.84, 0.86))]
    return [tmp_path / "some", *fast]


def test_folders_of_runs_are_one_table(loose: list[Path]) -> None:
    (sweep,) = read_several(loose)
    assert sweep.rows == ("RiGL", "fast")
    assert [len(sweep.cell(row, {})) for row in sweep.rows] == [3, 3]
    assert not sweep.baselines


def test_a_baseline_gives_differences(loose: list[Path]) -> None:
    (sweep,) = read_several(loose, "RiGL")
    assert sweep.baselines == {"fast": "RiGL"}
    (cell,) = [cell for cell in table(sweep).measurements.values() if cell.row == "fast"]
    assert cell.difference is not None
    assert (cell.difference.n, cell.difference.mean) == (3, pytest.approx(0.1 / 3))
    assert "Compared: fast − RiGL." in " ".join(write([table(sweep)]).split())


def test_a_baseline_must_be_a_row_of_runs(loose: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--baseline: 'RIGL' is not a row; rows: RiGL, fast; did you mean 'RiGL'"):
        read_several(loose, "RIGL")
    whole = write_sweep(tmp_path / "sweep", {"A": [0.8, 0.8, 0.8]})
    with pytest.raises(UserError, match="--baseline: is for folders of runs; the rows of a sweep have theirs"):
        read_several([whole], "A")


def test_a_folder_counts_once(loose: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (sweep,) = read_several([*loose, *loose, loose[0] / ".." / loose[0].name])
    assert len(sweep.runs) == 6
    assert not caplog.records


def test_a_copy_of_a_run_counts_once(loose: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (sweep,) = read_several([*loose, run(tmp_path / "again", "RiGL", 0, 0.8)])
    assert len(sweep.runs) == 6
    assert "repeats a0 (same configuration and seed); left out" in caplog.text


@pytest.mark.parametrize("format", FORMATS)
def test_sweeps_stand_below_each_other(tmp_path: Path, format: str) -> None:
    one = write_sweep(
        tmp_path / "one", {"A": [0.8] * 3}, {"A": {"topology.name": "rigl"}}, [{"topology.sparsity": 0.9}]
    )
    two = write_sweep(tmp_path / "two", {"B": [0.7] * 3}, columns=[{"schedule.epochs": 4}], title="Another")
    written = write([table(sweep) for sweep in read_several([one, two])], format)
    if format == "csv":
        rows = list(csv.DictReader(io.StringIO(written)))
        assert [(row["table"], row["row"]) for row in rows] == [("one", "A"), ("two", "B")]
        assert [(row["topology.sparsity"], row["schedule.epochs"]) for row in rows] == [("0.9", ""), ("", "4")]
    elif format == "json":
        assert [each["name"] for each in json.loads(written)] == ["one", "two"]
    else:
        alone = [write([table(sweep)], format) for sweep in read_several([one, two])]
        assert written == "\n".join(alone)


def test_digits(loose: list[Path]) -> None:
    (sweep,) = read_several(loose, "RiGL")
    first = table(sweep, digits=1).grids[0].rows
    assert first[0].cells[1].text == "81.0 ± 1.0 (3)"
    assert first[1].cells[2].text.startswith("+3.3 [")
    assert table(sweep, digits=0).grids[0].rows[0].cells[1].text == "81 ± 1 (3)"
    assert table(sweep, digits=4).grids[0].rows[0].cells[1].text == "81.0000 ± 1.0000 (3)"


def test_a_caption_explains_what_is_shown_alone(loose: list[Path]) -> None:
    (sweep,) = read_several(loose, "RiGL")
    kinds = {"Δ: the row": "delta", "FLOPs: multiply": "flops"}
    for words, kind in kinds.items():
        assert any(words in text for text in table(sweep, ["accuracy", kind]).caption)
        assert not any(words in text for text in table(sweep, ["accuracy"]).caption)
