"""Where commands write and read: places that cannot be written are refused in one line; names may be any bytes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from fake_runs import write_sweep

from experiments.cli import main

ROWS = {"RiGL": {"topology.name": "rigl"}, "RiGL + HAM": {"topology.name": "rigl", "optimizer.ham": {"alpha": 20.0}}}
VALUES = {"RiGL": [0.80, 0.82, 0.84], "RiGL + HAM": [0.81, 0.82, 0.86]}
AT90 = [{"topology.sparsity": 0.9}]
PLACES = ["taken/x", "nowhere/deep/x", "link", "/proc/x"]
WRITERS = {"report": ".html", "figures": "", "archive": ".zip"}


def sweep(folder: Path) -> Path:
    return write_sweep(folder, VALUES, ROWS, AT90, (0, 1, 2), {"RiGL + HAM": "RiGL"})


def called(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["ham", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", WRITERS)
def test_a_place_that_cannot_be_written(monkeypatch, capsys, tmp_path: Path, command: str, place: str) -> None:
    sweep(tmp_path / "runs")
    (tmp_path / "taken").write_text("mine")
    (tmp_path / f"link{WRITERS[command]}").symlink_to(tmp_path / "gone/away")
    output = tmp_path / f"{place}{WRITERS[command]}"
    if (command, place) == ("figures", "nowhere/deep/x"):
        return  # folders are made for figures
    assert called(monkeypatch, command, tmp_path / "runs", "-o", output) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {output}: ")
    assert len(err.splitlines()) == 1
    assert (tmp_path / "taken").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_whose_name_is_no_text(monkeypatch, capfdbinary, tmp_path: Path) -> None:
    """Each command reads it, and a report's links lead to its runs."""
    folder = tmp_path / os.fsdecode(b"n\xffme")
    sweep(tmp_path / "text").rename(folder)
    (run, *_) = sorted(folder.glob("rigl-*"))
    odd = folder / os.fsdecode(b"\xfe")
    shutil.copytree(run, odd)
    for command in (("table",), ("figures", "-f", "svg"), ("power", "--difference", 1), ("archive",)):
        code = called(monkeypatch, command[0], folder, *command[1:])
        assert code == 0, capfdbinary.readouterr().err
        assert called(monkeypatch, command[0], odd, *command[1:]) in (0, 2)
    for place in (folder, odd):
        assert called(monkeypatch, "report", place, "-o", tmp_path / "page.html") == 0
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        links = [part.split('"')[0] for part in page.split('<a href="')[1:]]
        found = {tmp_path / os.fsdecode(unquote_to_bytes(link)) for link in links if not link.startswith("#")}
        assert found
        assert all(path.is_dir() for path in found)
    assert b"Traceback" not in capfdbinary.readouterr().err
