"""Every configuration that ships validates, and its networks and optimizers can be built."""

import math
from pathlib import Path

import pytest
import torch

import sparsity
from experiments import models, schedule
from experiments.build import build_optimizer
from experiments.spec import load, resolve
from experiments.sweep import expand

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.yaml") if not p.name.endswith(".calibration.yaml"))
GREY = {"num_classes": 10, "in_channels": 1, "image_size": 28}


def specs(path):
    loaded = load(str(path))
    return [resolve(loaded)] if loaded.sweep is None else [cell.spec for cell in expand(loaded).runs]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.relative_to(ROOT / "configs").as_posix())
def test_config_validates_and_builds(path):
    different = {(s.model.name, s.representation.name, s.optimizer.ham is None): s for s in specs(path)}
    for spec in different.values():
        imagenet = spec.data.name == "imagenet"
        shape = {"num_classes": 1000, "in_channels": 3, "image_size": spec.data.image_size or 224} if imagenet else GREY
        with torch.device("meta"):
            model = models.build(spec.model.name, options=spec.model.options, init=spec.model.init, **shape)
            representation = sparsity.represent(model, spec.representation.name, **spec.representation.options)
            groups = representation.param_groups(spec.optimizer.weight_decay, decay=spec.optimizer.decay)
        optimizer = build_optimizer(spec.optimizer, groups)
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert owned == {id(p) for p in model.parameters()}


def at(spec, epoch, steps=10):
    return spec.optimizer.lr * schedule.share(spec.schedule, round(epoch * steps), steps)


def test_the_harness_of_the_group():
    spec = resolve(load("recipes/turboprune_resnet50"))
    assert (spec.data.batch_size, spec.schedule.epochs, spec.runtime.amp) == (512, 90, "bf16")
    assert (spec.optimizer.momentum, spec.optimizer.nesterov, spec.optimizer.weight_decay) == (0.9, False, 1e-4)
    assert (spec.optimizer.decay, spec.loss.label_smoothing) == ("all", 0.0)
    assert [at(spec, epoch) for epoch in (0, 9, 18, 54)] == pytest.approx([0.04, 0.12, 0.2, 0.1])


@pytest.mark.parametrize(
    ("name", "decay", "smoothing", "init", "amp"),
    [
        ("recipes/acdc_resnet50", 2**-15, 0.0, "default", "fp16"),
        ("recipes/str_resnet50", 2.251757813e-5, 0.1, "kaiming_fan_in", "none"),
    ],
)
def test_the_recipes_of_acdc_and_str(name, decay, smoothing, init, amp):
    spec = resolve(load(name))
    assert (spec.data.batch_size, spec.schedule.epochs, spec.model.init) == (256, 100, init)
    assert (spec.optimizer.momentum, spec.optimizer.nesterov, spec.optimizer.decay) == (0.875, False, "all")
    assert spec.optimizer.weight_decay == pytest.approx(decay, rel=1e-8)
    assert (spec.loss.label_smoothing, spec.runtime.amp) == (smoothing, amp)
    assert [at(spec, epoch) for epoch in (0, 0.9, 4, 5, 52.5)] == pytest.approx(
        [0.0512, 0.0512, 0.256, 0.256, 0.128 * (1 + math.cos(math.pi * 47 / 95))]
    )


def test_the_recipe_of_rigl():
    spec = resolve(load("recipes/rigl_resnet50"))
    assert (spec.optimizer.momentum, spec.optimizer.nesterov, spec.optimizer.decay) == (0.9, True, "weights")
    assert (spec.optimizer.weight_decay, spec.loss.label_smoothing) == (1e-4, 0.1)
    assert [at(spec, epoch) for epoch in (2.4, 5, 30, 70, 90)] == pytest.approx([0.1, 0.2, 0.02, 0.002, 2e-4])
    # as many images an update as in the authors' setting, which the comment gives, and as many updates
    theirs = resolve(load("recipes/rigl_resnet50", ["data.batch_size=4096", "topology.update_every=100"]))
    for one in (spec, theirs):
        assert one.topology.options["update_every"] * one.data.batch_size == 409_600
    steps = 102 * (1_281_167 // 4096)
    assert steps == pytest.approx(32_000, rel=0.01)
    assert spec.topology.options["end"] * 32_000 == 25_000


PAPER = sorted((ROOT / "configs" / "paper").glob("*.yaml"))


def test_rows_of_the_paper():
    rows = {path.stem: {(cell.row, *cell.column.values()) for cell in expand(load(str(path))).cells} for path in PAPER}
    for family, name, sparsities in (
        ("imagenet_random", "Random", (0.8, 0.9, 0.95)),
        ("imagenet_acdc", "AC/DC", (0.8, 0.9, 0.95)),
        ("imagenet_rigl", "RiGL", (0.8, 0.9, 0.95)),
        ("imagenet_str", "STR", (0.9,)),
    ):
        additions = ["", " + HAM"] if name == "STR" else ["", " + Sign-In", " + HAM"]
        assert rows[family] == {(name + addition, sparsity) for addition in additions for sparsity in sparsities}
    assert rows["imagenet_dense"] == {(row, epochs) for row in ("Dense", "Dense + HAM") for epochs in (100, 200)}


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_the_papers_tables_say_what_is_not_known(path):
    """Three seeds, HAM at its published defaults, every addition against its own baseline, and no guess passed off."""
    sweep = expand(load(str(path)))
    assert {cell.seed for cell in sweep.cells} == {0, 1, 2}
    for cell in sweep.cells:
        ham = cell.spec.optimizer.ham
        assert (ham is not None) == ("+ HAM" in cell.row)
        assert ham is None or (ham.alpha, ham.beta) == (200.0, 1e-3)
        assert (cell.row in sweep.baselines) == (" + " in cell.row)
    assert "# unverified: " in path.read_text()
    assert sweep.notes


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
