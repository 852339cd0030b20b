"""What signs and masks have done since the start and since the last epoch, and how fast an epoch was; for every row."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from sparsity.engine.sparse_training import SparseTraining


class Diagnostics:
    """Compares the weights with those of the start of a training and of the last epoch.

    It keeps two bytes a weight: its sign then, 0 where it was pruned. Nothing that it does changes a run.

    Args:
        sparse: The topology at work.
        is_main: Whether this is rank 0; the others see the same and measure nothing.
    """

    def __init__(self, sparse: SparseTraining, *, is_main: bool):
        self._sparse, self._is_main = sparse, is_main
        self.restart()

    def restart(self) -> None:
        """Compare with the weights of now from here on: a level begins, whose weights may have been rewound."""
        self._initial = self._previous = _signs(self._sparse) if self._is_main else {}

    def look(self) -> dict[str, Any]:
        """Return an epoch's entries; all numbers are fractions in [0, 1], None where there is nothing to compare.

        ``sign_flips_initial``, ``sign_flips_previous``: of the weights that are nonzero now and were so then, those of
        the other sign. ``overlap_initial``, ``overlap_previous``: the weights that are nonzero now and were so then, as
        a fraction of those that are or were so. ``layer_density``: by layer.
        """
        if not self._is_main:
            return {}
        now = _signs(self._sparse)
        seen = {**_compared(self._initial, now, "initial"), **_compared(self._previous, now, "previous")}
        self._previous = now
        return {**seen, "layer_density": self._sparse.densities()}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run compares with."""
        return {"initial": self._initial, "previous": self._previous}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore what to compare with."""
        if self._is_main:
            self._initial, self._previous = (
                {name: signs.to(kept[name].device) for name, signs in state[key].items()}
                for key, kept in (("initial", self._initial), ("previous", self._previous))
            )


@torch.no_grad()
def _signs(sparse: SparseTraining) -> dict[str, Tensor]:
    return {name: weight.sign().to(torch.int8) for name, weight in sparse.representation.weights()}


def _compared(then: Mapping[str, Tensor], now: Mapping[str, Tensor], since: str) -> dict[str, float | None]:
    counts = [
        torch.stack(((before * after < 0).sum(), (before * after != 0).sum(), (before.abs() | after.abs()).sum()))
        for before, after in ((then[name], now[name]) for name in now)
    ]
    flipped, both, either = torch.stack(counts).sum(0).tolist()
    return {
        f"sign_flips_{since}": flipped / both if both else None,
        f"overlap_{since}": both / either if either else None,
    }


class Pace:
    """Measures the speed of an epoch: its steps and their reading, without evaluation.

    Args:
        device: Where the run computes.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self.begin(0)

    def begin(self, step: int) -> None:
        """Begin to measure before a step: an epoch's first, or the first of a resumed run."""
        self._step, self._time = step, time.perf_counter()

    def end(self, step: int, batch_size: int) -> dict[str, float]:
        """Return an epoch's entries.

        Args:
            step: Steps done.
            batch_size: Images of a step, on all ranks together.

        Returns:
            ``step_ms``; ``images_per_s``; ``peak_memory_gib``: the most that the device's allocator gave, on a CPU the
            most that this process has held; ``gpu_utilisation`` in [0, 1] at the end of the epoch, where NVML tells.
        """
        gpu = self._device.type == "cuda"
        if gpu:
            torch.cuda.synchronize(self._device)
        seconds = (time.perf_counter() - self._time) / max(1, step - self._step)
        found = {"step_ms": round(1e3 * seconds, 3), "images_per_s": round(batch_size / seconds, 1)}
        if not gpu:
            unit = 1 if sys.platform == "darwin" else 1024
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
            return {**found, "peak_memory_gib": round(peak / 2**30, 3)}
        found["peak_memory_gib"] = round(torch.cuda.max_memory_allocated(self._device) / 2**30, 3)
        with suppress(ModuleNotFoundError, RuntimeError):
            found["gpu_utilisation"] = torch.cuda.utilization(self._device) / 100
        return found
