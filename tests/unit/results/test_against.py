"""Results beside published figures: which figure a run is compared with, verdicts at their edges, the paper."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from fake_runs import SPEC, write_json
from hypothesis import given
from hypothesis import strategies as st
from paper_runs import FAMILIES, sample, write_family, write_paper
from scipy.stats import t as student

from experiments.errors import UserError
from results.numbers.paper import Figure, figures, of_sources
from results.numbers.reproduction import apart, matching, most_spread, verdict
from results.numbers.stats import Summary, summarise
from results.runs.discover import flatten
from results.runs.several import read_several
from results.table.against import against, lettered
from results.table.formats import FORMATS, write

SOURCES = list(dict.fromkeys(figure.key for figure in figures()))
FIGURE = replace(of_sources(["ham"])[0], top1=75.0, spread=0.1)


def spec_of(figure: Figure, **changes: object) -> dict[str, object]:
    """The flattened configuration of a run that stands for a figure."""
    added = {key: {"x": 1} for key, name in (("ham", "HAM"), ("sam", "SAM")) if name in figure.addition.split(" + ")}
    sparse_opt = "layer" if "SparseOpt" in figure.addition else None
    spec = {
        "data": {"name": figure.dataset},
        "model": {"name": f"torchvision:{figure.model}"},
        "topology": {"name": figure.topology, "sparsity": figure.sparsity},
        "representation": {"name": figure.representation},
        "optimizer": {"ham": None, "sam": None, **added, "sparse_opt": sparse_opt, "lr": 0.1},
        "schedule": {"epochs": figure.epochs or 100},
    }
    return flatten(spec) | changes


def judged(values: list[float], margin: float = 0.3, figure: Figure = FIGURE) -> str:
    """The verdict on accuracies in per cent."""
    return verdict(summarise(value / 100 for value in values), figure, margin)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_paper(tmp_path_factory.mktemp("paper"))


def lines(folders: list[Path], source: str = "ham", margin: float | None = None) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(write([against(read_several(folders), [source], margin)], "csv"))))


@pytest.mark.parametrize("source", SOURCES)
def test_every_figure_is_found_by_a_run_that_stands_for_it(source: str) -> None:
    """Of all sources; methods that the suite does not have are the only exception."""
    for figure in of_sources([source]):
        found = matching(spec_of(figure), of_sources([source]), figure.layers)
        assert (figure in found) == (figure.topology is not None and figure.representation is not None), figure
        for other in found:
            same = ("topology", "representation", "addition", "dataset", "model", "layers", "epochs", "sparsity")
            assert all(getattr(figure, key) == getattr(other, key) for key in same)


@pytest.mark.parametrize(
    "changes",
    [
        {"data.name": "cifar10"},
        {"model.name": "resnet18"},
        {"topology.name": "set"},
        {"representation.name": "sign_in"},
        {"topology.sparsity": 0.906},
        {"optimizer.ham.alpha": 20.0},
        {"optimizer.sam.rho": 0.05},
        {"optimizer.sparse_opt": "network"},
    ],
)
def test_another_network_is_not_compared(changes: dict[str, object]) -> None:
    (figure,) = [one for one in of_sources(["ham"]) if (one.row, one.sparsity) == ("RiGL", 0.9)]
    assert matching(spec_of(figure), of_sources(["ham"]), "ERK") == [figure]
    assert figure not in matching(spec_of(figure, **changes), of_sources(["ham"]), "ERK")


def test_a_dense_network_has_no_sparsity_whatever_its_column_says() -> None:
    dense = of_sources(["ham"])[0]
    assert matching(spec_of(dense, **{"topology.sparsity": 0.9}), of_sources(["ham"]), None) == [dense]


def test_of_several_figures_the_nearest_is_taken() -> None:
    """Layers before epochs before sparsity; what is equally near is shown, all of it."""
    acdc = of_sources(["acdc"])
    one = spec_of(next(figure for figure in acdc if figure.sparsity == 0.9))
    assert [figure.top1 for figure in matching(one, acdc, "global")] == [75.03]
    assert [figure.top1 for figure in matching(one, acdc, "uniform")] == [75.04]
    assert [figure.top1 for figure in matching(one | {"schedule.epochs": 180}, acdc, "uniform")] == [76.09]
    assert [figure.top1 for figure in matching(one | {"schedule.epochs": 180}, acdc, "global")] == [75.03]
    mest = of_sources(["mest"])
    assert [figure.note for figure in matching(spec_of(mest[0]), mest, "ERK")] == ["1x", "1.5x"]
    reached = of_sources(["str"])
    assert [
        figure.sparsity for figure in matching(spec_of(reached[1], **{"topology.sparsity": 0.9}), reached, None)
    ] == [0.9023]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([75.3] * 3, "reproduced"),  # an interval without width, on the end of the margin
        ([74.7] * 3, "reproduced"),
        ([75.3001] * 3, "above"),
        ([74.6999] * 3, "below"),
        ([75.0] * 2, "too few seeds"),
        ([80.0], "too few seeds"),
        ([], "not run"),
    ],
)
def test_verdicts_at_the_edges(values: list[float], said: str) -> None:
    assert judged(values) == said


@pytest.mark.parametrize("seeds", [3, 4, 5, 10])
@pytest.mark.parametrize("margin", [0.1, 0.3, 1.0])
def test_an_end_of_the_interval_at_the_margin(seeds: int, margin: float) -> None:
    """The interval's end is moved across each end of the margin."""
    std = 0.3 * margin
    half = float(student.ppf(0.95, seeds - 1)) * std / math.sqrt(seeds)
    spread = [value * 100 - 75 for value in sample(replace(FIGURE, spread=std), seeds)]
    assert half < margin

    def at(shift: float) -> str:
        return judged([75 + shift + value for value in spread], margin)

    tiny = 1e-6
    for side, beyond in ((1, "above"), (-1, "below")):
        assert at(side * (margin - half - tiny)) == "reproduced"
        assert at(side * (margin - half + tiny)) == "undecided"
        assert at(side * (margin + half - tiny)) == "undecided"
        assert at(side * (margin + half + tiny)) == beyond


