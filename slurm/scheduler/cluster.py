"""Commands of Slurm, and the cluster's configuration as `scontrol` prints it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping

from experiments.errors import UserError

from .environment import clean

ARRAY_SIZE = 1001
"""Slurm's own default of `MaxArraySize`."""

PATIENCE = 60.0
"""Seconds that a submission waits for the scheduler's answer before it is given up."""

_PATIENCE = 20.0
SILENT = (
    "unable to contact slurm controller",
    "unable to establish controller",
    "timed out",
    "connection re",
    "connect failure",
    "not connected",
    "temporarily",
    "zero bytes were transmitted",
    "did not answer",
)
"""Parts of messages, in lower case, that mean that the scheduler did not answer."""


def require(*names: str) -> None:
    """Check that commands of Slurm are installed.

    Raises:
        UserError: if one is not; the error names the first that is missing.
    """
    for name in names:
        if shutil.which(name) is None:
            text = f"there is no {name} on the PATH: call this where jobs are submitted, or use --cluster local"
            raise UserError(text, "--cluster slurm")


def ask(*command: str, patience: float = _PATIENCE) -> tuple[str, str | None]:
    """Run a command of Slurm.

    Returns:
        The output and None; or, if the command failed, its output so far and an error message.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=patience, check=False, env=clean()
        )
    except FileNotFoundError:
        return "", f"there is no {command[0]} on this machine"
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} did not answer in {patience:g} s"
    if done.returncode != 0:
        return done.stdout, words(done.stderr or done.stdout) or f"{command[0]} ended with code {done.returncode}"
    return done.stdout, None


def words(text: str) -> str:
    """Return the text that a command of Slurm printed, in one line and without the command's name."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for prefix in ("sbatch: ", "srun: ", "error: ", "fatal: "):
        lines = [line.removeprefix(prefix) for line in lines]
    return "; ".join(dict.fromkeys(lines))


def silent(text: str) -> bool:
    """Return whether an error message means that the scheduler did not answer, so that another try may help."""
    return any(sign in text.lower() for sign in SILENT)


def configuration() -> dict[str, str]:
    """Return the output of ``scontrol show config`` by key, or an empty mapping if the command fails."""
    output, problem = ask("scontrol", "show", "config")
    if problem:
        return {}
    pairs = (line.partition(" = ") for line in output.splitlines())
    return {key.strip(): value.strip() for key, middle, value in pairs if middle}


def array_size(settings: Mapping[str, str]) -> int:
    """Return the largest number of jobs per array: ``MaxArraySize``, or less by ``max_array_tasks``."""
    text = settings.get("MaxArraySize", "")
    tasks = re.search(r"\bmax_array_tasks=(\d+)", settings.get("SchedulerParameters", ""))
    size = int(text) if text.isdecimal() else ARRAY_SIZE
    return min(size, int(tasks[1])) if tasks else size
