"""Figures: what is drawn, files that are equal for equal results, their data, and names that stay apart."""

from __future__ import annotations

import itertools
import re

import pandas as pd
import pytest
from demo_sweep import HAM, RIGL, SEVERAL, SIGN_IN, sweep, value
from fake_runs import write_sweep
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from experiments.errors import UserError
from results.page import curves, figures, plots, sparsity
from results.page.drawing import FALLBACKS, looks, style
from results.page.figures import write
from results.page.material import Material
from results.runs.store import read


def marks(axis, marker):
    return [line for line in axis.lines if line.get_marker() == marker]


def drawn(draw, directory):
    with style():
        figure = draw(Material(read(directory)))
        assert figure is not None
        return [axis for axis in figure.axes if axis.get_visible()]


def test_accuracy_figure_draws_means_stds_and_seeds(tmp_path):
    rows = {"RiGL": RIGL, "RiGL + HAM": RIGL | HAM}
    write_sweep(tmp_path, {"RiGL": [0.80, 0.82, 0.84], "RiGL + HAM": [0.81, 0.82, 0.86]}, rows, baselines=BASELINES_HAM)
    (axis,) = drawn(plots.accuracy, tmp_path)
    seeds, whisker, mean = axis.lines[:3]
    assert list(seeds.get_xdata()) == pytest.approx([80, 82, 84])
    assert list(whisker.get_xdata()) == pytest.approx([80, 84])
    assert list(mean.get_xdata()) == pytest.approx([82])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["RiGL", "+ HAM"]


BASELINES_HAM = {"RiGL + HAM": "RiGL"}


def test_differences_figure_draws_intervals_and_fills_clear_ones(tmp_path):
    sweep(tmp_path)
    (axis,) = drawn(plots.differences, tmp_path)
    palette = looks(read(tmp_path))
    (ham,), (sign_in,) = (marks(axis, palette[name].marker) for name in ("+ HAM", "+ Sign-In"))
    assert ham.get_markerfacecolor() == palette["+ HAM"].color
    assert sign_in.get_markerfacecolor() == "white"
    assert [text.get_text().split("   ")[1] for text in axis.texts] == ["3 of 3 up", "1 of 3 up"]


def test_an_interval_of_two_seeds_is_cut_with_arrows(tmp_path):
    rows = {"A": RIGL, "A + x": RIGL | HAM, "B": RIGL | SIGN_IN, "B + x": RIGL | SIGN_IN | HAM}
    values = {"A": [0.8] * 3, "A + x": [0.81, 0.812, 0.811], "B": [0.8, 0.8, None], "B + x": [0.80, 0.82, None]}
    write_sweep(tmp_path, values, rows, baselines={"A + x": "A", "B + x": "B"})
    (axis,) = drawn(plots.differences, tmp_path)
    assert len(marks(axis, "<")) == len(marks(axis, ">")) == 1
    assert axis.get_xlim()[1] < 3  # 12.7 standard errors would reach beyond 13 points


def test_intervals_of_two_seeds_stay_whole_where_there_are_no_others(tmp_path):
    rows = {"B": RIGL, "B + x": RIGL | HAM}
    write_sweep(tmp_path, {"B": [0.8, 0.8], "B + x": [0.80, 0.82]}, rows, seeds=(0, 1), baselines={"B + x": "B"})
    (axis,) = drawn(plots.differences, tmp_path)
    assert marks(axis, "<") == marks(axis, ">") == []
    assert axis.get_xlim()[1] > 13


def test_training_figure_averages_over_seeds(tmp_path):
    write_sweep(tmp_path, {"RiGL": [0.70, 0.80]}, {"RiGL": RIGL}, seeds=(0, 1))
    (axis,) = drawn(curves.training, tmp_path)
    (line,) = axis.lines
    assert list(line.get_xdata()) == [1, 2, 3, 4]
    assert line.get_ydata()[-1] == pytest.approx(75)
    band = axis.collections[0].get_paths()[0].get_extents()
    assert (band.y1, band.x1) == (pytest.approx(75 + 100 * 0.1 / 2**0.5), 4)


