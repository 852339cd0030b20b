"""From files and key=value to a specification: merging, types, ranges, methods, messages."""

# ruff: noqa: E501 - a message or an odd value stands on one line, as users see it
from __future__ import annotations

import dataclasses
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.config import files
from experiments.config.files import configs_folder, find_config, known_configs
from experiments.config.resolve import calibration_path, from_mapping, load, resolve
from experiments.config.schema import Spec
from experiments.config.yaml_text import dump, read_mapping
from experiments.errors import RunFailure, UserError
from sparsity import registry

BASE = configs_folder() / "base.yaml"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


def build(*overrides: str, config: str = "base") -> Spec:
    return resolve(load(config, overrides))


def refused(*overrides: str, config: str = "base") -> str:
    with pytest.raises(UserError) as caught:
        build(*overrides, config=config)
    return str(caught.value)


# ---- base.yaml ----------------------------------------------------------------------------------------------------------


def test_base_has_every_key_and_nothing_more():
    tree = read_mapping(BASE)
    assert set(tree) == {*Spec.model_fields, "sweep"}
    for name, field in Spec.model_fields.items():
        inner: Any = field.annotation
        if hasattr(inner, "model_fields"):
            assert set(tree[name]) == set(inner.model_fields), name


def test_base_comments_every_key():
    """Each line that sets a key says what it is and, for values, what is allowed."""
    for line in BASE.read_text().splitlines():
        if re.match(r" *\w+:", line) and not re.fullmatch(r"\w+:", line):
            assert re.search(r": .*# .+|:\s+# .+", line), line


def test_defaults():
    spec = build()
    assert spec.model_dump() == {
        "imports": [],
        "label": None,
        "data": {
            "name": "fashion_mnist",
            "root": None,
            "image_size": None,
            "batch_size": 128,
            "drop_last": True,
            "validation": 1000,
            "train_limit": None,
            "evaluate_on": "test",
            "workers": 4,
        },
        "model": {"name": "resnet8", "options": {}, "init": "default", "weights": None, "recalibrate": 0},
        "topology": {"name": "dense", "sparsity": 0.0},
        "representation": {"name": "plain"},
        "optimizer": {
            "name": "sgd",
            "lr": 0.1,
            "momentum": 0.9,
            "nesterov": False,
            "weight_decay": 5e-4,
            "weight_decay_on": "weights",
            "clip_grad_norm": None,
            "ham": None,
            "sam": None,
            "ema_decay": None,
            "sparse_opt": None,
        },
        "loss": {"label_smoothing": 0.0},
        "schedule": {
            "name": "cosine",
            "epochs": 8,
            "warmup_epochs": 0.0,
            "per": "step",
            "milestones": [],
            "gamma": 0.1,
        },
        "runtime": {
            "device": "auto",
            "channels_last": False,
            "amp": "none",
            "accumulate": 1,
            "compile": False,
            "sync_batch_norm": False,
            "deterministic": False,
            "tf32": "convolutions",
            "rank_timeout": 10.0,
        },
        "checkpoint": {"every_steps": None, "every_minutes": 5.0, "keep": 2},
        "resources": dict.fromkeys(
            ("nodes", "ranks_per_node", "hours", "partition", "qos", "constraint", "gpu_type", "cpus_per_rank")
            + ("mem_per_rank_gb",)
        )
        | {"cpu_only": False},
        "checks": {"events": {}},
        "evaluate": {"predictions": False},
        "tracking": {"wandb": "auto", "entity": None, "project": None},
        "seed": 0,
    }


def test_ham_defaults_are_those_of_the_optimizer():
    import inspect

    from ham import HAM

    ham = build("optimizer.ham={}").optimizer.ham
    assert ham is not None
    signature = inspect.signature(HAM).parameters
    own = ham.model_dump()
    assert own["alpha"] == signature["alpha"].default
    assert own["beta"] == signature["beta"].default
    assert own == {**own, **{key: signature[key].default for key in own if key in signature}}


# ---- files and merging --------------------------------------------------------------------------------------------------


def test_files_merge_level_by_level_and_accept_dotted_keys():
    write("parent.yaml", "optimizer: {lr: 0.5, momentum: 0.8}\nschedule.epochs: 3\n")
    write("c.yaml", "extends: [parent]\noptimizer.lr: 0.25\noptimizer:\n  nesterov: true\ndata: {batch_size: 64}\n")
    spec = build(config="c.yaml")
    assert (spec.optimizer.lr, spec.optimizer.momentum, spec.optimizer.nesterov) == (0.25, 0.8, True)
    assert (spec.schedule.epochs, spec.data.batch_size, spec.data.validation) == (3, 64, 1000)


