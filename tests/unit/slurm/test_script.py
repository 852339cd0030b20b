"""The last word of the batch script: what goes back into the queue, and the code the job ends with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from slurm_plans import calls, install, profile_of

from slurm.script import setup

RUNNING = "JobId=12 JobState=RUNNING Reason=None Dependency=(null)"
CANCELLED = "JobId=12 JobState=COMPLETING Reason=None Dependency=(null)"
MINE = f"{RUNNING} Requeue=1 Restarts=2 BatchFlag=1"
LATER = f"{RUNNING} Requeue=1 Restarts=3 BatchFlag=1"
LIMIT = "JobId=12 JobState=COMPLETING Reason=TimeLimit Dependency=(null)"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compute node: its PATH holds what is installed there and nothing else."""
    folder = tmp_path / "node"
    install(folder, monkeypatch, sleep="")
    for name in ("cat", "rm", "bash", "sh"):
        (folder / name).symlink_to(shutil.which(name) or name)
    return folder


def end(node: Path, verdict: str | None, code: int, *, array: bool = True, **keys: Any) -> tuple[int, str]:
    """Run a batch script whose task leaves a verdict and whose srun ends with a code; its own code and its errors."""
    profile = profile_of(node.parent, **keys)
    lines = setup(profile, Path("/snapshot"), node.parent / "submission", Path("/runs/table"))
    (node.parent / "submission").mkdir(exist_ok=True)
    tell = "" if verdict is None else f'echo {verdict} > "$HAM_VERDICT"'
    script = "\n".join([*lines, tell, f"(exit {code})"])
    env = {"PATH": str(node), "SLURM_JOB_ID": "13", "SLURM_RESTART_COUNT": "2", "SLURM_JOB_NUM_NODES": "1"}
    if array:
        env |= {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "4"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=200, check=False)
    assert list((node.parent / "submission").iterdir()) == []
    return done.returncode, done.stderr


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
        ("70", 70, LATER, 70, False),  # this shell lives on a node that was given up
        ("running", 137, RUNNING, 0, True),  # rank 0 was killed
        ("running", 137, CANCELLED, 0, False),
        ("running", 1, RUNNING, 1, False),
        ("running", 0, RUNNING, 0, True),  # rank 0 has vanished without a word
        (None, 127, RUNNING, 127, False),  # no Python: it would never get better
        (None, 1, RUNNING, 1, False),
    ],
)
def test_the_verdict_decides(node: Path, verdict: str | None, code: int, state: str, ends: int, requeued: bool) -> None:
    scontrol(node, state)
    assert end(node, verdict, code)[0] == ends
    assert ("requeue 12_4" in calls(node, "scontrol")) == requeued


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
    lines = setup(profile_of(node.parent, setup=["export PYTHONPATH=/theirs"]), Path("/snap shot"), node, Path("/runs"))
    script = "\n".join([*lines, 'echo "$PYTHONPATH $PYTHONSAFEPATH"', "trap - EXIT"])
    env = {**os.environ, "SLURM_JOB_ID": "13"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "/snap shot:/theirs 1\n"
