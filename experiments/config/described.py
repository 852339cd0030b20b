"""What each key of a configuration or profile means: types of the schema, defaults and words of its base file."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from .problems import show

_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_TYPES = {"boolean": ("true", "false"), "null": ("null",)}


@dataclass(frozen=True)
class DescribedKey:
    """One key that a user may set.

    Attributes:
        path: The dotted key.
        allowed: Types and ranges, as text.
        default: The default as it is written in YAML; empty for none.
        meaning: What it is for; empty where no text says so.
    """

    path: str
    allowed: str
    default: str
    meaning: str


def described(model: type[BaseModel], file: Path | None = None, above: str = "") -> list[DescribedKey]:
    """Describe the keys of a section, in the order of the schema; keys of sections inside it follow their own.

    Args:
        model: The section.
        file: Base file with defaults and comments; without one, they are those of the model and its docstring.
        above: Dotted path of the section.
    """
    schema = model.model_json_schema()
    words = dict(_comments(file)) if file else {}
    tree = yaml.safe_load(file.read_text(encoding="utf-8")) if file else None
    return list(_keys(schema, schema, above, tree, words, arguments(inspect.getdoc(model) or "", "Attributes")))


def listed_methods(file: Path) -> list[str]:
    """Return the names of methods as the comments of the base file list them, without importing any."""
    words = dict(_comments(file))
    names = (words[key].split(" | ") for key in ("topology.name", "representation.name"))
    return [name for listed in names for name in listed]


def arguments(docstring: str, heading: str = "Args") -> dict[str, str]:
    """Read the texts of arguments or attributes from a docstring in Google's style."""
    found = re.search(rf"^{heading}:\n((?:    .*\n|\n)+)", f"{docstring}\n", flags=re.MULTILINE)
    if found is None:
        return {}
    entries = re.split(r"^    (?=\S)", found[1], flags=re.MULTILINE)[1:]
    pairs = (entry.partition(":") for entry in entries)
    return {name.lstrip("*").strip(): " ".join(text.split()) for name, _, text in pairs}


def _keys(
    schema: Mapping[str, Any], root: Mapping[str, Any], above: str, tree: Any, words: Mapping[str, str], own: Any
) -> Iterator[DescribedKey]:
    for name, field in schema["properties"].items():
        path = f"{above}.{name}".lstrip(".")
        inner = [part for part in _parts(field, root) if "properties" in part]
        given = tree[name] if isinstance(tree, Mapping) and name in tree else field.get("default", "")
        if len(inner) == 1 and isinstance(given, Mapping):
            yield from _keys(inner[0], root, path, given, words, {})
            continue
        default = given if isinstance(given, str) else show(given)
        yield DescribedKey(path, _allowed(field, root), default, own.get(name) or words.get(path, ""))
        for part in inner:
            yield from _keys(part, root, path, None, words, arguments(part.get("description", ""), "Attributes"))


def _parts(field: Mapping[str, Any], root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "$ref" in field:
        return _parts(root["$defs"][field["$ref"].rpartition("/")[2]], root)
    if "anyOf" in field:
        return [part for one in field["anyOf"] for part in _parts(one, root)]
    return [field]


def _allowed(field: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    texts = []
    for part in _parts(field, root):
        if "enum" in part or "const" in part:
            texts += part.get("enum") or [part["const"]]
        elif part.get("type") in _TYPES:
            texts += _TYPES[part["type"]]
        else:
            texts.append(_typed(part, root))
    return " | ".join(dict.fromkeys(texts))


def _typed(part: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    kind = {"integer": "int", "number": "float", "string": "text", "array": "list", "object": "mapping"}.get(
        part.get("type", ""), "any value"
    )
    if "items" in part and part["items"]:
        kind = f"list of {_allowed(part['items'], root)}"
    bounds = [f"{sign} {part[bound]:,}" for bound, sign in _BOUNDS.items() if bound in part]
    return " ".join([kind, *([" and ".join(bounds)] if bounds else [])])


def _comments(file: Path) -> Iterator[tuple[str, str]]:
    """Yield each key of a file with the comment on its line, and on lines of comments alone that follow it."""
    lines = file.read_text(encoding="utf-8").splitlines()

    def walk(node: yaml.MappingNode, above: str) -> Iterator[tuple[str, str]]:
        for key, value in node.value:
            path = f"{above}.{key.value}".lstrip(".")
            number = key.start_mark.line
            # a quoted value of these files holds no "#"
            texts = [lines[number].partition(" # ")[2]]
            while number + 1 < len(lines) and re.match(r"\s+# ", lines[number + 1]):
                number += 1
                texts.append(lines[number].partition("# ")[2])
            yield path, " ".join(text.strip() for text in texts if text)
            if isinstance(value, yaml.MappingNode):
                yield from walk(value, path)

    root = yaml.compose("\n".join(lines))
    assert isinstance(root, yaml.MappingNode)
    yield from walk(root, "")
