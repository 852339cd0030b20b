"""`SparseTraining.summary` names every parameter once, with its density, and why it is not pruned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import sparsity
from sparsity import registry


class Words(nn.Module):
    """An embedding, a frozen layer, attention, normalisation and a head."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(10, 8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)


def attached(topology: str = "random", representation: str = "plain", target: float = 0.5, **options: Any):
    torch.manual_seed(0)
    model = Words()
    rep = sparsity.represent(model, representation)
    optimizer = torch.optim.SGD(rep.param_groups(), lr=0.1)
    return model, sparsity.attach(
        topology, model, optimizer, sparsity=target, total_steps=8, steps_per_epoch=4, **options
    )


@pytest.mark.parametrize("representation", registry.representations())
def test_every_parameter_is_counted_once(representation):
    size = sum(p.numel() for p in Words().parameters())
    topology = "dense" if registry.representation(representation).uses_sparsity else "random"
    _, sparse = attached(topology, representation)
    found = sparse.summary()
    assert sum(one.size for one in found.layers) == size
    assert sum(one.share for one in found.layers) == pytest.approx(1)
    assert found.counted == sum(mask.numel() for mask in sparse.masks.values())
    assert {one.name: one.density for one in found.layers if one.name in sparse.masks} == sparse.densities()


def test_what_is_not_pruned_says_why():
    _, sparse = attached(dense=["head"])
    why = {one.name: one.why for one in sparse.summary().layers}
    assert why == {
        **{f"attention.in_proj_weight.{part}": "" for part in "qkv"},
        "attention.out_proj.weight": "",
        "head.weight": "left dense by the topology",
        "words.weight": "no convolution or linear layer: not counted",
        "frozen.weight": "frozen: not counted",
        "all others": "biases, normalisation and the like: not counted",
    }
    assert [one.density for one in sparse.summary().layers if one.why] == [1.0] * 4


def test_a_dense_training_says_so():
    _, sparse = attached("rigl", target=0.0)
    assert {one.why for one in sparse.summary().layers[:4]} == {"the target sparsity is 0"}


def test_the_table_is_aligned_and_fits_a_terminal():
    _, sparse = attached()
    lines = str(sparse.summary()).splitlines()
    assert lines[0].split()[:2] == ["layer", "weights"]
    assert lines[1].split() == ["attention.in_proj_weight.q", "64", "13.01", "48.44"]
    assert lines[-1] == "sparsity is counted over 288 of 492 parameters"
    assert max(map(len, lines)) <= 110


def test_after_the_end_it_is_that_of_the_final_network():
    model, sparse = attached("one_shot", at=0.5)
    for _ in range(8):
        sum(p.sum() for p in model.parameters() if p.requires_grad).backward()  # pyright: ignore
        sparse.step()
    before = str(sparse.summary())
    sparse.finalize()
    assert str(sparse.summary()) == before
