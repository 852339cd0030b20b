"""What a run leaves behind besides its metrics: result, failure, environment."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import RunFailure, SuiteError
from experiments.models import weights

from .files import write_json

if TYPE_CHECKING:
    from experiments.config.resolve import Spec
    from sparsity.engine.sparse_training import SparseTraining


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a finished run, or None; a damaged file counts as none, so the run is done again."""
    with suppress(FileNotFoundError, NotADirectoryError, ValueError):
        result = json.loads((folder / "result.json").read_bytes())
        if isinstance(result, dict) and result.get("status") == "done":
            return result
    return None


def write_failure(folder: Path, error: SuiteError) -> None:
    """Say in the run directory why the run failed, unless it has its result already.

    A disk too full even for that is not an error of its own.
    """
    if read_result(folder) is not None:
        return
    with suppress(OSError):
        write_json(folder / "failure.json", {"status": "failed", "error": error.message})


def environment() -> dict[str, Any]:
    """Versions and hardware a run depends on, as flat values."""
    import torch

    return {
        "ham_suite": _version("ham-suite"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "timm": _version("timm"),
        "numpy": _version("numpy"),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "git_commit": git_commit(),
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} logical cores"
    return platform.processor() or platform.machine()


COMMIT = "COMMIT"
"""File beside the packages of a snapshot that says which commit it was taken from."""


def git_commit() -> str | None:
    """Commit of this package's checkout, with a mark if it was changed; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    with suppress(OSError):
        return (root / COMMIT).read_text().strip() or None
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return None


def check_events(sparse: SparseTraining, records: list[dict[str, Any]], spec: Spec, folder: Path) -> None:
    """Make sure the method acted as it says it does, and as the configuration demands.

    Raises:
        RunFailure: if the number of events is not the method's own, or a demand under `checks.events` is not met.
    """
    for kind, count in sparse.expected_events().items():
        seen = sparse.event_counts.get(kind, 0)
        # a step that the loss scaler skips whole may take an event along
        if not count - sparse.skipped <= seen <= count:
            raise RunFailure(f"{count} {kind} events were due, {seen} happened", where=str(folder))
    total = sparse.total_steps
    for kind, demand in spec.checks.events.items():
        effective = [
            r
            for r in records
            if r["kind"] == "event" and r["event"] == kind and r["changed"] and r["step"] <= demand.by * total
        ]
        if len(effective) < demand.at_least:
            raise RunFailure(
                f"checks.events.{kind} demands {demand.at_least} with entries changed by {demand.by:.0%} of training, "
                f"{len(effective)} happened",
                where=str(folder),
            )


def _terms(spec: Spec) -> dict[str, Any]:
    """What a table must say about how the run was meant, where it is not the usual."""
    terms: dict[str, Any] = {}
    if spec.topology.sparsity > 0 and spec.topology.options.get("dense", "none") != "none":
        terms |= {"dense_layers": spec.topology.options["dense"], "rebudget": spec.topology.options["rebudget"]}
    if spec.model.weights is not None:
        terms["initial_weights"] = weights.content_hash(spec.model.weights)
    return terms


def summarise(spec: Spec, identity: str, records: list[dict[str, Any]], measured: dict[str, Any]) -> dict[str, Any]:
    """The content of `result.json`: the headline is the last epoch's; the best validation epoch stands apart.

    Of a run that trains several times, only the last training has the target sparsity and counts for the best epoch.
    """
    epochs = [record for record in records if record["kind"] == "epoch"]
    epochs = [record for record in epochs if record.get("level") == epochs[-1].get("level")]
    best = max(epochs, key=lambda r: (r["validation_accuracy"] or 0.0, -r["epoch"]))
    validated = best["validation_accuracy"] is not None
    target = spec.topology.sparsity
    return {
        "status": "done",
        "identity": identity,
        "seed": spec.seed,
        "accuracy_on": spec.data.evaluate_on,
        "best_validation_accuracy": best["validation_accuracy"],
        "best_validation_epoch": best["epoch"] if validated else None,
        "train_loss": epochs[-1]["loss"],
        "target_sparsity": target if target > 0 else None,
        **_terms(spec),
        **measured,
    }
