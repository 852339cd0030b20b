"""Runs in float64, on ranks too; they import this, so it stands without pytest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from experiments import data as datasets
from experiments.data.bundle import DataBundle


@contextmanager
def float64() -> Iterator[None]:
    """Carry out runs in float64, images included: for equality where sums may be taken in another order.

    Two orders differ by 1e-7 in float32, which is enough to tip a choice among weights; then two networks are trained.
    """
    before, build = torch.get_default_dtype(), datasets.build

    def doubled(*arguments: Any) -> DataBundle:
        data = build(*arguments)
        assert isinstance(data, DataBundle)
        parts = {name: getattr(data, name) for name in ("train", "validation", "test")}
        return replace(data, **{name: replace(part, images=part.images.double()) for name, part in parts.items()})

    datasets.build = doubled
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        datasets.build = build
