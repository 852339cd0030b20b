"""The report and its figures: self-contained, well-formed, escaped, complete, and equal for equal results."""

from __future__ import annotations

import itertools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import fail, forget, overridden, result, write_json, write_run, write_sweep

from experiments.errors import UserError
from results.page import curves, figures, plots, sparsity
from results.page.drawing import looks, style
from results.page.figures import write
from results.page.material import Material
from results.page.provenance import configuration, environments
from results.page.report import write_report
from results.runs.facts import settings
from results.runs.store import read

RIGL, HAM, SIGN_IN = (
    {"topology.name": "rigl"},
    {"optimizer.ham": {"alpha": 20.0, "beta": 0.001}},
    {"representation.name": "sign_in"},
)
ROWS = {"Dense": {}, "RiGL": RIGL, "RiGL + HAM": RIGL | HAM, "RiGL + Sign-In": RIGL | SIGN_IN}
BASELINES = {"RiGL + HAM": "RiGL", "RiGL + Sign-In": "RiGL"}
SEVERAL = [{"model.name": m, "topology.sparsity": s} for m in ("resnet8", "mlp_bn") for s in (0.8, 0.95)]
VOID = {"meta", "br", "link", "img", "input", "hr"}


def value(row, column, seed):
    """HAM gains 1.0, 1.1 and 1.2 points, Sign-In -0.2, 0 and 0.2."""
    added = (0.01 + 0.001 * seed if "HAM" in row else 0) + (0.002 * (seed - 1) if "Sign-In" in row else 0)
    return round(0.8 + 0.002 * (seed * 7 % 5) - 0.02 * ("Dense" not in row) + added, 4)


def sweep(directory, columns=({"topology.sparsity": 0.95},), **manifest):
    return write_sweep(directory, value, ROWS, columns, (0, 1, 2), BASELINES, **manifest)


class Page(HTMLParser):
    """Checks nesting, and collects ids, references and what would be loaded."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.references, self.loads, self.tags = [], [], set(), [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.note(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def note(self, tag, attrs):
        self.tags.append(tag)
        for name, text in attrs:
            text = text or ""
            if name == "id":
                self.ids.append(text)
            elif name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                (self.references.add(text[1:]) if text.startswith("#") else self.loads.append(text))
            self.references |= set(re.findall(r"url\(#([^)]+)\)", text))
            assert not name.startswith("on"), name


@pytest.mark.parametrize("columns", [({"topology.sparsity": 0.95},), SEVERAL], ids=["one", "several"])
def test_page_is_well_formed_and_self_contained(tmp_path, columns):
    path = write_report(sweep(tmp_path, columns, title="Demo"))
    assert path == tmp_path / "report.html"
    text = path.read_text()
    page = Page(text)
    folders = {run.path.name + "/" for run in read(tmp_path).runs}
    assert set(page.loads) == folders, "nothing is loaded, and each run has a link"
    assert len(page.ids) == len(set(page.ids))
    assert page.references <= set(page.ids)
    assert page.tags.count("script") == 1, "the one that sorts tables"
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    assert "@import" not in text
    assert page.tags.count("svg") == (6 if len(columns) > 1 else 5)
    assert [p.name for p in tmp_path.iterdir() if p.suffix in (".part", ".tmp")] == []


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take most of a report's time; tests of the text leave them out."""
    monkeypatch.setattr("results.page.figures.KINDS", ())


@pytest.mark.usefixtures("no_figures")
def test_page_has_every_part(tmp_path):
    sweep(tmp_path, title="Fashion-MNIST, ResNet-8", tuning_cells=9)
    runs = {(run.row, run.seed): run.path for run in read(tmp_path).runs}
    fail(runs["RiGL", 0], "loss is nan at step 12")
    fail(runs["RiGL", 1], "loss is nan at step 12")
    forget(runs["Dense", 2])
    text = write_report(tmp_path).read_text()
    for words in (
        "<h1>Fashion-MNIST, ResNet-8</h1>",
        "12 runs: 9 finished, 2 failed, 1 missing · 4 rows · seeds 0, 1, 2",
        "RiGL, seeds 0, 1</b>",
        "loss is nan at step 12",
        "Dense, seed 2</b> <span>not finished",
        "after the last epoch, evaluated once",
        "Tuning: 9 configurations",
        "update 23",
        "<code>block2.conv1.weight</code>",
        "<code>optimizer.ham.alpha: 20.0</code>",
        "<code>schedule.epochs</code>",
        "Example CPU",
        "0123abc",
        "Accuracy of every seed",
        "prefers-color-scheme: dark",
        "@media print",
    ):
        assert words in text, words


def test_everything_is_escaped(tmp_path):
    evil = '<script>alert(1)</script> & "x" $\\bad{$'
    rows = {evil: RIGL, f"{evil} + HAM": RIGL | HAM | {"optimizer.name": "</code><script>"}}
    write_sweep(tmp_path, value, rows, SEVERAL[:1], (0, 1), {f"{evil} + HAM": evil}, title=evil, notes=evil)
    fail(read(tmp_path).runs[0].path, evil)
    write_json(read(tmp_path).runs[1].path / "environment.json", {evil: evil})
    text = write_report(tmp_path).read_text()
    assert Page(text).tags.count("script") == 1, "the page's own"
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;x&#34; $\\bad{$</h1>" in text


