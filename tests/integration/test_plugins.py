"""A method of one's own, one Python file and one YAML file outside the package, is used like those inside."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import Ham
from small_runs import events, result, weights, write_config

METHOD = '''
"""A method of my own."""

from dataclasses import dataclass

from sparsity import MaskSet, Topology, option, register_topology


@register_topology("halves")
class Halves(Topology):
    """Keeps the first rows of every layer.

    Nobody et al., 2020.
    """

    title = "Halves"
    family = "PaI"
    paper = "Nobody et al., 2020"

    @dataclass(frozen=True)
    class Options:
        """Options."""

        share: float = option(0.5, "share of the rows that are kept", gt=0, le=1)

    def initial_masks(self, ctx):
        masks = {}
        for name, mask in ctx.masks.items():
            mask = mask.clone()
            mask[round(self.options.share * len(mask)) :] = False
            masks[name] = mask
        return MaskSet(masks)
'''


@pytest.fixture
def config(tmp_path: Path, open_registry: None) -> Iterator[Path]:
    """A configuration beside the method's file; the registry and the modules are put back."""
    (tmp_path / "toy/toy_methods.py").parent.mkdir()
    (tmp_path / "toy/toy_methods.py").write_text(METHOD)
    dense = {"topology": {"name": "dense", "sparsity": 0.0}}
    rows = {"Half": {}, "Quarter": {"topology.share": 0.25}, "Dense": dense}
    config = write_config(
        tmp_path / "toy/toy.yaml",
        imports=["toy_methods"],
        topology={"name": "halves", "sparsity": 0.5},
        schedule__epochs=1,
        sweep={"rows": rows, "seeds": [0, 1], "baselines": {"Quarter": "Half"}},
    )
    yield config
    sys.modules.pop("toy_methods", None)


def test_it_runs(ham: Ham, config: Path, tmp_path: Path) -> None:
    called = ham("run", config, "sweep=null", "--out", tmp_path / "runs")
    assert (called.code, called.said) == (0, "")
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(events(folder, "initial")) == 1
    assert result(folder)["sparsity"] == pytest.approx(0.5, abs=0.01)
    for name, weight in weights(folder).items():
        if weight.ndim == 2:
            half = round(len(weight) / 2)
            assert torch.count_nonzero(weight[half:]) == 0, name
            assert torch.count_nonzero(weight[:half]) > 0, name


def test_its_options_are_checked_like_all_others(ham: Ham, config: Path) -> None:
    called = ham("run", config, "sweep=null", "topology.share=1.5")
    assert called.code == 2
    assert "topology.share" in called.err
    called = ham("run", config, "sweep=null", "topology.shares=0.5")
    assert called.code == 2
    assert "did you mean 'share'?" in called.err
    called = ham("run", config, "sweep=null", "topology.name=halvs")
    assert called.code == 2
    assert "did you mean 'halves'?" in called.err


def test_it_is_listed(ham: Ham, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    called = ham("methods", "--import", "toy_methods")
    assert (called.code, called.err) == (0, "")
    listed = [" ".join(line.split()) for line in called.out.splitlines()]
    assert "halves PaI Halves 1 Nobody et al., 2020" in listed
    described = ham("methods", "halves", "--import", "toy_methods").out
    assert described.startswith("halves: Keeps the first rows of every layer.")
    assert "share (float, default 0.5" in described
    called = ham("methods", "--import", "toy_method")
    assert called.code == 2
    assert "there is no module 'toy_method'" in called.err


def test_it_is_swept_in_workers_and_tabulated(ham: Ham, config: Path, tmp_path: Path) -> None:
    called = ham("sweep", config, "--out", tmp_path / "runs", "--jobs", 2)
    assert (called.code, called.said) == (0, "")
    manifest = json.loads((tmp_path / "runs/toy/sweep.json").read_text())
    sparsity = {cell["row"]: result(tmp_path / "runs/toy" / cell["path"])["sparsity"] for cell in manifest["cells"]}
    assert sparsity == {
        "Half": pytest.approx(0.5, abs=0.01),
        "Quarter": pytest.approx(0.75, abs=0.01),
        "Dense": 0.0,
    }
    called = ham("table", tmp_path / "runs/toy")
    assert called.code == 0
    assert [row for row in ("Half", "Quarter", "Dense") if row in called.out] == ["Half", "Quarter", "Dense"]
    assert "6 done" in ham("status", tmp_path / "runs/toy").out


def test_a_module_that_fails_on_import_is_said_with_its_line(ham: Ham, config: Path) -> None:
    (config.parent / "toy_methods.py").write_text("import math\n\nmath.no_such_thing\n")
    called = ham("run", config, "sweep=null")
    assert called.code == 2
    assert "the module 'toy_methods' fails on import" in called.err
    assert "toy_methods.py:3" in called.err


def test_a_count_other_than_the_methods_own_is_a_failed_run(ham: Ham, config: Path, tmp_path: Path) -> None:
    """What a method states of itself is held against what it did."""
    stated = "\n    def expected_active(self, shapes, sparsity):\n        return 17\n"
    (config.parent / "toy_methods.py").write_text(METHOD + stated)
    called = ham("run", config, "sweep=null", "--out", tmp_path / "runs")
    assert called.code == 1
    assert "where its rule says 17" in called.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert "where its rule says 17" in json.loads((folder / "failure.json").read_text())["error"]
    assert not (folder / "result.json").exists()
