"""Runs that train several times: what they write down, what they cost, and that they go on wherever they were cut."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import Ham, command
from ranks import stop_at, train_on
from small_runs import (
    STEPS_PER_EPOCH,
    assert_same_run,
    events,
    records,
    result,
    resumptions,
    tiny_spec,
    train,
    train_until,
    write_config,
)

from experiments.data.bundle import DataBundle
from experiments.rundir.ledger import last_beat, read
from results.progress.advance import progress

# half of the weights go twice: densities 1, 1/2 and 1/4 in levels of two epochs
LEVELS, EPOCHS, STEPS = 3, 2, 36
LRR = ["topology={name: lrr, sparsity: 0.75, prune_fraction: 0.5}", "schedule.epochs=2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(tiny_spec(folder, *LRR), folder / "run")
    return folder / "run"


def test_each_level_is_a_training_and_a_line_says_which(finished: Path) -> None:
    epochs = [record for record in records(finished) if record["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3, 4, 5, 6]
    assert [line["level"] for line in epochs] == [0, 0, 1, 1, 2, 2]
    # validated before the next pruning: the density is that of the level
    assert [line["density"] for line in epochs] == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.25], abs=1e-3)
    # the cosine begins again: rates of the last steps of both epochs, steps 5 and 11 of 12
    rates = [0.1 * (1 + math.cos(math.pi * step / 12)) / 2 for step in (5, 11)]
    assert [line["lr"] for line in epochs] == pytest.approx(rates * LEVELS)
    pruned = events(finished, "prune")
    assert [(event["step"], event["grown"]) for event in pruned] == [(12, 0), (24, 0)]
    assert [event["density"] for event in pruned] == pytest.approx([0.5, 0.25], abs=1e-3)


def test_the_result_counts_all_levels(finished: Path) -> None:
    done = result(finished)
    assert (done["levels"], done["epochs"], done["steps"]) == (LEVELS, LEVELS * EPOCHS, STEPS)
    assert done["events"] == {"prune": 2}
    assert done["nonzero"] == done["prunable_weights"] - math.floor(0.75 * done["prunable_weights"])
    epochs = [record for record in records(finished) if record["kind"] == "epoch"]
    # level by level, from what each epoch says of the steps so far: 1 + f_1 + f_2 dense trainings
    spent = [line["train_flops_fraction"] * line["epoch"] / EPOCHS for line in epochs]
    levels = [spent[1], spent[3] - spent[1], spent[5] - spent[3]]
    assert levels[0] == 1
    assert levels[2] == pytest.approx(done["inference_flops_fraction"])
    assert 1 > levels[1] > levels[2]
    assert done["training_flops_fraction"] == pytest.approx(sum(levels))
    # the best epoch is one of the network that the table is about, not of the dense one
    last = [line["validation_accuracy"] for line in epochs[4:]]
    assert done["best_validation_accuracy"] == max(last)
    assert done["best_validation_epoch"] in (5, 6)


def test_progress_is_of_the_whole_run(finished: Path) -> None:
    beat = last_beat(finished)
    assert beat is not None
    assert (beat.step, beat.total) == (STEPS, STEPS)
    assert progress(finished, None, beat.time).total == STEPS


def test_no_two_epochs_of_a_run_have_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, batches = [], DataBundle.batches

    def noted(self: DataBundle, epoch: int, start: int = 0) -> Any:
        asked.append((epoch, start))
        return batches(self, epoch, start)

    monkeypatch.setattr(DataBundle, "batches", noted)
    train(tiny_spec(tmp_path, *LRR), tmp_path / "run")
    assert asked == [(epoch, 0) for epoch in range(LEVELS * EPOCHS)]


def test_a_run_stopped_between_two_levels_has_begun_the_next(tmp_path: Path, finished: Path) -> None:
    spec = tiny_spec(tmp_path, *LRR)
    for cut in (12, 24):
        train_until(spec, tmp_path / "run", cut)
    assert [event["step"] for event in events(tmp_path / "run", "prune")] == [12, 24]
    train(spec, tmp_path / "run")
    assert resumptions(tmp_path / "run") == [12, 24]
    assert_same_run(tmp_path / "run", finished)


def test_an_average_begins_anew_with_each_level(tmp_path: Path) -> None:
    """One that hardly moves is the network a level began with: trained and pruned in the last, not the initial one."""
    done = train(tiny_spec(tmp_path, *LRR, "optimizer.ema_decay=0.999999"), tmp_path / "run")
    assert done["average_loss"] < 0.3  # with the initial network it is 1.4


@pytest.mark.robust
@pytest.mark.timeout(300)
def test_two_ranks_in_pieces(tmp_path: Path) -> None:
    """With batch statistics, and stopped once at the end of a level: it goes on as the ranks that were not stopped."""
    spec = tiny_spec(
        tmp_path,
        "topology={name: wr, sparsity: 0.75, prune_fraction: 0.5, rewind: 0.4}",
        "data.batch_size=50",
        "schedule.epochs=1",
        "optimizer.ema_decay=0.9",
    )
    assert [ended.error for ended in train_on(spec, tmp_path / "whole", 2)] == [None, None]
    assert result(tmp_path / "whole")["events"] == {"prune": 2}
    for which, at in ((1, 3), (0, STEPS_PER_EPOCH - 1)):  # a vote counts one step later
        train_on(spec, tmp_path / "run", 2, partial(stop_at, which, at))
    assert [ended.error for ended in train_on(spec, tmp_path / "run", 2)] == [None, None]
    starts = [record["step"] for record in read(tmp_path / "run") if record["event"] == "start"]
    assert starts[2] == STEPS_PER_EPOCH
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_row_of_a_table(ham: Ham, tmp_path: Path) -> None:
    sweep = {
        "rows": {
            "Random": {"topology.name": "random"},
            "IMP": {"topology": {"name": "imp", "prune_fraction": 0.5}, "checks.events": {"prune": {"at_least": 1}}},
        },
        "columns": {"topology.sparsity": [0.5, 0.75]},
        "seeds": [0, 1],
    }
    path = write_config(tmp_path / "levels.yaml", schedule__epochs=1, sweep=sweep)
    assert command("sweep", path, "--out", tmp_path / "runs", "--jobs", 1) == 0
    assert "8 runs, 8 done" in ham("status", tmp_path / "runs/levels").out
    table = ham("table", tmp_path / "runs/levels").out
    words = " ".join(table.split())
    assert "Several trainings a run: IMP (2 to 3). FLOPs of training are those of all" in words
    assert "Random (" not in words.split("Several trainings")[1]
    done = [json.loads(path.read_text()) for path in sorted((tmp_path / "runs/levels").glob("imp-0.75-*/result.json"))]
    assert [run["steps"] for run in done] == [18, 18]
    assert all(run["training_flops_fraction"] > 1 for run in done)
