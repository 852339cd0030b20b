"""The page on methods of one's own is carried out, in a folder outside the tree."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sparsity
from experiments.cli.main import app
from experiments.config.resolve import load, resolve
from sparsity.testing import check_topology

PAGE = Path(__file__).resolve().parents[2] / "docs/howto/add_a_method.md"


def block(language: str, beginning: str) -> str:
    """The code block of the page that begins so."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    (code,) = [code for code in found if code.startswith(beginning)]
    return code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_registry: None) -> Iterator[Path]:
    """The files that the page tells to save; imported modules are forgotten afterwards."""
    (tmp_path / "dsr.py").write_text(block("python", '"""DSR'))
    (tmp_path / "dsr.yaml").write_text(block("yaml", "imports: [dsr]"))
    (tmp_path / "difference.py").write_text(block("python", '"""θ'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name in ("dsr", "difference"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("method", ["dsr", "difference"])
def test_the_checks_pass(method: str):
    exec(compile(block("python", f"from {method} import"), str(PAGE), "exec"), {})


@pytest.mark.usefixtures("folder")
def test_the_checks_say_what_the_page_says_they_do():
    from dsr import DSR  # pyright: ignore[reportMissingImports]

    del DSR.state
    with pytest.raises(AssertionError) as caught:
        check_topology(DSR, {"update_every": 4, "threshold": 0.05})
    quoted = re.findall(r"^> (.*)$", PAGE.read_text(), flags=re.MULTILINE)
    words = [part.strip() for part in " ".join(quoted).split("…")]
    assert len(words) == 3
    place = 0
    for part in words:
        place = str(caught.value).index(part.removeprefix(": "), place)


def test_the_number_pruned_comes_near_its_target(folder: Path):
    import torch
    from dsr import DSR  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.Linear(30, 20))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    sparse = sparsity.attach(DSR.name, model, optimizer, sparsity=0.5, total_steps=21, update_every=1, threshold=1e-4)
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(8, 40)).square().mean().backward()
        sparse.step()
    dropped = [event["dropped"] for event in sparse.events if event["event"] == "update"]
    assert dropped[0] < 20  # of 900 active weights a tenth should go
    assert 45 < dropped[-1] < 180
    assert sum(sparse.masks.num_active().values()) == sparse.expected_active()


def test_it_is_described_and_runs(folder: Path):
    called = CliRunner().invoke(app, ["methods", "dsr", "--import", "dsr"])
    assert called.exit_code == 0, called.output
    assert "threshold (float, default 0.001; > 0): threshold H on |θ| at the first update" in called.output
    spec = resolve(load("dsr.yaml", []))
    assert (spec.topology.name, spec.topology.model_dump()["update_every"]) == ("dsr", 20)
    small = ["data.name=synthetic", "data.validation=100", "data.batch_size=50", "model.name=mlp_bn"]
    called = CliRunner().invoke(
        app,
        [
            "run",
            "dsr.yaml",
            *small,
            "topology.update_every=3",
            "tracking.wandb=disabled",
            "--out",
            str(folder / "runs"),
        ],
    )
    assert called.exit_code == 0, called.output
    (result,) = (folder / "runs").glob("*/result.json")
    assert '"sparsity": 0.9' in result.read_text() or '"sparsity": 0.89' in result.read_text()
