"""`ham table` with several folders, published figures and a paper's style; which options go together."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fake_runs import write_sweep

from experiments.cli import main

RIGL = {"topology.name": "rigl"}
AT90 = [{"topology.sparsity": 0.9}]


@pytest.fixture
def sweeps(tmp_path: Path) -> list[Path]:
    return [write_sweep(tmp_path / name, {name: [0.8] * 3}, {name: RIGL}, AT90) for name in ("one", "two")]


def called(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["ham", "table", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


def test_several_folders(monkeypatch, capsys, sweeps) -> None:
    assert called(monkeypatch, *sweeps, "--format", "json", "--digits", 1) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == ["one", "two"]
    assert called(monkeypatch, *sweeps, "-f", "latex", "--style", "paper") == 0
    assert capsys.readouterr().out.count(r"\begin{tabular}") == 1
    assert called(monkeypatch, *sweeps, "--against", "ham", "--margin", "0.5", "-f", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cells"] == []
    assert any("Without a figure in this source: one, two." in text for text in found["caption"])
    assert called(monkeypatch, *sweeps, "--against", "ham, acdc", "--against", "rigl", "-f", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [text.split(":")[0] for text in found["caption"][:3]] == ["ham", "acdc", "rigl"]
    assert any("Without a figure in these sources: one, two." in text for text in found["caption"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--margin", "0.5"], "--margin: belongs to --against SOURCE"),
        (["--against", "ham", "--margin", "0"], "--margin: 0 is out of range: above 0, up to 100 points"),
        (["--against", "ham", "--margin", "nan"], "--margin: nan is out of range: above 0, up to 100 points"),
        (["--against", "rig"], "--against: unknown source 'rig'; allowed: ham, "),
        (["--against", "ham,"], "--against: names nothing before or after a comma"),
        (["--against", "ham", "--against", "acd"], "--against: unknown source 'acd'; allowed: ham, "),
        (["--style", "paper"], "--style paper: belongs to --format latex"),
        (["--style", "paper", "-f", "latex", "--show", "p"], "--show: does not go with --style paper, which"),
        (["--against", "ham", "--show", "p"], "--show: does not go with --against, which"),
        (["--style", "paper", "-f", "latex", "--against", "ham"], "--style paper: does not go with --against"),
        (["--baseline", "one"], "--baseline: is for folders of runs"),
    ],
)
def test_options_that_do_not_go_together(monkeypatch, capsys, sweeps, options: list[str], said: str) -> None:
    assert called(monkeypatch, *sweeps, *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert len(err.splitlines()) == 1
