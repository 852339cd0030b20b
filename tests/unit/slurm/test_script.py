"""The batch script: what reaches the task, what goes back into the queue and is charged, and the code of the job."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from slurm_plans import calls, install, profile_of

from slurm.scheduler.environment import LAUNCHED, NUMBERED
from slurm.script import setup

RUNNING = "JobId=12 JobState=RUNNING Reason=None Dependency=(null)"
CANCELLED = "JobId=12 JobState=COMPLETING Reason=None Dependency=(null)"
MINE = f"{RUNNING} Requeue=1 Restarts=0 BatchFlag=1"
LATER = f"{RUNNING} Requeue=1 Restarts=1 BatchFlag=1"
LIMIT = "JobId=12 JobState=COMPLETING Reason=TimeLimit Dependency=(null)"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compute node: its PATH holds what is installed there and nothing else."""
    folder = tmp_path / "node"
    install(folder, monkeypatch, sleep="")
    for name in ("tail", "rm", "bash", "sh"):
        (folder / name).symlink_to(shutil.which(name) or name)
    return folder


def end(
    node: Path, verdict: str | None, code: int, *, array: bool = True, restart: int = 0, said: str = "", **keys: Any
) -> tuple[int, str]:
    """Run a batch script whose task leaves a verdict and whose srun ends with a code; its own code and its errors."""
    folder = node.parent / "submission"
    lines = setup(profile_of(node.parent, **keys), Path("/snapshot"), folder, Path("/runs/table"))
    folder.mkdir(exist_ok=True)
    tell = "" if verdict is None else f'echo {verdict} > "$HAM_VERDICT"'
    script = "\n".join([*lines, f"echo {shlex.quote(said)} >&2", tell, f"(exit {code})"])
    env = {"PATH": str(node), "SLURM_JOB_ID": "13", "SLURM_JOB_NUM_NODES": "1", "SLURM_RESTART_COUNT": str(restart)}
    if array:
        env |= {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "4"}
    log = node.parent / "log"
    with log.open("w") as file:  # a file, as in a job
        done = subprocess.run(["bash", "-c", script], env=env, stderr=file, timeout=200, check=False)
    return done.returncode, log.read_text()


def left(node: Path, kind: str) -> list[str]:
    """What the batch script has left for the next start."""
    return [word for path in (node.parent / "submission").glob(f"13.*{kind}") for word in path.read_text().split()]


def scontrol(node: Path, says: str, requeue: int = 0) -> None:
    script = node / "scontrol"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {node}/scontrol.calls\n[ "$1" != requeue ] || exit {requeue}\necho "{says}"\n'
    )
    script.chmod(0o755)


@pytest.mark.parametrize(
    ("verdict", "code", "state", "ends", "requeued"),
    [
        ("0", 0, RUNNING, 0, False),
        ("0", 137, RUNNING, 0, False),  # rank 0 was done; srun killed another that took too long to end
        ("1", 1, RUNNING, 1, False),
        ("1", 143, RUNNING, 1, False),
        ("2", 2, RUNNING, 2, False),
        ("75", 75, RUNNING, 0, True),
        ("75", 137, RUNNING, 0, True),
        ("76", 76, RUNNING, 0, True),  # given time to end before it is preempted
        ("75", 75, CANCELLED, 0, False),
        ("76", 76, CANCELLED, 0, False),
        ("76", 76, LIMIT, 0, True),
        ("70", 70, RUNNING, 0, True),
        ("70", 70, MINE, 0, True),
        ("70", 70, LATER, 0, False),  # this shell lives on a node that was given up
        ("running", 137, RUNNING, 0, True),  # rank 0 was killed
        ("running", 137, CANCELLED, 0, False),
        ("running", 1, RUNNING, 0, True),  # rank 0 did not say 1: it has vanished
        ("running", 0, RUNNING, 0, True),  # rank 0 has vanished without a word
        (None, 127, RUNNING, 127, False),  # no Python: it would never get better
        (None, 126, RUNNING, 126, False),
        (None, 255, RUNNING, 255, False),  # no such container
        (None, 13, RUNNING, 13, False),
        (None, 1, RUNNING, 1, False),
        (None, 0, RUNNING, 1, False),  # nothing was done, so this is no success
        (None, 137, RUNNING, 0, True),  # killed before Python spoke
        (None, 143, RUNNING, 0, True),  # preempted, with time to end
        (None, 139, RUNNING, 0, True),
        (None, 253, RUNNING, 0, True),  # out of memory
        (None, 137, CANCELLED, 0, False),
        (None, 143, CANCELLED, 0, False),
    ],
)
def test_the_verdict_decides(node: Path, verdict: str | None, code: int, state: str, ends: int, requeued: bool) -> None:
    scontrol(node, state)
    assert end(node, verdict, code)[0] == ends
    assert ("requeue 12_4" in calls(node, "scontrol")) == requeued