def test_how_much_seeds_may_scatter() -> None:
    assert most_spread(3, 0.3) == pytest.approx(0.3 * math.sqrt(3) / student.ppf(0.95, 2))
    for seeds in (3, 5):
        for factor, said in ((0.999, "reproduced"), (1.001, "undecided")):
            figure = replace(FIGURE, spread=factor * most_spread(seeds, 0.3))
            assert judged([100 * value for value in sample(figure, seeds)]) == said


@given(st.lists(st.integers(7300, 7700), min_size=3, max_size=6), st.floats(0.01, 2))
def test_a_verdict_is_that_of_its_interval(values: list[int], margin: float) -> None:
    ours = summarise(value / 10_000 for value in values)
    assert ours is not None
    found = apart(ours, FIGURE)
    assert found is not None
    assert found.low <= found.mean <= found.high
    said = verdict(ours, FIGURE, margin)
    assert (said == "reproduced") == (max(-found.low, found.high) <= margin + 1e-9)
    assert (said in ("above", "below")) == (found.low > margin + 1e-9 or found.high < -margin - 1e-9)
    mirrored = summarise((15_000 - value) / 10_000 for value in values)
    assert verdict(mirrored, FIGURE, margin) == {"above": "below", "below": "above"}.get(said, said)


def test_a_published_spread_counts_only_where_its_kind_is_known() -> None:
    ours = Summary(3, 0.75, 0.001, 0.749, 0.751)
    alone = apart(ours, FIGURE)
    assert alone == apart(ours, replace(FIGURE, spread=None)) == apart(ours, replace(FIGURE, seeds=5))
    known = apart(ours, replace(FIGURE, spread=0.2, spread_of="std", seeds=5))
    assert known is not None
    part, other = 0.1**2 / 3, 0.2**2 / 5
    freedom = (part + other) ** 2 / (part**2 / 2 + other**2 / 4)  # Welch and Satterthwaite
    assert known.high == pytest.approx(student.ppf(0.95, freedom) * math.sqrt(part + other))


