"""The number of a task in its job array, in the words of each scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.errors import UserError

FIRST = {
    "SLURM_ARRAY_TASK_ID": 0,
    "PBS_ARRAY_INDEX": 0,
    "PBS_ARRAYID": 0,
    "LSB_JOBINDEX": 1,
    "SGE_TASK_ID": 1,
    "JOB_COMPLETION_INDEX": 0,
    "AWS_BATCH_JOB_ARRAY_INDEX": 0,
}
"""Variable to the number of an array's first task: LSF and SGE have no task 0."""

_NO_ARRAY = {"SGE_TASK_ID": "undefined", "LSB_JOBINDEX": "0"}  # what jobs outside an array find there


@dataclass(frozen=True)
class ArrayIndex:
    """The number of a task.

    Attributes:
        number: As the scheduler counts.
        first: The number of the first task.
        source: Where the number comes from, for messages.
    """

    number: int
    first: int
    source: str

    def of(self, count: int) -> int:
        """Return the number of the cell, counted from 0.

        Raises:
            UserError: if a table of `count` cells has no such cell.
        """
        cell = self.number - self.first
        if not 0 <= cell < count:
            last = self.first + count - 1
            raise UserError(
                f"there is no cell {self.number}: the table has {count}, numbered {self.first} to {last} here",
                where=self.source,
            )
        return cell


def is_number(text: str) -> bool:
    """Return whether a text is a whole number that a table could have a cell for."""
    return text.isascii() and text.isdecimal() and len(text) < 10


def given(number: int, first: int | None) -> ArrayIndex:
    """Return a number that stands on the command line; it counts from 0 unless `first` says otherwise."""
    return ArrayIndex(number, first or 0, "N")


def from_environment(env: Mapping[str, str], first: int | None) -> ArrayIndex:
    """Return the number that a scheduler gave this task.

    Args:
        env: The environment.
        first: Number of the array's first task; None takes the scheduler's, see `FIRST`.

    Raises:
        UserError: if no scheduler says a number, or two say one, or it is no number.
    """
    found = {name: env[name] for name in FIRST if env.get(name) and env[name] != _NO_ARRAY.get(name)}
    if not found:
        raise UserError(
            f"which cell? give its number, or call this in a task of a job array, which sets one of {', '.join(FIRST)}",
            where="N",
        )
    if len(found) > 1:
        said = ", ".join(f"{name}={value}" for name, value in found.items())
        raise UserError(f"several schedulers say a number: {said}; give the cell's as an argument", where="N")
    ((name, value),) = found.items()
    if not is_number(value):
        raise UserError(f"{value!r} is no number of a task; give the cell's as an argument", where=name)
    return ArrayIndex(int(value), FIRST[name] if first is None else first, f"{name}={value}")
