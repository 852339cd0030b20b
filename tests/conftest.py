"""Fixtures for all tests: each starts from the same global state and leaves none behind."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

import numpy as np
import process_state
import pytest
import torch
from hypothesis import settings

from sparsity import registry

# derandomised: a failure seen once is seen by everybody, and no example database is written into the tree
settings.register_profile("suite", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("suite")


def pytest_configure() -> None:
    """Give all tests and fixtures of this process the same threads, seeds and handlers.

    Ctrl-C reaches them: a shell starts background jobs with SIGINT ignored, nohup with SIGHUP, and all children inherit
    that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    torch.set_num_threads(int(os.environ.get("HAM_TEST_THREADS", "1")))
    seed_all()


def seed_all() -> None:
    """Start the global random streams anew."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_process() -> Iterator[None]:
    """Random streams begin anew; whatever else is the whole process's, a test finds and leaves as it was, or fails."""
    seed_all()
    before = process_state.read()
    yield
    left = process_state.differences(before, process_state.read())
    if left:
        process_state.put_back(before)
        pytest.fail(f"the test has changed the process: {'; '.join(left)}", pytrace=False)


@pytest.fixture
def open_registry() -> Iterator[None]:
    """Methods that a test registers are gone after it."""
    topologies, representations = registry.topologies(), registry.representations()
    yield
    process_state.put_back_methods(topologies, representations)
