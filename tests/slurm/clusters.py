"""A Slurm cluster for the tests, and what they ask of it. Every wait is bounded."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dirt import DIRT

from experiments.config.yaml_text import dump
from slurm.scheduler.environment import clean

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "slurm-cluster.sh"
HAM = Path(sys.executable).with_name("ham")
COMMANDS = ("slurmctld", "slurmd", "munged", "sbatch", "srun")
PATIENCE = 120.0  # seconds: two cores start many jobs, each of which imports torch

# 300 images to train on in batches of 50: 6 steps an epoch
TINY: dict[str, Any] = {
    "data": {"name": "synthetic", "validation": 100, "batch_size": 50, "evaluate_on": "validation"},
    "model": {"name": "mlp_bn"},
    "schedule": {"epochs": 2},
    "runtime": {"device": "cpu"},
    "tracking": {"wandb": "disabled"},
}
TABLE: dict[str, Any] = {
    "rows": {"Dense": {}, "RiGL": {"topology": {"name": "rigl", "sparsity": 0.9, "update_every": 4}}},
    "seeds": [0, 1],
}
PROFILE: dict[str, Any] = {"hours": 0.25, "cpus_per_rank": 1, "mem_per_rank_gb": 1.0}


def wait_for(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Ask again and again, or fail the test."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain: {what}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs.

    Attributes:
        folder: All its files.
        port: Its first port.
        settings: Variables of the script, such as ``SLURM_CLUSTER_ARRAY_SIZE``.
    """

    folder: Path
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def _own(self) -> dict[str, str]:
        """The environment of the cluster's own processes, and of the tests' questions to it."""
        outer = {name: value for name, value in clean().items() if not name.startswith("PYTEST")}
        return {**outer, "SLURM_CONF": str(self.folder / "etc" / "slurm.conf"), "OMP_NUM_THREADS": "1"}

    @property
    def env(self) -> dict[str, str]:
        """The environment in which `ham` is called: a shell that is full of what belongs to another job."""
        return {**self._own, **DIRT}

    def control(self, *arguments: str) -> None:
        """Call the cluster's script: ``up``, ``down``, ``kill-node 0``, ``stop-ctld``, ..."""
        own = {"SLURM_CLUSTER_DIR": str(self.folder), "SLURM_CLUSTER_PORT": str(self.port), **self.settings}
        called = subprocess.run(
            [SCRIPT, *arguments], env={**self._own, **own}, capture_output=True, text=True, timeout=90, check=False
        )
        assert called.returncode == 0, f"{arguments}: {called.stdout}{called.stderr}"

    def ask(self, *command: str) -> str:
        """Output of a command of Slurm's."""
        called = subprocess.run(command, env=self._own, capture_output=True, text=True, timeout=30, check=False)
        assert called.returncode == 0, f"{command}: {called.stderr}"
        return called.stdout

    def ham(self, *arguments: object, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Call the command line in a folder."""
        return subprocess.run(
            [HAM, *map(str, arguments)],
            cwd=folder,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )

    def submit(self, folder: Path, *arguments: object, **env: str) -> Path:
        """``ham sweep table.yaml --cluster slurm`` with the profile that `prepare` wrote; the sweep's folder."""
        called = self.ham(
            *("sweep", "table.yaml", *arguments, "--cluster", "slurm", "--profile", "test"), folder=folder, **env
        )
        assert called.returncode == 0, called.stderr
        return folder / "runs" / "table"

    def states(self, sweep: Path) -> dict[str, str]:
        """State of each job of a sweep by "1234_5", as long as the scheduler remembers it."""
        lines = self.ask("squeue", "-h", "-r", "-t", "all", "-o", "%i %T %j").splitlines()
        jobs = (line.split() for line in lines)
        return {job: state for job, state, name in jobs if name in names(sweep)}

    def wait_until_done(self, sweep: Path, patience: float = PATIENCE) -> None:
        """Wait until all runs of a sweep have a result; fail as soon as one has failed."""

        def finished() -> bool:
            failures = [path.read_text() for path in sweep.glob("*/failure.json")]
            assert not failures, failures
            return all((run / "result.json").exists() for run in planned(sweep))

        try:
            wait_for(finished, "the runs of the table", patience)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.states(sweep)}\n{logs(sweep)}") from None

    @contextmanager
    def machine(self, node: int) -> Iterator[int]:
        """Give a node a host name and a process table of its own for a block; yields the number of its slurmd."""
        pid_file = self.folder / f"run/slurmd-n{node}.pid"
        os.kill(self.daemon(node), signal.SIGKILL)
        pid_file.unlink()
        start = f"hostname n{node}; slurmd -f {self.env['SLURM_CONF']} -N n{node}; exec sleep 1000"
        space = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", start)
        env = {**self.env, "PATH": os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])}
        machine = subprocess.Popen(space, env=env)
        try:
            wait_for(pid_file.exists, f"slurmd of n{node}", 20)
            (daemon,) = numbers("slurmd", f"{self.env['SLURM_CONF']}\0-N\0n{node}\0")
            pid_file.write_text(f"{daemon}\n")  # its number there is another one here
            yield daemon
        finally:
            machine.kill()  # and with it all processes there
            machine.wait()
            pid_file.unlink(missing_ok=True)

    def daemon(self, node: int) -> int:
        """Number of a node's slurmd."""
        return int((self.folder / f"run/slurmd-n{node}.pid").read_text())

    def steps(self, node: int) -> list[int]:
        """Numbers of the slurmstepd that live on a node; each keeps its node's log open."""
        log, found = self.folder / f"log/slurmd-n{node}.log", []
        for pid in numbers("slurmstepd"):
            with suppress(OSError):
                files = Path(f"/proc/{pid}/fd").iterdir()
                found += [pid] if any(os.readlink(file) == str(log) for file in files) else []
        return found

    def reset(self) -> None:
        """End all jobs, and bring controller and nodes back."""
        self.control("start-ctld")
        self.ask("scancel", "--user", self.ask("id", "-un").strip())
        wait_for(lambda: not self.ask("squeue", "-h"), "an empty queue", 60)
        for node in self.ask("sinfo", "-h", "-N", "-o", "%N").split():
            self.control("start-node", node.removeprefix("n"))
        for node in set(self.ask("sinfo", "-h", "-N", "-t", "drain,drng,down", "-o", "%N").split()):
            self.ask("scontrol", "update", f"nodename={node}", "state=resume")


