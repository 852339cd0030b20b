"""How arrays share ``max_running``, which holds for all jobs of a sweep.

Slurm's own throttle is one array's, and nothing of the suite's watches jobs. So the number is divided among the arrays
of a submission; where there are more arrays than that, each of the others waits for one before it. A later submission
takes what earlier ones have left, or waits until their jobs have ended, whichever is over earlier if all runs take
equally long. In no case do more jobs run at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .array import ArrayPlan


@dataclass(frozen=True)
class Earlier:
    """An array of an earlier submission, of which jobs wait or run.

    Attributes:
        job: Its number.
        left: How many of its jobs have not ended.
        width: How many of them may run at the same time; None: all.
        waits: Whether it was submitted to begin after others.
    """

    job: str
    left: int
    width: int | None = None
    waits: bool = False

    @property
    def used(self) -> int:
        """How many of its jobs may run now."""
        return self.left if self.width is None else min(self.left, self.width)


def throttled(arrays: Sequence[ArrayPlan], limit: int | None, earlier: Sequence[Earlier] = ()) -> list[ArrayPlan]:
    """Return arrays of which, together with earlier ones, no more jobs run at the same time than a limit says.

    Args:
        arrays: The arrays of a submission.
        limit: ``max_running`` of the profile.
        earlier: Arrays of the same sweep that have not ended.
    """
    if limit is None or not arrays:
        return list(arrays)
    free = limit - sum(one.used for one in earlier)
    new, old = sum(len(array.tasks) for array in arrays), sum(one.left for one in earlier)
    # what waits itself will need more than it uses now
    behind = any(one.waits for one in earlier) or free < 1 or new / free > (old + new) / limit
    first = tuple(one.job for one in earlier) if earlier and behind else ()
    widths = _shares([len(array.tasks) for array in arrays], limit if first or not earlier else free)
    return [
        replace(
            array,
            width=widths[number % len(widths)],
            after=first if number < len(widths) else (arrays[number - len(widths)].name,),
        )
        for number, array in enumerate(arrays)
    ]


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    """Divide a number among lanes of arrays, each of which gets 1 at least, by the jobs of all arrays in a lane."""
    lanes = [sum(sizes[lane :: min(limit, len(sizes))]) for lane in range(min(limit, len(sizes)))]
    shares = [1] * len(lanes)
    for _ in range(min(limit, sum(sizes)) - len(lanes)):
        poorest = max(range(len(lanes)), key=lambda lane: lanes[lane] / shares[lane])
        shares[poorest] += 1
    return shares
