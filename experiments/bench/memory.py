"""Bytes of tensors alive at the same time."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def living() -> dict[int, torch.UntypedStorage]:
    """The storages of all tensors that Python can see, by address of the storage object."""
    # types are compared, not instances: asking some lazy objects for their class imports what they stand for
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.layout is torch.strided]
    return {storage._cdata: storage for storage in storages}


class LiveBytes(TorchDispatchMode):
    """Follows every storage from its first use to its end. It costs time, so nothing is timed within.

    What an operation allocates and frees inside itself is not seen.

    Args:
        besides: Storages that do not count, such as what was there before.

    Attributes:
        now: Bytes alive.
        peak: Most bytes alive so far.
    """

    def __init__(self, besides: dict[int, torch.UntypedStorage]):
        super().__init__()
        self.now = self.peak = 0
        self._known = {key: -1 for key in besides}
        for storage in living().values():
            self._follow(storage)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and follow what it returns."""
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
    """Peak bytes of tensors on a device since the start, beyond what was there.

    On a GPU the allocator says it, temporaries within operations included; elsewhere `LiveBytes` does.

    Args:
        device: Where the tensors are.
        besides: `living` before anything that counts was made; on a GPU `torch.cuda.memory_allocated` then.
    """

    def __init__(self, device: torch.device, besides: Any):
        self._device = device
        self._besides = besides
        self._mode: LiveBytes | None = None

    @staticmethod
    def before(device: torch.device) -> Any:
        """What is there now: the `besides` of a later measurement."""
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
        """The peak."""
        if self._mode is None:
            return torch.cuda.max_memory_allocated(self._device) - self._besides
        return self._mode.peak