def test_command_line_overrides_files_and_replaces_mappings():
    write("c.yaml", "optimizer.ham: {alpha: 5, beta: 0.5}\n")
    ham = build(config="c.yaml").optimizer.ham
    assert ham is not None
    assert (ham.alpha, ham.beta) == (5.0, 0.5)
    ham = build("optimizer.ham={alpha: 7}", config="c.yaml").optimizer.ham
    assert ham is not None
    assert (ham.alpha, ham.beta) == (7.0, 1e-3)
    ham = build("optimizer.ham.alpha=9", config="c.yaml").optimizer.ham
    assert ham is not None
    assert (ham.alpha, ham.beta) == (9.0, 0.5)


def test_the_last_key_value_wins_and_null_levels_are_created():
    ham = build("optimizer.ham.alpha=1", "optimizer.ham.alpha=2").optimizer.ham
    assert ham is not None
    assert ham.alpha == 2.0


def test_extends_left_to_right_each_file_once():
    write("common.yaml", "optimizer.lr: 1.0\nseed: 1\n")
    write("left.yaml", "extends: common\noptimizer.lr: 2.0\nseed: 2\n")
    write("right.yaml", "extends: [base, common]\nseed: 3\n")
    write("c.yaml", "extends: [left, right]\n")
    loaded = load("c.yaml")
    assert [path.name for path in loaded.files] == ["base.yaml", "common.yaml", "left.yaml", "right.yaml", "c.yaml"]
    spec = resolve(loaded)
    # right's own seed is later; the common parent, merged already, does not bring lr back to 1
    assert (spec.optimizer.lr, spec.seed) == (2.0, 3)


def test_extends_is_relative_to_the_extending_file():
    write("sub/parent.yaml", "seed: 5\n")
    write("sub/c.yaml", "extends: [parent.yaml]\n")
    write("parent.yaml", "seed: 6\n")
    assert build(config="sub/c").seed == 5


def test_a_file_may_extend_the_packaged_one_of_its_name(monkeypatch, here):
    folder = here / "packaged"
    folder.mkdir()
    (folder / "base.yaml").write_text(BASE.read_text())
    (folder / "quick.yaml").write_text("seed: 7\n")
    (folder / "quick.calibration.yaml").write_text("[]\n")
    monkeypatch.setattr(files, "configs_folder", lambda: folder)
    write("quick.yaml", "extends: [quick]\nlabel: mine\n")
    assert find_config("quick").resolve() == here / "quick.yaml"
    spec = build(config="quick")
    assert (spec.seed, spec.label) == (7, "mine")
    assert known_configs() == ["base", "quick"]


def test_extends_in_a_circle():
    write("a.yaml", "extends: [b]\n")
    write("b.yaml", "\nextends: [c]\n")
    write("c.yaml", "extends: [a]\n")
    assert refused(config="a") == "c.yaml: extends goes round in a circle: a.yaml -> b.yaml -> c.yaml -> a.yaml"
    write("self.yaml", "extends: self\n")
    assert refused(config="self") == "self.yaml: extends goes round in a circle: self.yaml -> self.yaml"


