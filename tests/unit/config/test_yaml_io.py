"""The YAML traps, each against what PyYAML itself does, and every way a file can be refused."""

# ruff: noqa: E501 - a message or an odd value stands on one line, as users see it
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from experiments.config.yaml_text import Located, dump, parse_value, read_mapping, read_yaml
from experiments.errors import UserError


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_file(content: str | bytes) -> Path:
        path = tmp_path / "c.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_mapping(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2.e+3", -2000.0),
        (".5", 0.5),
        ("1.0e-4", 1e-4),
        ("0.95", 0.95),
        ("10", 10),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("2:4", "2:4"),
        ("12:30:45", "12:30:45"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("True", "True"),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("2024-01-02", "2024-01-02"),
        (".inf", ".inf"),
        ("nan", "nan"),
        ("'1'", "1"),
        ("1e", "1e"),
        ("٣", "٣"),  # a digit, though not an ASCII one
        ("RiGL + HAM", "RiGL + HAM"),
        ("torchvision:resnet50", "torchvision:resnet50"),
        ("[0, 1]", [0, 1]),
        ("{n: 2, m: 4}", {"n": 2, "m": 4}),
        ("!!str 1", "1"),
    ],
)
def test_scalars(text: str, value: Any):
    read = parse_value(text)
    assert read == value
    assert type(read) is (Located if isinstance(value, dict) else type(value))


@pytest.mark.parametrize(
    ("text", "trap"),
    [
        ("1e-4", "1e-4"),
        ("2:4", 124),
        ("no", False),
        ("on", True),
        ("010", 8),
        ("1_000", 1000),
        ("{a: 1, a: 2}", {"a": 2}),
    ],
)
def test_the_traps_are_real(text: str, trap: Any):
    """The differences exist for a reason: this is what the plain loader makes of the same text."""
    assert yaml.safe_load(text) == trap


def test_places_of_keys(write):
    tree = read_mapping(write("a: 1\nb:\n  c: 2\n\n  # comment\n  d: {e: 3,\n      f: 4}\nl:\n  - x: 1\n"))
    assert tree.places == {"a": "c.yaml:1", "b": "c.yaml:2", "l": "c.yaml:8"}
    assert tree["b"].places == {"c": "c.yaml:3", "d": "c.yaml:6"}
    assert tree["b"]["d"].places == {"e": "c.yaml:6", "f": "c.yaml:7"}
    assert tree["l"][0].places == {"x": "c.yaml:9"}


def test_a_file_elsewhere_is_named_in_full(tmp_path, monkeypatch):
    path = tmp_path / "c.yaml"
    path.write_text("a: 1\n")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert read_mapping(path).places["a"] == f"{path}:1"


@pytest.mark.parametrize("content", ["", "\n\n", "# only a comment\n", "---\n", "\ufeff", "null"])
def test_empty_files_are_empty_mappings(write, content: str):
    assert read_mapping(write(content)) == {}


def test_byte_order_mark_and_carriage_returns(write):
    assert read_mapping(write(b"\xef\xbb\xbfa: 1\r\nb: x\r\n")) == {"a": 1, "b": "x"}


def test_anchors_are_fine(write):
    assert read_mapping(write("a: &x {k: 1}\nb: *x\n")) == {"a": {"k": 1}, "b": {"k": 1}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lr: 1\nx: 2\nlr: 3\n", "c.yaml:3:1: the key 'lr' is written twice, in lines 1 and 3"),
        ("o:\n  a: 1\n  'a': 2\n", "c.yaml:3:3: the key 'a' is written twice, in lines 2 and 3"),
        (
            "a: &x {k: 1}\nb:\n  <<: *x\n",
            "c.yaml:3:3: merge keys (<<) are not supported; use extends, or repeat the keys",
        ),
        ("a: 1\n2: 3\n", "c.yaml:2:1: the key '2' is not text; put it in quotes"),
        ("true: 3\n", "c.yaml:1:1: the key 'true' is not text; put it in quotes"),
        ("~: 3\n", "c.yaml:1:1: the key '~' is not text; put it in quotes"),
        ("'': 3\n", "c.yaml:1:1: the key '' is not text; put it in quotes"),
        ("? [a]\n: 3\n", "c.yaml:1:3: the key 'a list or mapping' is not text; put it in quotes"),
        (
            "a: !!python/object/apply:os.system [x]\n",
            "c.yaml:1:4: the tag !!python/object/apply:os.system is not allowed; write plain values",
        ),
        ("a: !!set {x}\n", "c.yaml:1:4: the tag !!set is not allowed; write plain values"),
        ("a: !mine 3\n", "c.yaml:1:4: the tag !mine is not allowed; write plain values"),
        ("a: !!int x\n", "c.yaml:1:4: 'x' is not what its tag !!int says"),
        ("a: !!int [1]\n", "c.yaml:1:4: the tag !!int is not allowed; write plain values"),
        ("a: &x\n  b: *x\n", "c.yaml:1:4: an alias (*name) refers to a value that contains it"),
        ("a: 1\nb: [1, 2\n", "c.yaml:3:1: is not valid YAML: while parsing a flow sequence expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", "c.yaml:2:1: is not valid YAML: while scanning for the next token found character '\\t'"),
        ("a: 1\n---\nb: 2\n", "c.yaml:2:1: is not valid YAML: expected a single document in the stream"),
        ("a: *nope\n", "c.yaml:1:4: is not valid YAML: found undefined alias 'nope'"),
        ('a: "\\UFFFFFFFF"\n', "c.yaml:1: is not valid YAML"),
        ('a: "x\\0y"\n', "c.yaml:1:4: text contains the character U+0000, which is not allowed"),
        ('a: "\\uD800"\n', "c.yaml:1:4: text contains the character U+D800, which is not allowed"),
        ("a: 1\nb: x\x07y\n", "c.yaml:2:5: contains the character U+0007, not allowed in YAML"),
        (b"a: 1\nb: \xff\n", "c.yaml:2:4: is not UTF-8 text (byte 0xff)"),
        ("a: 1\n".encode("utf-16"), "c.yaml:1:1: is not UTF-8 text (byte 0xff)"),
        ("- a\n- b\n", "c.yaml:1: must be a mapping of keys to values, not a list"),
        ("just text\n", "c.yaml:1: must be a mapping of keys to values, not a single value"),
        ("a: 1e999\n", "c.yaml:1:4: the number 1e999 is too large"),
        ("a: 9223372036854775808\n", "c.yaml:1:4: the number 9223372036854775808 is too large"),
        ("a: " + "9" * 5000, "c.yaml:1:4: the number " + "9" * 40 + " is too large"),
        ("a: " + "[" * 41 + "]" * 41, "is nested more than 40 levels deep"),
        ("a: " + "[" * 5000, "is nested more than 40 levels deep"),
    ],
)
def test_refusals_name_the_place(write, content: str | bytes, message: str):
    assert message in refused(write(content))


