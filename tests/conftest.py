"""Fixtures for all tests: each starts from the same global state and leaves none behind."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings

from sparsity import registry

# derandomised: a failure seen once is seen by everybody, and no example database is written into the tree
settings.register_profile("suite", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("suite")


def pytest_configure() -> None:
    """Let Ctrl-C reach the tests: a shell starts background jobs with SIGINT ignored, and all children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def same_global_state() -> Iterator[None]:
    """Seeds, default dtype, gradient mode, threads and working directory: set at the start, restored at the end."""
    directory = os.getcwd()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    os.chdir(directory)
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(True)
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture
def open_registry() -> Iterator[None]:
    """Methods that a test registers are gone after it."""
    # the listing imports the built-in methods, so that the snapshot holds them
    topologies, representations = registry.topologies(), registry.representations()
    yield
    for table, known in ((registry._TOPOLOGIES, topologies), (registry._REPRESENTATIONS, representations)):
        table.clear()
        table.update(known)
