"""The identity of a run: what changes it, what does not, and that the release's hashes stay as they are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from experiments.config import files
from experiments.config.files import configs_folder
from experiments.config.identity import calibration_identity, identity
from experiments.config.resolve import from_mapping, load, resolve
from experiments.config.schema import HamSpec, OptimizerSpec, Section, Spec
from sparsity import registry
from sparsity.options import option

BASE = configs_folder() / "base.yaml"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(*overrides: str) -> Spec:
    return resolve(load("base", overrides))


def test_identity_is_the_hash_of_the_canonical_json():
    """Computed a second time by hand from the resolved mapping, minus what the docstring says is left out."""
    spec = build("topology.name=rigl", "topology.sparsity=0.9")
    content = spec.model_dump()
    for key in ("seed", "label", "tracking", "checkpoint", "resources", "evaluate"):
        del content[key]
    # where files lie, how they are read and how long ranks wait
    del content["data"]["root"], content["data"]["workers"], content["runtime"]["rank_timeout"]
    # keys that came after the first release, at what the code did before
    del content["data"]["image_size"], content["model"]["options"], content["model"]["init"], content["loss"]
    del content["model"]["weights"], content["model"]["recalibrate"], content["data"]["drop_last"]
    del content["optimizer"]["sam"], content["optimizer"]["ema_decay"], content["optimizer"]["sparse_opt"]
    for key in ("dense", "rebudget", "unit", "batch_reference", "average", "also_step", "at_start", "rounding"):
        del content["topology"][key]
    del content["topology"]["final_drop_fraction"]
    for key in ("per", "milestones", "gamma"):
        del content["schedule"][key]
    for key in ("accumulate", "compile", "sync_batch_norm", "deterministic", "tf32"):
        del content["runtime"][key]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert identity(spec) == hashlib.sha256(text.encode()).hexdigest()
    content["data"]["content"] = "abc"
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert identity(spec, "abc") == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("overrides", "content", "released"),
    [
        ([], None, "8850a3e0"),
        (["topology.name=rigl", "topology.sparsity=0.9", "optimizer.ham={}"], None, "2d12986f"),
        (["model.name=mlp_bn", "schedule.name=triangular", "runtime.amp=bf16"], "abc", "9d0478e2"),
    ],
)
def test_hashes_of_the_first_release(overrides: list[str], content: str | None, released: str):
    """Runs that were done with it are found again."""
    assert identity(build(*overrides), content)[:8] == released


@pytest.mark.parametrize(
    "override",
    [
        *("seed=5", "label=x", "tracking.wandb=disabled", "tracking.project=p", "checkpoint.every_steps=7"),
        *("data.root=/x", "data.workers=0", "checkpoint.keep=5", "resources.hours=2.0", "runtime.rank_timeout=1.0"),
    ],
)
def test_what_does_not_count(override: str):
    assert identity(build(override)) == identity(build())


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.lr=0.2",
        "optimizer.ham={}",
        "optimizer.sam={}",
        "topology.name=random",
        "representation.name=product",
        "data.batch_size=64",
        "data.evaluate_on=validation",
        "schedule.epochs=9",
        "runtime.amp=bf16",
        "checks.events={update: {at_least: 1}}",
        "data.image_size=28",
        "model.init=kaiming_fan_in",
        "optimizer.ema_decay=0.99",
        "loss.label_smoothing=0.1",
        "schedule.per=epoch",
        "schedule={name: multistep, epochs: 8, warmup_epochs: 0, per: step, milestones: [4], gamma: 0.1}",
        "runtime.accumulate=2",
        "runtime.compile=true",
        "runtime.sync_batch_norm=true",
        "runtime.deterministic=true",
        "runtime.tf32=none",
    ],
)
def test_what_counts(override: str):
    assert identity(build(override)) != identity(build())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("optimizer.lr=1", "optimizer.lr=1.0"),
        ("optimizer.lr=1e-4", "optimizer.lr=0.0001"),
        ("schedule.warmup_epochs=-0.0", "schedule.warmup_epochs=0"),
        ("topology.sparsity=0.5", "topology.sparsity=0.9"),  # dense aims at no sparsity
        ("optimizer.ham={}", "optimizer.ham={alpha: 200, sign: after}"),
    ],
)
def test_two_spellings_of_one_run(one: str, other: str):
    assert identity(build(one)) == identity(build(other))


def test_an_option_written_out_is_the_default():
    one = build("topology.name=rigl", "topology.sparsity=0.9", "topology.drop_fraction=0.3")
    assert identity(one) == identity(build("topology.name=rigl", "topology.sparsity=0.9"))


def test_a_saved_specification_keeps_its_identity():
    spec = build("topology.name=acdc", "topology.sparsity=0.9", "optimizer.ham={}")
    assert identity(from_mapping(spec.model_dump())) == identity(spec)


def test_a_changed_default_changes_the_identity(monkeypatch, here):
    before = identity(build())
    (here / "base.yaml").write_text(BASE.read_text().replace("lr: 0.1 ", "lr: 0.05 "))
    monkeypatch.setattr(files, "configs_folder", lambda: here)
    assert build().optimizer.lr == 0.05
    assert identity(build()) != before
    assert identity(build("optimizer.lr=0.1")) == before


class LaterHam(HamSpec):
    power: float = Field(default=2.0, json_schema_extra={"neutral": 1.0})


class LaterOptimizer(OptimizerSpec):
    ham: LaterHam | None  # pyright: ignore[reportIncompatibleVariableOverride]
    rho: float = Field(json_schema_extra={"neutral": 0.0})
    adaptive: bool = Field(json_schema_extra={"neutral": False})


class Averaging(Section):
    name: str = Field(json_schema_extra={"neutral": "none"})


class LaterSpec(Spec):
    """The tree of a later release: new keys on three levels and a new section."""

    optimizer: LaterOptimizer  # pyright: ignore[reportIncompatibleVariableOverride]
    averaging: Averaging


def later(
    spec: Spec, rho: Any = 0.0, averaging: str = "none", adaptive: Any = False, power: float | None = None
) -> LaterSpec:
    content = spec.model_dump()
    content["optimizer"] |= {"rho": rho, "adaptive": adaptive}
    if power is not None:
        content["optimizer"]["ham"]["power"] = power
    return LaterSpec.model_validate({**content, "averaging": {"name": averaging}})


def test_a_new_key_at_its_neutral_value_orphans_nothing():
    spec = build()
    assert identity(later(spec)) == identity(spec)
    assert identity(later(spec, rho=0)) == identity(spec)
    assert identity(later(spec, rho=0.05)) != identity(spec)
    assert identity(later(spec, adaptive=True)) != identity(spec)
    assert identity(later(spec, averaging="ema")) != identity(spec)


def test_the_neutral_value_is_not_the_default():
    """A new key whose default differs from what the code did: the default is another run, the neutral value is not."""
    spec = build("optimizer.ham={}")
    assert identity(later(spec, power=1.0)) == identity(spec)
    assert identity(later(spec)) != identity(spec)


def test_a_new_option_of_a_method_at_its_neutral_value(monkeypatch):
    before = build("topology.name=rigl", "topology.sparsity=0.9")
    hashed = identity(before)
    known = registry.topology("rigl")
    fields = [
        (f.name, f.type, dataclasses.field(default=f.default, metadata=f.metadata))
        for f in dataclasses.fields(known.Options)
    ]
    grown = dataclasses.make_dataclass(
        "Options", [*fields, ("noise", "float", option(0.5, "x", neutral=0.0))], frozen=True
    )
    monkeypatch.setattr(known, "Options", grown)
    overrides = ["topology.name=rigl", "topology.sparsity=0.9"]
    assert identity(build(*overrides, "topology.noise=0")) == hashed
    assert identity(build(*overrides)) != hashed


def test_calibration_identity_ignores_the_number_and_the_seed():
    overrides = ["topology.sparsity=0.9", "representation.name=str"]
    one = build(*overrides, "representation.threshold_decay=0.25", "seed=1")
    other = build(*overrides, "representation.threshold_decay=0.5", "seed=2")
    assert calibration_identity(one) == calibration_identity(other)
    assert calibration_identity(one) == identity(
        resolve(load("base", [*overrides, "representation.threshold_decay=calibrated"]), calibrate=False)
    )
    assert calibration_identity(one) != calibration_identity(build("topology.sparsity=0.8", *overrides[1:]))


def _keys(model: type[Section], above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """The keys that came after the first release, with their neutral values."""
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += _keys(field.annotation, (*above, name))
        elif isinstance(field.json_schema_extra, dict) and "neutral" in field.json_schema_extra:
            found.append(((*above, name), field.json_schema_extra["neutral"]))
    return found


@pytest.mark.parametrize(("key", "neutral"), [pytest.param(*each, id=".".join(each[0])) for each in _keys(Spec)])
def test_a_specification_from_before_a_key_is_read_with_its_neutral_value(key, neutral):
    """Files of finished runs and of submissions outlive the version that wrote them."""
    content = build().model_dump()
    del content[key[0]][key[1]]
    if not content[key[0]]:
        del content[key[0]]
    assert from_mapping(content).model_dump()[key[0]][key[1]] == neutral
