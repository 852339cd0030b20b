"""Submissions accepted in part: what runs is said, nothing in the queue is forgotten, the command goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from slurm_plans import ACCEPTS, calls, cells, queued, record, scheduler

from experiments.cli import cluster as commands
from experiments.config.sweep import Sweep
from experiments.errors import Busy, SuiteError, UserError
from results.progress.status import status
from slurm import records, submit
from slurm.scheduler import cluster
from slurm.send import _limit

POLICY = (
    "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)
# accepts as many jobs as the file `room` says, as slurmctld counts them: an array as a whole or not at all
ROOM = r"""
jobs=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$1"); jobs=$((${jobs:-0} + 1))
room=$(cat "$(dirname "$0")/room")
refused() { echo "sbatch: error: AssocMaxSubmitJobLimit" >&2; echo "sbatch: error: POLICY" >&2; exit 1; }
[ "$jobs" -le "$room" ] || refused
echo $((room - jobs)) > "$(dirname "$0")/room"
""".replace("POLICY", POLICY)


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "PATIENCE", 2.0)
    wide = cells(tmp_path, 3, "resources.nodes=2", name="wide", row="Wide")
    return Sweep("table", None, None, None, [], {}, [*cells(tmp_path, 5), *wide])


@pytest.mark.parametrize(("room", "jobs"), [(3, [2, 1]), (5, [5]), (7, [5, 1, 1])])
def test_what_fits_a_limit_is_submitted_and_the_rest_is_said(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, jobs: list[int]
) -> None:
    fake = scheduler(tmp_path, monkeypatch, sbatch=ROOM + ACCEPTS)
    (fake / "room").write_text(str(room))
    with pytest.raises(SuiteError) as caught:
        submit.submit(sweep, tmp_path / "runs", "default")
    said = str(caught.value)
    assert caught.value.exit_code == 1
    assert f"{room} runs in {room} jobs submitted (" in said
    assert "AssocMaxSubmitJobLimit" in said
    assert f"goes on with the {8 - room} runs that were not accepted" in said
    arrays = record(tmp_path / "runs")["arrays"]
    assert [len(array["tasks"]) for array in arrays] == jobs
    assert all(array["job"] for array in arrays)
    lines = [queued(f"{one['job']}_{n}", one["name"]) for one in arrays for n in range(len(one["tasks"]))]
    scheduler(tmp_path, monkeypatch, sbatch=ACCEPTS, squeue="cat <<'END'\n" + "\n".join(lines) + "\nEND")
    assert status(tmp_path / "runs/table").counts() == {"pending": room, "never submitted": 8 - room}
    again = submit.submit(sweep, tmp_path / "runs", "default")
    assert sum(array.runs for array in again.arrays) == 8 - room


def test_a_limit_that_is_reached_already_is_no_mistake_of_the_users(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = scheduler(tmp_path, monkeypatch, sbatch=ROOM + ACCEPTS)
    (fake / "room").write_text("0")
    with pytest.raises(SuiteError, match="nothing was submitted: the same command, given again later, goes") as caught:
        submit.submit(sweep, tmp_path / "runs", "default")
    assert caught.value.exit_code == 1
    assert list((tmp_path / "runs/table/submissions").iterdir()) == []


def test_halves_of_a_throttled_array_share_its_throttle(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeps = 'cp "$1" "$(dirname "$0")/script-$(wc -l < "$(dirname "$0")/sbatch.calls")";'
    # only arrays of two
    some = ROOM.replace('"$jobs" -le "$room"', '"$jobs" -le 2').replace("echo $((room - jobs))", "#")
    fake = scheduler(tmp_path, monkeypatch, sbatch=keeps + some + ACCEPTS)
    (fake / "room").write_text("0")
    (tmp_path / "mine.yaml").write_text("max_running: 2\n")
    done = submit.submit(sweep, tmp_path / "runs", "mine.yaml")
    assert sum(array.runs for array in done.arrays) == 8
    lanes = [array.after for array in done.arrays]
    names = [array.name for array in done.arrays]
    heads = [name for name, after in zip(names, lanes, strict=True) if not after]
    assert len(heads) == 2
    assert all(array.width == 1 for array in done.arrays)
    for array in done.arrays:
        waited = {dict(zip(names, done.jobs, strict=True))[name] for name in array.after}
        script = next(path for path in fake.glob("script-*") if f"--job-name={array.name}\n" in path.read_text())
        assert all(f"--dependency=afterany:{job}" in script.read_text() for job in waited)


def test_a_job_without_a_number_is_withdrawn(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when something between here and the scheduler changes the words of sbatch."""
    takes = 'sed -n "s/^#SBATCH --job-name=//p" "$1" > "$(dirname "$0")/name"; echo welcome to the cluster'
    fake = scheduler(tmp_path, monkeypatch, sbatch=takes, scancel='rm "$(dirname "$0")/name"')
    line = queued("101_0", "NAME")
    (fake / "squeue").write_text(
        f'#!/bin/sh\necho "$@" >> {fake}/squeue.calls\n'
        f"[ ! -e {fake}/name ] || sed \"s/NAME/$(cat {fake}/name)/\" <<'END'\n{line}\nEND\n"
    )
    with pytest.raises(UserError, match="Could not make sense of sbatch output"):
        submit.submit(sweep, tmp_path / "runs", "default")
    assert calls(fake, "scancel") == ["101_0"]
    assert list((tmp_path / "runs/table/submissions").iterdir()) == []


def test_a_disk_that_fills_up_forgets_no_job(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is in the queue when its pickles cannot be put in place."""
    scheduler(tmp_path, monkeypatch)
    monkeypatch.setattr("submitit.core.utils.JobPaths.move_temporary_file", _full)
    with pytest.raises(OSError, match="No space"):
        submit.submit(sweep, tmp_path / "runs", "default")
    (array,) = record(tmp_path / "runs")["arrays"]
    assert array["job"] is None
    assert json.dumps(array["name"])[1:].startswith("ham-table-")


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("said", "is_one"),
    [
        (f"AssocMaxSubmitJobLimit; {POLICY}", True),
        (f"QOSMaxSubmitJobPerUserLimit; {POLICY}", True),
        (f"AssocGrpSubmitJobsLimit; {POLICY}", True),
        (POLICY, True),
        (f"AssocMaxWallDurationPerJobLimit; {POLICY}", False),
        (f"QOSMaxNodePerJobLimit; {POLICY}", False),
        ("Batch job submission failed: Invalid account or account/partition combination specified", False),
    ],
)
def test_limits_of_number_are_told_from_others(said: str, is_one: bool) -> None:
    assert _limit(said) is is_one


def test_a_cancellation_waits_for_a_submission_under_way(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two arrays it would find the first, and the other would be sent afterwards."""
    fake = scheduler(tmp_path, monkeypatch)
    submit.submit(sweep, tmp_path / "runs", "default")
    folder = tmp_path / "runs/table"
    lines = [queued(f"{one['job']}_0", one["name"]) for one in record(tmp_path / "runs")["arrays"]]
    scheduler(tmp_path, monkeypatch, squeue="cat <<'END'\n" + "\n".join(lines) + "\nEND")
    monkeypatch.setattr(records, "PATIENCE", 0.2)
    with records.alone(folder), pytest.raises(Busy):
        commands.cancel(folder)
    assert calls(fake, "scancel") == []
    commands.cancel(folder)
    assert len(calls(fake, "scancel")) == 1
