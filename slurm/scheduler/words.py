"""What a job's state and the reason beside it mean, in words, and what to do about it."""

from __future__ import annotations

import re
import signal

from .parse import Job

_ENDED = {
    "BOOT_FAIL": "its node did not start",
    "COMPLETED": "its job ended without an error, but its run has no result",
    "DEADLINE": "its deadline passed",
    "LAUNCH_FAILED": "it could not be started on its node",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "it needed more memory than it had asked for; raise `mem_per_rank_gb` of the profile",
    "PREEMPTED": "another job took its nodes, and it was not requeued",
    "RECONFIG_FAIL": "its node could not be set up",
    "REVOKED": "another cluster of the federation started it",
    "TIMEOUT": "it reached its time limit and was not requeued",
}
_CODES = {
    13: "permission denied",
    126: "a command could not be executed",
    127: "a command was not found",
    -53: "Slurm could not open the files for its output: their folder was moved, removed, or is not on its node",
}
_STATES = {
    "COMPLETING": "its job is ending",
    "CONFIGURING": "its nodes are being made ready",
    "POWER_UP_NODE": "its nodes are being switched on",
    "REQUEUED": "its job is being requeued",
    "REQUEUE_FED": "its job is being requeued",
    "REQUEUE_HOLD": "it was requeued and is held",
    "RESIZING": "its job is changing its size",
    "RESV_DEL_HOLD": "its reservation was deleted",
    "SIGNALING": "its job is being signalled",
    "SPECIAL_EXIT": "it was requeued in a special state",
    "STAGE_OUT": "its files are being copied from its nodes",
    "STOPPED": "its processes were stopped by a signal",
    "SUSPENDED": "its processes were stopped, and its CPUs lent to others",
}
_NEVER = "it never starts: `ham cancel` it and submit it with other resources"
_REASONS = {
    "BadConstraints": f"no node has what it asks for; {_NEVER}",
    "BeginTime": "its earliest start has not come, as after a requeue",
    "Cleaning": "its former start is still being cleared away",
    "Dependency": "it waits for another job",
    "DependencyNeverSatisfied": "the job that it waits for ended otherwise; it never starts: `ham cancel` it",
    "InvalidAccount": "its account is not valid; `ham cancel` it and correct `account` of the profile",
    "InvalidQOS": "its QOS is not valid; `ham cancel` it and correct `qos` of the profile",
    "JobArrayTaskLimit": "as many jobs of its array run as `max_running` allows",
    "JobHeldAdmin": "held by an administrator, who alone can release it",
    "JobHeldUser": "held by its user; `scontrol release JOB` lets it go",
    "JobHoldMaxRequeue": "held, since it was requeued too often; `scontrol release JOB` lets it go",
    "Licenses": "it waits for a licence",
    "NodeDown": "a node that it needs is down",
    "PartitionDown": "its partition takes no jobs now",
    "PartitionInactive": "its partition starts no jobs now",
    "PartitionNodeLimit": f"it asks for more nodes than its partition has or allows; {_NEVER}",
    "PartitionTimeLimit": f"it asks for more hours than its partition allows; {_NEVER}",
    "Priority": "jobs of a higher priority come first",
    "Prolog": "its nodes are being made ready",
    "QOSUsageThreshold": "the QOS asks for less use than there was",
    "ReqNodeNotAvail": "a node that it needs is down, reserved or in use",
    "Reservation": "its reservation has not begun",
    "ReservationDeleted": f"its reservation was deleted; {_NEVER}",
    "Resources": "it waits for free nodes",
}
_SUSPENDED = frozenset({"SUSPENDED", "STOPPED"})
_ENDING = frozenset({"COMPLETING", "STAGE_OUT"})
_READYING = frozenset({"CONFIGURING", "POWER_UP_NODE"})
_ON_HOLD = frozenset({"REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
_HOLDING = re.compile(r"JobHeld|JobHold|\bheld\b")  # also in words: "job requeued in held state"
_LIMIT = re.compile(r"(?P<who>QOS|Assoc(?:iation)?)(?P<kind>Grp|Max|Min)?(?P<what>\w*)")
_UNITS = re.compile(r"Cpu|CPU|Mem|GRES|Node|Wall|Time|Jobs?|Submit|Billing|License|BB")
_NAMED = {
    **{"cpu": "CPUs", "mem": "memory", "gres": "GPUs and other devices", "node": "nodes", "wall": "hours"},
    **{"time": "hours", "job": "jobs", "jobs": "jobs", "submit": "jobs submitted", "license": "licences"},
}


def is_suspended(job: Job) -> bool:
    """Return whether a job has its nodes, but its processes stand still."""
    return job.state in _SUSPENDED


def is_ending(job: Job) -> bool:
    """Return whether a job is over but for what is still cleared away on its nodes."""
    return job.state in _ENDING


def is_readied(job: Job) -> bool:
    """Return whether the nodes of a job are not ready yet, so that nothing of it runs."""
    return job.state in _READYING


def is_held(job: Job) -> bool:
    """Return whether a job waits until somebody releases it."""
    return job.state in _ON_HOLD or (job.pending and bool(_HOLDING.search(job.reason)))


def waiting(job: Job) -> str:
    """Say why a job that is not over does not run: Slurm's own word, then what it means."""
    word = job.reason or job.state
    if job.state in _STATES and job.state != job.reason:
        word = f"{job.state}, {job.reason}" if job.reason else job.state
    reason = job.reason.partition(",")[0]  # "ReqNodeNotAvail, UnavailableNodes:n1"
    known = _REASONS.get(reason) or _limit(reason) or _STATES.get(job.state)
    if is_held(job) and reason not in _REASONS:
        known = f"{known or 'held'}; `scontrol release JOB` lets it go"
    return f"{word}: {known.replace('JOB', job.id)}" if known else word


def ended(job: Job) -> str:
    """Say how a job ended: Slurm's own word, then what it means."""
    meaning = _ENDED.get(job.state)
    if job.state == "FAILED" and job.code:
        meaning = _CODES.get(job.code) or _signal(job.code)
    return f"{job}: {meaning}" if meaning else str(job)


def _signal(code: int) -> str | None:
    number = -code if code < 0 else code - 128  # a shell adds 128 to the signal that ended its command
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return None


def _limit(reason: str) -> str | None:
    """Explain limits of associations and QOS, of which Slurm has a hundred: ``QOSMaxCpuPerUserLimit``."""
    match = _LIMIT.fullmatch(reason)
    if match is None or not reason.endswith(("Limit", "Minutes", "Satisfied", "GRES", "License", "BB")):
        return None
    unit = _UNITS.search(match["what"])
    of = _NAMED.get(unit[0].lower(), "resources") if unit else "resources"
    whose = "its QOS" if match["who"] == "QOS" else "its account"
    if match["kind"] == "Min":
        return f"it asks for fewer {of} than {whose} demands; {_NEVER}"
    if "Minutes" in reason and "Run" not in reason:
        return f"the hours that {whose} may use are used up"
    if "PerJob" in reason or "PerNode" in reason or (unit is not None and unit[0] == "Time"):
        return f"it asks for more {of} than {whose} allows a job; {_NEVER}"
    return f"{whose} allows no more {of} at once; it starts when other jobs end"
