"""Profiles: YAML files with the settings of one cluster. ``profiles/default.yaml`` lists every key and its default."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from experiments.config.problems import Problem, complain, validate
from experiments.config.schema import Hours, Line, Positive, Section, Text
from experiments.config.yaml_text import read_mapping, shown
from experiments.errors import UserError, nearest

SUFFIX = ".yaml"
DEFAULT = "default"
_OWN_KEYS = {"cpus-per-task": "cpus_per_rank", "ntasks-per-node": "ranks_per_node", "time": "hours"}
_OWN_KEYS |= {"signal": "signal_seconds", "no-requeue": "requeue", "array": "max_running", "ntasks": "ranks_per_node"}
_OWN_KEYS |= dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task"), "gpus_per_rank and gpu_type")
_OWN_KEYS |= {key: key for key in ("account", "constraint", "nodes", "partition", "qos", "requeue", "reservation")}
_SET = ("chdir", "error", "job-name", "open-mode", "output")
_NO_NUMBER = ("help", "parsable", "quiet", "test-only", "usage", "version", "wait")
REFUSED = {
    **{key: f"has a key of its own: write {own}" for key, own in _OWN_KEYS.items()},
    **dict.fromkeys(_SET, "is set by the suite, which relies on it; remove it"),
    **dict.fromkeys(_NO_NUMBER, "would keep the job's number from the suite, which asks sbatch for it; remove it"),
    "clusters": "would send jobs where squeue does not look; submit on that cluster",
    "wrap": "would replace the suite's batch script; write shell lines under setup",
}
"""Parameters of sbatch that a profile cannot set under `sbatch`, and what to do instead."""


class StagingSpec(Section):
    """Staging of data: a copy on the node that is made before the task starts.

    Attributes:
        command: Shell command, run once per node.
        root: Folder that replaces ``data.root`` in the job; may contain variables of the job, such as ``$TMPDIR``.
    """

    command: Text
    root: Text


class Profile(Section):
    """The settings of a cluster, or of a part of one. None leaves a choice to the scheduler or to `setup`.

    Attributes:
        nodes: Nodes per run. ``resources.nodes`` of a configuration overrides it; so do the other keys of that section.
        ranks_per_node: Ranks (processes) per node.
        hours: Time limit of one job. A longer run is resumed by the next job.
        gpus_per_rank: GPUs per rank, 0 or 1.
        gpu_type: GPU type as the scheduler names it.
        mem_per_rank_gb: Memory per rank in GiB.
        signal_seconds: Seconds between the scheduler's warning and the end of a job, for writing a checkpoint.
        setup: Shell commands that run in the job before Python, each complete by itself; if one fails, so does the job.
        srun_args: Arguments of srun, such as those of a container.
        python: Command that starts Python in the job; None is the interpreter that submits.
        staging: Staging of data, or None.
        requeue: Whether a job that was stopped or that crashed requeues itself.
        max_restarts: Number of crashes in a row without a new checkpoint after which a run counts as failed.
        max_requeues: The same for starts of its job, however they ended.
        max_running: Jobs of a sweep that may run at the same time, over all its submissions.
        runs_per_job: Runs that share the rank of one job; a run of several ranks always has a job of its own.
        mail: Whether Slurm sends an e-mail when all jobs of a sweep are over: an address, or true for the account's.
        sbatch: Further parameters of sbatch by their long names, such as ``{mail-type: FAIL}``.
    """

    partition: Line | None
    account: Line | None
    qos: Line | None
    reservation: Line | None
    constraint: Line | None
    nodes: Annotated[int, Field(ge=1, le=100_000)]
    ranks_per_node: Annotated[int, Field(ge=1, le=1024)]
    hours: Hours
    gpus_per_rank: Annotated[int, Field(ge=0, le=1)]
    gpu_type: Line | None
    cpus_per_rank: Positive | None
    mem_per_rank_gb: Annotated[float, Field(gt=0, le=100_000)] | None
    signal_seconds: Annotated[int, Field(ge=0, le=65535)]
    setup: list[Text]
    srun_args: list[Text]
    python: Text | None
    staging: StagingSpec | None
    requeue: bool
    max_restarts: Positive
    max_requeues: Positive
    max_running: Positive | None
    runs_per_job: Positive
    mail: Text | bool | None
    sbatch: dict[Text, bool | int | float | str]


def load(name: str) -> Profile:
    """Read a profile; keys that it omits have the values of ``profiles/default.yaml``.

    Args:
        name: A path, or a name in one of `folders`.

    Raises:
        UserError: if there is no such profile, with the nearest name; or if it has faults, with one line per fault.
    """
    path = find(name)
    tree = read_mapping(_packaged() / f"{DEFAULT}{SUFFIX}")
    given = read_mapping(path)
    tree.update(given)
    tree.places.update(given.places)
    profile, problems = validate(Profile, tree)
    problems += [] if profile is None else _contradictions(profile)
    if profile is None or problems:
        raise complain(problems, tree)
    return profile


def _contradictions(profile: Profile) -> Iterator[Problem]:
    """Yield what cannot be meant, although each key for itself is valid."""
    for key, value in profile.sbatch.items():
        if (text := _refusal(key, value)) is not None:
            yield Problem(("sbatch", key), text)
        elif profile.gpus_per_rank and key.replace("_", "-") == "gres" and "gpu" in str(value):
            yield Problem(("sbatch", key), "and gpus_per_rank both ask for GPUs; remove one")
    if profile.gpu_type is not None and not profile.gpus_per_rank:
        yield Problem(
            ("gpu_type",), f"names a GPU, and gpus_per_rank is {profile.gpus_per_rank}; write gpus_per_rank: 1"
        )
    for path, line in [
        *((("setup", number), line) for number, line in enumerate(profile.setup)),
        *([(("staging", "command"), profile.staging.command)] if profile.staging else []),
    ]:
        if (said := _bash(line)) is not None:
            yield Problem(path, f"is no complete command of the shell: {said}")


def _bash(line: str) -> str | None:
    """Say why bash does not understand a command, without running it; None if it does, or if there is no bash here."""
    if shutil.which("bash") is None:
        return None
    env = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True, env=env, check=False)
    said = done.stderr.strip().splitlines()
    return re.sub(r"^bash: (-c: )?(line \d+: )?", "", said[0]) if done.returncode and said else None


def _refusal(key: str, value: bool | int | float | str) -> str | None:
    """Say why sbatch cannot be called with a parameter, or return None; sbatch takes abbreviations of long names."""
    long = key.replace("_", "-")
    known = next((name for name in REFUSED if name == long), None)
    known = known or next((name for name in REFUSED if name.startswith(long)), None)
    if known is not None:
        return REFUSED[known] if known == long else f"means {known}, which {REFUSED[known]}"
    if not re.fullmatch(r"[A-Za-z][A-Za-z-]*", long):
        return "is not the long name of a parameter of sbatch, such as mail-type"
    if value is False:
        return "false is no value for sbatch; remove the key"
    if isinstance(value, str) and not value.isprintable():
        return f"{value[:40]!r} must be one line of printable characters"
    return None


def find(name: str) -> Path:
    """Return the file of a profile.

    Raises:
        UserError: if there is no such profile.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    found = known()
    if name in found:
        return found[name]
    places = ", ".join(shown(folder) for folder in folders())
    raise UserError(
        f"no profile {name!r}: neither a file nor a name in {places}; known names: "
        f"{', '.join(sorted(found))}{nearest(name, found)}; `ham doctor slurm` writes one for this cluster",
        "--profile",
    )


def known() -> dict[str, Path]:
    """Return the files of all profiles by name; for equal names, the first of `folders` counts."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            found.setdefault(path.stem, path)
    return found


def folders() -> tuple[Path, Path, Path]:
    """Return the folders with profiles: the project's ``profiles``, the user's configuration folder, the package."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path("profiles"), config / "ham-suite" / "profiles", _packaged()


def _packaged() -> Path:
    return Path(__file__).resolve().parent / "profiles"
