"""Labels, titles and notes are safe where they go: LaTeX, Markdown, spreadsheets, terminals of any encoding."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata

import pytest
from fake_runs import result, write_json, write_run, write_sweep

from experiments.cli.main import main
from results.progress.logs import Follower
from results.runs.kinds import one_line
from results.table.formats import render
from results.table.tex import MISSING, is_missing, tex

EVERY = [chr(code) for code in range(1, 0x30000) if unicodedata.category(chr(code)) not in ("Cs", "Cn", "Co")]
COMMANDS = re.compile(r"\\([a-zA-Z]+)")
KERNEL = """
textbackslash textasciitilde textasciicircum textless textgreater textbar dots bullet ll gg S P copyright pounds ss
ae AE oe OE o O l L i j phantom texttt mbox scriptsize u r H v d c b pm mp times div cdot odot oplus otimes ast circ
star dagger ddagger prime leq geq neq approx equiv sim propto rightarrow leftarrow leftrightarrow uparrow downarrow
Rightarrow Leftarrow Leftrightarrow mapsto infty in notin ni subset subseteq supset cup cap emptyset forall exists
neg wedge vee sum prod int surd partial nabla perp parallel Vert langle rangle lfloor rfloor lceil rceil ell hbar Re
Im aleph alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi varpi rho
varrho sigma varsigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi
Omega
"""


def test_every_character_is_latex_in_ascii() -> None:
    """Nothing but ASCII, commands of LaTeX's kernel, and braces and dollars in pairs."""
    for char in EVERY:
        written = tex(char)
        assert written.isascii(), char
        assert written.isprintable(), char
        assert set(COMMANDS.findall(written)) <= set(KERNEL.split()), (char, written)
        bare = re.sub(r"\\[^a-zA-Z]", "", written)
        assert bare.count("{") == bare.count("}"), (char, written)
        assert bare.count("$") % 2 == 0, (char, written)
        assert not re.search(r"(?<!\\)[&%#]", written), (char, written)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("HAM, α = 20 (β→0) ≥ 90 %", r"HAM, $\alpha$ = 20 ($\beta$$\rightarrow$0) $\geq$ 90~\%"),
        ("λ_max & ρ ≤ 1 #1", r"$\lambda$\_max \& $\rho$ $\leq$ 1 \#1"),
        ("Ångström, naïve, ő, ž, ß, ø", r"\r{A}ngstr\"{o}m, na\"{\i{}}ve, \H{o}, \v{z}, \ss{}, \o{}"),
        ("x² ½ Ω ﬁ", r"x$^{\mbox{\scriptsize 2}}$ 1/2 $\Omega$ fi"),
        ("*a [b]\n-1", "{*}a {[}b] -1"),
        ("日 Ж", r"\texttt{U+65E5} \texttt{U+0416}"),
        ("±1 ⊙ × Δ † − –", r"$\pm$1 $\odot$ $\times$ $\Delta$ $^\dagger$ $-$ --"),
    ],
)
def test_letters_are_set_as_they_are(text: str, written: str) -> None:
    assert tex(text) == written


def test_a_table_says_what_it_could_not_set(tmp_path) -> None:
    plain = render(write_sweep(tmp_path / "a", {"RiGL α": [0.8]}, seeds=(0,)), "latex")
    assert MISSING not in plain
    told = render(write_sweep(tmp_path / "b", {"RiGL 日": [0.8]}, seeds=(0,)), "latex")
    assert is_missing(told)
    assert MISSING in told


HOSTILE = "α ≥ *[x](y) | <b> `c` $d$ &amp; ~e~ #1 %2 ^3 \\q 日"