def test_unknown_configurations():
    message = refused(config="bas")
    assert message.startswith("no configuration 'bas': neither a file nor a name under ")
    assert "known names: base" in message
    assert message.endswith("; did you mean 'base'?")
    write("c.yaml", "\nextends: [base, nope]\n")
    assert refused(config="c").startswith("c.yaml:2: no configuration 'nope'")
    write("c.yaml", "extends: {a: 1}\n")
    assert refused(config="c") == "c.yaml:1: extends: must be a list of configurations, such as [recipes/short]"
    Path("folder").mkdir()
    assert refused(config="folder") == "folder is a directory; name a file in it"
    for name in ("", "x" * 5000, "a\0b"):
        assert "no configuration" in refused(config=name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer:\n  lr: 1\noptimizer.lr: 2\n", "c.yaml:3: optimizer.lr is set twice, here and at c.yaml:2"),
        ("optimizer.lr: 2\noptimizer: 5\n", "c.yaml:2: optimizer is set twice, here and at c.yaml:1"),
        ("seed: 1\nseed.x: 2\n", "c.yaml:2: seed is set twice, here and at c.yaml:1"),
        ("optimizer..lr: 2\n", "c.yaml:1: the key 'optimizer..lr' has an empty part between its dots"),
        ("sweep: 3\n", "c.yaml:1: sweep: must be a mapping with rows, columns, seeds, or null, not 3"),
    ],
)
def test_keys_that_do_not_fit_together(text: str, message: str):
    write("c.yaml", text)
    assert refused(config="c") == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr", "command line: 'optimizer.lr' is not of the form key=value, such as optimizer.lr=0.05"),
        ("=3", "command line: '=3' is not of the form key=value, such as optimizer.lr=0.05"),
        ("a\udcff=3", "command line: 'a\\udcff=3' is not of the form key=value, such as optimizer.lr=0.05"),
        ("seed=", "command line: seed: '' is an empty value; write null for none, and quote text that starts with #"),
        ("seed=[1", "command line: seed: is not valid YAML: "),
        ("extends=[x]", "command line: extends cannot be set here; write a configuration file that extends others"),
        ("seed.x=1", "command line: cannot set seed.x: seed is 0, which has no keys"),
        ("sweep=[1]", "command line: sweep: must be a mapping with rows, columns, seeds, or null, not [1]"),
    ],
)
def test_malformed_overrides(override: str, message: str):
    assert refused(override).startswith(message)


