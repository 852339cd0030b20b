"""Global switches of torch on which the bits of a run rest; each is put back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from experiments.config.schema import RuntimeSpec

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def same_arithmetic(threads: int) -> Iterator[None]:
    """Compute with so many threads and with subnormal numbers as zero, wherever a run is carried out.

    Equal runs must treat subnormal numbers equally, and these are slow on CPUs.
    """
    before, flushed = torch.get_num_threads(), _flushes()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.set_num_threads(before)


def _flushes() -> bool:
    """Find out whether this thread flushes subnormal numbers to zero; torch can set that, but does not report it."""
    return not (torch.tensor(torch.finfo(torch.float32).tiny) / 2).item()


def autocast(spec: RuntimeSpec, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context that sets the precision of forward passes."""
    if spec.amp == "none":
        return nullcontext()
    return torch.autocast(device.type, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[spec.amp])


@contextmanager
def switches(spec: RuntimeSpec) -> Iterator[None]:
    """Set deterministic algorithms and TF32 as a run asks for them."""
    backends: Any = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # pyright: ignore[reportAttributeAccessIssue]
    before = [backend.fp32_precision for backend in backends]
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    chosen = os.environ.get(_WORKSPACE)
    if spec.deterministic:
        os.environ.setdefault(_WORKSPACE, ":4096:8")  # read when cuBLAS starts
    if spec.deterministic != deterministic:  # the call imports torch's compiler, for seconds
        torch.use_deterministic_algorithms(spec.deterministic)
    # convolutions of fixed shapes gain from trying algorithms, whose choice differs from run to run
    torch.backends.cudnn.benchmark = not spec.deterministic
    for backend, on in zip(backends, (spec.tf32 != "none", spec.tf32 == "all"), strict=True):
        backend.fp32_precision = "tf32" if on else "ieee"
    try:
        yield
    finally:
        if spec.deterministic != deterministic:
            torch.use_deterministic_algorithms(deterministic)
        if chosen is None:
            os.environ.pop(_WORKSPACE, None)
        torch.backends.cudnn.benchmark = benchmark
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
