"""``ham doctor slurm``: tests of what this cluster can do, and a first profile for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from experiments.config.yaml_text import dump, shown
from experiments.errors import UserError
from experiments.rundir.files import write_text
from slurm import profile
from slurm.scheduler import cluster, partitions

from . import limits, nodes, probe
from .finding import Finding, trial


def examine(name: str | None, output: Path | None, runs_root: Path) -> Iterator[Finding]:
    """Read the configuration and limits of the cluster, write a profile, and submit two small jobs that test it.

    Args:
        name: Profile whose partition, account and so on the jobs use; None uses the cluster's defaults.
        output: File for a first profile; None writes none.
        runs_root: Folder that holds the folders of all sweeps, which all nodes must share.

    Yields:
        What is found, as soon as it is known.

    Raises:
        UserError: if Slurm is not installed here, the profile is not valid, or the output file exists.
    """
    cluster.require("sbatch", "srun", "scontrol", "sinfo", "squeue", "scancel")
    if output is not None and output.exists():
        raise UserError("is there already; name another file", f"--profile-out {shown(output)}")
    chosen = profile.load(name) if name else None
    settings = cluster.configuration()
    yield from limits.static(settings)
    found, problem = partitions.partitions()
    if problem is not None:
        yield Finding("failed", "sinfo", problem)
    for partition in found:
        yield Finding("ok", f"partition {partition['name']}", partitions.described(partition))
    yield from limits.of_user(settings)
    suggested = partitions.suggestion(found)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(
            output,
            f"# Written by `ham doctor slurm`; profiles/default.yaml of the package has every key.\n{dump(suggested)}",
        )
        yield Finding("ok", "a first profile", shown(output))
    with trial(runs_root.resolve()) as folder:
        two = nodes.submit(folder / "nodes", chosen, suggested, found)  # it waits while the other one runs
        yield from probe.probe(folder, chosen, suggested)
        yield from nodes.findings(two)
