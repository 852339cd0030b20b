"""LaTeX in a paper's style: one grid, what is bold and underlined, and that it compiles and fits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fake_runs import write_sweep
from paper_runs import write_paper

from results.runs.several import read_several
from results.table.against import against
from results.table.formats import write
from results.table.printed import joined, printed

SPARSE = {"topology.name": "rigl"}
AT90 = [{"topology.sparsity": 0.9}]
NEAR = {"Best": [0.83, 0.84, 0.85], "Near": [0.8301, 0.8389, 0.8502], "Far": [0.70, 0.71, 0.7203]}


def cells(text: str, row: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{row} &")]
    return line.removesuffix(r" \\").split(" & ")[1:]


def written(tmp_path: Path, values: dict, rows: dict | None = None, digits: int = 2, **more: Any) -> str:
    rows = rows or dict.fromkeys(values, SPARSE)
    return printed(read_several([write_sweep(tmp_path / "s", values, rows, AT90, **more)]), digits)


def test_best_is_bold_and_its_equals_underlined(tmp_path: Path) -> None:
    text = written(tmp_path, NEAR)
    assert cells(text, "Best") == [r"\textbf{84.00}$_{\pm 1.00}$"]
    assert cells(text, "Near") == [r"\underline{83.97}$_{\pm 1.01}$"]
    assert cells(text, "Far") == [r"71.01$_{\pm 1.02}$"]
    assert "Bold: the best mean. Underlined: what a paired t-test cannot tell from it (5~\\%, Holm over 2" in text
    assert "mean and sample standard deviation over 3 seeds" in text


def test_the_caption_says_where_the_numbers_of_seeds_are(tmp_path: Path) -> None:
    """And nothing of it is said of cells that have none, or twice."""
    same = written(tmp_path / "same", NEAR)
    assert "parentheses" not in same
    other = written(tmp_path / "other", {"A": [0.9, 0.91, None], "B": [0.8, 0.81, 0.82]})
    assert cells(other, "A")[0].endswith(" (2)")
    assert "standard deviation over seeds (their number in parentheses)." in other
    assert "over 1 seed." in written(tmp_path / "one", {"A": [0.9]}, seeds=(0,))


@pytest.mark.parametrize("other", [{"data.name": "cifar10"}, {"model.name": "mlp_bn"}], ids=str)
def test_there_is_no_best_over_different_data_or_networks(tmp_path: Path, other: dict[str, str]) -> None:
    """Each has a grid of its own; where both are the same, whatever library the network is from, there is one."""
    same = {"model.name": "timm:resnet8"}
    for name, changes in (("a", {}), ("b", other), ("c", same)):
        write_sweep(tmp_path / name, {name: [0.8, 0.81, 0.82]}, {name: SPARSE | changes}, AT90)
    text = printed(read_several([tmp_path / name for name in "abc"]))
    grids = re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, flags=re.DOTALL)
    assert [re.findall(r"^([abc]) &", grid, flags=re.MULTILINE) for grid in grids] == [["a", "c"], ["b"]]


def test_what_two_grids_share_is_said_once(seven: list[Path]) -> None:
    below = [line for line in printed(read_several(seven)).splitlines() if line.startswith(r"\noindent")]
    assert len(below) == len(set(below)) > 5


def test_digits(tmp_path: Path) -> None:
    assert cells(written(tmp_path, NEAR, digits=1), "Near") == [r"\underline{84.0}$_{\pm 1.0}$"]


def test_the_test_is_corrected_for_all_rows(tmp_path: Path) -> None:
    """Two seeds' worth of evidence that is enough alone and not for many rows together."""
    one = {"Best": [0.84, 0.84, 0.84], "Row 0": [0.8350, 0.8355, 0.8373]}
    many = one | {f"Row {number}": [0.8390, 0.8345, 0.8405] for number in range(1, 9)}
    assert cells(written(tmp_path / "a", one), "Row 0")[0].startswith("83.59")
    assert cells(written(tmp_path / "b", many), "Row 0")[0].startswith(r"\underline{83.59}")


