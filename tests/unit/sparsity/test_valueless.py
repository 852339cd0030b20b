"""Networks that cannot be trained as they are, and masks of other networks: named before torch stumbles over them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import sparsity
from sparsity.targets import targets


def attached(model: nn.Module) -> Any:
    optimizer = torch.optim.SGD(list(model.parameters()), lr=0.1)
    return sparsity.attach("random", model, optimizer, sparsity=0.5, total_steps=3)


LAZY = {
    "0.weight": lambda: nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2)),
    "1.weight": lambda: nn.Sequential(nn.Linear(4, 4), nn.LazyBatchNorm1d()),
    "1.running_mean": lambda: nn.Sequential(nn.Linear(4, 4), nn.LazyBatchNorm1d(affine=False)),
    "0.bias": lambda: nn.Sequential(nn.LazyInstanceNorm1d(affine=True), nn.Linear(4, 4)),
}


@pytest.mark.parametrize("name", LAZY)
def test_layers_without_a_shape_are_named(name: str):
    words = rf"^({name}|0\.weight) has no shape yet: run one batch through the network first"
    for call in (attached, sparsity.represent, targets):
        with pytest.raises(ValueError, match=words):
            call(LAZY[name]())


def test_a_network_without_values_is_refused():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match=r"^0\.weight is on the meta device, .* model\.to_empty"):
        attached(model)
    sparsity.represent(model)  # as a dry run does


def test_a_part_without_values_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[1].to("meta")
    with pytest.raises(ValueError, match=r"^1\.weight is on the meta device"):
        attached(model)


def test_tensors_of_inference_mode_are_refused():
    with torch.inference_mode():
        model = nn.Linear(4, 4)
        with pytest.raises(ValueError, match=r"attach\(\) is called in torch\.inference_mode"):
            attached(nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"^weight was made in torch\.inference_mode, .* build or load"):
        attached(model)


def test_masks_of_another_network_are_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    masks = dict(attached(model).masks)
    for other, words in {
        nn.Sequential(nn.Linear(4, 4)): r"1\.weight is no such weight here, and \(2, 4\) in the masks",
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)): r"1\.weight is \(3, 4\) here, and \(2, 4\) in the masks",
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(2, 2)): r"2\.weight is .* and no such mask in",
    }.items():
        with pytest.raises(ValueError, match=rf"^these masks belong to another network: {words}"):
            sparsity.plain_copy(other, masks)