def test_equal_results_give_equal_pages_in_any_place(tmp_path):
    first = write_report(sweep(tmp_path / "one", SEVERAL[:2], name="x")).read_bytes()
    shutil.copytree(tmp_path / "one", tmp_path / "deep" / "two")
    assert write_report(tmp_path / "deep" / "two").read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_the_users_matplotlib_settings_change_nothing(tmp_path):
    import matplotlib as mpl

    first = write_report(sweep(tmp_path)).read_bytes()
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "none", "axes.grid": True, "lines.linewidth": 9}):
        assert write_report(tmp_path).read_bytes() == first


@pytest.mark.usefixtures("no_figures")
def test_output_elsewhere_and_not_writable(tmp_path):
    sweep(tmp_path / "runs")
    path = write_report(tmp_path / "runs", tmp_path / "page.html")
    assert path.read_text().startswith("<!DOCTYPE html>")
    (tmp_path / "file").write_text("")
    for folder in ("file", "none"):
        with pytest.raises(UserError, match=f"there is no folder .*{folder} to write to"):
            write_report(tmp_path / "runs", tmp_path / folder / "page.html")
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("no_figures")
def test_a_failed_write_keeps_the_old_report(tmp_path, monkeypatch):
    path = write_report(sweep(tmp_path))
    old = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match="No space left"):
        write_report(tmp_path)
    assert path.read_bytes() == old
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["report.html", "sweep.json"]


def test_a_sweep_without_results_has_a_report_without_figures(tmp_path):
    write_sweep(tmp_path, {"RiGL": [None] * 3}, {"RiGL": RIGL})
    text = write_report(tmp_path).read_text()
    assert "svg" not in Page(text).tags
    assert "3 runs: 0 finished, 3 missing" in text


@pytest.mark.usefixtures("no_figures")
def test_a_single_run_has_a_report(tmp_path):
    write_run(tmp_path / "r", overridden({"label": "RiGL", "topology.name": "rigl"}), result(0.8, 0, 0.95))
    text = write_report(tmp_path / "r").read_text()
    assert "1 run: 1 finished · 1 row · seed 0" in text


@pytest.mark.usefixtures("no_figures")
def test_a_finding_counts_sides_and_leaves_out_what_is_not_comparable(tmp_path):
    sweep(tmp_path)
    assert "1 above zero, 0 below, 1 with zero inside" in write_report(tmp_path).read_text()
    for run in read(tmp_path).runs:
        if run.row == "RiGL":
            write_json(run.path / "result.json", {**run.result, "sparsity": 0.9})
    assert "above zero" not in write_report(tmp_path).read_text()


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
    assert "svg" in Page(write_report(tmp_path).read_text()).tags


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
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


SHAPES = [(1, 1), (1, 6), (2, 2), (3, 2), (20, 1), (20, 6)]


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("name", ["Method {}", "AC/DC (ERK), α ≥ {}, epochs × 2", 10 * "a sentence, " + "method {}"])
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


def configured(found):
    return configuration(found, settings(found))


def test_configuration_splits_shared_from_changed(tmp_path):
    sweep(tmp_path)
    shared, changes = configured(read(tmp_path))
    assert dict(shared)["optimizer.lr"] == "0.1"
    assert dict(shared)["topology.name"] == "rigl"  # three of four rows
    assert "topology.sparsity" not in dict(shared)  # a column
    assert not {"seed", "label"} & set(dict(shared))
    assert dict(changes) == {
        "Dense": [("topology.name", "dense")],
        "RiGL": [],
        "RiGL + HAM": [("optimizer.ham.alpha", "20.0"), ("optimizer.ham.beta", "0.001")],
        "RiGL + Sign-In": [("representation.name", "sign_in")],
    }


def test_configuration_lists_values_that_vary_by_column(tmp_path):
    sweep(tmp_path, SEVERAL)
    for run in read(tmp_path).runs:
        if run.row == "RiGL" and run.column["topology.sparsity"] == 0.8:
            spec = overridden(RIGL | run.column | {"optimizer.lr": 0.4, "seed": run.seed})
            write_run(Path(run.path), spec, run.result)
    _, changes = configured(read(tmp_path))
    assert dict(dict(changes)["RiGL"])["optimizer.lr"] == (
        "0.4 (resnet8, 80 % sparse, mlp_bn, 80 % sparse); 0.1 (resnet8, 95 % sparse, mlp_bn, 95 % sparse)"
    )


def test_environments_are_counted(tmp_path):
    sweep(tmp_path)
    runs = read(tmp_path).runs
    write_json(runs[0].path / "environment.json", {"torch": "2.9.0", "gpu": None})
    found = dict(environments(read(tmp_path)))
    assert found["torch"] == [("2.9.0", 1), ("2.14.1", 11)]
    assert "gpu" not in found


def test_a_value_without_a_majority_is_shared_by_nobody(tmp_path):
    write_sweep(tmp_path, {"RiGL": [0.8] * 3, "GMP": [0.8] * 3}, {"RiGL": RIGL, "GMP": {"topology.name": "gmp"}})
    shared, changes = configured(read(tmp_path))
    assert "topology.name" not in dict(shared)
    assert dict(changes) == {"RiGL": [("topology.name", "rigl")], "GMP": [("topology.name", "gmp")]}
