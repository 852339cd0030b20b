"""Whatever is done to a configuration, the answer is a specification or one message, never another exception."""

# ruff: noqa: E501 - a message or an odd value stands on one line, as users see it
from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from experiments.config.files import configs_folder
from experiments.config.identity import identity
from experiments.config.resolve import from_mapping, load, resolve
from experiments.config.schema import Spec
from experiments.config.sweep import expand, manifest
from experiments.config.yaml_text import dump, read_mapping
from experiments.errors import UserError

PARENT = """
optimizer: {ham: {alpha: 20.0, beta: 1.0e-3, sign: after}, clip_grad_norm: 1}
schedule.epochs: 2
"""
TABLE = """
extends: [base, parent]
label: Demo
topology:
  name: rigl
  sparsity: 0.5
  drop_fraction: 0.3
representation: &rep {name: sign_in, reset_every: 2}
checks: {events: {update: {at_least: 1, by: 0.5}}}
sweep:
  title: "A table"
  tuning_cells: 9
  rows:
    Dense: {topology: {name: dense}, representation: {name: plain}}
    RiGL: {representation: {name: plain}, optimizer.ham: null}
    RiGL + HAM:
      representation.name: product
      representation: *rep
    STR: {topology: {name: dense}, representation: {name: str, threshold_decay: 0.5}}
  columns: {topology.sparsity: [0.8, 9.0e-1], optimizer.ham.alpha: [1, 2]}
  seeds: [0, 1]
  cells:
  - {when: {row: RiGL, topology.sparsity: 0.9}, set: {optimizer.lr: 0.05}}
  baselines: {RiGL + HAM: RiGL}
""".replace("      representation.name: product\n", "")
SOURCES = [TABLE, PARENT, (configs_folder() / "base.yaml").read_text()]

ODD = [
    *("", "no", "yes", "True", "~", "null", "1e-4", "1e999", "-1", "0", "010", "2:4", ".nan", ".inf", "95", "95%", "-0.0"),
    *("9223372036854775808", "1" * 5000, "[]", "{}", "[[]]", "[{}]", "{a: }", "[1, a, null, true]", "{1: 2}", "{a: {b: {c: d}}}"),
    *("'", '"', '"\\0"', '"\\uD800"', '"\\UFFFFFFFF"', "|", ">-", "&a [*a]", "*rep", "*nope", "<<", "- x", "? x", "!!int x", "!x y"),
    *("!!python/name:os.system", "%TAG", "---", "...", "\t", "# c", "@", "`", "{", "[", "a: b: c", "x" * 5000, "é⊙\u2028", "\x00"),
    *("calibrated", "rigl", "str", "sign_in", "dense", "base", "[base]", "[parent, c]", "c", ".", "/", "/dev/null", "..", "RiGL"),
]  # fmt: skip
FIELDS = [
    f"{name}.{key}" for name in Spec.model_fields for key in ("name", "sparsity", "lr", "ham", "ham.alpha", "x..y", "")
]
KEYS = [
    *Spec.model_fields, *FIELDS, "sweep", "extends", "sweep.rows", "sweep.seeds", "sweep.columns.topology.sparsity", "sweep.rows.X",
    "sweep.cells", "sweep.name", "sweep.baselines.RiGL", "row", "when", "set", "<<", "1", "true", "", ".", "'", "topology.drop_fraction",
    "representation.threshold_decay", "optimizer.ham", "imports",
]  # fmt: skip

position = st.integers(0, 10_000)
odd = st.sampled_from(ODD) | st.text(max_size=6)
key = st.sampled_from(KEYS) | st.text(max_size=4)
mutation = st.one_of(
    st.tuples(st.just("delete"), position),
    st.tuples(st.just("repeat"), position),
    st.tuples(st.just("swap"), position, position),
    st.tuples(st.just("value"), position, odd),
    st.tuples(st.just("token"), position, odd),
    st.tuples(st.just("key"), position, key),
    st.tuples(st.just("line"), position, key, odd),
    st.tuples(st.just("indent"), position, st.integers(0, 6)),
    st.tuples(st.just("bytes"), position, st.integers(0, 5), st.binary(max_size=3)),
)


