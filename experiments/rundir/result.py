"""What a result can be: types, ranges and the sums that must agree, and checksums of all that it rests on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from . import names
from .files import finite
from .reading import Unreadable, typed

CHECKSUM, FILES = "checksum", "files"
REUSED_FROM = "reused_from"
"""Folder of another sweep that a result was taken over from, where it was trained."""
SEALED = (names.METRICS, names.WEIGHTS, names.PREDICTIONS)
"""Files of a finished run whose checksums its result holds."""

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Amount = Annotated[float, Field(ge=0, le=1e12)]
Loss = Annotated[float, Field(ge=0, le=1e100)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Layer(_Strict):
    """The weights of one layer."""

    size: Count
    nonzero: Count


class Unpruned(_Strict):
    """A tensor that is not pruned."""

    size: Count
    why: str


class Result(_Strict):
    """The content of ``result.json``; accuracies, sparsities and FLOPs are fractions. Early versions wrote less."""

    status: Literal["done"]
    identity: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    seed: Count
    accuracy: Share
    accuracy_on: Literal["test", "validation"]
    loss: Loss | None = None
    average_accuracy: Share | None = None
    average_loss: Loss | None = None
    train_loss: Loss | None = None
    train_accuracy: Share | None = None
    evaluated: Count | None = None
    best_validation_accuracy: Share | None = None
    best_validation_epoch: Count | None = None
    sparsity: Share
    target_sparsity: Share | None = None
    prunable_weights: Annotated[Count, Field(ge=1)]
    nonzero: Count
    inference_flops_fraction: Amount | None = None
    training_flops_fraction: Amount | None = None
    layers: dict[str, Layer] = {}
    events: dict[str, Count] = {}
    idle_events: dict[str, Count] = {}
    mask_updates: Count | None = None
    unpruned: dict[str, Unpruned] = {}
    empty_layers: list[str] = []
    recalibrated: Count = 0
    levels: Annotated[Count, Field(ge=1)] = 1
    epochs: Count | None = None
    steps: Count | None = None
    seconds: Amount | None = None
    reused_from: str | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if abs(self.sparsity - (1 - self.nonzero / self.prunable_weights)) > 1e-9:
            raise ValueError(
                f"sparsity {self.sparsity:g} does not agree with {self.nonzero} of {self.prunable_weights} weights left"
            )
        for name in ("accuracy", "average_accuracy"):
            correct = (getattr(self, name) or 0.0) * (self.evaluated or 0)
            if abs(correct - round(correct)) > 1e-6:
                raise ValueError(
                    f"{name} {getattr(self, name)} is no count of {self.evaluated} images: {correct:.6g} of them"
                )
        for name, total in (("size", self.prunable_weights), ("nonzero", self.nonzero)):
            summed = sum(getattr(layer, name) for layer in self.layers.values())
            if self.layers and summed != total:
                raise ValueError(f"the {name} of its layers is {summed} in all, where {total} is stated")
        return self


def seal(result: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Add the checksums of the files that a result rests on, and one of the result itself."""
    result = {key: value for key, value in result.items() if key != CHECKSUM}
    files = {name: digest_of(folder / name) for name in SEALED if (folder / name).is_file()}
    sealed = finite({**result, FILES: files})
    return {**sealed, CHECKSUM: _digest(sealed)}


def check(result: Mapping[str, Any], *, identity: str | None = None, seed: int | None = None) -> None:
    """Refuse what no run can have written, and what belongs to another run.

    A result of an earlier version has no checksum, and is checked in all else.

    Args:
        result: The content of ``result.json``.
        identity: The run's, or as much of its beginning as is known, or None.
        seed: The run's, or None if it is not known.

    Raises:
        Unreadable: with the reason.
    """
    if result.get("status") != "done":
        raise Unreadable(f"has status {result.get('status')!r} instead of 'done'")
    stated = typed(Result, result)
    if identity and not stated.identity.startswith(identity):
        raise Unreadable(f"belongs to another configuration ({stated.identity} instead of {identity})")
    if seed is not None and stated.seed != seed:
        raise Unreadable(f"belongs to seed {stated.seed}, and this is the folder of seed {seed}")
    given = {key: value for key, value in result.items() if key != CHECKSUM}
    if CHECKSUM not in result and FILES in result:
        raise Unreadable("was changed after it was written: it has lost its checksum")
    if CHECKSUM in result and result[CHECKSUM] != _digest(given):
        raise Unreadable("was changed after it was written: its checksum is that of another content")


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_sealed(result: Mapping[str, Any], name: str, content: bytes) -> bool:
    """Return whether a file of a finished run is as it was; True where the result holds no checksum of it."""
    files = result.get(FILES)
    known = files.get(name) if isinstance(files, Mapping) else None
    return known is None or known == hashlib.sha256(content).hexdigest()


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