# ---- types, ranges, names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("topology.sparsity=95", "topology.sparsity: 95 is out of range: must be < 1; sparsity is the fraction of zeros: write 0.95"),
        ("topology.sparsity=95%", "topology.sparsity: '95%' is not a number; sparsity is the fraction of zeros: write 0.95"),
        ("topology.sparsity=1.0", "topology.sparsity: 1.0 is out of range: must be < 1; sparsity is the fraction of zeros"),
        ("topology.sparsity=-0.1", "topology.sparsity: -0.1 is out of range: must be >= 0; sparsity is the fraction of zeros"),
        ("optimizer.lr=0", "optimizer.lr: 0 is out of range: must be > 0"),
        ("optimizer.lr='0.1'", "optimizer.lr: '0.1' is not a number; remove the quotes"),
        ("optimizer.lr=.nan", "optimizer.lr: '.nan' is not a number"),
        ("optimizer.lr=true", "optimizer.lr: true is not a number"),
        ("optimizer.lr=null", "optimizer.lr: null is not a number"),
        ("optimizer.momentum=1", "optimizer.momentum: 1 is out of range: must be < 1"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay: -1 is out of range: must be >= 0"),
        ("optimizer.clip_grad_norm=0", "optimizer.clip_grad_norm: 0 is out of range: must be > 0"),
        ("optimizer.name=sgdd", "optimizer.name: 'sgdd' is not one of sgd, adamw, adam, rmsprop, nadam; did you mean 'sgd'?"),
        ("optimizer.weight_decay_on=bn", "optimizer.weight_decay_on: 'bn' is not one of weights, all"),
        ("optimizer.nesterov=yes", "optimizer.nesterov: 'yes' is not true or false; write true"),
        ("optimizer.nesterov=off", "optimizer.nesterov: 'off' is not true or false; write false"),
        ("optimizer.nesterov=1", "optimizer.nesterov: 1 is not true or false"),
        ("optimizer.ham=5", "optimizer.ham: 5 is not a mapping"),
        ("optimizer.ham.alpa=3", "optimizer.ham.alpa: unknown key; allowed: alpha, beta, sign, max_weight_norm, scalars, scale_free; did you mean 'alpha'?"),
        ("optimizer.ham={sign: befor}", "optimizer.ham.sign: 'befor' is not one of after, before; did you mean 'before'?"),
        ("optimizer.learning_rate=1", "optimizer.learning_rate: unknown key; allowed: name, lr, "),
        ("schedule.epochs=0", "schedule.epochs: 0 is out of range: must be >= 1"),
        ("schedule.epochs=2.5", "schedule.epochs: 2.5 is not a whole number"),
        ("schedule.epochs=010", "schedule.epochs: '010' is not a whole number"),
        ("schedule.epochs=true", "schedule.epochs: true is not a whole number"),
        ("schedule.epochs=1:30", "schedule.epochs: '1:30' is not a whole number"),
        ("schedule.warmup_epochs=-1", "schedule.warmup_epochs: -1 is out of range: must be >= 0"),
        ("schedule.warmup_epochs=8", "schedule.warmup_epochs: 8 is out of range: must be < schedule.epochs, which is 8"),
        ("schedule.name=cosin", "schedule.name: 'cosin' is not one of cosine, constant, triangular, multistep; did you mean 'cosine'?"),
        ("data.batch_size=0", "data.batch_size: 0 is out of range: must be >= 1"),
        ("data.train_limit=0", "data.train_limit: 0 is out of range: must be >= 1"),
        ("data.root=5", "data.root: 5 is not text; put it in quotes"),
        ("data.root=''", "data.root: is empty text; write null for none"),
        ("data.name=fashion", "data.name: 'fashion' is not a data set; allowed: cifar10, cifar100, fashion_mnist, imagenet, synthetic; did you mean 'fashion_mnist'?"),
        ("data={name: synthetic}", "data: root, image_size, batch_size, drop_last, validation, train_limit, evaluate_on, workers are missing; a mapping in an override replaces all of data, write data.KEY to set one key"),
        ("data=null", "data: null is not a mapping"),
        ("model.name=resnet80", "model.name: 'resnet80' is not a model; allowed: resnet8, resnet8_gn, mlp_bn, mlp_bn_small, resnet20, resnet18_cifar, torchvision:NAME, timm:NAME; did you mean 'resnet8'?"),
        ("model.name='timm:'", "model.name: 'timm:' is not a model"),
        ("runtime.device=gpu", "runtime.device: 'gpu' is not one of auto, cpu, cuda"),
        ("tracking.wandb=disable", "tracking.wandb: 'disable' is not one of auto, online, offline, disabled; did you mean 'disabled'?"),
        ("seed=-1", "seed: -1 is out of range: must be >= 0"),
        ("seed=1.0", "seed: 1.0 is not a whole number"),
        ("checkpoint.every_minutes=0", "checkpoint.every_minutes: 0 is out of range: must be > 0"),
        ("checks.events={updtae: {at_least: 1}}", "checks.events.updtae: 'updtae' is not one of initial, update, compress, decompress, threshold, reset, cut, prune; did you mean 'update'?"),
        ("checks.events={update: {by: 0.5}}", "checks.events.update: at_least is missing"),
        ("checks.events={update: {at_least: 1, by: 2}}", "checks.events.update.by: 2 is out of range: must be <= 1"),
        ("checks.events={update: {at_least: 1, at_lest: 1}}", "checks.events.update.at_lest: unknown key; allowed: at_least, by; did you mean 'at_least'?"),
        ("lr=1", "lr: unknown key; allowed: imports, label, data, model, topology, representation, optimizer, loss, schedule, runtime, checkpoint, resources, checks, evaluate, tracking, seed, extends, sweep; did you mean optimizer.lr?"),
        ("optimizer.epochs=3", "did you mean schedule.epochs?"),
        ("topolgy.name=rigl", "topolgy: unknown key; allowed: imports, "),
        ("imports=sys", "imports: 'sys' is not a list"),
        ("imports=[a-b]", "imports.0: 'a-b' is not a module name, such as my_package.methods"),
        ("topology.name=rgl", "topology.name: 'rgl' is not a topology; allowed: "),
        ("topology.name=5", "topology.name: 5 is not text; put it in quotes"),
        ("representation.name=plian", "did you mean 'plain'?"),
        ("topology.sparcity=0.9", "topology.sparcity: unknown key of topology 'dense'; allowed: name, sparsity; did you mean 'sparsity'?"),
        ("topology={name: rigl}", "topology: sparsity is missing; a mapping in an override replaces all of topology, write topology.KEY to set one key"),
        ("optimizer.nesterov={a: 1}", "optimizer.nesterov: {'a': 1} is not true or false"),
        ("label=" + "x" * 100 + ": 3", "label: {'" + "x" * 55 + "... is not text"),
    ],
)  # fmt: skip
def test_messages(override: str, message: str):
    text = refused(override)
    assert text.startswith("command line: ")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.nesterov=true", "optimizer.momentum=0"], "optimizer.nesterov: Nesterov momentum needs optimizer.momentum > 0"),
        (["optimizer.name=adamw", "optimizer.nesterov=true"], "optimizer.nesterov: only sgd has Nesterov momentum, not adamw; write false"),
        (["data.validation=0", "data.evaluate_on=validation"], "data.evaluate_on: 'validation' needs held-out images, but data.validation is 0"),
        (["schedule.name=triangular", "schedule.warmup_epochs=2"], "schedule.warmup_epochs: 2 is out of range: triangular has a warm-up of its own; write 0"),
        (["schedule.name=triangular", "schedule.per=epoch"], "schedule.per: triangular changes the rate each step; write step"),
        (["schedule.per=epoch", "schedule.warmup_epochs=1.5"], "schedule.warmup_epochs: 1.5 is not a whole number, which schedule.per: epoch needs"),
        (["schedule.milestones=[3]"], "schedule.milestones: only multistep has milestones, not cosine; write []"),
        (["schedule.name=multistep"], "schedule.name: multistep needs schedule.milestones, the epochs after which the rate falls, such as [30, 60]"),
        (["schedule.name=multistep", "schedule.milestones=[3, 3]"], "schedule.milestones: 3, 3 do not ascend"),
        (["schedule.name=multistep", "schedule.milestones=[5, 2.5]"], "schedule.milestones: 5, 2.5 do not ascend"),
        (["schedule.name=multistep", "schedule.milestones=[3, 8]"], "schedule.milestones: 3, 8 are out of range: must be >= schedule.warmup_epochs, 0, and < schedule.epochs, 8"),
        (["schedule.name=multistep", "schedule.milestones=[3]", "schedule.warmup_epochs=4"], "schedule.milestones: 3 are out of range: must be >= schedule.warmup_epochs, 4, and < schedule.epochs, 8"),
        (["model.options={zero_init_residual: true}"], "model.options: the suite's own model 'resnet8' takes no options; write {}"),
        (["runtime.sync_batch_norm=true", "runtime.device=cpu"], "runtime.sync_batch_norm: batch statistics over all ranks need GPUs; write false"),
        (["topology.name=rigl", "representation.name=str"], "topology.name: topology 'rigl' regrows weights at zero, where representation 'str' has no gradient"),
        (["topology.name=rigl", "topology.drop_fraction=2"], "topology.drop_fraction: 2.0 is out of range: must be <= 1"),
        (["topology.name=rigl", "topology.update_every=1.5"], "topology.update_every: 1.5 is not of type int"),
        (["topology.name=rigl", "topology.drop=1"], "topology.drop: unknown key of topology 'rigl'; allowed: name, sparsity, dense, rebudget, allocation, update_every, "),
        (["representation.name=sign_in", "representation.reset=1"], "representation.reset: unknown key of representation 'sign_in'; allowed: name, "),
    ],
)  # fmt: skip
def test_messages_about_several_keys(overrides: list[str], message: str):
    assert refused(*overrides).startswith(f"command line: {message}")


