"""The identity of a run: a hash of what it computes.

Left out are the seed (it is beside the hash), names, bookkeeping and where files lie: the content of data, of
initial weights and of the modules in `imports` stands for it. A key that was added after the first release is left out
while it stands at its fixed *neutral* value, what the code did before the key existed, whatever the default in
`configs/base.yaml` is: a new key orphans no finished run, a changed default reuses none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from typing import Any

from pydantic import BaseModel

from experiments.data import content_hash as data_hash
from experiments.models import weights
from experiments.rundir.names import identifies

from . import code
from .methods import neutral_options
from .schema import MethodSpec, Spec

CALIBRATED = "calibrated"
THRESHOLD_DECAY = "threshold_decay"


def identity(spec: Spec, content_hash: str | None = None, initial_weights: str | None = None) -> str:
    """Hash a resolved specification.

    Args:
        spec: The specification.
        content_hash: Hash of the data's content, which stands for where the data lies.
        initial_weights: Hash of the initial weights where they have been read already; otherwise their file is read.

    Returns:
        The SHA-256 of the canonical JSON, 64 hexadecimal digits.
    """
    if initial_weights is not None:
        spec = spec.model_copy(update={"model": spec.model.model_copy(update={"weights": None})})
    content = _canonical(spec, "")
    if initial_weights is not None:
        content["model"]["weights"] = initial_weights
    if content_hash is not None:
        content["data"]["content"] = content_hash
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def identity_with_data(spec: Spec) -> str:
    """Hash a resolved specification together with the content of its data, which are read for it."""
    return identity(spec, data_hash(spec.data.name, spec.data.root))


def folder_suffix(hashed: str, seed: int) -> str:
    """Return how the name of a run's folder ends: the beginning of its identity, for people, and its seed."""
    return f"-{hashed[:8]}-s{seed}"


def calibration_identity(spec: Spec) -> str:
    """Hash a specification before its threshold decay is filled in: the key of an entry in a calibration file."""
    options = dataclasses.replace(spec.representation.options, **{THRESHOLD_DECAY: CALIBRATED})
    return identity(spec.model_copy(update={"representation": spec.representation.with_options(options)}))


def _canonical(section: BaseModel, above: str) -> dict[str, Any]:
    neutral = _neutral_values(section, above.rstrip("."))
    content = {}
    for key, value in section:
        name = f"{above}{key}"
        if not identifies(name) or (key in neutral and value == neutral[key]):
            continue
        plain = _plain(value, name)
        if plain or not isinstance(value, BaseModel):  # a section whose keys are all at neutral is at neutral
            content[key] = plain
    return content


def _plain(value: Any, name: str) -> Any:
    if name == weights.KEY and value is not None:
        return weights.content_hash(value)
    if name == "imports" and value:
        return {module: code.digest(importlib.import_module(module)) for module in value}
    if isinstance(value, BaseModel):
        return _canonical(value, f"{name}.")
    if isinstance(value, dict):
        return {key: _plain(one, f"{name}.{key}") for key, one in value.items()}
    # adding zero makes -0.0, which computes the same, 0.0
    return value + 0.0 if isinstance(value, float) else value


def _neutral_values(section: BaseModel, name: str) -> dict[str, Any]:
    found = {}
    for key, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and "neutral" in extra:
            found[key] = extra["neutral"]
    return found | neutral_options(name, section.name) if isinstance(section, MethodSpec) else found
