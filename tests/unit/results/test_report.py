"""The report: self-contained, well-formed, escaped, complete, and equal for equal results."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser

import pytest
from demo_sweep import HAM, RIGL, SEVERAL, sweep, value
from fake_runs import fail, forget, overridden, result, write_json, write_run, write_sweep

from experiments.errors import UserError
from results.page.report import write_report
from results.runs.store import read

VOID = {"meta", "br", "link", "img", "input", "hr"}


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
