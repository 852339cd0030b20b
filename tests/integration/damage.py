"""Ways in which a file of a run's folder can be wrong: damaged by a disk, replaced by a hand, or made to do harm."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path, random.Random], None]

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 95.0, 10**17, 2**63, -(10**30), 1e300),
    *("", "x", "α\n\x1b[31m", [], {}, [[]], {"a": {}}),
]
RAW = [
    b"{}",
    b"[]",
    b"null",
    b"7",
    b'"x"',
    b"\xff\xfe\x00",
    b"NaN",
    b"[" * 100_000,
    b'{"a":' * 5000,
    b"- " * 5000,
    b"&a [*a]",
]


def cut(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content) + 1)])


def flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 1, 1, 5, 50])):
        if content:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))


def digit(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    places = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
    if places:
        content[draw.choice(places)] = draw.choice(b"0123456789")
    path.write_bytes(bytes(content))


def replace(path: Path, draw: random.Random) -> None:
    path.write_bytes(draw.choice([*RAW, draw.randbytes(200)]))


def append(path: Path, draw: random.Random) -> None:
    with path.open("ab") as file:
        file.write(draw.choice([*RAW, b"\n", b"\0" * 99]) + draw.choice([b"", b"\n"]))


def prepend(path: Path, draw: random.Random) -> None:
    path.write_bytes(draw.choice(RAW) + b"\n" + path.read_bytes())


def lines(path: Path, draw: random.Random) -> None:
    """Lines left out, doubled, or in another order."""
    found = path.read_bytes().splitlines(keepends=True)
    if found:
        place = draw.randrange(len(found))
        found[place : place + 1] = draw.choice([[], [found[place]] * 2, [b"\n"]])
        if draw.random() < 0.3:
            draw.shuffle(found)
    path.write_bytes(b"".join(found))


def value(path: Path, draw: random.Random) -> None:
    """One value of a JSON file becomes another, of another type or out of range, or goes; also within lines."""
    whole = path.read_bytes()
    chosen = [whole] if path.suffix == ".json" else whole.splitlines()
    if not chosen:
        return
    place = draw.randrange(len(chosen))
    try:
        tree = json.loads(chosen[place])
    except ValueError:
        return
    _change(tree, draw)
    chosen[place] = json.dumps(tree).encode()
    path.write_bytes(b"\n".join(chosen) + b"\n")


def _change(tree: Any, draw: random.Random) -> None:
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    if not keys:
        return
    key = draw.choice(keys)
    if isinstance(tree[key], (dict, list)) and tree[key] and draw.random() < 0.7:
        _change(tree[key], draw)
    elif draw.random() < 0.15:
        del tree[key]
    else:
        tree[key] = draw.choice(VALUES)


def remove(path: Path, draw: random.Random) -> None:
    path.unlink()


def swap(path: Path, draw: random.Random) -> None:
    """Another file of the same runs in its place."""
    others = [other for other in sorted(path.parents[1].rglob("*")) if other.is_file() and other != path]
    alike = [other for other in others if other.suffix == path.suffix]
    shutil.copyfile(draw.choice(alike or others), path)


def folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()
    if draw.random() < 0.5:
        (path / "x").touch()


def pipe(path: Path, draw: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path, draw: random.Random) -> None:
    """A link to itself, to nothing, or to a file outside that must stay as it is."""
    content = path.read_bytes()
    outside = path.parents[2] / "outside"
    outside.write_bytes(content)
    path.unlink()
    path.symlink_to(draw.choice([path, path.with_name("none"), outside]))


DAMAGES: list[Damage] = [
    *(cut, flip, flip, digit, digit, replace, append, prepend, lines, value, value, value, value),
    *(remove, swap, swap, folder, pipe, link),
]
