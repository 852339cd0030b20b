"""Small real runs, and comparisons of what they leave behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.config.identity import identity_with_data
from experiments.config.resolve import load, resolve
from experiments.config.schema import Spec
from experiments.config.yaml_text import dump
from experiments.errors import Interrupted
from experiments.run import runner
from experiments.rundir.names import MEASURED

# 300 images to train on in batches of 50: 6 steps an epoch, 24 in all
STEPS_PER_EPOCH, STEPS = 6, 24
TINY: dict[str, Any] = {
    "data": {"name": "synthetic", "validation": 100, "batch_size": 50, "evaluate_on": "validation"},
    "model": {"name": "mlp_bn"},
    "schedule": {"epochs": 4},
    "tracking": {"wandb": "disabled"},
}


def write_config(path: Path, **changes: Any) -> Path:
    """Write the tiny configuration; a keyword with double underscores is a dotted key, a mapping stands as it is."""
    tree = {section: dict(keys) for section, keys in TINY.items()}
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            tree.setdefault(section, {})[key] = value
        else:
            tree[section] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump(tree))
    return path


def tiny_spec(folder: Path, *overrides: str) -> Spec:
    """The tiny run with settings as the command line takes them."""
    return resolve(load(str(write_config(folder / "tiny.yaml")), overrides))


def train(spec: Spec, folder: Path, **hooks: Any) -> dict[str, Any]:
    """Carry a run out in this process."""
    return runner.run(spec, folder, identity_with_data(spec), **hooks)


def train_in_pieces(spec: Spec, folder: Path, cuts: Iterable[int]) -> None:
    """Carry a run out in this process, stopped at each of some steps and taken up again."""
    for cut in cuts:
        train_until(spec, folder, cut)
    train(spec, folder)


def train_until(spec: Spec, folder: Path, cut: int) -> None:
    """Carry a run on in this process until a step and stop it there."""
    step = 0

    def count(done: int, total: int) -> None:
        nonlocal step
        step = done

    with pytest.raises(Interrupted, match=f"stopped at step {cut} of"):
        runner.run(spec, folder, identity_with_data(spec), progress=count, stop=lambda: step >= cut)


def resumptions(folder: Path) -> list[int]:
    """Steps at which a run was taken up again, from its log."""
    lines = (folder / "log.txt").read_text().splitlines()
    return [int(line.rsplit(" ", 1)[1]) for line in lines if "resumed at step" in line]


def assert_close(folder: Path, reference: Path) -> None:
    """Two runs in float64 made the same choices, and their weights are equal up to the order of sums."""
    expected = weights(reference)
    for name, theta in weights(folder).items():
        assert theta.dtype in (torch.float64, torch.int64)
        assert torch.equal(theta == 0, expected[name] == 0), name
        assert (theta - expected[name]).double().norm() <= 1e-10 * expected[name].double().norm() + 1e-12, name


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The trained tensors of a finished run."""
    return torch.load(folder / "weights.pt", weights_only=True)["state"]["model"]


def records(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run without wall-clock times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [_timeless(json.loads(line)) for line in lines]


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The recorded events of one kind."""
    return [record for record in records(folder) if record["kind"] == "event" and record["event"] == kind]


def result(folder: Path) -> dict[str, Any]:
    """The result of a finished run without wall-clock times, and the checksums of what holds them."""
    return _timeless(json.loads((folder / "result.json").read_text()))


def _timeless(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in (*MEASURED, "checksum", "files")}


def differing(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that are not equal bit for bit."""
    assert one.keys() == other.keys()
    return [name for name in one if not same_bits(one[name], other[name])]


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equality that tells 0.0 from -0.0 and takes a NaN for itself."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return one.contiguous().numpy().tobytes() == other.contiguous().numpy().tobytes()


def assert_same_run(folder: Path, whole: Path) -> None:
    """A run in pieces left what the run in one piece left."""
    assert differing(weights(folder), weights(whole)) == []
    assert records(folder) == records(whole)
    assert result(folder) == result(whole)


def contents(folder: Path, keep: Callable[[Path], bool] = lambda path: True) -> dict[str, bytes]:
    """All files below a folder by relative path."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and keep(path))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
