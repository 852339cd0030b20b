"""What the pages tell a reader to save and run, done literally in an empty folder."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from experiments.cli.main import app
from experiments.config.resolve import load
from experiments.config.sweep import expand
from experiments.data import DATASETS
from experiments.models.networks import MODELS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def saved(page: str, folder: Path) -> list[str]:
    """Save what a page tells to save, `Save this as NAME:` or `as NAME:` before a block; return the names."""
    pattern = r"as `([\w.]+)`[^`]*?:\n\n```\w+\n(.*?)^```"
    found = re.findall(pattern, (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for name, text in found:
        (folder / name).write_text(text)
    return [name for name, _ in found]


def ham(*arguments: str) -> str:
    called = CliRunner().invoke(app, list(arguments))
    assert called.exit_code == 0, called.output
    return called.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_registry: None) -> Iterator[Path]:
    """An empty current folder; what modules of the pages add is taken back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = [(table, dict(table)) for table in (DATASETS, MODELS)]
    yield tmp_path
    for table, old in before:
        table.clear()
        table.update(old)
    for name in ("stripes", "mine"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("page", ["howto/own_data.md", "howto/own_model.md"])
def test_own_data_and_own_model_train(page: str, folder: Path):
    names = saved(page, folder)
    assert len(names) == 2
    (config,) = (name for name in names if name.endswith(".yaml"))
    assert "sparsity 90.00%" in ham("run", config, "schedule.epochs=1")


def test_the_first_comparison_is_twelve_runs_in_which_methods_act(folder: Path):
    assert saved("tutorials/first_comparison.md", folder) == ["first.yaml"]
    sweep = expand(load("first.yaml"))
    assert len(sweep.runs) == 12
    assert sweep.baselines == {"AC/DC": "GMP"}
    assert all(cell.spec.checks.events for cell in sweep.runs)
    small = [f"sweep.rows.{label}.schedule.epochs=2" for label in ()]
    said = ham("sweep", "first.yaml", "--dry-run", "sweep.seeds=[0]", *small)
    assert "4" in said


def test_the_table_file_of_the_reference_is_complete(folder: Path):
    assert saved("reference/table_file.md", folder) == ["first.yaml"]
    assert len(expand(load("first.yaml")).runs) == 8


def test_weights_of_a_run_load_as_the_page_says(folder: Path):
    saved("howto/own_model.md", folder)
    ham("run", "mine.yaml", "data.train_limit=1000", "topology.update_every=2")
    (path,) = folder.glob("runs/*/weights.pt")
    outcome = json.loads((path.parent / "result.json").read_text())
    acted = sum(number for kind, number in outcome["events"].items() if kind != "initial")
    assert outcome["mask_updates"] == acted - sum(outcome["idle_events"].values()) > 0
    shown = ham("layers", str(path.parent)).splitlines()
    assert [line.split()[0] for line in shown[1:-1]] == [*outcome["layers"], "all"]
    code = re.findall(r"^```python\n(.*?)^```", (DOCS / "howto/export.md").read_text(), flags=re.MULTILINE | re.DOTALL)[
        0
    ]
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    code = re.sub(r"runs/[^\"]*", path.as_posix(), code).replace("resnet18(num_classes=10)", "model")
    exec(compile(code, "export.md", "exec"), {"model": model})
    weights = [p for p in model.parameters() if p.ndim == 2]
    assert sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights) == pytest.approx(0.9, abs=1e-3)


def test_commands_of_the_pages_name_files_that_their_page_shows():
    """A command with a YAML file of the reader's own: the page shows the file, or it is the placeholder."""
    for page in DOCS.rglob("*.md"):
        text = page.read_text()
        for block in re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                for word in words:
                    shown = f"as `{word}`" in text or f"`{word}`:" in text
                    assert not word.endswith(".yaml") or word == "my_config.yaml" or shown or "/" in word, line
