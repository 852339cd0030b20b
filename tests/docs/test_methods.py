"""What `ham methods` says, and the pages that say the same."""

from __future__ import annotations

import dataclasses

import pytest
from typer.testing import CliRunner

from experiments.cli import listing
from experiments.cli.main import app
from experiments.errors import UserError
from results.numbers import paper
from scripts.reference import methods
from sparsity import registry

ALL = {**registry.topologies(), **registry.representations()}


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["methods", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_overview_has_a_line_for_every_method():
    words = {line.split()[0]: line for line in said().splitlines() if line.startswith("  ")}
    assert set(words) == {*ALL, "name"}
    for name, cls in ALL.items():
        assert cls.title in words[name]
        assert cls.paper in words[name]
        assert f" {len(dataclasses.fields(cls.Options))} " in f"{words[name]} "
    assert " DST " in words["rigl"]


@pytest.mark.parametrize("name", ALL)
def test_a_description_holds_everything_that_is_declared(name: str):
    text, section = said(name), methods.pages()[name]
    for field in dataclasses.fields(ALL[name].Options):
        assert f"  {field.name} (" in text
        assert f"| {field.name} | " in section
        assert field.metadata["doc"] in text
    for figure in paper.of_method(name):
        for shown in (text, section):
            assert figure.source in shown
            assert f"{figure.top1:.1f}" in shown or f"{figure.top1:.2f}" in shown
            assert figure.known in shown
    assert ("published figures" in text) == bool(paper.of_method(name))


def test_options_are_shown_as_they_are_written():
    text = said("rigl")
    assert "  drop_fraction (float, default 0.3; > 0 and <= 1): fraction of a layer's active weights" in text
    assert "  also_step (bool, default false): " in text
    assert "  batch_reference (int | null, default null; >= 1): " in text


def test_one_line_holds_the_sparsities_of_a_row():
    line = next(line for line in said("rigl").splitlines() if line.startswith("  RiGL + HAM "))
    assert "80: 76.22 ± 0.07, 90: 74.83 ± 0.08, 95: 72.93 ± 0.10" in line
    assert "80: 75.1, 90: 73.0, 95: 69.7, 96.5: 67.2" in said("rigl")
    assert said("grasp").splitlines()[-1].split("  ")[-1] == ""  # nothing has to be known to compare it
    assert "unconfirmed" in said("grasp").splitlines()[-1]


def test_an_unknown_name_is_one_message():
    with pytest.raises(UserError, match="'rgl' is not a method; allowed: acdc, .*did you mean 'rigl'"):
        listing.describe("rgl")