def test_keys_that_go_together():
    overrides = ["schedule.name=multistep", "schedule.milestones=[3, 7.5]", "schedule.warmup_epochs=3"]
    assert build(*overrides).schedule.milestones == [3.0, 7.5]
    assert build("schedule.per=epoch", "schedule.warmup_epochs=2").schedule.per == "epoch"
    assert build("runtime.sync_batch_norm=true").runtime.sync_batch_norm
    # the files of a data set are not looked for until a run needs them
    spec = build(
        "data={name: imagenet, root: null, image_size: null, batch_size: 512, drop_last: true, validation: 0, train_limit: null, evaluate_on: test, workers: 8}",
        "model={name: 'torchvision:resnet50', options: {zero_init_residual: true}, init: default, weights: null, recalibrate: 0}",
    )
    assert spec.model.options == {"zero_init_residual": True}


def test_all_problems_in_one_error_each_with_its_line():
    write("c.yaml", "optimizer:\n  lr: -1\n  nestrov: true\nschedule.epochs: x\n\ntopology:\n  name: rgl\n")
    lines = refused("seed=no", config="c").splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "c.yaml:2",
        "c.yaml:3",
        "c.yaml:4",
        "command line",
        "c.yaml:7",
    ]
    assert lines[1].endswith("; did you mean 'nesterov'?")


def test_an_error_in_the_packaged_defaults_names_them(monkeypatch, here):
    (here / "base.yaml").write_text(BASE.read_text().replace("batch_size: 128", "batch_size: 0"))
    monkeypatch.setattr(files, "configs_folder", lambda: here)
    assert re.match(r"base\.yaml:\d+: data\.batch_size: 0 is out of range", refused())


# ---- methods ------------------------------------------------------------------------------------------------------------


