"""Every configuration that ships validates, and its networks and optimizers can be built."""

import math
import re
from pathlib import Path

import pytest
import torch

import sparsity
from experiments.config.choices import read_choices, stored_paths
from experiments.config.files import known_configs
from experiments.config.resolve import load, resolve
from experiments.config.schema import TuningSpec
from experiments.config.stage import known_decays, stage
from experiments.config.sweep import expand
from experiments.config.tuning import known
from experiments.data import content_hash
from experiments.models import zoo
from experiments.run import schedule
from experiments.run.build import build_optimizer
from results.numbers.paper import figures

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [ROOT / "configs" / f"{name}.yaml" for name in known_configs()]
GREY = {"num_classes": 10, "in_channels": 1, "image_size": 28}
SHAPES = {
    "imagenet": {"num_classes": 1000, "in_channels": 3, "image_size": 224},
    "cifar10": {"num_classes": 10, "in_channels": 3, "image_size": 32},
    "cifar100": {"num_classes": 100, "in_channels": 3, "image_size": 32},
}


def specs(path):
    loaded = load(str(path))
    return [resolve(loaded)] if loaded.sweep is None else [cell.spec for cell in expand(loaded).runs]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.relative_to(ROOT / "configs").as_posix())
def test_config_validates_and_builds(path):
    different = {
        (s.model.name, s.representation.name, s.optimizer.ham is None, s.optimizer.sam is None): s for s in specs(path)
    }
    for spec in different.values():
        shape = {**SHAPES.get(spec.data.name, GREY)}
        shape["image_size"] = spec.data.image_size or shape["image_size"]
        with torch.device("meta"):
            model = zoo.build(spec.model.name, options=spec.model.options, init=spec.model.init, **shape)
            representation = sparsity.represent(model, spec.representation.name, options=spec.representation.options)
            groups = representation.param_groups(
                spec.optimizer.weight_decay, weight_decay_on=spec.optimizer.weight_decay_on
            )
        optimizer = build_optimizer(spec.optimizer, groups, model)
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert owned == {id(p) for p in model.parameters()}


def at(spec, epoch, steps=10):
    return spec.optimizer.lr * schedule.lr_multiplier(spec.schedule, round(epoch * steps), steps)


def test_the_harness_of_the_group():
    spec = resolve(load("recipes/turboprune_resnet50"))
    assert (spec.data.batch_size, spec.schedule.epochs, spec.runtime.amp) == (512, 90, "bf16")
    assert (spec.optimizer.momentum, spec.optimizer.nesterov, spec.optimizer.weight_decay) == (0.9, False, 1e-4)
    assert (spec.optimizer.weight_decay_on, spec.loss.label_smoothing) == ("all", 0.0)
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
    assert (spec.optimizer.momentum, spec.optimizer.nesterov, spec.optimizer.weight_decay_on) == (0.875, False, "all")
    assert spec.optimizer.weight_decay == pytest.approx(decay, rel=1e-8)
    assert (spec.loss.label_smoothing, spec.runtime.amp) == (smoothing, amp)
    assert not spec.data.drop_last
    assert [at(spec, epoch) for epoch in (0, 0.9, 4, 5, 52.5)] == pytest.approx(
        [0.0512, 0.0512, 0.256, 0.256, 0.128 * (1 + math.cos(math.pi * 47 / 95))]
    )