def test_the_papers_table_is_reproduced(paper: list[Path]) -> None:
    """From five seeds with exactly the published means and spreads; no run has a configuration but in the manifest."""
    found = lines(paper)
    assert Counter(line["verdict"] for line in found) == {"reproduced": 47}
    assert {(line["published_row"], line["published_sparsity"], line["published_epochs"]) for line in found} == {
        (figure.row, f"{figure.sparsity:g}", str(figure.epochs or "")) for figure in of_sources(["ham"])
    }
    for line in found:
        assert float(line["accuracy_mean"]) == pytest.approx(float(line["published_mean"]), abs=1e-9)
        assert float(line["accuracy_std"]) == pytest.approx(float(line["published_spread"] or 0.001), abs=2e-5)
    text = write([against(read_several(paper), ["ham"])])
    assert "arXiv\n  2506.02630: 47 reproduced." in text
    assert "Of this source and in none" not in text
    assert "Ours: Sparsity: the share of zeros among the weights of all" in " ".join(text.split())


@pytest.mark.parametrize(("shift", "said"), [(0.7, "above"), (-0.7, "below"), (0.3, "undecided")])
def test_what_is_not_the_papers_is_not_reproduced(tmp_path: Path, shift: float, said: str) -> None:
    found = lines(write_paper(tmp_path, families=("rigl",), shift=shift))
    assert Counter(line["verdict"] for line in found) == {said: 9}
    assert {line["verdict"] for line in lines([tmp_path / "imagenet-rigl"], margin=2.0)} == {"reproduced"}


def test_three_seeds_that_scatter_as_published_seldom_decide(tmp_path: Path) -> None:
    folders = write_paper(tmp_path, seeds=3, families=("rigl", "dense"))
    undecided = [line for line in lines(folders) if line["verdict"] == "undecided"]
    assert undecided
    assert {float(line["published_spread"]) > 0.0018 for line in undecided} == {True}
    text = write([against(read_several(folders), ["ham"])])
    assert "From 3 seeds, reproduced takes a standard deviation of at most 0.17 points." in " ".join(text.split())


def test_runs_that_have_not_begun_are_matched(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "rigl", lambda cell, seed: 0.75 if cell.row == "RiGL" and seed < 2 else None, 3)
    found = lines([folder])
    assert Counter(line["verdict"] for line in found) == {"too few seeds": 3, "not run": 6}
    assert {(line["epochs"], line["layers"]) for line in found} == {("102", "ERK")}
    table = against(read_several([folder]), ["ham"])
    assert any("STR + HAM at 80 %, 90 %, 95 %" in text for text in table.caption)


def test_an_older_manifest_says_what_is_missing(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "pilot", lambda cell, seed: 0.75, 3)
    manifest = json.loads((folder / "sweep.json").read_text())
    write_json(folder / "sweep.json", {key: value for key, value in manifest.items() if key != "specs"})
    table = against(read_several([folder]), ["ham"])
    assert table.records == ()
    assert any("not known, `ham sweep` again writes them down: PILoT at 80 % sparse" in text for text in table.caption)


def test_what_differs_stands_beside_it(paper: list[Path]) -> None:
    rigl = [folder for folder in paper if "rigl" in folder.name]
    table = against(read_several(rigl), ["rigl"])
    assert [line.cells[-1].text for line in table.grids[0].rows][:2] == ["a", "a"]  # ERK and 102 epochs, as ours
    assert any("(a) label smoothing 0.1, batch 4096, zero-initialised last" in text for text in table.caption)
    assert {line["differs"] for line in lines(rigl, "ham")} == {"epochs 102 / ?; layers ERK / ?"}
    assert {line["differs"] for line in lines(rigl, "sparse_opt")} == {"epochs 102 / 90; layers ERK / ?"}
    assert any("second-hand; recipe not stated" in text for text in against(read_several(rigl), ["sparse_opt"]).caption)


def test_what_was_trained_or_evaluated_otherwise_is_said(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "pilot", lambda cell, seed: None, 3)
    manifest = json.loads((folder / "sweep.json").read_text())
    for spec in manifest["specs"].values():
        spec["data"] |= {"train_limit": 4000, "image_size": 32, "evaluate_on": "validation"}
    write_json(folder / "sweep.json", manifest)
    (said,) = {line["differs"] for line in lines([folder])}
    assert said.endswith("ours on the validation part; ours with 4,000 training images; ours with 32 pixels")


