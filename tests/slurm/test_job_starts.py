"""What a job inherits, what strikes it before Python speaks, and what is told of a job that cannot start."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from clusters import HAM, TABLE, Cluster, attempts, ledger, logs, planned, prepare, records, wait_for
from dirt import DIRT

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

SHORT: dict[str, Any] = {"schedule": {"epochs": 1}}
ONE: dict[str, Any] = {**SHORT, "sweep": {"rows": {"Dense": {}}, "seeds": [0]}}


def test_twelve_runs_from_a_shell_full_of_another_jobs_variables(cluster: Cluster, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    profile = {"runs_per_job": 2, "setup": [f"env > {seen}-$SLURM_ARRAY_TASK_ID"]}
    prepare(tmp_path, profile, **SHORT, sweep={**TABLE, "seeds": list(range(6))})
    sweep = cluster.submit(tmp_path)
    (array,) = records(sweep)[0]["arrays"]
    job = cluster.ask("scontrol", "show", "job", "--oneliner", f"{array['job']}_0")
    for right in ("Partition=main", "Requeue=1", "TimeLimit=00:15:00", "MinMemoryNode=1G"):
        assert right in job
    cluster.wait_until_done(sweep)
    assert len(planned(sweep)) == 12
    assert all(len(attempts(run)) == 1 for run in planned(sweep))
    for task in range(6):
        inherited = set(Path(f"{seen}-{task}").read_text().splitlines())
        assert not inherited & {f"{name}={value}" for name, value in DIRT.items()}


def test_from_inside_a_job_and_with_nothing_exported(cluster: Cluster, tmp_path: Path) -> None:
    """The outer job asks for its memory in another way, and the inner one for an empty environment."""
    prepare(tmp_path, {"sbatch": {"export": "NONE"}}, **ONE)
    line = f"{HAM} sweep table.yaml --cluster slurm --profile test"
    options = ("-n1", "--mem-per-cpu=200M", "--export=ALL,RANK=0,WORLD_SIZE=2,MASTER_ADDR=n1", f"--chdir={tmp_path}")
    cluster.ask("sbatch", *options, f"--output={tmp_path}/outer", "--wrap", line)
    sweep = tmp_path / "runs/table"
    wait_for(lambda: (tmp_path / "outer").exists() and "submitted" in (tmp_path / "outer").read_text(), "the outer job")
    cluster.wait_until_done(sweep)
    assert [begun["ranks"] for run in planned(sweep) for begun in ledger(run, "start")] == [1]


WAITS = """\
#!/bin/bash
echo $$ > {folder}/task-$SLURM_ARRAY_TASK_ID-${{SLURM_RESTART_COUNT:-0}}
while [ -e {folder}/hold-$SLURM_ARRAY_TASK_ID ]; do sleep 0.1; done
exec {python} "$@"
"""
SETUP = """\
echo $$ > {folder}/shell-$SLURM_ARRAY_TASK_ID-${{SLURM_RESTART_COUNT:-0}}
while [ -e {folder}/setup-$SLURM_ARRAY_TASK_ID ]; do sleep 0.1; done"""
KILLED, TERMINATED, REQUEUED, SHELL = range(4)


def test_what_strikes_before_python_speaks_is_made_good(cluster: Cluster, tmp_path: Path) -> None:
    """A kill, a preemption with time to end, three requeues during `setup`, and a kill of the batch script."""
    python = tmp_path / "slow-python"
    python.write_text(WAITS.format(folder=tmp_path, python=sys.executable))
    python.chmod(0o755)
    profile = {"python": str(python), "setup": SETUP.format(folder=tmp_path).splitlines()}
    for gate in (f"hold-{KILLED}", f"hold-{TERMINATED}", f"setup-{REQUEUED}", f"hold-{SHELL}"):
        (tmp_path / gate).touch()
    prepare(tmp_path, profile, **SHORT, sweep={"rows": {"Dense": {}}, "seeds": [KILLED, TERMINATED, REQUEUED, SHELL]})
    sweep = cluster.submit(tmp_path)
    (array,) = records(sweep)[0]["arrays"]

    def number(what: str, task: int, start: int) -> int:
        path = tmp_path / f"{what}-{task}-{start}"
        wait_for(lambda: path.exists() and path.read_text().strip(), path.name)
        return int(path.read_text())

    os.kill(number("task", KILLED, 0), signal.SIGKILL)
    number("task", TERMINATED, 0)
    cluster.ask("scancel", "--signal=TERM", f"{array['job']}_{TERMINATED}")
    shell, _ = number("shell", SHELL, 0), number("task", SHELL, 0)
    os.kill(shell, signal.SIGKILL)
    for task in (KILLED, TERMINATED, SHELL):
        (tmp_path / f"hold-{task}").unlink()
    for start in range(3):
        number("shell", REQUEUED, start)
        cluster.ask("scontrol", "requeue", f"{array['job']}_{REQUEUED}")
    (tmp_path / f"setup-{REQUEUED}").unlink()
    cluster.wait_until_done(sweep)
    runs = {int(run.name.rpartition("-s")[2]): run for run in planned(sweep)}
    assert attempts(runs[KILLED])[0]["restarts"] == 1
    assert [attempt["restarts"] for attempt in attempts(runs[REQUEUED])] == [3]
    for task in (TERMINATED, SHELL):
        assert attempts(runs[task])[-1]["restarts"] == 1, logs(sweep)


@pytest.mark.parametrize(
    ("profile", "code", "says"),
    [
        ({"python": "/nowhere/python"}, "127", "/nowhere/python"),
        ({"srun_args": ["--export=NONE"]}, "", "execve(): sh: "),  # its code depends on what PATH leads to
        ({"srun_args": ["--mem-per-cpu=1G", "--mem=1G"]}, "1", "srun: fatal: --mem"),
    ],
)
def test_a_job_that_cannot_start_says_why(
    cluster: Cluster, tmp_path: Path, profile: dict[str, Any], code: str, says: str
) -> None:
    prepare(tmp_path, profile, **ONE)
    sweep = cluster.submit(tmp_path)
    wait_for(lambda: set(cluster.states(sweep).values()) == {"FAILED"}, "the end of the job", 60)
    called = cluster.ham("status", sweep, "--json", folder=tmp_path)
    (run,) = json.loads(called.stdout)["runs"]
    assert (run["state"], run["restarts"]) == ("lost", 0)
    assert run["note"].startswith(f"FAILED, exit code {code}")
    assert says in run["note"]
