"""What runs were: their settings, and the versions and machines that trained them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.rundir import names

from .discover import read_spec
from .schema import SPARSITY_KEY, SweepResults, is_number
from .store import read_object

Settings = Mapping[Path, Mapping[str, Any]]
"""Flattened configuration of each run's folder; empty where it cannot be read."""

_WORDS = {"er": "ER", "erk": "ERK"}
_VERSIONS = ("ham_suite", "git_commit", "python", "torch", "torchvision", "timm", "numpy")
_RESULT = ("accuracy_on", "evaluated", "epochs", "steps", "ranks")


def settings(sweep: SweepResults) -> Settings:
    """Read the configurations of a sweep's runs that have begun, one for all runs of an identity."""
    known: dict[str, Mapping[str, Any]] = {}
    found: dict[Path, Mapping[str, Any]] = {}
    for run in sweep.runs:
        spec = known.get(run.identity) or read_spec(run.path)
        if run.identity:
            known[run.identity] = spec
        found[run.path] = spec
    return found


def distribution(spec: Mapping[str, Any], result: Mapping[str, Any]) -> str | None:
    """Say how a run distributes its density over layers: "ERK", "uniform", or "own" if the method decides.

    Returns:
        The word of a table; None for a dense network, and where it is not known.
    """
    sparsity = spec.get(SPARSITY_KEY, result.get("target_sparsity"))
    if not is_number(sparsity) or sparsity == 0:
        return None
    stated = result.get("allocation") or spec.get("topology.allocation") or spec.get("representation.allocation")
    if stated is None:
        return "own" if spec else None
    return _WORDS.get(str(stated), str(stated))


def conditions(run_path: Path, result: Mapping[str, Any]) -> dict[str, str]:
    """Return what must be equal among the seeds of a cell: versions, device, what was trained and evaluated."""
    environment, _ = read_object(run_path / names.ENVIRONMENT)
    found = {key: (environment or {}).get(key) for key in _VERSIONS}
    found["device"] = (environment or {}).get("gpu") or (environment or {}).get("cpu")
    found["threads"] = (environment or {}).get("threads")
    found |= {key: result.get(key) for key in _RESULT}
    return {key.replace("git_commit", "commit"): str(value) for key, value in found.items() if value is not None}
