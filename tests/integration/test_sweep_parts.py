"""Parts of a sweep, runs that another sweep has finished, and the log of a sweep without a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import Ham, one_message
from small_runs import write_config

SPARSE = {"topology": {"name": "random", "sparsity": 0.5}}
HALF_HAM = {**SPARSE, "optimizer.ham": {"alpha": 20.0}}
ROWS: dict[str, Any] = {"Dense": {}, "Random": SPARSE, "Random + HAM": HALF_HAM}


def config_of(folder: Path, name: str = "small", rows: dict[str, Any] = ROWS, **changes: Any) -> Path:
    sweep = {"rows": rows, "seeds": [0, 1], "columns": {"topology.sparsity": [0.5, 0.8]}}
    return write_config(folder / f"{name}.yaml", schedule__epochs=1, sweep=sweep, **changes)


def test_a_sweep_without_a_terminal_writes_a_line_for_each_run(tmp_path: Path) -> None:
    config = config_of(tmp_path, rows={"Dense": {}, "Bad": {"optimizer.lr": 1.0e30}, "Random": SPARSE})
    with (tmp_path / "log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-m", "experiments.cli", "sweep", config, "--jobs", "1", "--rows", "Dense", "--rows", "Bad"],
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"},
        )
    text = (tmp_path / "log").read_text()
    assert done.returncode == 1
    assert text.isprintable() or set(text) - {"\n"} == {char for char in text if char.isprintable()}
    said = text.splitlines()
    time = r"(less than a second|\d+ s|\d+ min)"
    assert re.fullmatch(rf"\[1/4\] dense-\w+-s0: \d+\.\d % after {time}; {time} left", said[0])
    assert re.fullmatch(rf"\[3/4\] bad-.*: failed after {time}: .*the loss is not finite.*; {time} left", said[2])
    assert re.fullmatch(r"\[4/4\] bad-.*", said[3])
    assert len(said) == 5
    assert said[4].startswith("error: ")