def test_the_recipes_of_spred():
    scratch, tuned = (resolve(load(f"recipes/{name}")) for name in ("spred_resnet50", "spred_finetune_resnet50"))
    for spec in (scratch, tuned):
        assert (spec.data.batch_size, spec.model.init, spec.loss.label_smoothing) == (256, "kaiming_fan_in", 0.1)
        assert (spec.optimizer.momentum, spec.optimizer.nesterov, spec.optimizer.weight_decay_on) == (
            0.875,
            False,
            "all",
        )
        assert (spec.representation.name, spec.topology.name, spec.topology.sparsity) == ("spred", "dense", 0.9)
        assert not spec.data.drop_last
    assert (scratch.schedule.epochs, tuned.schedule.epochs) == (100, 50)
    assert [at(scratch, epoch) for epoch in (0, 4, 5)] == pytest.approx([0.0512, 0.256, 0.256])
    assert [at(tuned, e) for e in (0, 14, 15, 30, 45)] == pytest.approx([2.56e-3, 2.56e-3, 2.56e-4, 2.56e-5, 2.56e-6])


def test_the_recipe_of_rigl():
    spec = resolve(load("recipes/rigl_resnet50"))
    assert (spec.optimizer.momentum, spec.optimizer.nesterov, spec.optimizer.weight_decay_on) == (0.9, True, "weights")
    assert (spec.optimizer.weight_decay, spec.loss.label_smoothing) == (1e-4, 0.1)
    assert [at(spec, epoch) for epoch in (2.4, 5, 30, 70, 90)] == pytest.approx([0.1, 0.2, 0.02, 0.002, 2e-4])
    # as many images an update as in the authors' setting, which the comment gives, and as many updates
    theirs = resolve(load("recipes/rigl_resnet50", ["data.batch_size=4096", "topology.update_every=100"]))
    for one in (spec, theirs):
        assert one.topology.options.update_every * one.data.batch_size == 409_600
    steps = 102 * (1_281_167 // 4096)
    assert steps == pytest.approx(32_000, rel=0.01)
    assert spec.topology.options.end * 32_000 == 25_000


def test_the_recipes_of_itop_and_granet():
    for name in ("rigl_itop", "granet"):
        spec = resolve(load(f"recipes/{name}_resnet50"))
        assert (spec.data.batch_size, spec.schedule.epochs, spec.model.init) == (128, 100, "kaiming_fan_in")
        assert (spec.optimizer.momentum, spec.optimizer.nesterov, spec.optimizer.weight_decay) == (0.9, False, 1e-4)
        assert (spec.optimizer.weight_decay_on, spec.loss.label_smoothing) == ("weights", 0.1)
        assert [at(spec, epoch) for epoch in (5, 30, 60, 90)] == pytest.approx([0.1, 0.01, 1e-3, 1e-4])
        options = spec.topology.options
        assert (options.update_every, options.drop_fraction, options.allocation) == (4000, 0.5, "erk")
    assert (options.initial_sparsity, options.ramp_start, options.ramp_end) == (0.5, 0.0, 0.3)


def test_the_recipe_of_itop_has_the_authors_fractions():
    options = resolve(load("recipes/rigl_itop_resnet50")).topology.options
    assert (options.final_drop_fraction, options.rounding, options.also_step, options.end) == (0.005, "ceil", True, 1.0)


def test_the_recipe_of_gmp_prunes_once_an_epoch():
    spec = resolve(load("recipes/gmp_resnet50"))
    assert not spec.data.drop_last
    assert spec.topology.options.update_every == math.ceil(1_281_167 / spec.data.batch_size)


PAPER = sorted((ROOT / "configs" / "paper").glob("*.yaml"))


def test_rows_of_the_paper():
    rows = {path.stem: {(cell.row, *cell.column.values()) for cell in expand(load(str(path))).cells} for path in PAPER}
    for family, name, sparsities in (
        ("imagenet_random", "Random", (0.8, 0.9, 0.95)),
        ("imagenet_acdc", "AC/DC", (0.8, 0.9, 0.95)),
        ("imagenet_rigl", "RiGL", (0.8, 0.9, 0.95)),
        ("imagenet_str", "STR", (0.9,)),
        ("imagenet_spred", "spred", (0.8, 0.9, 0.95)),
        ("imagenet_pilot", "PILoT", (0.8, 0.9, 0.95)),
    ):
        few = {"STR": ["", " + HAM"], "spred": [""], "PILoT": [""]}
        additions = few.get(name, ["", " + Sign-In", " + HAM"])
        assert rows[family] == {(name + addition, sparsity) for addition in additions for sparsity in sparsities}
    # of others there is one of 102 epochs
    dense = {(f.row, f.epochs) for f in figures() if f.row.startswith("Dense") and f.epochs in (100, 200)}
    assert rows["imagenet_dense"] == dense
    assert len(dense) == 8


@pytest.mark.parametrize(
    ("name", "model", "decay"), [("cifar10", "resnet20", 5e-4), ("cifar100", "resnet18_cifar", 1e-4)]
)
def test_rows_of_sign_in_on_cifar(name, model, decay):
    """The recipe of the group's harness, and a row for every published figure."""
    sweep = expand(load(f"paper/{name}_sign_in"))
    for cell in sweep.cells:
        spec = cell.spec
        assert (spec.data.name, spec.model.name, spec.topology.name) == (name, model, "random")
        assert (spec.data.batch_size, spec.schedule.epochs, spec.runtime.amp) == (512, 150, "bf16")
        assert (spec.optimizer.lr, spec.optimizer.momentum, spec.optimizer.weight_decay) == (0.2, 0.9, decay)
        assert [at(spec, epoch) for epoch in (0, 15, 30, 90)] == pytest.approx([0.04, 0.12, 0.2, 0.1])
        assert (spec.representation.name == "sign_in") == ("Sign-In" in cell.row)
    cells = {(cell.row, cell.spec.topology.sparsity) for cell in sweep.cells}
    published = {(figure.row, figure.sparsity) for figure in figures() if figure.dataset == name}
    assert len(published) == 6
    assert cells - published == {("Random + HAM", sparsity) for sparsity in (0.8, 0.9, 0.95)}
    assert published <= cells


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_the_papers_tables_say_what_is_not_known(path):
    """Three seeds, HAM at its published defaults, every addition against its own baseline, and no guess passed off."""
    sweep = expand(load(str(path)))
    assert {cell.seed for cell in sweep.cells} == {0, 1, 2}
    for cell in sweep.cells:
        ham = cell.spec.optimizer.ham
        assert (ham is not None) == ("+ HAM" in cell.row)
        assert ham is None or (ham.alpha, ham.beta) == (200.0, 1e-3 if cell.spec.data.name == "imagenet" else 16e-3)
        assert (cell.row in sweep.baselines) == (" + " in cell.row)
        assert (cell.spec.optimizer.sam is not None) == ("+ SAM" in cell.row)
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


TUNED = [name for name in known_configs() if (load(name).sweep or {}).get("tuning")]


def staged(name):
    loaded = load(name)
    found = stage(loaded, known(read_choices(stored_paths(loaded.files)), data_of), known_decays(loaded.files), data_of)
    assert found is not None
    return found


def data_of(spec):
    return content_hash(spec.data.name, spec.data.root)


def test_tuning_never_sees_the_test_part():
    assert "quickstart" in TUNED
    for name in TUNED:
        assert {cell.spec.data.evaluate_on for cell in staged(name).cells} == {"validation"}
    assert {spec.data.evaluate_on for spec in specs(ROOT / "configs/studies/alpha_decay.yaml")} == {"validation"}


@pytest.mark.parametrize("name", TUNED)
def test_every_row_of_a_table_is_tuned_with_the_same_number_of_settings_and_its_choice_is_stored(name):
    found = staged(name)
    assert {len(found.tuning.specs(place.row, place.column)) for place in found.places} == {12}
    assert {place.row for place in found.places} == set(found.tuning.grid.rows)
    assert not found.open
    assert not found.unsolved, "their threshold decays are stored, too"


def test_the_page_on_tuning_has_every_key():
    page = (ROOT / "docs/howto/tune_fairly.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE) == list(TuningSpec.model_fields)