@pytest.mark.parametrize(
    ("line", "ends"),
    [
        ("module load nosuch", 127),
        ("false  # a comment", 1),
        ("if true; then\n  (exit 7)\nfi", 7),
        ("cat <<'END' > /dev/null && false\nit's\nEND", 1),
        ("set -e", 0),
        ("[ -f nosuch ] || true", 0),
        ("export DATA=/x  # it's mine", 0),
    ],
)
def test_a_line_of_setup_that_fails_ends_the_job_and_is_named(node: Path, line: str, ends: int) -> None:
    scontrol(node, RUNNING)
    (node / "cat").symlink_to(shutil.which("cat") or "cat")
    code, said = end(node, "0", 0, setup=["true", line])
    assert code == ends
    last = f"a line of setup in the profile failed (exit code {ends}): {line}\nham: the task did not start"
    assert (last in said) == bool(ends)
    assert "requeue 12_4" not in calls(node, "scontrol")


@pytest.mark.parametrize(
    ("verdict", "code", "state", "charged"),
    [
        ("70", 70, RUNNING, True),
        ("running", 137, RUNNING, True),
        (None, 137, RUNNING, True),
        ("running", 137, LIMIT, True),  # came to no checkpoint in all its time
        ("75", 75, RUNNING, False),
        ("76", 76, LIMIT, False),
        (None, 143, RUNNING, False),
        ("running", 137, CANCELLED, False),  # ended by the scheduler: preempted, requeued, cancelled
        (None, 137, CANCELLED, False),
        ("70", 70, CANCELLED, False),
    ],
)
def test_a_start_is_charged_only_if_it_crashed(
    node: Path, verdict: str | None, code: int, state: str, charged: bool
) -> None:
    scontrol(node, state)
    end(node, verdict, code, restart=5)
    assert left(node, "crashes") == (["5"] if charged else [])


def test_a_task_that_dies_before_python_begins_is_tried_a_few_times(node: Path) -> None:
    scontrol(node, RUNNING)
    codes = [end(node, None, 137, restart=restart)[0] for restart in range(3)]
    assert codes == [0, 0, 137]
    assert left(node, "crashes") == ["0", "1", "2"]


def test_what_the_scheduler_ends_before_python_begins_goes_on(node: Path) -> None:
    scontrol(node, CANCELLED)
    assert [end(node, None, 137, restart=restart)[0] for restart in range(9)] == [0] * 9
    assert left(node, "verdict") == ["starting", "0", "9"]
    code, said = end(node, None, 137, restart=9, max_requeues=9)
    assert code == 1
    assert "this job was started 9 times in a row before Python could begin; max_requeues allows no more" in said


def test_a_start_that_the_scheduler_ended_during_setup_says_nothing_and_keeps_the_count(node: Path) -> None:
    """The killed line of `setup` is followed by an srun that is refused."""
    scontrol(node, "JobId=12 JobState=PENDING Reason=BeginTime")
    assert end(node, None, 1) == (0, "\n")
    assert left(node, "verdict") == ["starting", "0", "1"]


def test_the_first_word_of_python_ends_the_count(node: Path) -> None:
    scontrol(node, RUNNING)
    told = [None, None, "75", None, None]
    assert [end(node, verdict, 137, restart=restart)[0] for restart, verdict in enumerate(told)] == [0] * 5