def test_two_seeds_and_rows_off_target_are_not_best(tmp_path: Path) -> None:
    text = written(tmp_path, {"A": [0.9, 0.9], "B": [0.8, 0.8]}, seeds=(0, 1))
    assert "textbf" not in text
    assert "None is marked as best: that takes two rows of 3 seeds or more." in text


def test_a_dense_row_is_no_rival_of_sparse_ones(tmp_path: Path) -> None:
    rows = {"Dense": {}, **dict.fromkeys(NEAR, SPARSE)}
    text = written(tmp_path, {"Dense": [0.9, 0.91, 0.92], **NEAR}, rows)
    assert cells(text, "Dense") == [r"91.00$_{\pm 1.00}$"]
    assert cells(text, "Best")[0].startswith(r"\textbf")
    assert "Bold: the best mean of the sparse rows." in text


def test_missing_and_unequal_seeds_are_shown(tmp_path: Path) -> None:
    text = written(tmp_path, {"A": [0.8, 0.81, None], "B": [None] * 3, "C": [0.79, 0.8, 0.81], "D": [0.7, 0.7, 0.72]})
    assert cells(text, "A") == [r"80.50$_{\pm 0.71}$ (2)"]
    assert cells(text, "B") == ["--"]
    assert cells(text, "C")[0].endswith(" (3)")


def test_rows_of_one_name_keep_their_sweeps_names(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_sweep(tmp_path / name, {"A": [0.8] * 3, "B": [0.8] * 3}, baselines={"B": "A"}, title=f"T, {name}")
    merged, _ = joined(read_several([tmp_path / "one", tmp_path / "two"]))
    assert merged.rows == ("A (one)", "B (one)", "A (two)", "B (two)")
    assert merged.baselines == {"B (one)": "A (one)", "B (two)": "A (two)"}
    assert merged.title == "T: one; two"


def test_columns_of_several_sweeps_are_in_order(tmp_path: Path) -> None:
    one = write_sweep(tmp_path / "one", {"A": [0.8] * 3}, {"A": SPARSE}, AT90)
    columns = [{"topology.sparsity": value} for value in (0.95, 0.8, 0.9)]
    two = write_sweep(tmp_path / "two", {"B": [0.7] * 3}, {"B": SPARSE}, columns)
    text = printed(read_several([one, two]))
    assert r"Method & 80~\% & 90~\% & 95~\% \\" in text
    assert cells(text, "A") == ["", r"\textbf{80.00}$_{\pm 0.00}$", ""]


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_paper(tmp_path_factory.mktemp("paper"), seeds=3)


def test_seven_sweeps_are_two_grids(seven: list[Path]) -> None:
    """Six by sparsity, and the dense one by epochs."""
    text = printed(read_several(seven))
    assert text.count(r"\begin{tabular}") == text.count(r"\caption") == 2
    assert len(re.findall(r"^[^%\\].* & .*\\\\$", text, flags=re.MULTILINE)) == 13 + 4 + 2
    assert cells(text, "AC/DC + HAM")[2] == r"\textbf{75.45}$_{\pm 0.13}$"
    for float_ in re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, flags=re.DOTALL):
        assert "which recipe" not in float_, "the long notes are apart from the float"
    assert "ImageNet, ResNet-50, RiGL: ERK layer densities" in text


@pytest.mark.parametrize("columns", ["onecolumn", "twocolumn"])
def test_seven_sweeps_compile_and_fit(seven: list[Path], tmp_path: Path, columns: str) -> None:
    if not shutil.which("pdflatex"):
        if os.environ.get("HAM_REQUIRE_LATEX") == "1":
            pytest.fail("HAM_REQUIRE_LATEX=1, but there is no pdflatex on the PATH")
        pytest.skip("needs pdflatex")
    sweeps = read_several(seven)
    body = printed(sweeps) + write([against(sweeps, ["ham", "sign_in", "acdc"])], "latex")
    floats = body.replace(r"\begin{table}", "\\clearpage\n\\begin{table}")  # one a page, since notes are long
    head = rf"\documentclass[{columns}]{{article}}\usepackage{{booktabs}}\usepackage{{graphicx}}\begin{{document}}"
    (tmp_path / "a.tex").write_text(f"{head}\n{floats}\n\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:]
    wide = [line for line in done.stdout.splitlines() if line.startswith("Overfull \\hbox")]
    assert not wide