def test_rows_of_two_tables_have_its_name(paper: list[Path], tmp_path: Path) -> None:
    rigl = next(folder for folder in paper if "rigl" in folder.name)
    shutil.copytree(rigl, tmp_path / "copy")
    heads = [head.label for head in against(read_several([rigl, rigl]), ["ham"]).grids[0].header]
    assert "Table" not in heads
    both = against(read_several([rigl, tmp_path / "copy"]), ["ham"]).grids[0]
    assert both.header[1].label == "Table"
    assert len(both.rows) == 18


def test_each_source_is_compared_with_by_itself(paper: list[Path]) -> None:
    """All sources at once say of each cell what each says alone; a column and the caption name them."""
    sweeps = read_several(paper)
    table = against(sweeps, SOURCES)
    assert [head.label for head in table.grids[0].header][:3] == ["Method", "Source", "Sparsity, %"]
    by_source: dict[str, list[object]] = {}
    for record, line in zip(table.records or (), table.grids[0].rows, strict=True):
        assert line.cells[1].text.strip() == record["source_key"]
        assert len(line.cells) == len(table.grids[0].header)
        by_source.setdefault(record["source_key"], []).append(record)
    for source in SOURCES:
        alone = against(sweeps, [source])
        assert by_source.get(source, []) == list(alone.records or ())
        assert f"{source}: {alone.caption[0]}" in table.caption
    assert "Source" not in [head.label for head in against(sweeps, ["ham", "ham"]).grids[0].header]


def test_every_published_figure_can_be_reached(paper: list[Path]) -> None:
    """It stands in a line, or among those that no folder stands for; with all remarks told apart."""
    table = against(read_several(paper), SOURCES)
    caption = "\n".join(table.caption)
    shown = {
        (record["source_key"], record["published_row"], record["published_sparsity"]) for record in table.records or ()
    }
    for figure in figures():
        where = f"{100 * figure.sparsity:g} %" if figure.sparsity else f"{figure.epochs or '?'} epochs"
        (rest,) = [text for text in table.caption if text.startswith(f"Of {figure.key} and")] or [""]
        assert (figure.key, figure.row, figure.sparsity) in shown or (figure.row in rest and where in rest), figure
    letters = re.findall(r"\((\w+)\) ", next(text for text in table.caption if text.startswith("Of published")))
    assert len(letters) == len(set(letters))
    assert all(letter.isalpha() for letter in letters), caption


def test_more_remarks_than_letters() -> None:
    found = list(lettered(f"remark {number // 2}" for number in range(120)).values())
    assert (found[0], found[25:28], found[59], len(found)) == ("a", ["z", "aa", "ab"], "bh", 60)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_every_verdict(paper: list[Path], format: str) -> None:
    text = write([against(read_several(paper), ["ham"])], format)
    assert text.count("reproduced") >= 47
    assert text == write([against(read_several(paper), ["ham"])], format)


def test_an_unknown_source_is_refused(paper: list[Path]) -> None:
    with pytest.raises(UserError, match="--against: unknown source 'hams'; allowed: ham, .* did you mean 'ham'"):
        against(read_several(paper[:1]), ["hams"])


def test_folders_of_runs_are_matched_by_their_own_configurations(tmp_path: Path) -> None:
    from fake_runs import result, write_run

    spec = json.loads(json.dumps(SPEC)) | {"label": "mine"}
    spec["data"] |= {"name": "cifar100"}
    spec |= {"model": {"name": "resnet18"}, "topology": {"name": "random", "sparsity": 0.9, "allocation": "balanced"}}
    for seed in range(3):
        write_run(tmp_path / f"r{seed}", spec | {"seed": seed}, result(0.7296, seed, 0.9))
    (line,) = lines([tmp_path / f"r{seed}" for seed in range(3)], "sign_in")
    assert (line["row"], line["published_mean"], line["verdict"]) == ("mine", "0.7296", "reproduced")


def test_all_families_are_tried() -> None:
    from experiments.config.files import known_configs

    assert sorted(f"paper/imagenet_{family}" for family in FAMILIES) == sorted(
        name for name in known_configs() if name.startswith("paper/imagenet")
    )
