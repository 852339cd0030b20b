"""Hours that were used, worked out by hand from sacct's lines and from what attempts recorded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from results.progress import hours as reader
from results.progress.hours import Use, hours, to_json, total
from results.progress.hours_text import render
from slurm.scheduler import usage
from slurm.scheduler.usage import JobUse, parse_usage

# three starts of one requeued task, one that still waits, an array that waits, a step, and a job that is no array
SACCT = """\
70_0|ham-t-1-0|600|8|billing=8,cpu=8,gres/gpu:a100=2,gres/gpu=2,mem=16G,node=2
70_0|ham-t-1-0|1200|8|billing=8,cpu=8,gres/gpu:a100=2,gres/gpu=2,mem=16G,node=2
70_0|ham-t-1-0|0|0|
70_1|ham-t-1-0|3600|4|cpu=4,gres/gpu:v100=1,mem=16G,node=1
70_[2-5%3]|ham-t-1-0|0|0|
70_1.batch|batch|3600|4|cpu=4
71|ham-t-1-1|1800|1|cpu=1,mem=16G,node=1
"""


def test_each_start_of_a_requeued_job_counts() -> None:
    assert parse_usage(SACCT) == [
        JobUse("70_0", "ham-t-1-0", 600, 8, 2),
        JobUse("70_0", "ham-t-1-0", 1200, 8, 2),
        JobUse("70_1", "ham-t-1-0", 3600, 4, 1),
        JobUse("71", "ham-t-1-1", 1800, 1, 0),
    ]


def test_sacct_is_asked_for_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def ask(*command: str) -> tuple[str, None]:
        asked.append(command)
        return SACCT, None

    monkeypatch.setattr(usage.cluster, "ask", ask)
    assert len(usage.used(["70_0", "70_1", "71"])[0]) == 4
    assert asked == [("sacct", "-nPXD", "-j", "70,71", "-o", "JobID,JobName,ElapsedRaw,AllocCPUS,AllocTRES")]
    assert usage.used([]) == ([], None)
    assert len(asked) == 1


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def attempt(run: Path, number: int, start: float, end: float | None = None, touched: float | None = None, **more: Any):
    record = {"attempt": number, "pid": 1, "host": "n0", "job": None, "ranks": 1, "time": start, **more}
    path = run / "attempts" / f"{number:04}.json"
    write(path, record if end is None else {**record, "ended": end, "reason": "stopped"})
    if touched is not None:
        os.utime(path, (touched, touched))


def table(folder: Path, tasks: list[list[str]], *names: str) -> Path:
    """A sweep of one row per run, all submitted: array 70, and job 71 for the last task."""
    cells = [{"row": name, "column": {}, "seed": 0, "identity": "", "path": name} for name in names]
    write(folder / "sweep.json", {"name": "t", "cells": cells})
    arrays = [
        {"name": "ham-t-1-0", "job": "70", "tasks": tasks[:-1]},
        {"name": "ham-t-1-1", "job": "71", "tasks": tasks[-1:]},
    ]
    write(folder / "submissions/1.json", {"id": "1", "time": 1.0, "profile": "p", "snapshot": "s", "arrays": arrays})
    return folder


def answer(monkeypatch: pytest.MonkeyPatch, output: str, problem: str | None = None) -> None:
    monkeypatch.setattr(reader, "used", lambda ids: (list(ids) and parse_usage(output), problem))


def test_accounting_by_run_row_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, SACCT + "70_0|somebody-elses|9999|64|cpu=64\n")
    sweep = table(tmp_path / "t", [["a"], ["b", "c"], ["d"]], "a", "b", "c", "d")
    attempt(sweep / "a", 1, 1000.0, 1500.0, job="70_0", cpus=8)  # within its job
    attempt(sweep / "d", 1, 1000.0, 1900.0, job="71", cpus=1)
    attempt(sweep / "d", 2, 5000.0, 5360.0, cpus=2, gpus=1)  # by hand, after the job
    report = hours(sweep)
    by_name = {one.run.path.name: total([one]) for one in report.runs}
    assert (by_name["a"].starts, by_name["a"].hours) == (2, 0.5)
    assert (by_name["a"].cpu_hours, by_name["a"].gpu_hours) == (4.0, 1.0)  # 8 CPUs and 2 GPUs, half an hour
    for name in ("b", "c"):  # half of 4 CPUs and of one GPU
        assert (by_name[name].hours, by_name[name].cpu_hours, by_name[name].gpu_hours) == (1.0, 2.0, 0.5)
    assert (by_name["d"].starts, by_name["d"].sources) == (2, ("accounting", "attempts"))
    assert by_name["d"].cpu_hours == pytest.approx(0.5 + 0.2)
    assert by_name["d"].gpu_hours == pytest.approx(0.1)
    whole = total(report.runs)
    assert (whole.runs, whole.done, whole.starts) == (4, 0, 6)
    assert whole.gpu_hours == pytest.approx(1 + 0.5 + 0.5 + 0.1)
    value = to_json(report)
    assert [row["row"] for row in value["rows"]] == ["a", "b", "c", "d"]
    assert sum(row["cpu_hours"] for row in value["rows"]) == pytest.approx(value["total"]["cpu_hours"])
    assert sum(run["gpu_hours"] for run in value["runs"]) == pytest.approx(value["total"]["gpu_hours"])
    text = render(report, each=True)
    assert text.splitlines()[0].split() == ["t", "runs", "starts", "hours", "GPU-hours", "CPU-hours"]
    assert ["all", "4", "6", "3.1", "2.1", "8.7"] in [line.split() for line in text.splitlines()]
    assert "for 1 of 4 runs, in whole or in part, what the runs recorded of themselves" in text


def test_without_accounting_attempts_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "", "Slurm accounting storage is disabled")
    sweep = table(tmp_path / "t", [["a", "b"], ["c"]], "a", "b", "c")
    attempt(sweep / "a", 1, 1000.0, 4600.0, job="70_0", cpus=4, gpus=1)
    attempt(sweep / "c", 1, 1000.0, 2800.0, job="71", ranks=2)  # a version that recorded neither
    a, b, c = hours(sweep).runs
    assert a.uses == (Use(3600.0, 2.0, 0.5, "attempts"),)  # half of the job that two runs share
    assert b.uses == ()
    assert c.uses == (Use(1800.0, 2.0, 0.0, "attempts"),)
    assert "sacct says: Slurm accounting storage is disabled" in render(hours(sweep))


def ledger(run: Path, *lines: tuple[int, str, float]) -> None:
    entries = [{"attempt": number, "event": event, "step": 1, "time": when} for number, event, when in lines]
    run.mkdir(parents=True, exist_ok=True)
    (run / "ledger.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def seconds(run: Path, now: float = 9000.0) -> list[float]:
    return [length for _, length in reader.spans(run, now)]


def test_an_attempt_that_was_killed_lasts_until_its_last_sign_of_life(tmp_path: Path) -> None:
    attempt(tmp_path, 1, 1000.0, touched=1150.0)
    attempt(tmp_path, 2, 2000.0, touched=9e8)  # a copied folder: times of files are those of the copy
    attempt(tmp_path, 3, 3000.0, touched=9e8)
    ledger(tmp_path, (1, "start", 1010.0), (1, "checkpoint", 1100.0), (2, "lost", 3001.0), (1, "lost", 2001.0))
    (tmp_path / "heartbeat").write_text("3 5 60 3080.00")
    assert seconds(tmp_path) == [150.0, 1000.0, 80.0]  # the second at most until the third began


def test_an_attempt_that_lives_lasts_until_now(tmp_path: Path) -> None:
    from experiments.rundir import attempts

    held = attempts.claim(tmp_path)
    assert seconds(tmp_path, held.owner["time"] + 30) == [30.0]
    held.end("done")
    assert seconds(tmp_path, held.owner["time"] + 3000)[0] < 30


def test_what_nobody_has_started_has_used_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "")
    sweep = table(tmp_path / "t", [["a"]], "a")
    (sweep / "a" / "attempts").mkdir(parents=True)
    (sweep / "a" / "attempts" / "0001.json").write_text("{")  # damaged
    report = hours(sweep)
    assert total(report.runs).starts == 0
    assert "0 of 1 runs are done; nothing was started" in render(report)
