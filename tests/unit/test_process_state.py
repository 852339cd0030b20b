"""The check that every test passes at its end: each change of the process is seen, and undone."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import process_state
import pytest
import torch

from sparsity import Topology, registry

CHANGES: dict[str, Callable[[], object]] = {
    "flush to zero": lambda: torch.set_flush_denormal(True),
    "threads of torch": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "default type of torch": lambda: torch.set_default_dtype(torch.float64),
    "gradient mode": lambda: torch.set_grad_enabled(False),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "cuDNN's trials": lambda: setattr(torch.backends.cudnn, "benchmark", not torch.backends.cudnn.benchmark),
    "TF32": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "environment: HAM_LEFT": lambda: os.environ.update(HAM_LEFT="1"),
    "environment: PATH": lambda: os.environ.pop("PATH"),
    "working directory": lambda: os.chdir(Path.cwd().parent),
    "umask": lambda: os.umask(0o027),
    f"signal handlers: {signal.SIGUSR1.value}": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2}),
    "search path": lambda: sys.path.append("/left"),
    "handlers of the log": lambda: logging.getLogger().addHandler(logging.NullHandler()),
    "levels of the log: experiments": lambda: logging.getLogger("experiments").setLevel(logging.DEBUG),
    "topologies: left": lambda: registry.register_topology("left")(type("Left", (Topology,), {})),
    "matplotlib's settings: font.size": lambda: mpl.rcParams.update({"font.size": 77.0}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_told_and_undone(name: str) -> None:
    before = process_state.read()
    CHANGES[name]()
    try:
        (told,) = process_state.differences(before, process_state.read())
    finally:
        process_state.put_back(before)
    assert told.startswith(name)
    assert process_state.read() == before
