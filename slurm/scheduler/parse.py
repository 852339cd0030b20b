"""Jobs as squeue and sacct print them: the fields to request, and the parsers of the output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PENDING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
RUNNING = frozenset(
    {
        *("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"),
        "POWER_UP_NODE",
    }
)
OVER = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
        *("PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"),
    }
)
"""States of jobs that have ended. A state of a later Slurm, which is in none of the three sets, is taken for no end."""

# fixed widths, since only newer versions of squeue -O support separators and unlimited fields
QUEUE_FIELDS = {
    "JobArrayID": 48,
    "JobID": 24,
    "Name": 256,
    "State": 24,
    "Reason": 96,
    "RestartCnt": 12,
    "NodeList": 256,
    "TimeLeft": 24,
    "SubmitTime": 24,
    "StartTime": 24,
    "EndTime": 24,
    "exit_code": 12,
}
HISTORY_FIELDS = ("JobID", "JobIDRaw", "JobName", "State", "ExitCode", "NodeList", "Submit", "Start", "End")
_ID = re.compile(r"\d+(_\d+)?")
_SPAN = r"\d{1,7}(-\d{1,7})?"  # Slurm's largest MaxArraySize has seven digits
_FOLDED = re.compile(rf"(?P<array>\d+)_\[(?P<tasks>{_SPAN}(,{_SPAN})*)(:\d+)?(%\d+)?\]")
_LEFT = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")


@dataclass(frozen=True)
class Job:
    """One job, or one task of a job array.

    Attributes:
        id: "1234", or "1234_5" for task 5 of an array.
        raw: The scheduler's internal number of the job; that of the array while the task waits.
        name: Its name.
        state: Such as "PENDING", "RUNNING", "CANCELLED", "TIMEOUT".
        reason: Why it waits or ended, such as "Priority" or "by 1000"; empty if the scheduler gives none.
        restarts: How often it was requeued; 0 if only sacct knows the job.
        node: Nodes it runs or ran on; empty while it waits.
        left: Seconds until its time limit, or None.
        submitted: Unix seconds of its (last) submission, or None.
        started: Unix seconds of its start (the expected one while it waits), or None.
        ended: Unix seconds of its end, or None if it has not ended.
        code: Exit code, or the negative number of the signal that ended it; None if unknown.
    """

    id: str
    raw: str
    name: str
    state: str
    reason: str = ""
    restarts: int = 0
    node: str = ""
    left: int | None = None
    submitted: int | None = None
    started: int | None = None
    ended: int | None = None
    code: int | None = None

    @property
    def pending(self) -> bool:
        """Whether the job waits in the queue."""
        return self.state in PENDING

    @property
    def running(self) -> bool:
        """Whether the job occupies nodes."""
        return self.state in RUNNING

    @property
    def active(self) -> bool:
        """Whether the job is not over yet."""
        return self.state not in OVER

    def __str__(self) -> str:
        """Return the state in the scheduler's words, such as "CANCELLED by 1000" or "FAILED, exit code 1"."""
        text = f"{self.state} {self.reason}" if self.reason.startswith("by ") else self.state
        if self.state != "FAILED" or not self.code:
            return text
        return f"{text}, exit code {self.code}" if self.code > 0 else f"{text}, signal {-self.code}"


def parse_queue(output: str) -> dict[str, Job]:
    """Parse the output of squeue in the format of `QUEUE_FIELDS`, for all versions of Slurm."""
    jobs = {}
    for line in output.encode().splitlines():  # squeue counts a field's width in bytes
        fields, place = {}, 0
        for name, width in QUEUE_FIELDS.items():
            value = line[place : place + width].decode(errors="replace").strip()
            fields[name], place = "" if value in ("None", "(null)", "N/A", "NONE", "n/a") else value, place + width
        if _ID.fullmatch(fields["JobArrayID"]):
            job = _queued(fields)
            jobs[job.id] = job
    return jobs


def _queued(fields: Mapping[str, str]) -> Job:
    state = fields["State"]
    active = state not in OVER
    status = _whole(fields["exit_code"]) or 0  # in the encoding of wait(2)
    return Job(
        id=fields["JobArrayID"],
        raw=fields["JobID"],
        name=fields["Name"],
        state=state,
        reason=fields["Reason"],
        restarts=_whole(fields["RestartCnt"]) or 0,
        node=fields["NodeList"],
        left=_seconds(fields["TimeLeft"]) if state in RUNNING else None,
        submitted=_whole(fields["SubmitTime"]),
        started=_whole(fields["StartTime"]),
        ended=None if active else _whole(fields["EndTime"]),
        code=None if active else (-(status & 127) or status >> 8),
    )


def parse_history(output: str) -> dict[str, Job]:
    """Parse the output of sacct in the format of `HISTORY_FIELDS`; "12_[3-5]" becomes one job per task."""
    jobs = {}
    for line in output.splitlines():
        values = line.split("|")
        if len(values) != len(HISTORY_FIELDS):
            continue
        name, raw, label, said, code, node, submitted, started, ended = values
        state, _, reason = said.partition(" ")
        exit_code, _, signal = code.partition(":")
        for one in unfold(name):
            jobs[one] = Job(
                id=one,
                raw=raw,
                name=label,
                state=state.rstrip("+"),
                reason=reason,
                node="" if node == "None assigned" else node,
                submitted=_whole(submitted),
                started=_whole(started),
                ended=_whole(ended),
                code=-(_whole(signal) or 0) or _whole(exit_code),
            )
    return jobs


def unfold(name: str) -> list[str]:
    """Expand an id such as "12_[3-5,9%2]" into its tasks.

    A single id is returned as it is; anything that is not a job, such as a step, gives an empty list.
    """
    if _ID.fullmatch(name):
        return [name]
    match = _FOLDED.fullmatch(name)
    if match is None:
        return []
    spans = [part.partition("-") for part in match["tasks"].split(",")]
    tasks = [task for first, _, last in spans for task in range(int(first), int(last or first) + 1)]
    return [f"{match['array']}_{task}" for task in tasks]


def fold(ids: Iterable[str]) -> list[str]:
    """Combine ids into one argument per array, such as "12_[3-5,9]" or "12_3"; the opposite of `unfold`."""
    arrays: dict[str, set[int]] = {}
    for name in ids:
        array, _, task = name.partition("_")
        arrays.setdefault(array, set()).update({int(task)} if task else ())
    return [f"{array}_{_spans(tasks)}" if tasks else array for array, tasks in sorted(arrays.items())]


def _spans(tasks: set[int]) -> str:
    ordered = sorted(tasks)
    starts = [task for task in ordered if task - 1 not in tasks]
    ends = [task for task in ordered if task + 1 not in tasks]
    text = ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
    return text if text.isdecimal() else f"[{text}]"


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _seconds(text: str) -> int | None:
    match = _LEFT.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((24 * days + hours) * 60 + minutes) * 60 + seconds
