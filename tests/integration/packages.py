"""Packages that people train with and that the suite itself does not need."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest


def package(name: str) -> ModuleType:
    """Import a package; where it is missing, skip, or fail if it was asked for.

    Args:
        name: What to import.
    """
    if os.environ.get("HAM_REQUIRE_INTEGRATIONS") == "1":
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed (make test-integrations installs it)")
