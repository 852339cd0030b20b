"""Every configuration that ships validates, and its networks and optimizers can be built."""

from pathlib import Path

import pytest
import torch

import sparsity
from experiments import models
from experiments.build import build_optimizer
from experiments.spec import load, resolve
from experiments.sweep import expand

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.yaml") if not p.name.endswith(".calibration.yaml"))


def specs(path):
    loaded = load(str(path))
    return [resolve(loaded)] if loaded.sweep is None else [cell.spec for cell in expand(loaded).runs]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.relative_to(ROOT / "configs").as_posix())
def test_config_validates_and_builds(path):
    different = {(s.model.name, s.representation.name, s.optimizer.ham is None): s for s in specs(path)}
    for spec in different.values():
        with torch.device("meta"):
            model = models.build(spec.model.name, num_classes=10, in_channels=1, image_size=28)
            representation = sparsity.represent(model, spec.representation.name, **spec.representation.options)
            groups = representation.param_groups(spec.optimizer.weight_decay, decay=spec.optimizer.decay)
        optimizer = build_optimizer(spec.optimizer, groups)
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert owned == {id(p) for p in model.parameters()}


def test_the_quickstart_demands_that_methods_act():
    """The demands that make a quickstart run fail when its method did nothing are really there."""
    for spec in specs(ROOT / "configs" / "quickstart.yaml"):
        demands = spec.checks.events
        if spec.topology.name == "acdc":
            assert demands["compress"].at_least >= 3
        if spec.topology.name == "rigl":
            assert demands["update"].at_least >= 20
        if spec.representation.name == "str":
            assert demands["threshold"].by <= 0.25
        if spec.representation.name == "sign_in":
            assert demands["reset"].at_least >= 2
        assert spec.optimizer.clip_grad_norm is not None


def test_tuning_never_sees_the_test_part():
    tuning = sorted((ROOT / "configs" / "tune").glob("*.yaml"))
    assert tuning
    for path in tuning:
        if not path.name.endswith(".calibration.yaml"):
            assert {spec.data.evaluate_on for spec in specs(path)} == {"validation"}


def test_every_row_of_a_table_was_tuned_with_the_same_number_of_cells():
    stated = load("quickstart").sweep["tuning_cells"]
    for path in sorted((ROOT / "configs" / "tune").glob("*.yaml")):
        if not path.name.endswith(".calibration.yaml"):
            sweep = expand(load(str(path)))
            rows = {cell.row for cell in sweep.cells}
            assert {len({str(c.column) for c in sweep.cells if c.row == row}) for row in rows} == {stated}
