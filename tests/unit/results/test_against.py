"""Tables beside published figures: the papers, several sources, what differs, what is missing."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from fake_runs import SPEC, write_json
from paper_runs import FAMILIES, write_family, write_paper

from experiments.errors import UserError
from results.numbers.paper import figures, of_sources
from results.runs.several import read_several
from results.table.against import against, lettered
from results.table.formats import FORMATS, write

SOURCES = list(dict.fromkeys(figure.key for figure in figures()))


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_paper(tmp_path_factory.mktemp("paper"))


def lines(folders: list[Path], source: str = "ham", margin: float | None = None) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(write([against(read_several(folders), [source], margin)], "csv"))))


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
