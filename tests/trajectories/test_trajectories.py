"""The methods follow the recorded trainings of their authors' code, and docs/results/fidelity.md says so."""

from __future__ import annotations

import logging

import pytest
from comparisons import COMPARISONS, HEADER, PAGE, Comparison, carried_out
from recordings import DATA

from sparsity import registry

# methods whose authors' code was not run, or that have none: the page says nothing of them
WITHOUT = {"dense", "random", "one_shot", "plain", "powerprop", "product", "sign_in", "pilot", "bar"}


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.run.__name__)
def test_the_trajectory_is_that_of_the_authors_code(comparison: Comparison, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.ERROR)
    row = comparison.row(carried_out(comparison))
    assert row in PAGE.read_text(encoding="utf-8").splitlines(), f"docs/results/fidelity.md is out of date: {row}"


def test_the_page_holds_the_comparisons_and_nothing_else():
    text, header = PAGE.read_text(encoding="utf-8"), HEADER.read_text(encoding="utf-8")
    assert text.startswith(header)
    assert len(text.removeprefix(header).splitlines()) == len(COMPARISONS)


def test_every_method_is_compared_or_known_to_be_without():
    rows = " ".join(comparison.method.replace(",", " ") for comparison in COMPARISONS).split()
    methods = {**registry.topologies(), **registry.representations()}
    assert {name for name in methods if name not in rows} == WITHOUT


def test_every_file_of_numbers_is_described_and_small():
    described = (DATA / "README.md").read_text(encoding="utf-8")
    files = sorted(DATA.glob("*.npz"))
    assert all(f"| {file.stem} |" in described for file in files)
    assert sum(file.stat().st_size for file in files) < 3_000_000
