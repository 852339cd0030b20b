"""The environment in which commands of Slurm are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from slurm_plans import cells, install

from experiments.config.sweep import Sweep
from slurm import submit
from slurm.scheduler import cluster, queue
from slurm.scheduler.environment import LAUNCHED, NUMBERED, clean, cleaned

OURS = {
    "PATH": "/bin",
    "HOME": "/root",
    "WANDB_API_KEY": "k",
    "OMP_NUM_THREADS": "1",
    "SLURM_CONF": "/etc/slurm.conf",
    "SLURM_CLUSTERS": "big",
    "TMPDIR": "/scratch",
    "CUDA_VISIBLE_DEVICES": "0",
}
THEIRS = {
    **{f"{prefix}ANYTHING": "1" for prefix in LAUNCHED},
    **dict.fromkeys(NUMBERED, "1"),
    **dict.fromkeys(
        ("SLURM_MEM_PER_CPU", "SLURM_EXPORT_ENV", "SLURM_PROCID", "SLURMD_NODENAME", "SBATCH_TIMELIMIT"), "1"
    ),
    **dict.fromkeys(("SQUEUE_STATES", "SINFO_FORMAT", "SACCT_FORMAT", "JPY_PARENT_PID"), "1"),
    "SBATCH_EXPORT": "NONE",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}


def test_what_is_about_another_job_is_left_out() -> None:
    assert clean({**OURS, **THEIRS}) == OURS


def test_inside_a_job_so_is_what_the_job_was_given() -> None:
    inside = {**OURS, **THEIRS, "SLURM_JOB_ID": "7"}
    assert OURS.keys() - clean(inside).keys() == {"TMPDIR", "CUDA_VISIBLE_DEVICES"}


def test_a_block_is_clean_and_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    before = dict(os.environ)
    with cleaned():
        assert "SBATCH_EXPORT" not in os.environ
        assert os.environ["PATH"] == before["PATH"]
    assert dict(os.environ) == before


def test_no_command_of_slurm_sees_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submission, and every question to the scheduler."""
    tell = f'env -0 > "{tmp_path}/${{0##*/}}.env"; '
    answers = {"sbatch": "echo Submitted batch job 101", "scontrol": "echo 'MaxArraySize = 1001'"}
    commands = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol", "sinfo")
    install(tmp_path / "bin", monkeypatch, **{name: tell + answers.get(name, "") for name in commands})
    for name, value in {**THEIRS, "SLURM_CONF": "/etc/slurm.conf"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    submit.submit(Sweep("table", None, None, None, [], {}, cells(tmp_path, 1)), tmp_path / "runs", "default")
    queue.queue(["101"])
    queue.history(["101"])
    queue.cancel(["101"])
    cluster.ask("sinfo")
    for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo"):
        seen = dict(pair.split("=", 1) for pair in (tmp_path / f"{name}.env").read_text().split("\0") if pair)
        assert seen["SLURM_CONF"] == "/etc/slurm.conf"
        assert not (seen.keys() & THEIRS.keys()) - {"SLURM_TIME_FORMAT"}, name
    assert os.environ["SBATCH_EXPORT"] == "NONE"
