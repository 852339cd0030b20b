"""State that a class names, and whole numbers from computed ones."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsity import MaskSet
from sparsity.masking.rounding import ceil_count, floor_count
from sparsity.state import Stateful, on_device


class Counter(Stateful):
    state = ("count",)

    def __init__(self) -> None:
        self.count = 0
        self.unsaved = 0


class Average(Counter):
    state = ("mean", "parts", "inner")

    def __init__(self) -> None:
        super().__init__()
        self.mean: torch.Tensor | None = None
        self.parts: dict[str, Any] = {}
        self.inner = Counter()


def through_a_file(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


def test_a_subclass_adds_to_what_its_base_saves():
    assert list(Average.state_names()) == ["count", "mean", "parts", "inner"]
    held = Average()
    held.count, held.unsaved, held.inner.count = 3, 4, 5
    held.mean, held.parts = torch.tensor([1.0, 2.0]), {"a": [torch.ones(2), 1.5, None], "b": {"c": "word"}}
    loaded = Average()
    loaded.load_state_dict(through_a_file(held.state_dict()))
    assert (loaded.count, loaded.unsaved, loaded.inner.count) == (3, 0, 5)
    assert loaded.mean is not None
    assert torch.equal(loaded.mean, held.mean)
    assert torch.equal(loaded.parts["a"][0], torch.ones(2))
    assert loaded.parts["a"][1:] == [1.5, None]
    assert loaded.parts["b"] == {"c": "word"}


def test_neither_a_saved_nor_a_loaded_state_shares_tensors_with_the_object():
    held = Average()
    held.parts = {"a": torch.zeros(2)}
    saved = held.state_dict()
    held.parts["a"].add_(1)
    assert saved["parts"]["a"].tolist() == [0, 0]
    held.load_state_dict(saved)
    held.parts["a"].add_(1)
    assert saved["parts"]["a"].tolist() == [0, 0]


@pytest.mark.parametrize("value", [{1, 2}, MaskSet({}), lambda: None])
def test_what_a_checkpoint_could_not_hold_is_refused_when_it_is_saved(value: Any):
    held = Average()
    held.parts = {"a": value}
    with pytest.raises(TypeError, match=r"Average\.parts\['a'\] is a .* which cannot be saved"):
        held.state_dict()


def test_tensors_are_moved_wherever_they_are():
    state = {"a": [torch.ones(2), {"b": torch.ones(3)}], "c": 1}
    moved = on_device(state, torch.device("meta"))
    assert moved["a"][0].device.type == moved["a"][1]["b"].device.type == "meta"
    assert moved["c"] == 1


@given(numerator=st.integers(0, 10**6), denominator=st.integers(1, 1000), size=st.integers(1, 10**4))
def test_counts_equal_exact_arithmetic(numerator: int, denominator: int, size: int):
    exact = Fraction(numerator % (denominator + 1), denominator)
    fraction = float(exact)
    assert floor_count(fraction * size) == math.floor(exact * size)
    assert ceil_count(fraction * size) == math.ceil(exact * size)
    assert floor_count((1 - (1 - fraction)) * size) == math.floor(exact * size)


def test_binary_arithmetic_is_undone():
    assert math.floor((1 - 0.9) * 1000) == 99
    assert floor_count((1 - 0.9) * 1000) == 100
    assert math.ceil(10 * (1 - 0.7)) == 4
    assert ceil_count(10 * (1 - 0.7)) == 3
