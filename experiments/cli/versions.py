"""The versions that `ham --version` prints; torch is looked at, and not loaded."""

from __future__ import annotations

import platform
import runpy
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from experiments.cores import usable_cores


def versions() -> str:
    """Return the versions of the suite, Python and torch, and what torch would train on here."""
    build, number = _torch()
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*"))) if build.startswith("CUDA") else 0
    device = f"cuda ({gpus} GPU{'s' * (gpus != 1)})" if gpus else f"cpu ({usable_cores()} cores)"
    own, python = _version("ham-suite"), platform.python_version()
    return f"ham-suite {own}\nPython {python}\ntorch {number} ({build})\ndevice {device}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _torch() -> tuple[str, str]:
    """Return for what torch was built, and its version, both from the file that its build wrote."""
    try:
        stated = runpy.run_path(str(distribution("torch").locate_file("torch/version.py")))
    except (PackageNotFoundError, OSError):
        return "built for an unknown device", _version("torch")
    kinds = (f"{name} {stated[key]}" for key, name in (("cuda", "CUDA"), ("hip", "ROCm")) if stated.get(key))
    return next(kinds, "for CPUs alone"), stated["__version__"]
