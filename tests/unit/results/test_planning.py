"""How many seeds a table needs: from finished runs and from published spreads, against numbers by hand."""

from __future__ import annotations

import math

import pytest
from fake_runs import write_sweep

from results.numbers import planning
from results.numbers.paper import figures
from results.runs.store import read

ROWS = {f"RiGL{more}": {"topology.name": "rigl", "optimizer.lr": lr} for more, lr in (("", 0.1), (" + A", 0.2))}
VALUES = {"RiGL": [0.80, 0.82, 0.84], "RiGL + A": [0.81, 0.82, 0.86]}


def sweep(folder):
    columns = [{"topology.sparsity": value} for value in (0.8, 0.95)]
    return read(write_sweep(folder, VALUES, ROWS, columns, (0, 1, 2), {"RiGL + A": "RiGL"}))


def test_the_spread_of_a_finished_sweep(tmp_path):
    """Differences of 1, 0 and 2 points, twice; rows of spread 2 and sqrt 7 points."""
    found = planning.spread_of(sweep(tmp_path))
    assert found is not None
    assert found.difference == pytest.approx(1.0)
    assert found.row == pytest.approx(math.sqrt((4 + 7) / 2))
    assert planning.planned(sweep(tmp_path)) == 2


def test_a_plan_by_hand():
    """Cohen's medium effect (G*Power): 34 pairs, 64 a group; over more, more."""
    found = planning.plan(0.5, 1, planning.Spread("x", 1.0, 1.0))
    assert (found.paired, found.paired_holm, found.unpaired, found.unpaired_holm) == (34, 34, 64, 64)
    over = planning.plan(0.5, 8, planning.Spread("x", 1.0, 1.0))
    assert (over.paired, over.unpaired) == (34, 64)
    assert over.paired_holm is not None
    assert over.paired_holm > 34
    assert over.reach[3] > found.reach[3] == pytest.approx(4.302653 / math.sqrt(3))
    assert "34 seeds a row, if it is the only one judged" in planning.words(found)
    assert planning.as_dict(found)["power"] == 0.8


def test_published_spreads_are_pooled_and_their_source_is_named():
    found = planning.published([("imagenet", "resnet50", "rigl", "plain")])
    used = [
        f.spread
        for f in figures()
        if f.source.startswith("HAM, README") and f.spread and f.topology == "rigl" and f.representation == "plain"
    ]
    assert found is not None
    assert found.row == pytest.approx(math.sqrt(sum(spread**2 for spread in used) / len(used)))
    assert found.difference == pytest.approx(math.sqrt(2) * found.row)
    assert "HAM, README" in found.source
    assert planning.published([("mnist", "mlp", "rigl", "plain")]) is None
