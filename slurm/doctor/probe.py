"""A small job that tests one node: requeueing, shared files, Python, GPUs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slurm.profile import Profile
from slurm.scheduler import cluster

from .finding import PATIENCE, Finding, Mark, left_no_trace, options, waited

# runs twice: the first start requeues itself, and the second shows that this works
_PROBE = """\
#!/bin/bash
out={folder}/start-${{SLURM_RESTART_COUNT:-0}}
command -v scontrol > /dev/null && echo scontrol=yes >> "$out.tmp" || echo scontrol=no >> "$out.tmp"
env --block-signal=TERM,USR1,USR2 true 2> /dev/null && echo block=yes >> "$out.tmp" || echo block=no >> "$out.tmp"
{python} -c 'import submitit, experiments' && echo python=yes >> "$out.tmp" || echo python=no >> "$out.tmp"
echo "gpus=${{CUDA_VISIBLE_DEVICES:-}}" >> "$out.tmp"
echo "smi=$(nvidia-smi -L 2> /dev/null | grep -c '^GPU')" >> "$out.tmp"
echo "node=${{SLURMD_NODENAME:-$(hostname)}}" >> "$out.tmp"
echo "tmp=${{SLURM_TMPDIR:-${{TMPDIR:-}}}}" >> "$out.tmp"
[ -e {folder}/written-here ] && echo shared=yes >> "$out.tmp" || echo shared=no >> "$out.tmp"
mv "$out.tmp" "$out"
[ "${{SLURM_RESTART_COUNT:-0}}" != 0 ] || scontrol requeue "$SLURM_JOB_ID" 2> {folder}/requeue
"""


def probe(folder: Path, chosen: Profile | None, suggested: Mapping[str, Any]) -> Iterator[Finding]:
    """Submit the job and return what it found.

    Args:
        folder: A folder of its own, where the runs will be.
        chosen: Profile whose partition, account and so on the job uses.
        suggested: Those of a first profile, where there is none.
    """
    (folder / "written-here").touch()
    python = (chosen.python if chosen else None) or shlex.quote(sys.executable)
    lines = chosen.setup if chosen else []
    text = _PROBE.format(folder=shlex.quote(str(folder)), python=python)
    head, body = text.split("\n", 1)
    (folder / "probe.sh").write_text("\n".join([head, *lines, body]))
    output, problem = cluster.ask(
        "sbatch",
        *("--parsable", "--nodes=1", "--ntasks=1", "--requeue"),
        *options(folder, chosen, suggested),
        str(folder / "probe.sh"),
    )
    if problem is not None:
        yield Finding("failed", "a small job", f"sbatch refused it: {problem}")
        return
    job = output.split(";")[0].strip()
    try:
        if waited(folder / "start-0"):
            facts = dict(line.split("=", 1) for line in (folder / "start-0").read_text().splitlines())
            yield from on_node(facts)
            yield _requeued(folder)
        else:
            hint = f"is {folder.parent} on a file system that all nodes share?"
            yield left_no_trace(job, "a small job", hint)
    finally:
        cluster.ask("scancel", job)


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
    yield judged("block", "env --block-signal", "warning", "missing: a signal while Python starts costs that start")
    if facts.get("gpus"):
        count = int(facts.get("smi") or 0)
        text = f"CUDA_VISIBLE_DEVICES={facts['gpus']}, nvidia-smi sees {count}"
        yield Finding("ok" if count else "warning", "GPU", text)
    if facts.get("tmp"):
        yield Finding("ok", "node-local folder", facts["tmp"])


def _requeued(folder: Path) -> Finding:
    if waited(folder / "start-1"):
        return Finding("ok", "requeue", "a job that requeued itself was started again")
    said = folder / "requeue"
    words = cluster.words(said.read_text()) if said.exists() else ""
    if words:
        return Finding("warning", "requeue", f"refused: {words}; `ham status DIR --resubmit lost` goes on instead")
    return Finding("unknown", "requeue", f"the requeued job was not started again within {PATIENCE:g} s")