def test_no_validation_accuracy_means_no_training_figure(tmp_path):
    sweep(tmp_path)
    for run in read(tmp_path).runs:
        lines = (run.path / "metrics.jsonl").read_text()
        (run.path / "metrics.jsonl").write_text(
            re.sub(r'"validation_accuracy": [\d.]+', '"validation_accuracy": null', lines)
        )
    assert curves.training(Material(read(tmp_path))) is None


def test_sparsity_figure_needs_two_sparsities(tmp_path):
    assert sparsity.over_sparsity(Material(read(sweep(tmp_path / "one")))) is None
    models = [{"model.name": name} for name in ("resnet8", "mlp_bn")]
    assert sparsity.over_sparsity(Material(read(sweep(tmp_path / "models", models)))) is None
    axes = drawn(sparsity.over_sparsity, sweep(tmp_path / "several", SEVERAL))
    assert [axis.get_title(loc="left") for axis in axes] == ["resnet8", "mlp_bn"]
    assert [label.get_text() for label in axes[1].get_xticklabels()] == ["80 %", "95 %"]
    assert [text.get_text() for text in axes[0].texts] == ["Dense"]
    dense = axes[0].lines[0].get_ydata()
    assert list(dense) == pytest.approx([100 * sum(value("Dense", {}, s) for s in range(3)) / 3] * 2)


def test_sparsities_that_are_no_numbers_have_no_axis(tmp_path):
    columns = [{"topology.sparsity": value} for value in (0.8, 0.9, 0.95)]
    write_sweep(tmp_path, lambda row, column, seed: 0.8, {"RiGL": RIGL}, columns, (0, 1))
    text = (tmp_path / "sweep.json").read_text().replace('sparsity": 0.8}', 'sparsity": "most"}')
    (tmp_path / "sweep.json").write_text(text.replace('sparsity": 0.9}', 'sparsity": null}'))
    assert sparsity.over_sparsity(Material(read(tmp_path))) is None
    assert write(tmp_path, form="svg")


@pytest.mark.parametrize("form", ["svg", *(pytest.param(form, marks=pytest.mark.robust) for form in ("png", "pdf"))])
def test_figures_as_files_are_equal_for_equal_results(tmp_path, form):
    sweep(tmp_path / "runs", SEVERAL)
    first, second = (write(tmp_path / "runs", tmp_path / name, form) for name in ("a", "b"))
    assert [path.name for path in first] == [
        f"{name}.{suffix}"
        for name in ("accuracy", "differences", "sparsity", "cost", "training", "layers")
        for suffix in (form, "csv")
    ]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert first[0].read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[form])


def test_the_data_of_figures(tmp_path):
    sweep(tmp_path / "runs", SEVERAL)
    paths = {path.name: path for path in write(tmp_path / "runs", form="svg")}
    assert paths["accuracy.csv"].parent == tmp_path / "runs/figures"
    accuracies = pd.read_csv(paths["accuracy.csv"])
    assert accuracies.columns.tolist() == ["row", "model.name", "topology.sparsity", "seed", "accuracy"]
    for _, line in accuracies.iterrows():
        assert line["accuracy"] == value(line["row"], {}, line["seed"])
    differences = pd.read_csv(paths["differences.csv"])
    ham = differences[differences["row"] == "RiGL + HAM"]
    assert ham["difference"].tolist() == pytest.approx([0.011] * 4)
    assert (ham["low"] < ham["difference"]).all()
    costs = pd.read_csv(paths["cost.csv"])
    assert set(costs[costs["front"]]["row"]) == {"RiGL + HAM", "Dense"}
    layers = pd.read_csv(paths["layers.csv"])
    at = layers[(layers["row"] == "RiGL") & (layers["topology.sparsity"] == 0.95)]
    assert at["density"].tolist() == pytest.approx([0.05] * 8, abs=0.01)
    training = pd.read_csv(paths["training.csv"])
    assert training["epoch"].max() == 4
    assert len(training) == 4 * len(read(tmp_path / "runs").runs)


def test_figures_refuse_other_formats_and_empty_sweeps(tmp_path):
    sweep(tmp_path / "full")
    with pytest.raises(UserError, match="'pfd' is not a format; allowed: svg, pdf, png; did you mean 'pdf'"):
        write(tmp_path / "full", form="pfd")
    write_sweep(tmp_path / "empty", {"RiGL": [None]}, {"RiGL": RIGL}, seeds=(0,))
    with pytest.raises(UserError, match="no finished run"):
        write(tmp_path / "empty")
    assert not (tmp_path / "empty/figures").exists()


