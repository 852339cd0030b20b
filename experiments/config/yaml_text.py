"""YAML as a configuration needs it: no surprising types, no silent duplicates, every key's line remembered.

Differences from `yaml.safe_load` (PyYAML 6, YAML 1.1): ``1e-4`` is a number; ``2:4`` and ``12:30`` are text, not
base 60; ``yes``, ``no``, ``on``, ``off`` and ``True`` are text, only ``true`` and ``false`` are booleans; ``010``,
``0x1f``, ``1_000``, ``.inf`` and dates are text; duplicate keys, merge keys, tags of other types, recursive aliases,
control characters and keys that are not text are refused.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from experiments.errors import UserError

NULL = re.compile(r"(~|null|Null|NULL|)\Z")
BOOL = re.compile(r"(true|false)\Z")
INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
FLOAT = re.compile(r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)\Z")

_TAG = "tag:yaml.org,2002:"
_PLAIN = {f"{_TAG}null": NULL, f"{_TAG}bool": BOOL, f"{_TAG}int": INT, f"{_TAG}float": FLOAT}
_MAX_BYTES = 1_000_000
_MAX_NODES = 100_000  # aliases of aliases grow exponentially
_MAX_DEPTH = 40
_MAX_INT = 2**63
_MAX_FLOAT = 3e38  # training is in single precision

Locate = Callable[[int, int | None], str]  # line and column from 1 -> place in a message


class Located(dict[str, Any]):
    """A mapping that knows where each of its keys was written.

    Attributes:
        places: Key to ``"FILE:LINE"`` or ``"command line"``.
    """

    def __init__(self, values: Mapping[str, Any] | None = None, places: Mapping[str, str] | None = None):
        super().__init__(values or {})
        self.places = dict(places or {})


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}


_Quick: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _QuickLoader(_Quick):
    yaml_implicit_resolvers: dict = {}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern in _PLAIN.items():
    _Loader.add_implicit_resolver(_tag, _pattern, None)
    _QuickLoader.add_implicit_resolver(_tag, _pattern, None)


def _represent_str(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # the emitter quotes what its own resolver would read as something else; this adds what ours would
    quoted = any(pattern.match(text) for pattern in _PLAIN.values()) or not text.isprintable()
    return dumper.represent_scalar(f"{_TAG}str", text, style='"' if quoted else None)


_Dumper.add_representer(str, _represent_str)
_Dumper.add_representer(Located, yaml.SafeDumper.represent_dict)


class _Builder:
    """Nodes to values. A class for what one document shares: places, open aliases, the number of nodes."""

    def __init__(self, locate: Locate):
        self.locate = locate
        self.open: list[yaml.Node] = []
        self.nodes = 0

    def fail(self, node: yaml.Node, message: str) -> UserError:
        return UserError(message, self.locate(node.start_mark.line + 1, node.start_mark.column + 1))

    def build(self, node: yaml.Node) -> Any:
        self.nodes += 1
        if self.nodes > _MAX_NODES:
            raise self.fail(node, f"has more than {_MAX_NODES} values (aliases count each time)")
        if any(node is other for other in self.open):
            raise self.fail(node, "an alias (*name) refers to a value that contains it")
        if len(self.open) >= _MAX_DEPTH:
            raise self.fail(node, f"is nested more than {_MAX_DEPTH} levels deep")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        self.open.append(node)
        try:
            return self._collection(node)
        finally:
            self.open.pop()

    def _collection(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.build(item) for item in node.value]
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node)
        raise self.fail(node, f"the tag {_tag_name(node)} is not allowed; write plain values")

    def _mapping(self, node: yaml.MappingNode) -> Located:
        result, lines = Located(), {}
        for key_node, value_node in node.value:
            key = self.build(key_node)
            if not isinstance(key, str) or not key:
                shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                raise self.fail(key_node, f"the key {shown!r} is not text; put it in quotes")
            if key == "<<":
                raise self.fail(key_node, "merge keys (<<) are not supported; use extends, or repeat the keys")
            line = key_node.start_mark.line + 1
            if key in lines:
                raise self.fail(key_node, f"the key {key!r} is written twice, in lines {lines[key]} and {line}")
            lines[key] = line
            result[key] = self.build(value_node)
            result.places[key] = self.locate(line, None)
        return result

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = node.value
        if node.tag == f"{_TAG}str":
            return self._text(node)
        if node.tag not in _PLAIN:
            raise self.fail(node, f"the tag {_tag_name(node)} is not allowed; write plain values")
        if not _PLAIN[node.tag].match(text):
            raise self.fail(node, f"{text!r} is not what its tag {_tag_name(node)} says")
        if node.tag == f"{_TAG}null":
            return None
        if node.tag == f"{_TAG}bool":
            return text == "true"
        # a number of thousands of digits would be refused by int() itself, with another exception
        value = int(text) if node.tag == f"{_TAG}int" and len(text) < 25 else float(text)
        if abs(value) > _MAX_FLOAT or (abs(value) >= _MAX_INT and INT.match(text)):
            raise self.fail(node, f"the number {text[:40]} is too large")
        return value

    def _text(self, node: yaml.ScalarNode) -> str:
        for char in node.value:
            if unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t":
                raise self.fail(node, f"text contains the character U+{ord(char):04X}, which is not allowed")
        return node.value


def _tag_name(node: yaml.Node) -> str:
    return node.tag.replace(_TAG, "!!")


def _parse(text: str, locate: Locate, loader: Any = _Loader) -> Any:
    try:
        node = yaml.compose(text, Loader=loader)
        return None if node is None else _Builder(locate).build(node)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = locate(before.count("\n") + 1, error.position - before.rfind("\n"))
        raise UserError(
            f"contains the character U+{ord(text[error.position]):04X}, not allowed in YAML", place
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = locate(mark.line + 1, mark.column + 1) if mark else locate(1, None)
        reason = " ".join(part for part in (error.context, error.problem) if part)
        hint = "; indent with spaces, not tabs" if "'\\t'" in reason else ""
        raise UserError(f"is not valid YAML: {reason}{hint}", place) from None
    except RecursionError:
        raise UserError(f"is nested more than {_MAX_DEPTH} levels deep", locate(1, None)) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # such as "\UFFFFFFFF", which PyYAML gives to chr()
        raise UserError(f"is not valid YAML: {error}", locate(1, None)) from None


def shown(path: Path) -> str:
    """Write a path as messages print it: relative where it is below the current folder."""
    absolute = os.path.abspath(path)
    relative = os.path.relpath(absolute)
    return absolute if relative.startswith("..") else relative


def read_yaml(path: Path, *, quick: bool = False) -> Any:
    """Read a YAML file of any root.

    Args:
        path: The file.
        quick: Use libyaml, ten times as fast, with other words for what is no YAML.

    Returns:
        The value, None for an empty file; mappings are `Located`.

    Raises:
        UserError: with file, line and column, if it cannot be read, is not UTF-8 or not YAML as described above.
    """
    try:
        if not path.is_file():
            raise UserError("is a directory, not a file" if path.is_dir() else "is not a file", shown(path))
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"is larger than {_MAX_BYTES:,} bytes, so it is no configuration", shown(path))
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", shown(path)) from None
    name = shown(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        place = f"{name}:{before.count(10) + 1}:{error.start - before.rfind(10)}"
        raise UserError(f"is not UTF-8 text (byte 0x{data[error.start]:02x})", place) from None
    return _parse(
        text,
        lambda line, column: f"{name}:{line}" if column is None else f"{name}:{line}:{column}",
        # libyaml's composer recurses without bound, so it gets nothing that could be nested deeply
        _QuickLoader if quick and sum(map(text.count, "[{-?")) < 2000 else _Loader,
    )


def read_mapping(path: Path, *, quick: bool = False) -> Located:
    """Read a YAML file whose root is a mapping; an empty file is an empty one. For `quick` see `read_yaml`.

    Raises:
        UserError: as `read_yaml`, and if the root is something else.
    """
    value = read_yaml(path, quick=quick)
    if value is None:
        return Located()
    if not isinstance(value, Located):
        kind = "a list" if isinstance(value, list) else "a single value"
        raise UserError(f"must be a mapping of keys to values, not {kind}", f"{shown(path)}:1")
    return value


def parse_value(text: str, where: str = "command line") -> Any:
    """Read one value by the rules of the files.

    Args:
        text: What stands behind ``key=``.
        where: Its place in messages.

    Raises:
        UserError: if it is empty or not YAML as described above.
    """
    value = _parse(text, lambda line, column: where)
    if value is None and not (text.strip() and NULL.match(text.strip())):
        raise UserError(f"{text!r} is an empty value; write null for none, and quote text that starts with #", where)
    return value


def dump(value: Any) -> str:
    """Write plain mappings, lists, text, finite numbers, booleans and None as YAML.

    Returns:
        Text that loads back equal, by the rules of this module and by those of `yaml.safe_load`.
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False)
