"""Schedules against the published tables and hand-computed values."""

from __future__ import annotations

import math

import pytest

from sparsity.masking.schedules import acdc_phases, acdc_table, cosine_fraction

# Peste et al. 2021, ResNet-50, 100 epochs: (first epoch, sparse?)
PUBLISHED = [
    (0, False),
    (10, True),
    (15, False),
    (20, True),
    (25, False),
    (30, True),
    (35, False),
    (40, True),
    (45, False),
    (50, True),
    (55, False),
    (60, True),
    (65, False),
    (70, True),
    (75, False),
    (85, True),
]


@pytest.mark.parametrize("steps_per_epoch", [1, 10, 391])
def test_acdc_table_of_100_epochs(steps_per_epoch: int):
    phases = acdc_phases(100 * steps_per_epoch)
    assert phases == [(epoch * steps_per_epoch, sparse) for epoch, sparse in PUBLISHED]


# the authors' configurations for longer runs: epochs of compression and decompression, read off their ranges
LONGER = {
    # compressed at [10, 10, 121] and 135, restored at [15, 10, 116] and 125
    "150ep": (
        [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 135],
        [15, 25, 35, 45, 55, 65, 75, 85, 95, 105, 115, 125],
    ),
    # compressed at [10, 10, 171] and 185, restored at [15, 10, 166] and 175
    "200ep": (
        [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160, 170, 185],
        [15, 25, 35, 45, 55, 65, 75, 85, 95, 105, 115, 125, 135, 145, 155, 165, 175],
    ),
}


@pytest.mark.parametrize("table", LONGER)
def test_acdc_tables_of_longer_runs(table: str):
    compress, decompress = LONGER[table]
    epochs = int(table.removesuffix("ep"))
    expected = [(0, False), *sorted([(e, True) for e in compress] + [(e, False) for e in decompress])]
    assert acdc_table(table) == expected
    assert acdc_phases(7 * epochs, table) == [(7 * epoch, sparse) for epoch, sparse in expected]
    # scaled to 30 epochs of 100 steps: the same shares
    scaled = acdc_phases(3000, table)
    assert [step for step, _ in scaled] == [round(epoch / epochs * 3000) for epoch, _ in expected]


def test_the_default_table_is_that_of_100_epochs():
    assert acdc_table() == PUBLISHED
    assert acdc_phases(12_345) == acdc_phases(12_345, "100ep") != acdc_phases(12_345, "200ep")


@pytest.mark.parametrize("steps_per_epoch", [1, 10])
def test_acdc_is_half_dense_and_half_sparse(steps_per_epoch: int):
    total = 100 * steps_per_epoch
    phases = acdc_phases(total)
    ends = [start for start, _ in phases[1:]] + [total]
    dense = sum(end - start for (start, sparse), end in zip(phases, ends, strict=True) if not sparse)
    assert (dense, total - dense) == (50 * steps_per_epoch, 50 * steps_per_epoch)
    # the long ones: dense 75-85, sparse 85-100
    assert phases[-2:] == [(75 * steps_per_epoch, False), (85 * steps_per_epoch, True)]


@pytest.mark.parametrize("total", range(1, 61))
def test_short_acdc_runs_alternate_and_end_sparse(total: int):
    phases = acdc_phases(total)
    steps = [step for step, _ in phases]
    assert phases[-1][1]
    assert all(before[1] != after[1] for before, after in zip(phases, phases[1:], strict=False))
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    assert steps[-1] <= total


@pytest.mark.parametrize("total", range(1, 61))
def test_short_acdc_runs_start_dense(total: int):
    assert acdc_phases(total)[0] == (0, False)


def test_acdc_boundaries_are_shares_of_training():
    for total in (1_000, 12_345):
        for (step, sparse), (epoch, published) in zip(acdc_phases(total), PUBLISHED, strict=True):
            assert sparse is published
            assert abs(step - epoch / 100 * total) <= 0.5


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.3),  # cos 0 = 1
        (25, 0.225),  # cos 60 degrees = 1/2:  .15 * 1.5
        (37.5, 0.15),  # cos 90 degrees = 0
        (50, 0.075),  # cos 120 degrees = -1/2
        (75, 0.0),
        (76, 0.0),  # a cosine would rise again
        (150, 0.0),
    ],
)
def test_cosine_fraction(step: int, expected: float):
    assert cosine_fraction(0.3, step, 75) == pytest.approx(expected, abs=1e-12)


def test_cosine_fraction_of_a_run_too_short_to_update():
    assert cosine_fraction(0.3, 0, 0) == 0.0


def test_cosine_fraction_never_rises():
    values = [cosine_fraction(0.5, step, 40) for step in range(60)]
    assert values[0] == 0.5
    assert all(after <= before for before, after in zip(values, values[1:], strict=False))
    assert math.isclose(sum(values[:40]), 0.5 / 2 * 41)  # the cosines of 0..39 add up to 1
