"""A report reads each file of a run once and measures once; published figures beside ours, of the same network only."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import write_sweep
from paper_runs import write_paper

from experiments.rundir import reading
from results.numbers.measure import measure
from results.numbers.paper import figures
from results.page import figures as kinds
from results.page import sparsity
from results.page.drawing import style
from results.page.figures import write
from results.page.material import Material
from results.page.report import write_report
from results.runs import discover
from results.runs.store import read

RIGL, HAM = {"topology.name": "rigl"}, {"optimizer.ham": {"alpha": 20.0}}
THREE = [{"topology.sparsity": value} for value in (0.8, 0.9, 0.95)]
IMAGENET = {"data.name": "imagenet", "model.name": "torchvision:resnet50"}


def counting(found: Counter[str], function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(path: Path, *rest: Any, **more: Any) -> Any:
        found[str(path)] += 1
        return function(path, *rest, **more)

    return counted


@pytest.mark.parametrize("make", [write_report, lambda folder: write(folder, form="svg")], ids=["report", "figures"])
def test_three_hundred_runs_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    """Reads are counted and not seconds, which a busy machine lengthens; only environments are read twice."""
    rows = {
        f"M{n // 2}{' + HAM' * (n % 2)}": RIGL | {"optimizer.lr": 0.1 + n // 2} | (HAM if n % 2 else {})
        for n in range(10)
    }
    plain = {row: row.removesuffix(" + HAM") for row in rows if row.endswith("HAM")}
    write_sweep(tmp_path, lambda row, column, seed: 0.7 + seed / 1000, rows, THREE, tuple(range(10)), plain)
    files: Counter[str] = Counter()
    measured: Counter[str] = Counter()
    monkeypatch.setattr(reading, "read_regular", counting(files, reading.read_regular))
    monkeypatch.setattr(discover, "read_mapping", counting(files, discover.read_mapping))
    for module in ("page.material", "table.tables"):
        monkeypatch.setattr(f"results.{module}.measure", lambda sweep: measured.update([sweep.name]) or measure(sweep))
    make(tmp_path)
    assert sum(measured.values()) == 1
    by_name = Counter(Path(path).name for path in files)
    assert by_name["metrics.jsonl"] == by_name["result.json"] == 300
    assert by_name["spec.yaml"] <= 30, "once an identity"
    assert {path: n for path, n in files.items() if n > 1 + path.endswith("environment.json")} == {}


def markers(material: Material) -> list[tuple[float, float]]:
    """Place and accuracy of each hollow marker in the panels over sparsity."""
    with style():
        figure = sparsity.over_sparsity(material)
    assert figure is not None
    hollow = [line for axis in figure.axes for line in axis.lines if line.get_markerfacecolor() == "none"]
    return [(float(x), float(y)) for line in hollow for x, y in np.asarray(line.get_xydata())]


@pytest.fixture(scope="module")
def rigl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (folder,) = write_paper(tmp_path_factory.mktemp("paper"), seeds=3, families=("rigl",))
    return folder


def test_published_figures_are_drawn_beside_ours(rigl: Path) -> None:
    """One hollow marker a figure, at its sparsity; its data in the CSV, its source in the legend and below."""
    material = Material(read(rigl), ["ham"])
    stated = [figure for figure in figures() if figure.key == "ham" and figure.topology == "rigl"]
    assert len(stated) == 9
    assert sorted(accuracy for _, accuracy in markers(material)) == pytest.approx(sorted(f.top1 for f in stated))
    assert len({place for place, _ in markers(material)}) == 3
    paths = {path.name: path for path in write(rigl, rigl.parent / "figures", "svg", ["ham"])}
    lines = [line for line in csv.DictReader(paths["sparsity.csv"].open()) if line["published"]]
    assert len(lines) == 9
    assert {line["published"] for line in lines} == {str(figure.top1 / 100) for figure in stated}
    assert {line["source"] for line in lines} == {stated[0].source}
    kind = next(kind for kind in kinds.KINDS if kind.name == "sparsity")
    assert f"with thin lines in the style of their row; ham: {stated[0].source}." in kind.more(material)
    page = write_report(rigl, rigl.parent / "page.html", ["ham"]).read_text()
    assert "Hollow markers are published figures of the same data and network" in page


def test_every_source_has_its_marker(rigl: Path) -> None:
    """Without a choice: each source that the figure was read in, none that is second-hand."""
    material = Material(read(rigl))
    drawn = list(sparsity.published(material))
    assert {pair.figure.key for pair in drawn} >= {"ham", "rigl", "rigl_code"}
    assert all(pair.figure.confirmed for pair in drawn)
    assert len(markers(material)) == len(drawn)
    assert "sparse_opt" in sparsity.sources(Material(read(rigl), ["sparse_opt", "ham"]))


@pytest.mark.parametrize(
    "other", [{"data.name": "fashion_mnist"}, {"model.name": "resnet18"}, {"model.name": "mlp_bn"}], ids=str
)
@pytest.mark.parametrize("sources", [(), ["ham", "rigl"]], ids=["all", "chosen"])
def test_no_figure_of_other_data_or_networks_is_drawn(
    tmp_path: Path, other: dict[str, str], sources: list[str]
) -> None:
    """Whether or not a source is asked for by its name."""
    for name, changes in (("same", {}), ("other", other)):
        rows = {"RiGL": RIGL | IMAGENET | changes}
        write_sweep(tmp_path / name, {"RiGL": [0.75, 0.751]}, rows, THREE, (0, 1))
    assert markers(Material(read(tmp_path / "same"), sources))
    assert markers(Material(read(tmp_path / "other"), sources)) == []
    paths = {path.name: path for path in write(tmp_path / "other", form="svg", sources=sources)}
    assert "published" not in paths["sparsity.csv"].read_text()