def test_a_controller_that_does_not_answer_srun_is_made_good(node: Path) -> None:
    scontrol(node, RUNNING)
    said = "srun: error: Unable to confirm allocation for job 13: Unable to contact slurm controller (connect failure)"
    assert end(node, None, 1, said=said)[0] == 0
    assert "requeue 12_4" in calls(node, "scontrol")


def test_nothing_is_left_when_a_job_ends_for_good(node: Path) -> None:
    scontrol(node, RUNNING)
    end(node, "70", 70)
    assert (left(node, "verdict"), left(node, "crashes")) == ([], ["0"])
    end(node, "0", 0, restart=1)
    assert list((node.parent / "submission").iterdir()) == []


def test_staging_that_is_killed_is_made_good_and_staging_that_fails_is_not(node: Path) -> None:
    scontrol(node, RUNNING)
    staging = {"command": "true", "root": "/local"}
    for code, ends in ((7, 7), (137, 0)):
        (node / "srun").write_text(f"#!/bin/sh\nexit {code}\n")
        (node / "srun").chmod(0o755)
        assert end(node, None, 0, staging=staging)[0] == ends
    assert calls(node, "scontrol").count("requeue 12_4") == 1


def test_the_task_has_the_profiles_environment(node: Path) -> None:
    """Whatever the shell that submits, or a start-up file of the node's, has left there."""
    scontrol(node, RUNNING)
    mine = profile_of(node.parent, setup=["export MASTER_PORT=29500"])
    lines = setup(mine, Path("/snapshot"), node.parent, Path("/runs/table"))
    dirt = {f"{prefix}X": "1" for prefix in LAUNCHED} | dict.fromkeys(NUMBERED, "3")
    dirt |= {"SLURM_MEM_PER_CPU": "200", "SLURM_MEM_PER_NODE": "1024", "SLURM_JOB_ID": "13"}
    script = "\n".join([*lines, "trap - EXIT", "env"])
    (node / "env").symlink_to(shutil.which("env") or "env")
    done = subprocess.run(["bash", "-c", script], env={**dirt, "PATH": str(node)}, capture_output=True, text=True)
    names = {line.split("=")[0] for line in done.stdout.splitlines()}
    assert names & dirt.keys() == {"SLURM_MEM_PER_NODE", "SLURM_JOB_ID", "MASTER_PORT"}
    assert "MASTER_PORT=29500" in done.stdout


def test_a_job_without_array_has_its_own_number(node: Path) -> None:
    scontrol(node, RUNNING)
    assert end(node, "75", 75, array=False)[0] == 0
    assert calls(node, "scontrol") == ["show job --oneliner 13", "requeue 13"]


@pytest.mark.parametrize(("verdict", "ends"), [("75", 0), ("76", 0), ("70", 70)])
def test_without_scontrol_the_job_ends_and_says_how_to_go_on(node: Path, verdict: str, ends: int) -> None:
    code, said = end(node, verdict, int(verdict))
    assert code == ends
    assert "ham status /runs/table --resubmit lost" in said


def test_a_requeue_that_is_refused_is_tried_again_and_then_told(node: Path) -> None:
    scontrol(node, RUNNING, requeue=1)
    code, said = end(node, "75", 75)
    assert code == 0
    assert calls(node, "scontrol").count("requeue 12_4") == 4
    assert "ham status /runs/table --resubmit lost" in said


def test_a_profile_may_forbid_it(node: Path) -> None:
    scontrol(node, RUNNING)
    code, said = end(node, "75", 75, requeue=False)
    assert code == 0
    assert calls(node, "scontrol") == []
    assert "--resubmit lost" in said


def test_the_snapshot_comes_before_what_the_setup_puts_on_the_path(node: Path) -> None:
    lines = setup(profile_of(node, setup=["export PYTHONPATH=/theirs"]), Path("/snap shot"), node, Path("/runs"))
    script = "\n".join([*lines, 'echo "$PYTHONPATH $PYTHONSAFEPATH"', "trap - EXIT"])
    env = {**os.environ, "SLURM_JOB_ID": "13"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "/snap shot:/theirs 1\n"
