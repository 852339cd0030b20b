"""Versions and hardware that the result of a run depends on."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_DECIDING = ("ham", "sparsity", *(f"experiments/{room}" for room in ("data", "models", "ranks", "run")))

COMMIT = "COMMIT"
"""Name of the file beside the packages of a snapshot that holds the commit it was taken from."""


def environment() -> dict[str, Any]:
    """Return the versions and hardware that the result of a run depends on, as a flat mapping."""
    import torch

    return {
        "ham_suite": _version("ham-suite"),
        "code": code(),
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


@cache
def code() -> str:
    """Hash the source that decides the result of a run: methods, optimizers, data, networks and training.

    Returns:
        The first 12 hexadecimal digits of the SHA-256; the same in a checkout, a snapshot and an installed package.
    """
    digest = hashlib.sha256()
    for path in sorted(path for part in _DECIDING for path in (_ROOT / part).rglob("*.py")):
        digest.update(f"{path.relative_to(_ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _version(package: str) -> str | None:
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


def git_commit() -> str | None:
    """Return the commit of this package's checkout, marked if it has local changes; None outside a checkout."""
    root = _ROOT
    with suppress(OSError):
        return (root / COMMIT).read_text().strip() or None
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return None
