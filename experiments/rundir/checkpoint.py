"""Checkpoint files: written atomically, checked by checksum, tied to one run."""

from __future__ import annotations

import hashlib
import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from experiments.errors import RunFailure

from . import names
from .files import atomic
from .reading import Unreadable, read_regular

FORMAT = "ham-suite checkpoint 2"

log = logging.getLogger(__name__)


class Saved(NamedTuple):
    """A checkpoint on the disk.

    Attributes:
        step: Steps done.
        digest: The first 16 hexadecimal digits of the SHA-256 of its content.
        path: Its file.
    """

    step: int
    digest: str
    path: Path


def write(
    path: Path, identity: str, seed: int, state: dict[str, Any], check: Callable[[], None] = lambda: None
) -> None:
    """Write tensors, numbers, strings, lists and dicts of one run atomically, see `atomic`."""
    data = _pack(identity, seed, state)
    with atomic(path, check) as file:
        file.write(data)


class Checkpoints:
    """The newest checkpoints of a run.

    The checksum of a file is part of its name, so that one never exists without the other.

    Args:
        folder: The run directory.
        identity: Identity hash of the run.
        seed: Seed of the run.
        keep: Number of checkpoints to keep.
    """

    def __init__(self, folder: Path, identity: str, seed: int, keep: int = 1):
        self._folder = folder / names.CHECKPOINTS
        self._identity = identity
        self._seed = seed
        self._keep = keep

    def save(self, step: int, state: dict[str, Any], check: Callable[[], None] = lambda: None) -> Saved:
        """Write a checkpoint; older ones are removed only once it is complete on the disk.

        The folder of the run must exist: a checkpoint in a folder made anew would belong to nothing.

        Args:
            step: Steps done.
            state: What it holds.
            check: Makes sure that this process still holds the run.
        """
        data = _pack(self._identity, self._seed, state)
        digest = hashlib.sha256(data).hexdigest()[:16]
        path = self._folder / names.checkpoint(step, digest)
        check()
        self._folder.mkdir(exist_ok=True)
        with atomic(path, check) as file:
            file.write(data)
        new = Saved(step, digest, path)
        check()  # who slept meanwhile must not remove those of its successor
        others = [saved for saved in found(self._folder.parent) if saved != new]
        # a checkpoint ahead of the new one belongs to a later state that was found damaged
        for saved in [s for s in others if s.step > step] + [s for s in others if s.step <= step][self._keep - 1 :]:
            _remove(saved)
        return new

    def load(self) -> tuple[Saved, dict[str, Any]] | None:
        """Return the newest whole checkpoint and its state, or None to start at the first step.

        One that is damaged or cannot be read is passed over, by name. If all are damaged nothing is left to lose, so
        the run starts anew; if one cannot be read, that may pass, and the run fails with its name.

        Raises:
            RunFailure: if none can be read, or one belongs to another program or run.
        """
        fault: _Unreadable | None = None
        for saved in found(self._folder.parent):
            try:
                return saved, self.read(saved)
            except _Damaged as error:
                log.error("%s; falling back to the checkpoint before it, or to the start", error)
            except _Unreadable as error:
                fault = fault or error
                log.error("%s; falling back to the checkpoint before it", error)
        if fault is not None:
            raise RunFailure(f"{fault.message}, and there is no older one that is whole; {_ADVICE}", where=fault.where)
        return None

    def read(self, saved: Saved) -> dict[str, Any]:
        """Return the state in one checkpoint, without executing any code in it.

        Raises:
            RunFailure: if the file cannot be read, is damaged, or belongs to another program or run.
        """
        try:
            data = read_regular(saved.path, most=sys.maxsize)
        except (Unreadable, FileNotFoundError) as error:
            raise _Unreadable(f"this checkpoint {error}", str(saved.path)) from None
        if hashlib.sha256(data).hexdigest()[:16] != saved.digest:
            raise _Damaged(
                "this checkpoint is damaged (its content does not have the checksum in its name)", str(saved.path)
            )
        content = _unpack(data, saved.path)
        if not (isinstance(content, dict) and content.get("format") == FORMAT and content.keys() >= _KEYS):
            raise RunFailure(f"this file is not a checkpoint of this suite; {_ADVICE}", where=str(saved.path))
        if (content["identity"], content["seed"]) != (self._identity, self._seed):
            other = f"{content['identity']}, seed {content['seed']}"
            raise RunFailure(f"this checkpoint belongs to another run ({other}); {_ADVICE}", where=str(saved.path))
        return content["state"]

    def clear(self) -> None:
        """Remove all checkpoints of a run that has its result."""
        for saved in found(self._folder.parent):
            _remove(saved)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()


_KEYS = {"identity", "seed", "state"}
_ADVICE = f"remove the folder {names.CHECKPOINTS} to start this run anew"


class _Damaged(RunFailure):
    """The content is not what was written."""


class _Unreadable(RunFailure):
    """The content cannot be read now."""


def found(folder: Path) -> list[Saved]:
    """List the checkpoints of a run directory, newest first, from their names alone."""
    try:
        files = list((folder / names.CHECKPOINTS).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    parsed = [(names.parse_checkpoint(path.name), path) for path in files]
    return sorted((Saved(*found, path) for found, path in parsed if found is not None), reverse=True)


def _remove(saved: Saved) -> None:
    """Remove a checkpoint; what is in its place and cannot be removed, such as a folder, costs no run."""
    try:
        saved.path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s: cannot be removed (%s)", saved.path, error.strerror)


def _pack(identity: str, seed: int, state: dict[str, Any]) -> memoryview:
    # through memory, since torch hides errors of the disk (a full one gives "unexpected pos")
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "identity": identity, "seed": seed, "state": state}, buffer)
    return buffer.getbuffer()


def _unpack(data: bytes, path: Path) -> Any:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever zipfile, pickle and torch raise for a file of another program
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise RunFailure(f"this file is not a checkpoint of this suite ({reason}); {_ADVICE}", str(path)) from None
