"""The job that submits a table when its tuning is over: it calls the same `ham sweep` once more."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.config.sweep import Sweep
from experiments.errors import SuiteError
from experiments.rundir import names

from . import errand, profile, snapshot


def follow(stage: Sweep, runs_root: Path, name: str, command: Sequence[str], jobs: Sequence[str]) -> str:
    """Submit the job that calls a command when all jobs of a tuning are over, in place of an earlier such job.

    Args:
        stage: The tuning.
        runs_root: Folder that holds the folders of all sweeps.
        name: Name of the cluster's profile.
        command: What follows ``ham``.
        jobs: Numbers of the tuning's arrays that were submitted a moment ago.

    Returns:
        The job's number.

    Raises:
        SuiteError: if it is not accepted; the jobs of the tuning stay.
    """
    chosen, folder = profile.load(name), (runs_root / stage.name).resolve()
    imports = {module for cell in stage.cells for module in cell.spec.imports}
    job, problem = errand.send(
        errand.name_of("after", folder),
        command,
        "COMPLETED: the table's runs are submitted; FAILED: its log says what to do",
        sweep=folder,
        folder=folder / names.SUBMISSIONS,
        snapshot=snapshot.take(folder.parent, snapshot.contents(imports)),
        python=chosen.python or shlex.quote(sys.executable),
        home=Path.cwd(),
        chosen=chosen,
        jobs=jobs,
    )
    if problem is not None:
        text = f"the job that submits the table was not accepted: {problem}; give the same command when it is over"
        raise SuiteError(text, str(folder))
    return job