def numbers(name: str, said: str = "", *, job: str | None = None) -> list[int]:
    """Numbers of the processes of a name that were called with some words, and of a job by its internal number."""
    mark = f"SLURM_JOB_ID={job}\0".encode() if job else b""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            called = said in (place / "cmdline").read_text()
            if called and (place / "comm").read_text().strip() == name and mark in (place / "environ").read_bytes():
                found.append(int(place.name))
    return found


def stepd(job: str) -> list[int]:
    """Numbers of the slurmstepd of a job's first step."""
    return numbers("slurmstepd", f"[{job}.0]")


def need(*commands: str) -> None:
    """Skip, or fail where Slurm is demanded."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [command for command in commands if shutil.which(command, path=path) is None]
    if missing and os.environ.get("HAM_REQUIRE_SLURM") == "1":
        pytest.fail(f"HAM_REQUIRE_SLURM=1, but these are not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"there is no Slurm here: {', '.join(missing)} not installed")


def free_ports(count: int) -> int:
    """First of some neighbouring free ports."""
    for start in range(21000 + 40 * (os.getpid() % 200), 32000, 40):
        taken = False
        for port in range(start, start + count):
            with socket.socket() as probe:
                taken = taken or probe.connect_ex(("127.0.0.1", port)) == 0
        if not taken:
            return start
    raise AssertionError("no free ports")


@contextmanager
def running(**settings: str) -> Iterator[Cluster]:
    """A cluster for the time of a block."""
    need(*COMMANDS)
    folder = Path(tempfile.mkdtemp(prefix="ham-slurm-"))  # short: munge's socket has a path of 107 bytes at most
    cluster = Cluster(folder, free_ports(20), {f"SLURM_CLUSTER_{key}": value for key, value in settings.items()})
    try:
        cluster.control("up")
        yield cluster
    finally:
        cluster.control("down")
        shutil.rmtree(folder, ignore_errors=True)


def prepare(folder: Path, profile: Mapping[str, Any] | None = None, **sections: Any) -> Path:
    """Write ``table.yaml`` (the tiny table with sections replaced) and the profile ``test`` into a folder."""
    (folder / "profiles").mkdir(parents=True, exist_ok=True)
    (folder / "profiles" / "test.yaml").write_text(dump({**PROFILE, **(profile or {})}))
    (folder / "table.yaml").write_text(dump({**TINY, "sweep": TABLE, **sections}))
    return folder


def planned(sweep: Path) -> list[Path]:
    """The run folders of a sweep."""
    cells = json.loads((sweep / "sweep.json").read_text())["cells"]
    return sorted({sweep / cell["path"] for cell in cells})


def records(sweep: Path) -> list[dict[str, Any]]:
    """The records of a sweep's submissions, oldest first."""
    found = [json.loads(path.read_text()) for path in (sweep / "submissions").glob("*.json")]
    return sorted(found, key=lambda record: record["time"])


def names(sweep: Path) -> set[str]:
    """Names of a sweep's jobs."""
    return {array["name"] for record in records(sweep) for array in record["arrays"]}


def attempts(run: Path) -> list[dict[str, Any]]:
    """The attempts of a run, in order; one that is being written is left out."""
    texts = [path.read_text() for path in sorted((run / "attempts").glob("*.json"))]
    return [json.loads(text) for text in texts if text]


def ledger(run: Path, event: str | None = None) -> list[dict[str, Any]]:
    """The ledger of a run, or its events of one kind."""
    path = run / "ledger.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if event is None or line["event"] == event]


def step(run: Path) -> int:
    """The last step that a run has shown."""
    path = run / "heartbeat"
    return int(path.read_text().split()[1]) if path.exists() and path.read_text().strip() else 0


def logs(sweep: Path) -> str:
    """All output of a sweep's jobs."""
    return "\n".join(f"{path.name}: {path.read_text()}" for path in sorted(sweep.glob("submissions/*/*_log.*")))
