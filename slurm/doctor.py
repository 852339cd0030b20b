"""``ham doctor slurm``: tests of what this cluster can do, and a first profile for it."""

from __future__ import annotations

import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.config.yaml_text import dump, shown
from experiments.errors import UserError
from experiments.rundir.files import write_text

from . import profile
from .scheduler import cluster, partitions

PATIENCE = 180.0
"""Seconds that a probe may wait in the queue: by Slurm's default, a requeued job waits two minutes."""

Mark = Literal["ok", "warning", "failed", "unknown"]
FOLDER = ".doctor"

# runs twice: the first start requeues itself, and the second shows that this works
_PROBE = """\
#!/bin/bash
out={folder}/start-${{SLURM_RESTART_COUNT:-0}}
command -v scontrol > /dev/null && echo scontrol=yes >> "$out.tmp" || echo scontrol=no >> "$out.tmp"
env --block-signal=USR1,USR2 true 2> /dev/null && echo block=yes >> "$out.tmp" || echo block=no >> "$out.tmp"
{python} -c 'import submitit, experiments' && echo python=yes >> "$out.tmp" || echo python=no >> "$out.tmp"
echo "gpus=${{CUDA_VISIBLE_DEVICES:-}}" >> "$out.tmp"
echo "smi=$(nvidia-smi -L 2> /dev/null | grep -c '^GPU')" >> "$out.tmp"
echo "node=${{SLURMD_NODENAME:-$(hostname)}}" >> "$out.tmp"
echo "tmp=${{SLURM_TMPDIR:-${{TMPDIR:-}}}}" >> "$out.tmp"
[ -e {folder}/written-here ] && echo shared=yes >> "$out.tmp" || echo shared=no >> "$out.tmp"
mv "$out.tmp" "$out"
[ "${{SLURM_RESTART_COUNT:-0}}" != 0 ] || scontrol requeue "$SLURM_JOB_ID" 2> {folder}/requeue
"""


@dataclass(frozen=True)
class Finding:
    """One examined aspect of the cluster, with its result."""

    mark: Mark
    what: str
    text: str

    def __str__(self) -> str:
        """Return the finding in one line."""
        return f"{self.mark:>7}  {self.what}: {self.text}"


def examine(name: str | None, output: Path | None, runs_root: Path) -> Iterator[str]:
    """Read the configuration of the cluster, submit one small job that tests it, and write a profile.

    Args:
        name: Profile whose partition, account and so on the job uses; None uses the cluster's defaults.
        output: File for a first profile; None writes none.
        runs_root: Folder that holds the folders of all sweeps, which all nodes must share.

    Yields:
        Lines of the report, as soon as they are known.

    Raises:
        UserError: if Slurm is not installed here, the profile is not valid, or the output file exists.
    """
    cluster.require("sbatch", "srun", "scontrol", "sinfo", "squeue", "scancel")
    if output is not None and output.exists():
        raise UserError("is there already; name another file", f"--profile-out {shown(output)}")
    chosen = profile.load(name) if name else None
    yield from map(str, static(cluster.configuration()))
    found, problem = partitions.partitions()
    if problem is not None:
        yield str(Finding("failed", "sinfo", problem))
    for partition in found:
        yield str(Finding("ok", f"partition {partition['name']}", partitions.described(partition)))
    suggested = partitions.suggestion(found)
    yield from map(str, _probed(runs_root.resolve(), chosen, suggested))
    if output is not None:
        write_text(
            output,
            f"# Written by `ham doctor slurm`; profiles/default.yaml of the package has every key.\n{dump(suggested)}",
        )
        yield f"a first profile: {shown(output)}"


def static(settings: Mapping[str, str]) -> list[Finding]:
    """Return findings from the controller's configuration."""
    if not settings:
        return [Finding("failed", "scontrol", "the controller does not answer")]
    requeue = settings.get("JobRequeue") == "1"
    accounting = settings.get("AccountingStorageType", "")
    _, problem = cluster.ask("sacct", "-n", "-X", "-S", "now-1minute")
    _, version = cluster.ask("scontrol", "--version")
    findings = [
        Finding("ok", "Slurm", settings.get("SLURM_VERSION") or version or "version unknown"),
        Finding("ok", "MaxArraySize", f"{cluster.array_size(settings)} jobs an array; longer tables are split"),
        Finding(
            "ok" if requeue else "warning",
            "JobRequeue",
            "1"
            if requeue
            else "0: jobs ask for requeueing by themselves; the probe below shows whether that is granted",
        ),
    ]
    if problem is None and not accounting.endswith("none"):
        return [*findings, Finding("ok", "sacct", accounting)]
    text = problem or accounting
    return [*findings, Finding("warning", "sacct", f"{text}: how jobs ended is known for some minutes only")]


