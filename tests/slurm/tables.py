"""Tables that are trained on the cluster, and in peace on this machine, to be compared bit for bit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusters import TINY, Cluster, attempts, ledger, planned, wait_for

# 300 images in batches of 25: 12 steps an epoch, 60 in all
SIZES: dict[str, Any] = {
    "imports": ["pace"],
    "data": {**TINY["data"], "batch_size": 25},
    "schedule": {"epochs": 5},
    "checkpoint": {"every_steps": 5},
}
RANDOM = {"topology": {"name": "random", "sparsity": 0.9}, "optimizer.ham": {"alpha": 5.0}}
RIGL = {"topology": {"name": "rigl", "sparsity": 0.9, "update_every": 4}, "optimizer.ham": {"alpha": 5.0}}
ACDC = {"topology": {"name": "acdc", "allocation": "erk", "sparsity": 0.9}, "representation.name": "sign_in"}
STR = {
    "representation": {"name": "str", "initial_threshold": -4.0, "threshold_decay": 0.1},
    "topology.sparsity": 0.5,
    "checks.events": {"threshold": {"at_least": 1}},
}


@dataclass(frozen=True)
class Table:
    """A table on the cluster, and the same one trained in peace on this machine."""

    cluster: Cluster
    folder: Path
    sweep: Path
    peace: Path

    def run(self, row: str) -> Path:
        """The run folder of a row of one seed."""
        cells = json.loads((self.peace / "sweep.json").read_text())["cells"]
        (path,) = {cell["path"] for cell in cells if cell["row"] == row}
        return self.sweep / path

    def job(self, row: str) -> str:
        """The job that carries a row now."""
        return attempts(self.run(row))[-1]["job"]

    def gate(self, row: str) -> Path:
        gate = self.folder / "runs/gates" / self.run(row).name
        gate.mkdir(parents=True, exist_ok=True)
        return gate

    def hold(self, row: str, step: int) -> None:
        (self.gate(row) / "hold").write_text(str(step))

    def release(self, row: str) -> None:
        (self.gate(row) / "hold").unlink(missing_ok=True)

    def wait_at(self, row: str, step: int, ranks: int = 1) -> None:
        reached = [self.gate(row) / f"reached-{step}-{rank}" for rank in range(ranks)]
        wait_for(lambda: all(path.exists() for path in reached), f"{row} at step {step}")

    def warn(self, row: str) -> None:
        self.cluster.ask("scancel", "--signal=USR2", self.job(row))

    def assert_equal(self) -> None:
        """All results are those of the runs in peace, and the ledgers are in order."""
        for run in planned(self.sweep):
            undisturbed = self.peace / run.name
            assert (run / "weights.pt").read_bytes() == (undisturbed / "weights.pt").read_bytes(), run.name
            one, other = (json.loads((path / "result.json").read_text()) for path in (run, undisturbed))
            passing = dict.fromkeys(("seconds", "checksum", "files"))  # metrics hold seconds
            assert one | passing == other | passing
            assert_in_order(run)
        tables = [
            self.cluster.ham("table", path, "--format", "csv", folder=self.folder) for path in (self.sweep, self.peace)
        ]
        assert tables[0].returncode == 0, tables[0].stderr
        assert tables[0].stdout == tables[1].stdout


def assert_in_order(run: Path, interval: int = 5) -> None:
    """Attempts follow each other, each from the last checkpoint, and repeat no more than lies between two."""
    at, digest, last, ended = 0, None, 0, 0.0
    begun = {record["attempt"] for record in ledger(run, "start")}
    for number, attempt in enumerate(attempts(run), 1):
        assert attempt["attempt"] == number
        # one that was killed while it waited for its predecessor has claimed the run, but not begun
        assert attempt["time"] >= ended or number not in begun, "two attempts at the same time"
        ended = max(ended, attempt.get("ended", attempt["time"]))
    seen = 0
    for record in ledger(run):
        assert record["attempt"] >= seen or record["event"] == "lost"
        if record["event"] == "start":
            seen = record["attempt"]
            resumed = record["step"], record["checkpoint"]
            # a process may be killed when a checkpoint is on the disk and before that is noted
            assert resumed == (at, digest) or at < record["step"] <= last
            assert 0 <= last - record["step"] <= interval, "more was repeated than lies between two checkpoints"
        elif record["event"] == "checkpoint":
            at, digest = record["step"], record["checkpoint"]
            last = max(last, at)
        else:
            last = max(last, record["step"])
    # the last one notes its end a moment after its result

    def all_over() -> bool:
        started = [record["attempt"] for record in ledger(run, "start")]
        return started == [record["attempt"] for record in ledger(run) if record["event"] in ("end", "lost")]

    wait_for(all_over, "each attempt that began has ended or was noted as lost", 60)


def reasons(run: Path) -> list[str]:
    """How the attempts of a run ended that could say it."""
    return [record["reason"] for record in ledger(run, "end")]