def test_it_compiles(tmp_path) -> None:
    if not shutil.which("pdflatex"):
        if os.environ.get("HAM_REQUIRE_LATEX") == "1":
            pytest.fail("HAM_REQUIRE_LATEX=1, but there is no pdflatex on the PATH")
        pytest.skip("needs pdflatex")
    table = render(write_sweep(tmp_path / "a", {HOSTILE: [0.8]}, seeds=(0,), title=HOSTILE, notes=HOSTILE), "latex")
    head = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "a.tex").write_text(f"{head}\n{table}\n{''.join(map(tex, EVERY[::97]))}\n\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:]


@pytest.mark.parametrize("start", ["=1+1", "+ HAM", "-x", "@SUM(A1)"])
def test_no_text_of_a_csv_is_a_formula(tmp_path, start: str) -> None:
    write_sweep(tmp_path, {start: [0.8], "A": [0.7]}, seeds=(0,), baselines={"A": start})
    lines = list(csv.DictReader(io.StringIO(render(tmp_path, "csv"))))
    assert [line["row"] for line in lines] == [f"'{start}", "A"]
    assert lines[1]["plain_row"] == f"'{start}"
    assert float(lines[1]["difference_mean"]) == pytest.approx(-0.1), "numbers stay numbers"


@pytest.mark.parametrize("text", ["# head", "- item", "+ item", "1. item", "7) item", "= line", "a & b $c$ ~d~ [x]: y"])
def test_markdown_reads_nothing_as_its_own(tmp_path, text: str) -> None:
    paragraphs = render(write_sweep(tmp_path, {"A": [0.8]}, seeds=(0,), notes=text), "markdown").split("\n\n")
    assert paragraphs[-1].rstrip("\n").replace("\\", "") == text
    assert "\\" in paragraphs[-1]


@pytest.mark.parametrize("format", ["text", "markdown", "latex", "csv", "html"])
def test_what_breaks_lines_or_steers_terminals_is_gone(tmp_path, format: str) -> None:
    """A manifest or a label that a newer or an older program, or another person wrote."""
    row = "a\nb\tc\x1b[31m\u202ed\u2028e"
    written = render(write_sweep(tmp_path, {row: [0.8]}, seeds=(0,), title="x\n\ny", notes="p\x07q"), format)
    assert "a b c [31md e" in written.replace("{[}", "[").replace("\\[", "[")
    assert not set("\x1b\x07\t\u202e\u2028") & set(written)
    assert one_line(row) == "a b c [31md e"


def test_a_bare_runs_label_is_one_line(tmp_path) -> None:
    write_run(tmp_path / "r", {"label": "a\nb"}, result(0.8))
    assert "a b  " in render(tmp_path, "text")


def test_a_log_does_not_steer_the_terminal(tmp_path) -> None:
    (tmp_path / "log.txt").write_bytes(b"\x1b]0;title\x07 10 %\r 20 %\r\n\x1b[2Jend\x9b\xff\n")
    shown: list[str] = []
    Follower(shown.append).look([tmp_path / "log.txt"])
    assert "".join(shown[1:]) == "]0;title 10 %\n 20 %\nend\ufffd\ufffd\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", ["table", "status", "best", "logs", "methods"])
def test_a_terminal_that_is_not_utf_8_gets_all(
    tmp_path, monkeypatch: pytest.MonkeyPatch, command: str, encoding: str
) -> None:
    columns = [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.2}]
    write_sweep(tmp_path / "α", lambda row, column, seed: 0.8, {"HAM, α 日": {}}, columns, seeds=(0,))
    for path in (tmp_path / "α").glob("*/result.json"):
        changed = {key: value for key, value in json.loads(path.read_text()).items() if key != "checksum"}
        write_json(path, changed | {"accuracy_on": "validation"})
        (path.parent / "log.txt").write_text("α\n", encoding="utf-8")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding=encoding))
    monkeypatch.setattr(sys, "argv", ["ham", command, "rigl" if command == "methods" else str(tmp_path / "α")])
    with pytest.raises(SystemExit) as left:
        main()
    sys.stdout.flush()
    assert not left.value.code
    assert ("\\u0394" if command == "methods" else "\\u03b1") in printed.getvalue().decode(encoding)
