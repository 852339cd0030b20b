"""Exact selection against a stable sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsity.masking.selection import NotFinite, kth_largest, strictly_above_kth, top_k, top_k_of_all


def stable_sort_mask(scores: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k largest by a stable descending sort: among equals the lowest index comes first."""
    order = np.argsort(-scores.reshape(-1), kind="stable")[: max(k, 0)]
    mask = np.zeros(scores.size, dtype=bool)
    mask[order] = True
    return mask.reshape(scores.shape)


@given(values=st.lists(st.integers(-2, 2), min_size=1, max_size=40), k=st.integers(-1, 42))
def test_equals_a_stable_sort_under_heavy_ties(values: list[int], k: int):
    scores = np.array(values, dtype=np.float32)
    chosen = top_k(torch.from_numpy(scores), k)
    assert chosen.dtype == torch.bool
    np.testing.assert_array_equal(chosen.numpy(), stable_sort_mask(scores, k))


@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=30),
    k=st.integers(0, 30),
)
def test_equals_a_stable_sort_for_any_floats(values: list[float], k: int):
    scores = np.array(values, dtype=np.float32)
    np.testing.assert_array_equal(top_k(torch.from_numpy(scores), k).numpy(), stable_sort_mask(scores, k))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ties_by_hand(dtype: torch.dtype):
    #                        0  1  2  3  4  5
    scores = torch.tensor([1, 2, 1, 2, 1, 0], dtype=dtype)
    # both twos, then the first two of the three ones
    assert top_k(scores, 4).tolist() == [True, True, True, True, False, False]
    assert top_k(scores, 3).tolist() == [True, True, False, True, False, False]


def test_all_scores_equal():
    assert top_k(torch.zeros(1000), 300).nonzero().flatten().tolist() == list(range(300))


def test_non_contiguous_scores_count_in_logical_order():
    scores = torch.tensor([[3.0, 1.0], [1.0, 1.0], [1.0, 2.0]])
    expected = stable_sort_mask(scores.numpy(), 4)
    assert expected.tolist() == [[True, True], [True, False], [False, True]]
    column_major = scores.t().contiguous().t()
    every_second = torch.stack([scores, -scores], dim=-1).flatten(1)[:, ::2]
    for view in (column_major, every_second):
        assert not view.is_contiguous()
        np.testing.assert_array_equal(top_k(view, 4).numpy(), expected)


def test_channels_last_scores():
    scores = torch.randint(0, 3, (4, 3, 2, 2)).float()
    expected = stable_sort_mask(scores.numpy(), 17)
    np.testing.assert_array_equal(top_k(scores.to(memory_format=torch.channels_last), 17).numpy(), expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_scores_that_cannot_be_ordered_are_refused(value: float, dtype: torch.dtype):
    scores = torch.tensor([1.0, value, 0.0, 2.0], dtype=dtype)
    whole = {"a": torch.ones(3, dtype=dtype), "b": scores}
    for select in (lambda: top_k(scores, 2), lambda: top_k_of_all(whole, 2), lambda: strictly_above_kth(whole, 2)):
        with pytest.raises(NotFinite, match="NaN or infinity"):
            select()


def test_scores_of_a_trained_parameter():
    scores = torch.nn.Parameter(torch.tensor([1.0, 3.0, 2.0]))
    assert top_k(scores, 2).tolist() == [False, True, True]


@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=30), data=st.data())
def test_strictly_above_kth(values: list[int], data: st.DataObject):
    k = data.draw(st.integers(1, len(values)))
    threshold = sorted(values, reverse=True)[k - 1]
    kept = strictly_above_kth(in_parts(torch.tensor(values, dtype=torch.float32), data), k)
    assert joined(kept) == [value > threshold for value in values]
    assert sum(joined(kept)) <= k - 1


def in_parts(values: torch.Tensor, data: st.DataObject) -> dict[str, torch.Tensor]:
    """Cut a row of scores into tensors, some of them empty."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=3)))
    return {str(i): part for i, part in enumerate(values.tensor_split(cuts))}


def joined(masks: dict[str, torch.Tensor]) -> list[bool]:
    return torch.cat(list(masks.values())).tolist()


@given(
    values=st.lists(
        st.one_of(st.floats(allow_nan=False, allow_infinity=False, width=32), st.sampled_from([0.0, -0.0, 1.0])),
        min_size=1,
    ),
    data=st.data(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_all_tensors_together_are_one(values: list[float], data: st.DataObject, dtype: torch.dtype):
    """Any floats, both zeros among them, wherever they are cut."""
    scores = torch.tensor(values, dtype=torch.float32).to(dtype)
    parts = in_parts(scores, data)
    k = data.draw(st.integers(1, len(values)))
    assert kth_largest(list(parts.values()), k) == scores.sort(descending=True).values[k - 1]
    for number in (k, 0, len(values)):
        expected = stable_sort_mask(scores.double().numpy(), number)
        np.testing.assert_array_equal(joined(top_k_of_all(parts, number)), expected)


def test_strictly_above_kth_by_hand():
    # the 3rd largest is .5: one weight fewer than k stays, and the tie at .5 goes with it
    scores = {"a": torch.tensor([0.9, 0.5, 0.5]), "b": torch.tensor([0.7, 0.1])}
    assert joined(strictly_above_kth(scores, 3)) == [True, False, False, True, False]
    assert not any(joined(strictly_above_kth({"a": torch.tensor([0.9, 0.5])}, 1)))
