"""What a process shares with whoever uses it next: read, compared, and put back."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any

import torch

from sparsity import registry

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_TINY = sys.float_info.min
_LOGGERS = ("", "experiments", "ham", "results", "slurm", "sparsity")
# pytest's, at every test; once in a process: of torch's compiler and Lightning's, as setuptools' folder on the path
_NOT_OURS = ("PYTEST_CURRENT_TEST", "_TORCHINDUCTOR", "TORCHINDUCTOR_CACHE_DIR", "PYTORCH_NVML_BASED_CUDA_CHECK")


def read() -> dict[str, Any]:
    """The state of this process, by name."""
    mask = os.umask(0o077)
    os.umask(mask)
    state = {
        "flush to zero": _TINY / 2 == 0.0,
        "threads of torch": torch.get_num_threads(),
        "default type of torch": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "cuDNN's trials": torch.backends.cudnn.benchmark,
        "TF32": _tf32(),
        "environment": {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)},
        "working directory": os.getcwd(),
        "umask": mask,
        "signal handlers": {number: signal.getsignal(number) for number in SIGNALS},
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "search path": [folder for folder in sys.path if not folder.endswith("setuptools/_vendor")],
        "handlers of the log": list(logging.getLogger().handlers),
        "levels of the log": {name: logging.getLogger(name).level for name in _LOGGERS},
        # the listing imports the built-in methods, so that they are in every state
        "topologies": registry.topologies(),
        "representations": registry.representations(),
    }
    if "matplotlib" in sys.modules:
        state["matplotlib's settings"] = dict.copy(sys.modules["matplotlib"].rcParams)  # without its own slow access
    return state


def _tf32() -> tuple[str, str]:
    backends: Any = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    return tuple(backend.fp32_precision for backend in backends)


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What was changed, in words; something first read now (of a module imported meanwhile) was not."""
    return [f"{name}: {_told(old, now[name])}" for name, old in before.items() if now[name] != old]


def _told(old: Any, new: Any) -> str:
    if not isinstance(old, dict):
        return f"{old!r} became {new!r}"
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key}: {old.get(key)!r} became {new.get(key)!r}" for key in keys)


def put_back(before: dict[str, Any]) -> None:
    """Undo all changes since a state was read."""
    os.chdir(before["working directory"])
    os.umask(before["umask"])
    for number, handler in before["signal handlers"].items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, before["blocked signals"])
    here = {name for name in os.environ if not name.startswith(_NOT_OURS)}
    for name in here - before["environment"].keys():
        del os.environ[name]
    os.environ.update(before["environment"])
    sys.path[:] = before["search path"]
    logging.getLogger().handlers[:] = before["handlers of the log"]
    for name, level in before["levels of the log"].items():
        logging.getLogger(name).setLevel(level)
    put_back_methods(before["topologies"], before["representations"])
    if "matplotlib's settings" in before:
        dict.update(sys.modules["matplotlib"].rcParams, before["matplotlib's settings"])
    _put_back_torch(before)


def put_back_methods(topologies: dict[str, type], representations: dict[str, type]) -> None:
    """Let these methods be all there are, and forget the modules that brought others: they can be imported anew."""
    for table, known in ((registry._TOPOLOGIES, topologies), (registry._REPRESENTATIONS, representations)):
        for name in table.keys() - known.keys():
            if not table[name].__module__.startswith(("test_", "__main__")):  # examples are of no module
                sys.modules.pop(table[name].__module__, None)
        table.clear()
        table.update(known)


def _put_back_torch(before: dict[str, Any]) -> None:
    torch.set_flush_denormal(before["flush to zero"])
    torch.set_num_threads(before["threads of torch"])
    torch.set_default_dtype(before["default type of torch"])
    torch.set_grad_enabled(before["gradient mode"])
    if torch.are_deterministic_algorithms_enabled() != before["deterministic algorithms"]:  # slow: imports the compiler
        torch.use_deterministic_algorithms(before["deterministic algorithms"])
    torch.backends.cudnn.benchmark = before["cuDNN's trials"]
    backends: Any = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    for backend, precision in zip(backends, before["TF32"], strict=True):
        backend.fp32_precision = precision