def test_a_resolved_method_has_all_its_options():
    spec = build(
        "topology.name=rigl", "topology.sparsity=0.9", "topology.drop_fraction=1", "representation.name=sign_in"
    )
    dumped = spec.model_dump()
    times = ["update_every", "unit", "batch_reference", "drop_fraction", "final_drop_fraction", "rounding", "end"]
    later = ["average", "also_step", "at_start"]
    assert list(dumped["topology"]) == ["name", "sparsity", "dense", "rebudget", "allocation", *times, *later]
    assert spec.topology.options.drop_fraction == 1.0
    assert type(spec.topology.options.drop_fraction) is float
    assert "reset_every" in dumped["representation"]


def test_times_at_another_batch_size_become_steps_of_this_run():
    options = ["topology.name=rigl", "topology.sparsity=0.9", "data.batch_size=512"]
    given = build(*options, "topology.update_every=100", "topology.batch_reference=4096")
    assert (given.topology.options.update_every, given.topology.options.batch_reference) == (800, None)
    # the same run as one that says 800, and what is recorded is read back as it is
    assert given == build(*options, "topology.update_every=800")
    assert from_mapping(given.model_dump()) == given
    assert refused(*options, "topology.batch_reference=1", "topology.average=8") == (
        "command line: topology.average: 8 is out of range: must be <= update_every"
    )
    assert refused("topology={name: mest, sparsity: 0.99}").endswith(
        "topology.mutation: 0.02 is out of range: must be < the density, 0.01"
    )


@pytest.mark.parametrize("name", ["dense", "random", "acdc", "rigl"])
@pytest.mark.parametrize("representation", ["plain", "str", "product", "sign_in"])
def test_every_registered_combination_resolves_or_is_refused(name: str, representation: str):
    overrides = [f"topology.name={name}", "topology.sparsity=0.9", f"representation.name={representation}"]
    if registry.refusal(name, representation):
        assert "regrows weights at zero" in refused(*overrides)
    else:
        spec = build(*overrides)
        aims = name != "dense" or representation == "str"
        assert spec.topology.sparsity == (0.9 if aims else 0.0)
        assert from_mapping(yaml.safe_load(dump(spec.model_dump()))) == spec


def test_a_method_of_ones_own_is_imported_from_the_config_folder(here, monkeypatch):
    monkeypatch.setattr(registry, "_TOPOLOGIES", dict(registry.topologies()))
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(
        "sub/own_method_a.py",
        "from dataclasses import dataclass\nfrom sparsity import Topology, option, register_topology\n"
        "@register_topology('own_a')\nclass Own(Topology):\n    title = 'Own'\n    @dataclass(frozen=True)\n"
        "    class Options:\n        low: int = option(1, 'x', ge=1)\n        high: int = option(2, 'x')\n"
        "        def __post_init__(self):\n            if self.low > self.high:\n"
        "                raise ValueError('low must not exceed high')\n",
    )
    write("sub/c.yaml", "imports: [own_method_a]\ntopology: {name: own_a, high: 5}\n")
    before = list(sys.path)
    spec = build(config="sub/c.yaml")
    assert dataclasses.asdict(spec.topology.options) == {"low": 1, "high": 5}
    # appended, and there to stay for the processes that inherit it
    assert sys.path == [*before, str(here / "sub"), str(here)]
    assert build(config="sub/c.yaml") == spec
    assert len(sys.path) == len(before) + 2
    assert refused("topology.low=7", config="sub/c.yaml") == "sub/c.yaml:2: topology: low must not exceed high"


