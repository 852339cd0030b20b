"""Which cell a task of a job array is, by the words of its scheduler."""

from __future__ import annotations

import pytest

from experiments.errors import UserError
from experiments.launch.array_index import FIRST, from_environment, given

ALL = list(FIRST.items())


@pytest.mark.parametrize(("name", "first"), ALL)
def test_each_scheduler_counts_its_own_way(name: str, first: int) -> None:
    cells = [from_environment({name: str(number)}, None).of(3) for number in range(first, first + 3)]
    assert cells == [0, 1, 2]
    assert from_environment({name: "7"}, 5).of(3) == 2  # an array that its owner numbers from 5


@pytest.mark.parametrize(("name", "first"), ALL)
def test_beyond_the_table_the_range_is_said_as_the_scheduler_counts(name: str, first: int) -> None:
    with pytest.raises(UserError) as caught:
        from_environment({name: str(first + 3)}, None).of(3)
    expected = f"there is no cell {first + 3}: the table has 3, numbered {first} to {first + 2} here"
    assert (caught.value.message, caught.value.where) == (expected, f"{name}={first + 3}")


def test_what_starts_at_one_has_no_task_zero() -> None:
    with pytest.raises(UserError, match="there is no cell 0: the table has 3, numbered 1 to 3 here"):
        from_environment({"SGE_TASK_ID": "0"}, None).of(3)


def test_a_number_of_ones_own_counts_from_zero() -> None:
    assert given(2, None).of(3) == 2
    assert given(3, 1).of(3) == 2
    with pytest.raises(UserError, match="N: there is no cell 3: the table has 3, numbered 0 to 2 here"):
        given(3, None).of(3)


@pytest.mark.parametrize("env", [{}, {"SGE_TASK_ID": "undefined"}, {"LSB_JOBINDEX": "0"}, {"PBS_ARRAY_INDEX": ""}])
def test_outside_an_array_a_number_is_needed(env: dict[str, str]) -> None:
    with pytest.raises(UserError, match="which cell"):
        from_environment(env, None)


def test_two_schedulers_are_not_chosen_between() -> None:
    with pytest.raises(UserError, match="SLURM_ARRAY_TASK_ID=1, LSB_JOBINDEX=2; give"):
        from_environment({"LSB_JOBINDEX": "2", "SLURM_ARRAY_TASK_ID": "1"}, None)
    # a job outside an array within one of another scheduler
    assert from_environment({"SGE_TASK_ID": "undefined", "SLURM_ARRAY_TASK_ID": "1"}, None).of(3) == 1


@pytest.mark.parametrize("value", ["-1", "1.0", "one", "²", "9" * 5000])
def test_what_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="PBS_ARRAY_INDEX: .* is no number of a task"):
        from_environment({"PBS_ARRAY_INDEX": value}, None)
