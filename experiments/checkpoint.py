"""Checkpoints: everything that makes a run in pieces equal a run in one."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from .errors import RunFailure
from .files import atomic

FORMAT = "ham-suite checkpoint 1"


def save(path: Path, identity: str, seed: int, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: The file; an older checkpoint there survives until the new one is whole on the disk.
        identity: Identity hash of the run.
        seed: Seed of the run.
        state: Tensors, numbers, strings, lists and dicts.
    """
    # by way of memory, since torch hides what the disk says ("unexpected pos" for a full one)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "identity": identity, "seed": seed, "state": state}, buffer)
    with atomic(path) as file:
        file.write(buffer.getbuffer())


def load(path: Path, identity: str, seed: int) -> dict[str, Any]:
    """Read a checkpoint of this very run, without executing anything in it.

    Raises:
        RunFailure: if the file is damaged, of another program, or of another run.
        OSError: if it cannot be read.
    """
    advice = "remove it to start this run anew"
    data = io.BytesIO(path.read_bytes())
    try:
        content = _read(data)
    except Exception as error:  # whatever zipfile and torch make of a file that is none of ours
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise RunFailure(f"this checkpoint is damaged or foreign ({reason}); {advice}", where=str(path)) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunFailure(f"this file is not a checkpoint of this suite; {advice}", where=str(path))
    if (content["identity"], content["seed"]) != (identity, seed):
        other = f"{content['identity']}, seed {content['seed']}"
        raise RunFailure(f"this checkpoint belongs to another run ({other}); {advice}", where=str(path))
    return content["state"]


def _read(data: io.BytesIO) -> Any:
    # torch does not look at the checksums it writes
    with zipfile.ZipFile(data) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
    data.seek(0)
    return torch.load(data, map_location="cpu", weights_only=True)
