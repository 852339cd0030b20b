"""`ham config`: what a key means and where it is set, and what a configuration comes to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Ham, one_message

from experiments.cli import settings
from experiments.config.files import known_configs
from experiments.config.resolve import load, resolve

TABLE = """
extends: [recipes/fashion_mnist_resnet8]
optimizer.lr: 0.3
sweep:
  columns: {topology.sparsity: [0.8, 0.9]}
  seeds: [0, 1]
  rows:
    GMP: {topology: {name: gmp, sparsity: 0.9, update_every: 6}}
    GMP + HAM: {topology: {name: gmp, sparsity: 0.9, update_every: 6}, optimizer.ham: {}}
    Slow: {topology: {name: gmp, sparsity: 0.9, update_every: 6}, optimizer.lr: 0.01}
  tuning: {seeds: [100], grid: {optimizer.weight_decay: [0.0, 0.1]}, rows: {Slow: null}}
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(TABLE)
    return "mine.yaml"


@pytest.mark.parametrize("key", settings.known_keys(), ids=lambda key: key.path)
def test_every_key_is_described(ham: Ham, key: settings.DescribedKey) -> None:
    if len(settings.selected(key.path)) == 1:
        called = ham("config", key.path)
        assert called.code == 0
        assert called.out.startswith(f"{key.path}\n  meaning")
    (told,) = (one for one in json.loads(ham("config", key.path, "--json").out) if one["key"] == key.path)
    assert told["meaning"]
    assert told["allowed"] == key.allowed


def test_a_key_says_range_default_and_place(ham: Ham) -> None:
    text = " ".join(ham("config", "optimizer.lr").out.split())
    for part in (
        "allowed float > 0",
        "default 0.1 (configs/base.yaml:",
        "changing it trains anew",
        "'optimizer.lr=0.1'",
    ):
        assert part in text
    assert "trains nothing again" in ham("config", "tracking.wandb").out


def test_a_configuration_shows_what_it_sets_and_what_each_row_changes(ham: Ham, mine: str) -> None:
    told = json.loads(ham("config", mine, "schedule.epochs=2", "--json").out)
    keys = told["keys"]
    assert keys["optimizer.lr"] == {"value": 0.3, "set_in": "mine.yaml:3"}
    assert keys["schedule.epochs"] == {"value": 2, "set_in": "command line"}
    assert "seed" not in keys
    assert told["files"][-1] == "mine.yaml"
    gmp = {"topology.name": "gmp", "topology.update_every": 6}
    tried = {"optimizer.weight_decay": [0.0, 0.1]}
    assert told["sweep"] == {
        "columns": {"topology.sparsity": [0.8, 0.9]},
        "seeds": [0, 1],
        "rows": {
            "GMP": {"changes": gmp, "tried": tried, "chosen": {}},
            "GMP + HAM": {"changes": {**gmp, "optimizer.ham": {}}, "tried": tried, "chosen": {}},
            "Slow": {"changes": {**gmp, "optimizer.lr": 0.01}, "tried": {}, "chosen": {}},
        },
    }


def test_a_configuration_as_text_fits_the_terminal(ham: Ham, mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = ham("config", mine).out
    assert max(map(len, text.splitlines())) <= 80
    assert "optimizer.lr = 0.3 (mine.yaml:3)" in text
    assert "seed = 0" not in text
    assert "optimizer.weight_decay is tuned: of 0.0, 0.1" in " ".join(text.split())
    assert max(map(len, ham("config").out.splitlines())) <= 80


def test_keys_behind_a_configuration_choose_what_is_shown(ham: Ham, mine: str) -> None:
    assert "\n\nseed = 0 (configs/base.yaml:" in ham("config", mine, "seed").out
    assert "optimizer.momentum" in ham("config", mine, "optimizer").out
    one_message(ham("config", mine, "optimizer.lrr"), 2, "optimizer.lrr: is no key", "did you mean 'optimizer.lr'?")


@pytest.mark.parametrize("name", known_configs())
def test_all_keys_are_those_of_the_resolved_run(name: str) -> None:
    from experiments.config.overview import changes, resolved

    loaded = load(name)
    spec = resolve(loaded, calibrate=False)
    found = {key.path: key for key in resolved(loaded)}
    assert found["optimizer.lr"].value == spec.optimizer.lr
    assert all(
        key.place or key.path.split(".")[0] in ("topology", "representation", "optimizer") for key in found.values()
    )
    assert len(changes(loaded)) == len((loaded.sweep or {}).get("rows") or ([None] if loaded.sweep else []))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lr",), "lr: is neither a key nor a configuration; did you mean optimizer.lr?"),
        (("quikstart",), "did you mean 'quickstart'?"),
        (("topology.update_evry",), "`ham methods NAME` has the options of a method"),
        (("optimizer.lr", "x"), "x: belongs behind a configuration, not behind a key"),
        (("quickstart", "optimizer.lr=fast"), "optimizer.lr: 'fast' is not a number"),
    ],
)
def test_what_is_not_there_is_said(ham: Ham, words: tuple[str, ...], said: str) -> None:
    one_message(ham("config", *words), 2, said)
