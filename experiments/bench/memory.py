"""Measurement of the peak memory of tensors."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def living() -> dict[int, torch.UntypedStorage]:
    """Return the storages of all tensors that Python can see, by the address of the storage object."""
    # compares types, not instances: reading the class of some lazy objects imports the modules they stand for
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.layout is torch.strided]
    return {storage._cdata: storage for storage in storages}


class LiveBytes(TorchDispatchMode):
    """A dispatch mode that tracks every storage from its first use to its end.

    It slows operations down, so nothing should be timed inside. Memory that an operation allocates and frees
    internally is not seen.

    Args:
        besides: Storages that do not count, such as those that existed before.

    Attributes:
        now: Bytes alive now.
        peak: Largest number of bytes alive so far.
    """

    def __init__(self, besides: dict[int, torch.UntypedStorage]):
        super().__init__()
        self.now = self.peak = 0
        self._known = {key: -1 for key in besides}
        for storage in living().values():
            self._follow(storage)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and track the tensors that it returns."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.layout is torch.strided:
                self._follow(leaf.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._end, key).atexit = False

    def _end(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)


class Peak:
    """Peak memory of tensors on a device during a block, beyond a baseline.

    On a GPU the allocator reports it, including temporaries within operations; elsewhere `LiveBytes` measures it.

    Args:
        device: Device of the tensors.
        besides: The baseline, from `before`.
    """

    def __init__(self, device: torch.device, besides: Any):
        self._device = device
        self._besides = besides
        self._mode: LiveBytes | None = None

    @staticmethod
    def before(device: torch.device) -> Any:
        """Return the tensors or bytes that exist now, as the baseline of a later measurement."""
        gc.collect()
        return torch.cuda.memory_allocated(device) if device.type == "cuda" else living()

    def __enter__(self) -> Peak:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._mode = LiveBytes(self._besides)
            self._mode.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._mode is not None:
            self._mode.__exit__(*exception)

    @property
    def bytes(self) -> int:
        """The peak in bytes, beyond the baseline."""
        if self._mode is None:
            return torch.cuda.max_memory_allocated(self._device) - self._besides
        return self._mode.peak
