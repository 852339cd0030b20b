"""What a dashboard shows, and that no panel of it averages over anything but seeds."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.tracking import dashboard
from experiments.tracking.dashboard import CellLabel, Shown, View, views

ROWS = {"Dense": "Dense", "RiGL": "RiGL", "RiGL + HAM": "RiGL"}
SPARSITY = "topology.sparsity"
PAGE = Path(__file__).resolve().parents[3] / "docs/howto/wandb.md"


def shown(*columns: Mapping[str, Any], part: str = "test", own: Mapping[str, Any] | None = None) -> Shown:
    """A table of three rows; those of the dense one have values of their own where a column has that key."""
    dense = own or {SPARSITY: 0.0}
    cells = [
        CellLabel(
            row=row,
            base_row=base,
            column=column,
            values={key: dense.get(key, value) if row == "Dense" else value for key, value in column.items()},
            group=f"paper / {row} @ {', '.join(map(str, column.values()))}",
            color="#d55e00" if "HAM" in row else "#4a5562",
        )
        for column in columns
        for row, base in ROWS.items()
    ]
    return Shown("paper", part, "**the table**", cells)


TWO = ({SPARSITY: 0.9}, {SPARSITY: 0.95})


def kept(view: View, cells: Sequence[CellLabel]) -> list[tuple[str, ...]]:
    """The groups of a view, by evaluating its filter on each cell as W&B does on its runs."""
    found = []
    for cell in cells:
        known = {"table": "paper", "row": cell.row, "base_row": cell.base_row}
        known |= {dashboard.name_of(key): value for key, value in cell.values.items()}
        run = {"JobType": "train", "Group": cell.group}
        if eval(view.filters, {"Config": known.get, "Metric": run.get}):  # it is Python, but for the reader's liberties
            own = known | {"Group": cell.group}
            found.append(tuple(str(own[group]) for group in view.groups))
    return found


@pytest.mark.parametrize(
    "columns",
    [
        ({},),
        TWO,
        ({SPARSITY: 0.9, "model.name": "a"}, {SPARSITY: 0.9, "model.name": "b"}, {SPARSITY: 0.95, "model.name": "b"}),
        ({"optimizer.lr": 0.1}, {"optimizer.lr": 1.0}),
        ({"optimizer.ham": None}, {"optimizer.ham": {"alpha": 2.0}}),  # no plain values
    ],
    ids=["none", "sparsities", "two keys", "another key", "mappings"],
)
def test_a_group_is_a_cell_in_each_view(columns: tuple[dict[str, Any], ...]) -> None:
    """Cells that are the same runs (a dense row's) are one group; no others are."""
    table = shown(*columns)
    whole, column, method = views(table)
    plain = table.keys != (dashboard.GROUP,)

    def runs(cell: CellLabel) -> tuple[str, ...]:
        return (cell.row, *map(str, cell.values.values()), *(() if plain else (cell.group,)))

    assert len(set(kept(whole, table.cells))) == len({runs(cell) for cell in table.cells})
    last = [cell for cell in table.cells if cell.column == table.cells[-1].column]
    assert set(kept(column, table.cells)) == {(cell.row,) for cell in last}
    assert len(kept(column, last)) == len(last)
    others = [cell for cell in table.cells if cell not in last and {runs(cell)} - {runs(one) for one in last}]
    assert kept(column, others) == []
    assert {group[0] for group in kept(method, table.cells)} == {"RiGL", "RiGL + HAM"} or columns == ({},)
    family = [cell for cell in table.cells if cell.base_row == method.name.partition(": ")[2]]
    assert len(set(kept(method, table.cells))) == len({runs(cell) for cell in family})


def test_the_views_of_a_table() -> None:
    found = views(shown(*TWO))
    assert [view.name for view in found] == ["paper", "paper: sparsity 0.95", "paper: RiGL"]
    assert [view.groups for view in found] == [("sparsity", "row"), ("row",), ("row", "sparsity")]
    assert "(Config('sparsity') == 0.95 or Config('row') in ['Dense'])" in found[1].filters
    for view in found:
        assert view.filters.startswith("Config('table') == 'paper' and Metric('JobType') == 'train'")
        assert [section.name for section in view.sections] == ["Answer", "Training", "Masks", "HAM", "Cost", "Runs"]
        assert view.sections[0].panels[0].text == "**the table**"
    assert found[0].colors[("0.95", "RiGL + HAM")] == "#d55e00"
    assert found[0].colors[("0", "Dense")] == "#4a5562"


def test_runs_of_tuning_are_shown_by_the_accuracy_that_they_have() -> None:
    for view in views(shown(*TWO, part="validation")):
        assert "Metric('JobType') == 'tune'" in view.filters
        named = {metric for section in view.sections for panel in section.panels for metric in panel.metrics}
        assert "tune/accuracy" in named
        assert "test/accuracy" not in named
        assert view.columns[0] == "summary:tune/accuracy"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_label_survives_a_filter(label: str) -> None:
    literal = dashboard._literal(label)
    assert ast.literal_eval(literal) == label
    assert not set("=<>()") & set(literal)


def test_thresholds_in_titles_are_those_of_the_watch() -> None:
    from ham import diagnostics

    titles = [panel.title for view in views(shown(*TWO)) for section in view.sections for panel in section.panels]
    assert f"relative step (too large beyond {diagnostics.TOO_LARGE})" in titles
    assert f"speed (idle below {diagnostics.IDLE})" in titles


def test_the_page_names_every_section() -> None:
    text = PAGE.read_text()
    assert [s.name for s in views(shown(*TWO))[0].sections if f"**{s.name}**" not in text] == []
