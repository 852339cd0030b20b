"""Calls of sbatch through submitit. No other module of the suite knows submitit's private functions."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from .scheduler import cluster
from .scheduler.environment import cleaned


class NotAccepted(Exception):
    """A call of sbatch that returned no job number, with what was said."""


def text(folder: Path, python: str, jobs: int, parameters: Mapping[str, Any]) -> str:
    """Return the batch script that `call` passes to sbatch.

    Args:
        folder: Folder of the submission.
        python: Command that starts Python in the job.
        jobs: Number of jobs; more than one are an array.
        parameters: Parameters of submitit's `SlurmExecutor`.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    start = f"{python} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return _make_sbatch_string(start, folder, map_count=jobs if jobs > 1 else None, **parameters)


def call(folder: Path, python: str, payloads: Sequence[Callable[[], None]], parameters: Mapping[str, Any]) -> str:
    """Submit one job per payload, several as an array, and return the number of the job or array.

    Raises:
        NotAccepted: if sbatch gives no number. A job may be in the queue nevertheless.
    """
    import submitit

    executor = submitit.SlurmExecutor(folder, python=python)
    executor.update_parameters(**parameters)
    try:
        with cleaned(), redirect_stderr(io.StringIO()), executor.batch():  # submitit also prints the text of the error
            jobs = [executor.submit(payload) for payload in payloads]
    except RuntimeError as error:  # submitit's errors
        raise NotAccepted(cluster.words(str(error)) or type(error).__name__) from error
    return jobs[0].job_id.partition("_")[0]
