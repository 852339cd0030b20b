"""Profiles: YAML files with the settings of one cluster. ``profiles/default.yaml`` lists every key and its default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from experiments.config.problems import Problem, complain, validate
from experiments.config.schema import Hours, Positive, Section, Text
from experiments.config.yaml_text import read_mapping, shown
from experiments.errors import UserError, nearest

SUFFIX = ".yaml"
DEFAULT = "default"
OURS = ("array", "error", "job-name", "nodes", "ntasks-per-node", "open-mode", "output", "requeue", "signal", "time")
"""Parameters of sbatch that the suite sets itself and relies on."""


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
        nodes: Nodes per run. ``resources.nodes`` of a configuration overrides it, and likewise the two keys below.
        ranks_per_node: Ranks (processes) per node.
        hours: Time limit of one job. A longer run is resumed by the next job.
        gpus_per_rank: GPUs per rank, 0 or 1.
        gpu_type: GPU type as the scheduler names it.
        mem_per_rank_gb: Memory per rank in GiB.
        signal_seconds: Seconds between the scheduler's warning and the end of a job, for writing a checkpoint.
        setup: Shell lines that run in the job before Python.
        srun_args: Arguments of srun, such as those of a container.
        python: Command that starts Python in the job; None is the interpreter that submits.
        staging: Staging of data, or None.
        requeue: Whether a job that was stopped or that crashed requeues itself.
        max_restarts: Number of consecutive attempts without progress after which a run counts as failed.
        max_running: Jobs of an array that may run at the same time.
        runs_per_job: Runs that share the rank of one job; a run of several ranks always has a job of its own.
        mail: Whether Slurm sends an e-mail when all jobs of a sweep are over: an address, or true for the account's.
        sbatch: Further parameters of sbatch by their long names, such as ``{mail-type: FAIL}``.
    """

    partition: Text | None
    account: Text | None
    qos: Text | None
    reservation: Text | None
    constraint: Text | None
    nodes: Annotated[int, Field(ge=1, le=100_000)]
    ranks_per_node: Annotated[int, Field(ge=1, le=1024)]
    hours: Hours
    gpus_per_rank: Annotated[int, Field(ge=0, le=1)]
    gpu_type: Text | None
    cpus_per_rank: Positive | None
    mem_per_rank_gb: Annotated[float, Field(gt=0, le=100_000)] | None
    signal_seconds: Annotated[int, Field(ge=0, le=65535)]
    setup: list[Text]
    srun_args: list[Text]
    python: Text | None
    staging: StagingSpec | None
    requeue: bool
    max_restarts: Positive
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
    further = profile.sbatch if profile is not None else {}
    ours = [key for key in further if key.replace("_", "-") in OURS]
    problems += [Problem(("sbatch", key), "is set by the suite; see the other keys of a profile") for key in ours]
    if profile is None or problems:
        raise complain(problems, tree)
    return profile


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
