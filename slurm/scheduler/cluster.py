"""What a cluster says of itself, by `scontrol` and the commands on the PATH."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping

from experiments.errors import UserError

ARRAY_SIZE = 1001
"""Slurm's own default of `MaxArraySize`."""

_PATIENCE = 20.0
_SILENT = (
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


def require(*names: str) -> None:
    """Make sure that commands of Slurm are there.

    Raises:
        UserError: naming the first that is not.
    """
    for name in names:
        if shutil.which(name) is None:
            text = f"there is no {name} on the PATH: call this where jobs are submitted, or use --cluster local"
            raise UserError(text, "--cluster slurm")


def ask(*command: str, patience: float = _PATIENCE) -> tuple[str, str | None]:
    """Run a command of the scheduler's.

    Returns:
        Its output and None, or what it had and what it said instead.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=patience, check=False)
    except FileNotFoundError:
        return "", f"there is no {command[0]} on this machine"
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} did not answer in {patience:g} s"
    if done.returncode != 0:
        return done.stdout, words(done.stderr or done.stdout) or f"{command[0]} ended with code {done.returncode}"
    return done.stdout, None


def words(text: str) -> str:
    """What a command of the scheduler's wrote, in one line without its own name."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for prefix in ("sbatch: ", "srun: ", "error: ", "fatal: "):
        lines = [line.removeprefix(prefix) for line in lines]
    return "; ".join(dict.fromkeys(lines))


def silent(text: str) -> bool:
    """Whether what the scheduler said means that it did not answer, so that asking again may help."""
    return any(sign in text.lower() for sign in _SILENT)


def configuration() -> dict[str, str]:
    """What ``scontrol show config`` prints, by key; empty where it cannot be asked."""
    output, problem = ask("scontrol", "show", "config")
    if problem:
        return {}
    pairs = (line.partition(" = ") for line in output.splitlines())
    return {key.strip(): value.strip() for key, middle, value in pairs if middle}


def array_size(settings: Mapping[str, str]) -> int:
    """Jobs an array may have."""
    text = settings.get("MaxArraySize", "")
    return int(text) if text.isdecimal() else ARRAY_SIZE
