"""``max_running`` and ``--limit`` hold over the whole sweep: arrays, classes of resources, submissions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slurm_plans import ACCEPTS, calls, cells, queued, scheduler

from experiments.config.sweep import Sweep
from experiments.config.yaml_text import dump
from slurm import submit
from slurm.array import ArrayPlan, Resources
from slurm.throttle import Earlier, throttled


def arrays(sizes: list[int]) -> list[ArrayPlan]:
    task = ()
    return [ArrayPlan(f"new-{n}", (task,) * size, Resources(1, 1, 60), 0, {}) for n, size in enumerate(sizes)]


def most_at_once(planned: list[ArrayPlan], earlier: list[Earlier]) -> int:
    """The most jobs that can run at once, whatever ends first: arrays that wait for one another count as one lane."""
    old = sum(one.used for one in earlier)
    behind = {one.job for one in earlier}
    lanes: dict[str, int] = {}
    lane_of: dict[str, str] = {}
    for array in planned:
        heads = [name for name in array.after if name not in behind]
        lane = lane_of[heads[0]] if heads else array.name
        lane_of[array.name] = lane
        lanes[lane] = max(lanes.get(lane, 0), min(array.width or len(array.tasks), len(array.tasks)))
    waits = bool(behind) and all(behind <= set(array.after) or lane_of[array.name] != array.name for array in planned)
    return max(old, sum(lanes.values())) if waits else old + sum(lanes.values())


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 5), st.booleans()), max_size=3),
)
def test_no_more_jobs_run_at_once_than_said(sizes: list[int], limit: int, before: list[tuple[int, int, bool]]) -> None:
    earlier = [Earlier(f"{10 + n}", left, width, waits) for n, (left, width, waits) in enumerate(before)]
    planned = throttled(arrays(sizes), limit, earlier)
    assert [array.tasks for array in planned] == [array.tasks for array in arrays(sizes)]
    old = sum(one.used for one in earlier)
    assert most_at_once(planned, earlier) <= max(limit, old)
    if any(one.waits for one in earlier):  # what waits may use more than what runs
        assert all(array.after for array in planned)
    for number, array in enumerate(planned):  # nothing waits for what comes later
        assert set(array.after) <= {one.name for one in planned[:number]} | {one.job for one in earlier}


def test_the_number_is_divided_by_the_work() -> None:
    assert [array.width for array in throttled(arrays([10, 90]), 10)] == [1, 9]
    assert [array.width for array in throttled(arrays([50, 50]), 4)] == [2, 2]
    assert [array.width for array in throttled(arrays([2, 2]), 10)] == [2, 2]
    assert [(array.width, array.after) for array in throttled(arrays([9, 9, 9]), 2)] == [
        *((1, ()), (1, ()), (1, ("new-0",)))
    ]
    assert [(array.width, array.after) for array in throttled(arrays([5, 5]), None)] == [(None, ()), (None, ())]


def test_a_later_submission_takes_what_is_left_or_waits() -> None:
    tail = [Earlier("7", left=3, width=4)]
    (one,) = throttled(arrays([1]), 4, tail)
    assert (one.width, one.after) == (1, ())
    (many,) = throttled(arrays([100]), 4, tail)  # one at a time would take longer than to wait for three
    assert (many.width, many.after) == (4, ("7",))
    full = [Earlier("7", left=40, width=3), Earlier("8", left=2, width=1)]
    assert [(one.width, one.after) for one in throttled(arrays([1, 1]), 4, full)] == [(1, ("7", "8"))] * 2
    unthrottled = [Earlier("7", left=5)]
    assert throttled(arrays([1]), 4, unthrottled)[0].after == ("7",)


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(dump({"max_running": 2}))
    wide = cells(tmp_path, 3, "resources.nodes=2", name="wide", row="Wide")
    return Sweep("table", None, None, None, [], {}, [*cells(tmp_path, 5), *wide])


def asked(fake: Path) -> list[list[str]]:
    """The throttle and the dependency of each script that was passed to sbatch."""
    found = []
    for path in sorted(fake.glob("script-*"), key=lambda path: int(path.name[7:])):
        lines = path.read_text().splitlines()
        found.append([line[8:] for line in lines if line.startswith(("#SBATCH --array", "#SBATCH --dependency"))])
    return found


KEEPS = f'cat "$1" > "$(dirname "$0")/script-$(wc -l < "$(dirname "$0")/sbatch.calls")"; {ACCEPTS}'


def test_classes_of_resources_and_resubmissions_share_it(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = scheduler(tmp_path, monkeypatch, sbatch=KEEPS)
    submit.submit(sweep, tmp_path / "runs", "mine.yaml")
    assert asked(fake) == [["--array=0-4%1"], ["--array=0-2%1"]]
    first = json.loads(next((tmp_path / "runs/table/submissions").glob("*.json")).read_text())["arrays"]
    assert [array["width"] for array in first] == [1, 1]
    lines = [queued("101_4", first[0]["name"]), queued("102_2", first[1]["name"], "RUNNING")]
    scheduler(tmp_path, monkeypatch, sbatch=KEEPS, squeue="cat <<'END'\n" + "\n".join(lines) + "\nEND")
    done = submit.resubmit(tmp_path / "runs/table", [cell.path for cell in sweep.cells])
    assert len(done.seen.under_way) == 2
    assert asked(fake)[2:] == [["--array=0-3%1", "--dependency=afterany:101:102"]] + [
        ["--array=0-1%1", "--dependency=afterany:101:102"]
    ]


def test_a_split_at_the_schedulers_limit_shares_it(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = scheduler(tmp_path, monkeypatch, sbatch=KEEPS, scontrol="echo 'MaxArraySize = 2'")
    submit.submit(sweep, tmp_path / "runs", "mine.yaml")
    assert asked(fake) == [
        *(["--array=0-1%1"], ["--array=0-1%1"], ["--dependency=afterany:101"]),
        *(["--array=0-1%1", "--dependency=afterany:102"], ["--dependency=afterany:103"]),
    ]


def test_a_dependency_of_the_users_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: Sweep) -> None:
    (tmp_path / "mine.yaml").write_text(dump({"max_running": 1, "sbatch": {"dependency": "afterok:77"}}))
    fake = scheduler(tmp_path, monkeypatch, sbatch=KEEPS)
    submit.submit(sweep, tmp_path / "runs", "mine.yaml")
    assert asked(fake) == [
        ["--array=0-4%1", "--dependency=afterok:77"],
        ["--array=0-2%1", "--dependency=afterok:77,afterany:101"],
    ]


def test_a_limit_counts_what_is_under_way(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = scheduler(tmp_path, monkeypatch)
    done = submit.submit(sweep, tmp_path / "runs", "default", limit=3)
    assert str(done) == (
        "3 runs in 3 jobs submitted (101); 0 have a result, 0 were under way; 5 are left for later calls, by --limit"
    )
    name = json.loads(next((tmp_path / "runs/table/submissions").glob("*.json")).read_text())["arrays"][0]["name"]
    lines = [queued(f"101_{n}", name) for n in (1, 2)]
    scheduler(tmp_path, monkeypatch, squeue="cat <<'END'\n" + "\n".join(lines) + "\nEND")
    again = submit.submit(sweep, tmp_path / "runs", "default", limit=3)
    assert ([array.runs for array in again.arrays], len(again.seen.under_way), again.seen.later) == ([1], 2, 5)
    assert submit.submit(sweep, tmp_path / "runs", "default", limit=1).jobs == []
    assert "0 of 8 runs in 0 jobs" in submit.dry_run(sweep, tmp_path / "runs", "default", limit=2)
    lost = [sweep.cells[0].path, sweep.cells[3].path, sweep.cells[4].path]
    folder = tmp_path / "runs/table"
    assert submit.resubmit(folder, lost, limit=2).seen.later == 3  # runs that were not lost count as well
    assert [array.runs for array in submit.resubmit(folder, lost, limit=4).arrays] == [2]
    assert len(calls(fake, "sbatch")) == 3
