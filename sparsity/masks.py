"""`MaskSet`: which weights are active. A value type; True marks an active weight, False a pruned one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

_BITS = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)


class NotMasks(TypeError):
    """Something else than boolean tensors by weight name."""


class MaskSet(Mapping[str, Tensor]):
    """Boolean masks by weight name; they do not change after construction.

    Example:
        >>> import sparsity, torch
        >>> masks = sparsity.MaskSet({"weight": torch.tensor([True, False, False, True])})
        >>> masks.density, masks.num_active()
        (0.5, {'weight': 2})

    Args:
        masks: Weight name to a bool tensor of the weight's shape.

    Raises:
        NotMasks: for anything else.
        ValueError: if a name is empty.
    """

    def __init__(self, masks: Mapping[str, Tensor]):
        if not isinstance(masks, Mapping):
            raise NotMasks(f"masks are a {type(masks).__name__}, not boolean tensors by weight name")
        for name, mask in masks.items():
            if not name:
                raise ValueError("a mask needs the name of its weight")
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                came = mask.dtype if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
                raise NotMasks(f"the mask of {name} is {came}, not torch.bool")
        self._masks = dict(masks)

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaskSet):
            return NotImplemented
        return list(self) == list(other) and all(torch.equal(mask, other[name]) for name, mask in self.items())

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @classmethod
    def ones(cls, like: Mapping[str, Tensor]) -> MaskSet:
        """Make masks under which all weights are active."""
        return cls({name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in like.items()})

    @property
    def sizes(self) -> dict[str, int]:
        """Number of weights by name, active and pruned."""
        return {name: mask.numel() for name, mask in self._masks.items()}

    def num_active(self) -> dict[str, int]:
        """Count the active weights by name (one host synchronisation)."""
        if not self._masks:
            return {}
        counts = torch.stack([mask.sum() for mask in self._masks.values()]).tolist()
        return dict(zip(self._masks, counts, strict=True))

    def densities(self) -> dict[str, float]:
        """Return the fraction of active weights by name, in [0, 1]."""
        return {name: active / self._masks[name].numel() for name, active in self.num_active().items()}

    @property
    def density(self) -> float:
        """Fraction of active weights over all tensors, in [0, 1]."""
        return sum(self.num_active().values()) / max(1, sum(self.sizes.values()))

    def digest(self) -> str:
        """Hash names, shapes and bits (SHA-256): two sets of masks are equal if and only if their digests are."""
        sha = hashlib.sha256()
        for name, packed in self.state_dict().items():
            sha.update(f"{name}{packed['shape']}".encode())
            sha.update(packed["bits"].numpy().tobytes())
        return sha.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """Pack the masks on the CPU: eight weights per byte, most significant bit first."""
        return {name: {"shape": list(mask.shape), "bits": _pack(mask)} for name, mask in self._masks.items()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], device: torch.device | str = "cpu") -> MaskSet:
        """Unpack what `state_dict` returned, onto a device."""
        return cls({name: _unpack(item["bits"], item["shape"]).to(device) for name, item in state.items()})


def _pack(mask: Tensor) -> Tensor:
    flat = mask.detach().flatten().cpu().to(torch.uint8)
    flat = torch.nn.functional.pad(flat, (0, -flat.numel() % 8))
    return (flat.view(-1, 8) * _BITS).sum(dim=1, dtype=torch.uint8)


def _unpack(bits: Tensor, shape: list[int]) -> Tensor:
    size = torch.Size(shape)
    return (bits.cpu().unsqueeze(1) & _BITS).ne(0).flatten()[: size.numel()].view(size)
