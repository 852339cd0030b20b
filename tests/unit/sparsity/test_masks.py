"""MaskSet: counts, packing, digests, refusals; against bits and numbers written out by hand."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsity import MaskSet


def bits(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool)


def test_counts_and_densities_by_hand():
    masks = MaskSet({"a": bits(1, 0, 1, 0), "b": bits(1, 1).view(2, 1)})
    assert masks.sizes == {"a": 4, "b": 2}
    assert masks.num_active() == {"a": 2, "b": 2}
    assert masks.densities() == {"a": 0.5, "b": 1.0}
    assert masks.density == 4 / 6
    assert list(masks) == ["a", "b"]
    assert len(masks) == 2


def test_ones_has_the_shapes_of_the_weights():
    masks = MaskSet.ones({"a": torch.zeros(2, 3), "b": torch.zeros(4)})
    assert masks["a"].shape == (2, 3)
    assert masks.num_active() == {"a": 6, "b": 4}
    assert masks["a"].dtype == torch.bool


def test_no_masks_at_all():
    assert MaskSet({}).num_active() == {}
    assert MaskSet({}).density == 0


def test_packing_is_most_significant_bit_first():
    #        1 0 1 0 0 0 0 1 | 1 0 (six zeros of padding)
    mask = bits(1, 0, 1, 0, 0, 0, 0, 1, 1, 0).view(2, 5)
    packed = MaskSet({"w": mask}).state_dict()["w"]
    assert packed["shape"] == [2, 5]
    assert packed["bits"].dtype == torch.uint8
    assert packed["bits"].tolist() == [0b10100001, 0b10000000]


@given(shape=st.lists(st.integers(0, 6), max_size=4), seed=st.integers(0, 10_000), density=st.sampled_from([0, 0.3, 1]))
def test_round_trip(shape: list[int], seed: int, density: float):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density
    twice = mask.unsqueeze(0).expand(2, *shape)
    masks = MaskSet({"w": mask, "strided": twice.transpose(0, -1)})
    buffer = io.BytesIO()
    torch.save(masks.state_dict(), buffer)
    buffer.seek(0)
    back = MaskSet.from_state_dict(torch.load(buffer, weights_only=True))
    assert list(back) == ["w", "strided"]
    assert all(torch.equal(back[name], masks[name]) for name in masks)
    assert back.digest() == masks.digest()
    assert masks.state_dict()["w"]["bits"].numel() == -(-mask.numel() // 8)


def test_digest_is_equal_for_equal_masks_whatever_their_memory_layout():
    mask = torch.eye(3, 5, dtype=torch.bool)
    strided = mask.t().contiguous().t()
    assert not strided.is_contiguous()
    assert MaskSet({"w": mask}).digest() == MaskSet({"w": strided}).digest()


def test_digest_tells_apart_bits_names_shapes_and_padding():
    different = [
        MaskSet({"w": bits(1, 0, 0)}),
        MaskSet({"w": bits(0, 1, 0)}),
        MaskSet({"v": bits(1, 0, 0)}),
        MaskSet({"w": bits(1, 0, 0).view(3, 1)}),
        MaskSet({"w": bits(1, 0, 0, 0)}),
        MaskSet({"w": bits(1, 0, 0), "v": bits(0)}),
        MaskSet({}),
    ]
    assert len({masks.digest() for masks in different}) == len(different)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_refuses_masks_that_are_not_boolean(dtype: torch.dtype):
    with pytest.raises(TypeError, match=r"mask of conv is torch\.\w+, not torch.bool"):
        MaskSet({"conv": torch.ones(2, dtype=dtype)})


def test_refuses_an_empty_name():
    with pytest.raises(ValueError, match="needs the name"):
        MaskSet({"": bits(1)})


def test_equal_masks_are_equal():
    assert MaskSet({"w": bits(1, 0)}) == MaskSet({"w": bits(1, 0)})
    assert MaskSet({"w": bits(1, 0)}) != MaskSet({"w": bits(0, 1)})