SHAPES = [
    *((rows, columns, "Method {}") for rows, columns in ((1, 1), (1, 6), (2, 2), (20, 1))),
    (3, 2, "AC/DC (ERK), α ≥ {}, epochs × 2"),
    pytest.param(20, 6, "AC/DC (ERK), α ≥ {}, epochs × 2", marks=pytest.mark.robust),
    *((rows, columns, 10 * "a sentence, " + "method {}") for rows, columns in ((1, 1), (4, 6), (20, 1))),
]


@pytest.mark.parametrize(("rows", "columns", "name"), SHAPES)
@pytest.mark.filterwarnings("error")
def test_figures_of_any_shape_keep_texts_apart(tmp_path, rows, columns, name):
    """No label lies on another or leaves the figure, and every panel has room: to twenty rows and six columns."""
    methods = {}
    for place in range(rows):
        base = {"topology.name": "rigl", "optimizer.lr": 0.1 + place // 2}
        methods[name.format(place // 2) + (" + HAM" if place % 2 else "")] = base | (HAM if place % 2 else {})
    plain = {row: row.removesuffix(" + HAM") for row in methods if row.endswith("HAM")}
    sparsities = [{"topology.sparsity": s} for s in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)[:columns]]
    number = iter(range(10**6))
    write_sweep(tmp_path, lambda *_: 0.7 + 0.001 * (next(number) * 37 % 101), methods, sparsities, (0, 1), plain)
    with style():
        for kind, figure in figures.drawn(Material(read(tmp_path))):
            figure.canvas.draw()
            for legend in figure.legends:
                box = legend.get_window_extent()
                assert box.x1 <= figure.bbox.x1, f"{kind.name}: the legend leaves the figure"
            beside = [axis.yaxis.label.get_window_extent() for axis in figure.axes if axis.get_ylabel()]
            for upper, lower in itertools.pairwise(beside):
                assert lower.y1 < upper.y0 + 2, f"{kind.name}: names of panels overlap"
            for axis in (one for one in figure.axes if one.get_visible() and one.get_label() != "<colorbar>"):
                box = axis.get_window_extent()
                assert box.height > 20, f"{kind.name}: a panel of {box.height:.0f} points"
                assert box.width > 40, f"{kind.name}: a panel of {box.width:.0f} points"
                for labels in (axis.get_yticklabels(), axis.texts if kind.name == "cost" else []):
                    shown = [label.get_window_extent() for label in labels if label.get_text() and label.get_visible()]
                    shown = sorted((one.y0, one.y1) for one in shown)
                    for (_, top), (bottom, _) in itertools.pairwise(shown):
                        assert bottom > top - 2, f"{kind.name}: labels overlap"


@pytest.fixture
def chinese(tmp_path):
    """A font that is installed for this test, with one character."""
    builder = FontBuilder(1000)
    pen = TTGlyphPen(None)
    for place in ((0, 0), (0, 800), (800, 800), (800, 0)):
        (pen.lineTo if place != (0, 0) else pen.moveTo)(place)
    pen.closePath()
    builder.setupGlyphOrder([".notdef", "sparse"])
    builder.setupCharacterMap({ord("稀"): "sparse"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "sparse": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (900, 0), "sparse": (900, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": FALLBACKS[0], "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "font.ttf")
    before = list(fontManager.ttflist)
    fontManager.addfont(tmp_path / "font.ttf")
    yield
    fontManager.ttflist[:] = before


@pytest.mark.usefixtures("chinese")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", ["svg", "pdf", "png"])
def test_characters_of_an_installed_font_are_drawn(tmp_path, form):
    """matplotlib warns of each character that it has no font for."""
    write_sweep(tmp_path / "runs", {"稀 α ≥": [0.8, 0.81]}, {"稀 α ≥": RIGL}, seeds=(0, 1))
    with style():
        for _, figure in figures.drawn(Material(read(tmp_path / "runs"))):
            figure.savefig(tmp_path / f"x.{form}")
