"""Read what W&B has written into its offline files: LevelDB's log format around W&B's own messages."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7
ZERO, FULL, FIRST, MIDDLE, LAST = range(5)


@dataclass
class Offline:
    """The content of one offline file."""

    about: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def offline_files(folder: Path) -> list[Path]:
    """The offline files below a folder that W&B's own `wandb sync` would take, oldest first."""
    found = sorted(folder.glob("**/offline-run-*/run-*.wandb"))
    return [path for path in found if not path.with_suffix(".wandb.synced").exists()]


def read_offline(path: Path) -> Offline:
    """Read an offline file; one that a kill has cut short ends where it was cut."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = Offline()
    for message in _messages(path.read_bytes()):
        record = Record()
        record.ParseFromString(message)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.about = record.run
            found.config |= _items(record.run.config.update)
        elif kind == "config":
            found.config |= _items(record.config.update)
        elif kind == "history":
            found.history.append({k: v for k, v in _items(record.history.item).items() if not k.startswith("_")})
        elif kind == "summary":
            found.summary |= _items(record.summary.update)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    found.config.pop("_wandb", None)
    return found


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _messages(content: bytes) -> Iterator[bytes]:
    assert content[:4] == b":W&B"
    at, message = HEADER, b""
    while at + HEADER <= len(content):
        if (left := BLOCK - at % BLOCK) < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + HEADER])
        part = content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind == ZERO or len(part) < length:
            return
        message = part if kind in (FULL, FIRST) else message + part
        if kind in (FULL, LAST):
            yield message
