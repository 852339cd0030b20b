"""The work of a job's task: connect to the other ranks, start or resume the runs, and report how they ended.

All state is in the run directory, so it does not matter how the job was started, how often, or how it ended before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import Interrupted, LostRank, RunFailure, SuiteError
from experiments.rundir import attempts, ledger, names, outcome
from experiments.rundir.files import read_json
from slurm.scheduler.environment import this_start

from .codes import CRASHED, RUNNING, VERDICT
from .crashes import Limits, crashed_starts, words
from .orphans import watch
from .signals import Signals

if TYPE_CHECKING:
    from experiments.config.schema import Spec

log = logging.getLogger(__name__)

PATIENCE = 180.0
"""Seconds that a job waits for a living process that holds its run, before it ends with an error: twice a lease."""


@dataclass(frozen=True)
class JobRun:
    """The part of a run that a job needs.

    Attributes:
        folder: The run directory.
        identity: The run's identity hash.
        spec: The resolved specification as a mapping.
    """

    folder: str
    identity: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class JobPayload:
    """The callable that submitit pickles and calls on every rank.

    Attributes:
        runs: One run, or several that share the only rank of this job.
        limits: How often in a row the job may start without bringing a run forward until the run counts as failed.
        gpu: Whether each rank has a GPU.
        staged_root: Staged folder that replaces ``data.root``, may contain variables; None keeps ``data.root``.
    """

    runs: tuple[JobRun, ...]
    limits: Limits
    gpu: bool
    staged_root: str | None = None

    def __call__(self) -> None:
        """Execute the runs.

        Raises:
            SystemExit: always, with the code that the batch script acts on. A normal return would make submitit pickle
                a result.
        """
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        is_main = this_start().rank == 0
        _tell(is_main, RUNNING)
        signals = Signals(interrupt=len(self.runs) > 1)
        signals.install()
        watcher = watch(signals, this_start()) if is_main else None
        try:
            code = self._carry_out(signals, is_main)
        except Exception:
            log.exception("this attempt has crashed")
            code = CRASHED
        _tell(is_main, code)
        if watcher is not None and signals.terminated:
            watcher.join(20)  # the scheduler is being asked
        if not is_main:
            code = signals.let_main_end(code)
        raise SystemExit(code)

    def _carry_out(self, signals: Signals, is_main: bool) -> int:
        runs = [run for run in self.runs if not is_main or self._worth_trying(run)]
        if not runs:
            return 1
        if len(self.runs) > 1:
            return self._several(runs, signals)
        return self._one(runs[0], signals)

    def _worth_trying(self, run: JobRun) -> bool:
        """Return whether to start or resume a run; if it has crashed too often, record that in `failure.json`."""
        folder, start = Path(run.folder), this_start()
        if start.restarts == 0 or outcome.read_result(folder) is not None:
            return True
        if len(self.runs) > 1 and (folder / names.FAILURE).exists():
            return False  # this job was restarted for the other runs
        owners = [owner for path in sorted((folder / names.ATTEMPTS).glob("*.json")) if (owner := _owner(path))]
        if owners and attempts.alive(folder, owners[-1]):
            return True
        reached = self.limits.reached(owners, ledger.read(folder), start, crashed_starts())
        if reached is None:
            return True
        text = f"{reached}; the last lines: {words(folder)}"
        log.error("%s: %s", folder, text)
        folder.mkdir(parents=True, exist_ok=True)  # none of them may have come so far
        outcome.write_failure(folder, RunFailure(text), unexpected=True)
        return False

    def _one(self, run: JobRun, signals: Signals) -> int:
        from experiments.ranks import distributed
        from experiments.run import runner
        from experiments.run.numerics import same_arithmetic

        folder, met = Path(run.folder), False
        try:
            spec = prepared(run, self.gpu, self.staged_root)
            runtime = spec.runtime
            with (
                same_arithmetic(threads=1),  # as in the workers of a local sweep
                distributed.joined(folder, runtime.device, runtime.rank_timeout) as world,
            ):
                met = True
                hooks = {"stop": signals.received, "world": world, "patience": PATIENCE}
                runner.run(spec, folder, run.identity, **hooks)
        except Interrupted as error:
            log.info("%s", error)
            return signals.code
        except LostRank as error:
            log.error("%s", error)
            return CRASHED
        except SuiteError as error:
            log.error("%s", error)
            return error.exit_code if met else CRASHED
        return 0

    def _several(self, runs: Sequence[JobRun], signals: Signals) -> int:
        from experiments.launch.pool import Listener, Task, run_all

        tasks = [
            Task(run.folder, _packed, (run, self.gpu, self.staged_root), Path(run.folder) / names.LOG) for run in runs
        ]
        try:
            outcomes = run_all(tasks, len(tasks), Listener())
        except KeyboardInterrupt:
            return signals.code
        for name, one in outcomes.items():
            log.info("%s: %s", name, one.error or "done")
        busy = [name for name, one in outcomes.items() if one.busy]
        failed = [Path(name) for name, one in outcomes.items() if one.error and not (one.interrupted or one.busy)]
        if any(not (folder / names.FAILURE).exists() for folder in failed):
            return CRASHED
        if any(one.interrupted for one in outcomes.values()):
            return signals.code
        return 1 if failed or busy or len(runs) < len(self.runs) else 0


def prepared(run: JobRun, gpu: bool, staged_root: str | None) -> Spec:
    """Return the specification of a run as this node executes it.

    Raises:
        RunFailure: if a variable of the staged folder is not set here, it holds other data, or torch sees no GPU.
        UserError: if a module of the configuration's `imports` is not found.
    """
    from experiments.config.identity import identity
    from experiments.config.resolve import from_mapping
    from experiments.data import content_hash

    spec = from_mapping(run.spec)
    if staged_root is not None:
        root = os.path.expandvars(staged_root)
        if "$" in root:
            raise RunFailure(f"{staged_root} holds a variable that is not set on this node", where="staging.root")
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"root": root})})
        if identity(spec, content_hash(spec.data.name, root)) != run.identity:
            raise RunFailure(f"the data staged to {root} are not those that the run was submitted with", "staging")
    if gpu and spec.runtime.device == "auto":
        import torch

        if not torch.cuda.is_available():
            node = this_start().node or "this node"
            raise RunFailure(f"the job has a GPU, but torch sees none on {node}", where="runtime.device")
    return spec


def _packed(run: JobRun, gpu: bool, staged_root: str | None, **hooks: Any) -> None:
    """Execute one of several runs of a job, in a worker process of its own."""
    from experiments.run import runner

    spec = prepared(run, gpu, staged_root)
    runner.run(spec, Path(run.folder), run.identity, patience=PATIENCE, **hooks)


def _tell(is_main: bool, verdict: int | str) -> None:
    path = os.environ.get(VERDICT)
    if is_main and path:
        Path(path).write_text(f"{verdict}\n")


def _owner(path: Path) -> dict[str, Any] | None:
    content = read_json(path)
    return content if isinstance(content, dict) and "attempt" in content else None