def test_a_tab_gets_the_advice(write):
    assert refused(write("a:\n\tb: 2\n")).endswith("; indent with spaces, not tabs")


def test_aliases_of_aliases_do_not_explode(write):
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "has more than 100000 values" in refused(write("\n".join(lines)))


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(tmp_path) == ".: is a directory, not a file"
    assert refused(tmp_path / "none.yaml") == "none.yaml: is not a file"
    assert "cannot be read: File name too long" in refused(tmp_path / ("x" * 5000))
    assert refused(Path("/dev/zero")) == "/dev/zero: is not a file"
    (tmp_path / "big.yaml").write_bytes(b"#" * 1_000_001)
    assert refused(tmp_path / "big.yaml") == "big.yaml: is larger than 1,000,000 bytes, so it is no configuration"


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = tmp_path / "c.yaml"
    path.write_text("a: 1")

    def deny(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", deny)
    assert "cannot be read: Permission denied" in refused(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is an empty value; write null for none"),
        ("#1", "'#1' is an empty value; write null for none, and quote text that starts with #"),
        ("[1", "is not valid YAML"),
        ("{a: 1, a: 2}", "the key 'a' is written twice"),
        ("a\x00", "contains the character U+0000"),
        ("\udcff", "contains the character U+DCFF"),
    ],
)
def test_values_of_the_command_line_that_are_refused(text: str, message: str):
    with pytest.raises(UserError) as caught:
        parse_value(text)
    assert str(caught.value).startswith("command line: ")
    assert message in str(caught.value)


def test_dump_is_readable():
    text = dump({"lr": 1e-05, "decay": 5e-4, "nm": "2:4", "answer": "no", "rate": "1e-4", "ham": None, "seeds": [0, 1]})
    assert text.splitlines()[:6] == [
        "lr: 1.0e-05",
        "decay: 0.0005",
        "nm: '2:4'",
        "answer: 'no'",
        'rate: "1e-4"',
        "ham: null",
    ]


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12) | st.sampled_from(
    [
        "no",
        "2:4",
        "1e-4",
        "010",
        "null",
        "~",
        "",
        "true",
        "=",
        "<<",
        "a: b",
        "# x",
        "- x",
        "1e5",
        "12e45678",
        "a\nb",
        "\t",
        "2024-01-02",
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(min_value=-3e38, max_value=3e38)
    | texts
)
keys = texts.filter(lambda key: key not in ("", "<<"))
trees = st.dictionaries(
    keys,
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
    ),
)


@given(tree=trees)
@example({"x": 1e-05, "y": "\u2028x", "z": "\ufeff", "e": {}, "l": []})
def test_dump_loads_back_equal_here_and_with_plain_pyyaml(tmp_path_factory, tree: dict[str, Any]):
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump(tree), encoding="utf-8")
    for again in (read_yaml(path), yaml.safe_load(path.read_bytes())):
        assert same(again, tree)


def same(value: Any, other: Any) -> bool:
    """Equality that tells 1 from 1.0 and True; dictionaries in order."""
    if isinstance(value, dict) and isinstance(other, dict):
        return list(value) == list(other) and all(same(value[key], other[key]) for key in value)
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(same, value, other))
    if isinstance(value, float) and isinstance(other, float):
        return value == other and math.copysign(1, value) == math.copysign(1, other)
    return type(value) is type(other) and value == other