def mutate(text: bytes, change: tuple) -> bytes:
    """Apply one change; positions wrap around."""
    kind, at, *rest = change
    if kind == "bytes":
        at %= len(text) + 1
        return text[:at] + rest[1] + text[at + rest[0] :]
    lines = text.decode("utf-8", "surrogateescape").split("\n")
    at %= len(lines)
    line = lines[at]
    indent = line[: len(line) - len(line.lstrip())]
    if kind == "delete":
        lines[at : at + 1] = []
    elif kind == "repeat":
        lines[at:at] = [line]
    elif kind == "swap":
        other = rest[0] % len(lines)
        lines[at], lines[other] = lines[other], line
    elif kind == "value":
        lines[at] = f"{line.partition(':')[0]}: {rest[0]}"
    elif kind == "token":
        words = re.split(r"(?<=[\s,:\[\]{}])", line)
        words[at % len(words)] = rest[0]
        lines[at] = "".join(words)
    elif kind == "key":
        lines[at] = f"{indent}{rest[0]}:{line.partition(':')[2]}"
    elif kind == "line":
        lines[at:at] = [f"{indent}{rest[0]}: {rest[1]}"]
    else:
        lines[at] = " " * rest[0] + line.lstrip()
    return "\n".join(lines).encode(
        "utf-8", "surrogatepass" if any("\ud800" <= c < "\udc80" for c in "".join(lines)) else "surrogateescape"
    )


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parent.yaml").write_text(PARENT)
    return tmp_path


def check(config: str, overrides: list[str]) -> None:
    """Load, resolve and expand; a message must be text that can be printed, a result must be consistent."""
    try:
        loaded = load(config, overrides)
        spec = resolve(loaded)
        assert from_mapping(spec.model_dump()) == spec
        assert re.fullmatch("[0-9a-f]{64}", identity(spec))
        if loaded.sweep is not None:
            table = expand(loaded)
            assert len({cell["path"] for cell in manifest(table)["cells"]}) == len(table.runs)
            dump(manifest(table))
    except UserError as error:
        text = str(error)
        assert text.strip()
        text.encode()
        assert "Traceback" not in text


quiet = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,  # the same examples on every machine: a release must not fail by chance
)
fewer = settings(quiet, max_examples=80)  # of what the first reading mostly refuses


def test_the_sources_are_valid(folder):
    (folder / "c.yaml").write_text(TABLE)
    loaded = load("c")
    assert len(expand(loaded).cells) == 4 * 2 * 2 * 2
    assert resolve(loaded).schedule.epochs == 2
    assert read_mapping(folder / "c.yaml")["label"] == "Demo"


@quiet
@given(source=st.sampled_from(SOURCES), changes=st.lists(mutation, min_size=1, max_size=4))
def test_mutated_files(folder, source: str, changes: list[tuple]):
    text = source.encode()
    for change in changes:
        text = mutate(text, change)
    (folder / "c.yaml").write_bytes(text)
    check("c", [])


@quiet
@given(pairs=st.lists(st.tuples(key, odd), min_size=1, max_size=3))
@example([("extends", "[c]")])
def test_odd_overrides(folder, pairs: list[tuple[str, str]]):
    (folder / "c.yaml").write_text(TABLE)
    check("c", [f"{name}={value}" for name, value in pairs])


@fewer
@given(text=st.text(max_size=60) | st.binary(max_size=60) | st.lists(st.sampled_from(ODD), max_size=5).map(" ".join))
def test_arbitrary_files(folder, text: str | bytes):
    (folder / "c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    check("c", [])


@fewer
@given(name=odd | st.text(max_size=20))
def test_odd_names(folder, name: str):
    check(name, [])
