"""Published figures: what the file holds against the tables that are printed elsewhere."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from results.numbers import paper
from results.numbers.paper import FOLDER, PROVENANCE, Figure, figures, of_method

ROOT = Path(__file__).resolve().parents[3]


def one(method: str, addition: str, sparsity: float, source: str, **more: object) -> Figure:
    found = [
        figure
        for figure in figures()
        if (figure.method, figure.addition, figure.sparsity) == (method, addition, sparsity)
        and source in figure.source
        and all(getattr(figure, key) == value for key, value in more.items())
    ]
    assert len(found) == 1, found
    return found[0]


def test_the_papers_table_is_the_one_in_the_documentation():
    rows = re.findall(
        r"^\| ([^|`]+) \| `paper/imagenet_\w+`[^|]* \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$",
        (ROOT / "docs/results/reproducing.md").read_text(),
        flags=re.MULTILINE,
    )
    assert len(rows) >= 13
    for row, *stated in rows:
        method, _, addition = row.partition(" + ")
        for sparsity, top1 in zip((0.8, 0.9, 0.95), stated, strict=True):
            figure = one(method, addition, sparsity, "TomJacobs05/HAM")
            assert figure.top1 == float(top1), row
            assert (figure.provenance, figure.epochs) == ("repo", None)
    assert sum("TomJacobs05/HAM" in figure.source for figure in figures()) == 13 * 3 + 8


@pytest.mark.parametrize(
    ("dataset", "model", "stated"),
    [
        ("cifar10", "resnet20", "88.25->89.37, 86.25->87.83, 83.56->84.74"),
        ("cifar100", "resnet18", "73.95->75.32, 72.96->73.94, 71.36->72.51"),
    ],
)
def test_sign_in_on_cifar(dataset: str, model: str, stated: str):
    for sparsity, pair in zip((0.8, 0.9, 0.95), stated.split(", "), strict=True):
        before, after = map(float, pair.split("->"))
        for addition, top1, representation in (("", before, "plain"), ("Sign-In", after, "sign_in")):
            figure = one("Random", addition, sparsity, "2504.12801", dataset=dataset)
            assert (figure.top1, figure.model, figure.representation) == (top1, model, representation)
            assert not figure.confirmed  # read in a note about the paper


def test_figures_of_other_papers():
    """A few of each kind, typed anew."""
    assert one("AC/DC", "", 0.9, "ACDC", layers="global").top1 == 75.03
    assert one("AC/DC", "", 0.9, "ACDC", epochs=200).top1 == 76.09
    assert one("RiGL", "", 0.9, "1911.11134", layers="erk", epochs=102).top1 == 73.0
    assert one("RiGL", "", 0.95, "google-research/rigl", epochs=510, note=RIGL_NOTE).top1 == 74.63
    assert one("STR", "", 0.9023, "RAIVNLab").top1 == 74.31
    assert one("RiGL", "SparseOpt", 0.95, "SparseOpt", epochs=180).top1 == 73.62
    assert one("Dense", "HAM + SAM", 0.0, "TomJacobs05/HAM", epochs=200).top1 == 78.56
    assert one("GraNet", "", 0.95, "GraNet").provenance == "memory"


RIGL_NOTE = "label smoothing 0.1, batch 4096, zero-initialised last normalisation"


def test_values_are_possible():
    assert len(figures()) > 150
    for figure in figures():
        assert 50 < figure.top1 < 95
        assert 0 <= figure.sparsity < 1
        assert figure.spread is None or 0 < figure.spread < 0.5
        assert figure.epochs is None or figure.epochs >= 90
        assert (figure.sparsity == 0) == (figure.method == "Dense" or "before it is pruned" in figure.note)
    assert {figure.dataset for figure in figures()} == {"imagenet", "cifar10", "cifar100"}


def test_more_zeros_cost_accuracy_within_a_row():
    """A digit typed wrong shows: in one row of one source, accuracy falls with sparsity."""
    rows: dict[tuple[object, ...], list[Figure]] = {}
    for figure in figures():
        key = (figure.row, figure.source, figure.dataset, figure.layers, figure.epochs, figure.note)
        rows.setdefault(key, []).append(figure)
    several = [row for row in rows.values() if len({figure.sparsity for figure in row}) > 1]
    assert len(several) > 30
    for row in several:
        accuracy = [figure.top1 for figure in sorted(row, key=lambda figure: figure.sparsity)]
        assert accuracy == sorted(accuracy, reverse=True), row[0].row


def test_names_are_registered():
    from sparsity import registry

    for figure in figures():
        assert figure.topology is None or figure.topology in registry.topologies()
        assert figure.representation is None or figure.representation in registry.representations()


def test_figures_of_a_method():
    assert {figure.row for figure in of_method("dense")} == {"Dense", "Dense + HAM", "Dense + SAM", "Dense + HAM + SAM"}
    assert {figure.row for figure in of_method("str")} == {"STR", "STR + HAM"}
    assert {figure.method for figure in of_method("sign_in")} == {"Random", "AC/DC", "RiGL"}
    assert {figure.addition for figure in of_method("acdc")} == {"", "Sign-In", "HAM"}
    assert of_method("plain") == ()


def test_what_was_not_read_in_the_source_is_flagged():
    unconfirmed = {"note", "review", "memory", "untagged"}
    assert {figure.provenance for figure in figures() if not figure.confirmed} == unconfirmed
    assert set(PROVENANCE) == unconfirmed | {"repo", "paper"}


def test_every_source_is_used():
    with (FOLDER / "sources.csv").open(newline="") as file:
        keys = {row["key"] for row in csv.DictReader(file)}
    with (FOLDER / "figures.csv").open(newline="") as file:
        used = {row["source"] for row in csv.DictReader(file)}
    assert keys == used


def test_an_unknown_provenance_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for path in FOLDER.iterdir():
        text = path.read_text().replace(",memory,", ",hearsay,")
        (tmp_path / path.name).write_text(text)
    monkeypatch.setattr(paper, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="'hearsay' is not one of repo, paper"):
        figures.__wrapped__()
