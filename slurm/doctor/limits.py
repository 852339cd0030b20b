"""The controller's configuration, and the limits that hold for this user."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping

from slurm.scheduler import cluster

from .finding import Finding

_USER = ("Account", "Partition", "QOS", "MaxJobs", "MaxSubmit", "GrpJobs", "GrpSubmit", "MaxWall", "MaxTRES", "GrpTRES")
_QOS = ("Name", "MaxWall", "MaxJobsPU", "MaxSubmitPU", "MaxTRESPU", "GrpJobs", "GrpSubmit", "GrpTRES")


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
    if settings.get("MaxJobCount"):
        findings.append(Finding("ok", "MaxJobCount", f"{settings['MaxJobCount']} jobs of all users in the queue"))
    if problem is None and not accounting.endswith("none"):
        return [*findings, Finding("ok", "sacct", accounting)]
    text = problem or accounting
    return [*findings, Finding("warning", "sacct", f"{text}: how jobs ended is known for some minutes only")]


def of_user(settings: Mapping[str, str]) -> Iterator[Finding]:
    """Return the limits of this user's accounts, of their QOS and of the partitions, as far as Slurm tells them."""
    if settings.get("AccountingStorageType", "").endswith("none"):
        yield Finding("ok", "limits", "none, since there is no accounting; the partitions' own are above")
    else:
        yield from _of_accounts(settings.get("AccountingStorageEnforce", ""))
    yield from _of_partitions()


def _of_accounts(enforced: str) -> Iterator[Finding]:
    output, problem = cluster.ask(
        "sacctmgr", "-nP", "show", "assoc", f"user={getpass.getuser()}", f"format={','.join(_USER)}"
    )
    if problem is not None:
        yield Finding("unknown", "limits", f"sacctmgr says: {problem}")
        return
    if not any(word in enforced for word in ("limits", "safe", "all")):
        yield Finding("ok", "limits", f"not enforced here (AccountingStorageEnforce={enforced or 'none'})")
    named: set[str] = set()
    for row in _rows(output, _USER):
        named |= set(filter(None, row["QOS"].split(",")))
        where = f"account {row['Account']}" + (f", partition {row['Partition']}" if row["Partition"] else "")
        yield Finding("ok", where, _limits(row, skipped=("Account", "Partition", "QOS")))
    output, problem = cluster.ask("sacctmgr", "-nP", "show", "qos", f"format={','.join(_QOS)}")
    for row in _rows(output, _QOS):
        if row["Name"] in named:
            yield Finding("ok", f"QOS {row['Name']}", _limits(row, skipped=("Name",)))


def _of_partitions() -> Iterator[Finding]:
    output, _ = cluster.ask("scontrol", "show", "partition", "--oneliner")
    for line in output.splitlines():
        pairs = (part.partition("=") for part in line.split())
        entry = {key: value for key, _, value in pairs}
        kept = {key: entry.get(key, "") for key in ("MaxTime", "MaxNodes", "QoS", "AllowAccounts", "AllowQos")}
        said = {key: value for key, value in kept.items() if value not in ("", "UNLIMITED", "N/A", "ALL")}
        if said:
            text = ", ".join(f"{key} {value}" for key, value in said.items())
            yield Finding("ok", f"limits of partition {entry.get('PartitionName')}", text)


def _rows(output: str, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    for line in output.splitlines():
        values = line.split("|")
        if len(values) == len(columns):
            yield dict(zip(columns, values, strict=True))


def _limits(row: Mapping[str, str], skipped: tuple[str, ...]) -> str:
    set_here = [f"{name} {value}" for name, value in row.items() if name not in skipped and value]
    text = ", ".join(set_here) or "no limits"
    submit = row.get("MaxSubmit") or row.get("MaxSubmitPU")
    return f"{text}; more than {submit} jobs at once are refused" if submit else text