def test_imports_that_fail(here, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    write("c.yaml", "\nimports: [no_such_module_b]\n")
    assert refused(config="c") == "c.yaml:2: imports: there is no module 'no_such_module_b' in . or on the Python path"
    write("own_broken_c.py", "import math\n1 / 0\n")
    write("own_needs_d.py", "import no_such_dependency_d\n")
    text = refused("imports=[own_broken_c]")
    assert (
        "command line: imports: the module 'own_broken_c' fails on import: ZeroDivisionError: division by zero ("
        in text
    )
    assert text.endswith("own_broken_c.py:2)")
    assert "ModuleNotFoundError: No module named 'no_such_dependency_d'" in refused("imports=[own_needs_d]")
    assert "there is no module 'no_such_package.inner'" in refused("imports=[no_such_package.inner]")


# ---- calibration --------------------------------------------------------------------------------------------------------


def uncalibrated(config: str, *overrides: str) -> str:
    """The identity an uncalibrated configuration asks for."""
    found = re.search(r"identity ([0-9a-f]{64})\)", refused(*overrides, config=config))
    assert found
    return found[1]


def test_calibrated_thresholds(here):
    write("c.yaml", "topology.sparsity: 0.9\nrepresentation: {name: str, threshold_decay: calibrated}\n")
    loaded = load("c")
    before = resolve(loaded, calibrate=False)
    assert before.representation.options.threshold_decay == "calibrated"
    message = refused(config="c")
    assert message.startswith(
        "c.yaml:2: representation.threshold_decay: not calibrated for dense + str at topology.sparsity=0.9 with these"
    )
    assert message.endswith("run `ham calibrate c`")
    entry = uncalibrated("c")
    assert calibration_path(loaded.path) == Path("c.calibration.yaml")
    calibration_path(loaded.path).write_text(dump([{"identity": entry, "threshold_decay": 1, "note": "x"}]))
    spec = resolve(load("c", ["seed=3", "label=x", "tracking.wandb=offline"]))
    assert spec.representation.options.threshold_decay == 1.0
    assert spec.topology.sparsity == 0.9
    # another sparsity or length is another calibration
    assert uncalibrated("c", "topology.sparsity=0.8") != entry
    assert uncalibrated("c", "schedule.epochs=9") != entry
    # a file that extends the calibrated one needs none of its own, and its own goes first
    write("child.yaml", "extends: c\n")
    assert build(config="child").representation.options.threshold_decay == 1.0
    write("child.calibration.yaml", dump([{"identity": entry, "threshold_decay": 0.25}]))
    assert build(config="child").representation.options.threshold_decay == 0.25


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("identity: abc\n", ":1"),
        ("- 5\n", ""),
        ("- {identity: ab, threshold_decay: x}\n", ":1"),
        ("- identity: 12345678\n  threshold_decay: 1.0\n", ":1"),
        ("- {identity: ab, threshold_decay: -1}\n", ":1"),
        ("- {identity: ab, threshold_decay: true}\n", ":1"),
    ],
)
def test_damaged_calibration_files(text: str, place: str):
    write("c.yaml", "representation: {name: str, threshold_decay: calibrated}\n")
    write("c.calibration.yaml", text)
    assert refused(config="c") == (
        f"c.calibration.yaml{place}: must be a list of mappings with identity (text) and threshold_decay (a number >= 0)"
    )


# ---- the specification of a run -----------------------------------------------------------------------------------------


def test_spec_round_trips_and_is_a_configuration_itself():
    spec = build(
        "optimizer.ham={alpha: -20}",
        "optimizer.weight_decay=1e-5",
        "label='no'",
        "checks.events={update: {at_least: 2}}",
    )
    text = dump(spec.model_dump())
    assert from_mapping(yaml.safe_load(text)) == spec
    write("run/spec.yaml", text)
    assert build(config="run/spec.yaml") == spec


def test_from_mapping_refuses_what_is_not_a_run():
    with pytest.raises(UserError, match=r"^optimizer.lr: 'x' is not a number$"):
        from_mapping({**build().model_dump(), "optimizer": {**build().optimizer.model_dump(), "lr": "x"}})
    with pytest.raises(UserError, match="^optimizer.lr: inf is not a finite number$"):
        from_mapping({**build().model_dump(), "optimizer": {**build().optimizer.model_dump(), "lr": float("inf")}})
    with pytest.raises(UserError, match="^data, model, topology"):
        from_mapping({"imports": [], "label": None})


def test_a_specification_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        build().optimizer.lr = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_integers_become_floats_where_a_float_is_declared():
    spec = build("optimizer.lr=1", "schedule.warmup_epochs=1")
    assert [type(value) for value in (spec.optimizer.lr, spec.schedule.warmup_epochs)] == [float, float]


def test_errors_survive_a_process_boundary():
    for error in (UserError("m", "w"), RunFailure("loss is nan")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.where) == (type(error), str(error), error.where)
    assert (UserError.exit_code, RunFailure.exit_code) == (2, 1)
    assert (str(UserError("m", "w")), str(RunFailure("m"))) == ("w: m", "m")


def test_importing_the_modules_loads_no_torch():
    code = "import experiments.config.sweep, experiments.config.resolve, experiments.config.identity, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