def _probed(runs_root: Path, chosen: profile.Profile | None, suggested: Mapping[str, Any]) -> Iterator[Finding]:
    folder = runs_root / FOLDER / secrets.token_hex(4)
    folder.mkdir(parents=True)
    (folder / "written-here").touch()
    try:
        yield from _probe(folder, chosen, suggested)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _probe(folder: Path, chosen: profile.Profile | None, suggested: Mapping[str, Any]) -> Iterator[Finding]:
    python = (chosen.python if chosen else None) or shlex.quote(sys.executable)
    lines = chosen.setup if chosen else []
    text = _PROBE.format(folder=shlex.quote(str(folder)), python=python)
    head, body = text.split("\n", 1)
    (folder / "probe.sh").write_text("\n".join([head, *lines, body]))
    output, problem = cluster.ask(
        "sbatch", "--parsable", *_options(folder, chosen, suggested), str(folder / "probe.sh")
    )
    if problem is not None:
        yield Finding("failed", "a small job", f"sbatch refused it: {problem}")
        return
    job = output.split(";")[0].strip()
    try:
        if _waited(folder / "start-0"):
            facts = dict(line.split("=", 1) for line in (folder / "start-0").read_text().splitlines())
            yield from on_node(facts)
            yield _requeued(folder)
        else:
            state, _ = cluster.ask("squeue", "-h", "-j", job, "-o", "%T %r")
            waits = f"it is {' '.join(state.split())}" if state.strip() else "the queue no longer knows it"
            hint = f"is {folder.parent} on a file system that all nodes share?"
            yield Finding("unknown", "a small job", f"left no trace within {PATIENCE:g} s; {waits}; {hint}")
    finally:
        cluster.ask("scancel", job)


def _options(folder: Path, chosen: profile.Profile | None, suggested: Mapping[str, Any]) -> list[str]:
    log = str(folder / "log")
    options = ["--time=5", "--nodes=1", "--ntasks=1", "--requeue", f"--output={log}", "--job-name=ham-doctor"]
    for key in ("partition", "account", "qos", "reservation", "constraint"):
        value = getattr(chosen, key) if chosen else suggested.get(key)
        if value is not None:
            options.append(f"--{key}={value}")
    if chosen.gpus_per_rank if chosen else suggested.get("gpus_per_rank"):
        kind = f"{chosen.gpu_type}:" if chosen and chosen.gpu_type else ""
        options.append(f"--gpus-per-node={kind}1")
    return options


def _waited(path: Path) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        list(path.parent.iterdir())  # makes network file systems refresh their cache
        if path.exists():
            return True
        time.sleep(0.5)
    return False


def on_node(facts: Mapping[str, str]) -> Iterator[Finding]:
    """Return findings from the facts that the probe recorded on its node."""
    node = facts.get("node", "the node")
    yield Finding("ok", "a small job", f"ran on {node}")

    def judged(key: str, what: str, bad: Mark, text: str) -> Finding:
        good = facts.get(key) == "yes"
        return Finding("ok" if good else bad, what, f"on {node}" if good else text)

    yield judged(
        "shared", "shared file system", "failed", "the job does not see the files written here; choose another --out"
    )
    yield judged(
        "python",
        "Python",
        "failed",
        "does not import submitit and experiments there; see python and setup of the profile",
    )
    yield judged(
        "scontrol",
        "scontrol",
        "warning",
        f"missing on {node}: jobs cannot requeue themselves; `ham status DIR --resubmit lost`",
    )
    yield judged("block", "env --block-signal", "warning", "missing: a warning while Python starts ends the job")
    if facts.get("gpus"):
        count = int(facts.get("smi") or 0)
        text = f"CUDA_VISIBLE_DEVICES={facts['gpus']}, nvidia-smi sees {count}"
        yield Finding("ok" if count else "warning", "GPU", text)
    if facts.get("tmp"):
        yield Finding("ok", "node-local folder", facts["tmp"])


def _requeued(folder: Path) -> Finding:
    if _waited(folder / "start-1"):
        return Finding("ok", "requeue", "a job that requeued itself was started again")
    said = folder / "requeue"
    words = cluster.words(said.read_text()) if said.exists() else ""
    if words:
        return Finding("warning", "requeue", f"refused: {words}; `ham status DIR --resubmit lost` goes on instead")
    return Finding("unknown", "requeue", f"the requeued job was not started again within {PATIENCE:g} s")
