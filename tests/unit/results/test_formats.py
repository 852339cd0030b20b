"""Tables in their formats: aligned, escaped, tidy, and equal for equal results."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil

import pytest
from fake_runs import fail, write_json
from table_sweep import FORMATS, RIGL, SEVERAL, VALUES, grid, path_of, sweep

from experiments.errors import UserError
from experiments.rundir.result import seal
from results.runs.store import read
from results.table.formats import render


def test_text_aligns_numbers_and_stars_clear_differences(tmp_path):
    sweep(tmp_path, VALUES | {"Dense": [0.09, 0.1, 0.11], "RiGL + HAM": [0.90, 0.92, 0.941]})
    lines = render(tmp_path).splitlines()
    rows = [line for line in lines if re.match(r"(Dense|RiGL)", line)]
    assert len({line.index("±") for line in rows}) == 1
    assert len({re.search(r"\d\.\d\d ±", line).start() for line in rows}) == 1  # type: ignore[union-attr]
    (starred,) = [line for line in rows if " *" in line]
    assert starred.startswith("RiGL + HAM")
    assert "Starred (*): p < .05 after Holm's correction." in render(tmp_path).replace("\n ", "")
    assert max(map(len, lines)) < 120
    assert not any(line.endswith(" ") for line in lines)


def test_csv_is_tidy_and_has_all_numbers(tmp_path):
    sweep(tmp_path, columns=SEVERAL)
    fail(path_of(tmp_path, "RiGL", 1, {"topology.sparsity": 0.8}), "loss is nan")
    lines = list(csv.DictReader(io.StringIO(render(tmp_path, "csv"))))
    assert len(lines) == 6
    whole = next(line for line in lines if (line["row"], line["topology.sparsity"]) == ("RiGL + HAM", "0.95"))
    assert float(whole["accuracy_mean"]) == pytest.approx(0.83)
    assert float(whole["accuracy_std"]) == pytest.approx(7**0.5 / 100)
    assert float(whole["difference_mean"]) == pytest.approx(0.01)
    assert float(whole["difference_p"]) == pytest.approx(1 - (3 / 5) ** 0.5)
    assert (whole["difference_wins"], whole["difference_n"], whole["plain_row"]) == ("2", "3", "RiGL")
    assert (whole["seeds"], whole["accuracies"]) == ("0 1 2", "0.81 0.82 0.86")
    holed = next(line for line in lines if (line["row"], line["topology.sparsity"]) == ("RiGL", "0.8"))
    assert (holed["planned"], holed["n"], holed["failed"], holed["missing"]) == ("3", "2", "1", "0")
    dense = lines[0]
    assert dense["target_sparsity"] == dense["difference_mean"] == dense["plain_row"] == ""
    assert dense["comparable"] == "true"


def test_markdown_is_a_table_of_equal_lines(tmp_path):
    text = render(sweep(tmp_path, title="A | B *c*"), "markdown")
    assert text.startswith("**A \\| B \\*c\\***")
    body = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in body}) == 1
    assert "| RiGL + HAM | 83.00 ± 2.65 (3) | +1.00 [−1.48, +3.48] (3) | 95.00 | 0.098 | 0.145 |" in body


def test_latex_escapes_and_balances(tmp_path):
    rows = {"A_1 & 50% #$^~\\{}": RIGL}
    text = render(sweep(tmp_path, {next(iter(rows)): [0.8] * 3}, rows, columns=SEVERAL), "latex")
    assert r"A\_1 \& 50\% \#\$\textasciicircum{}\textasciitilde{}\textbackslash{}\{\}" in text
    begun, ended = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert sorted(begun) == sorted(ended)
    assert begun.count("table") == 2
    assert r"80.00 $\pm$ 0.00 (3)" in text
    assert text.isascii()
    for line in text.replace("{!}{%", "{!}").replace(r"\end{tabular}}", r"\end{tabular}").splitlines():
        assert line.count("{") - line.count(r"\{") == line.count("}") - line.count(r"\}"), line
    cells = [line for line in text.splitlines() if line.startswith(r"A\_1")]
    assert [line.replace(r"\&", "").count("&") for line in cells] == [2, 6]


def test_html_escapes_labels(tmp_path):
    rows = {"<b>&": RIGL}
    text = render(sweep(tmp_path, {"<b>&": [0.8, 0.81, 0.82]}, rows), "html")
    assert '<th scope="row">&lt;b&gt;&amp;</th>' in text
    assert "<b>&" not in text


@pytest.mark.parametrize("format", FORMATS)
def test_equal_results_give_equal_bytes(tmp_path, format):
    one = render(sweep(tmp_path / "one", columns=SEVERAL, name="x"), format)
    shutil.copytree(tmp_path / "one", tmp_path / "deeper" / "two")
    for entry in read(tmp_path / "deeper" / "two").runs:  # other times, another machine, another order of keys
        later = seal({**entry.result, "seconds": 99.0}, entry.path)
        write_json(entry.path / "result.json", dict(reversed(later.items())))
        write_json(entry.path / "environment.json", {"cpu": "another"})
    assert render(tmp_path / "deeper" / "two", format) == one
    assert str(tmp_path) not in one


@pytest.mark.parametrize("format", FORMATS)
def test_a_sweep_without_results_still_has_a_table(tmp_path, format):
    text = render(sweep(tmp_path, {row: [None] * 3 for row in VALUES}), format)
    assert "RiGL + HAM" in text


def test_a_missing_result_field_is_a_dash(tmp_path):
    sweep(tmp_path)
    for seed in (0, 1, 2):
        path = path_of(tmp_path, "RiGL", seed) / "result.json"
        needed = ("status", "identity", "seed", "accuracy", "accuracy_on", "sparsity", "prunable_weights", "nonzero")
        write_json(path, {key: json.loads(path.read_text())[key] for key in needed})
    assert grid(tmp_path)[1] == ["RiGL", "82.00 ± 2.00 (3)", "", "95.00", "–", "–"]


def test_cells_that_the_sweep_leaves_out_are_empty(tmp_path):
    sweep(tmp_path, columns=SEVERAL)
    path = tmp_path / "sweep.json"
    manifest = json.loads(path.read_text())
    manifest["cells"] = [
        cell for cell in manifest["cells"] if (cell["row"], cell["column"]) != ("RiGL", {"topology.sparsity": 0.8})
    ]
    write_json(path, manifest)
    assert grid(tmp_path)[1][1:] == ["", "82.00 ± 2.00 (3)"]
    assert grid(tmp_path, 1)[0][1] == "– (0)"


def test_unknown_format_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"allowed: text, markdown, csv, json, latex, html; did you mean 'markdown'"):
        render(sweep(tmp_path), "markdwn")
