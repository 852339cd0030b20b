"""The moving average of the weights: by hand, through factors, and under the final masks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sparsity
from experiments.run.average import Average


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_three_steps_by_hand() -> None:
    model = network()
    average = Average(model, sparsity.represent(model, "plain"), 0.75)
    expected = model[0].weight.detach().clone()
    mean, var = model[1].running_mean.clone(), model[1].running_var.clone()
    for step in range(3):
        with torch.no_grad():
            model[0].weight.add_(step + 1.0)
            model[1].num_batches_tracked.add_(1)
            model[1].running_mean.add_(step + 1.0)
            model[1].running_var.mul_(2.0)
        average.update()
        mean = 0.75 * mean + 0.25 * model[1].running_mean
        var = 0.75 * var + 0.25 * model[1].running_var
        expected = 0.75 * expected + 0.25 * model[0].weight.detach()
    torch.testing.assert_close(average.state_dict()["0.weight"], expected)
    assert average.state_dict()["1.num_batches_tracked"] == 3
    # batch statistics are those of the averaged weights, not of the last ones
    torch.testing.assert_close(average.state_dict()["1.running_mean"], mean)
    torch.testing.assert_close(average.state_dict()["1.running_var"], var)


@pytest.mark.parametrize("name", ["plain", "product", "bar", "sign_in", "spred", "pilot", "str", "powerprop"])
def test_the_network_has_the_average_where_the_masks_are(name: str) -> None:
    torch.manual_seed(0)
    model = network()
    options = {"initial_threshold": -2.0} if name == "str" else {}
    representation = sparsity.represent(model, name, **options)
    average = Average(model, representation, 0.5)
    optimizer = torch.optim.SGD(representation.param_groups(), lr=0.1)
    sparse = sparsity.attach("random", model, optimizer, sparsity=0.5, total_steps=4, steps_per_epoch=2)
    factors = representation.slots["0.weight"].factors
    means = [factor.detach().clone() for factor in factors]
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().sum().backward()
        sparse.step(metrics=lambda: {"train_accuracy": 0.5})
        average.update()
        means = [0.5 * mean + 0.5 * factor.detach() for mean, factor in zip(means, factors, strict=True)]
    sparse.finalize()
    averaged = average.network(model, sparse.masks)
    assert isinstance(averaged, nn.Sequential)
    theta = representation.materialise(*means).masked_fill(~sparse.masks["0.weight"], 0.0)
    torch.testing.assert_close(averaged[0].weight.detach(), theta)
    assert not torch.equal(averaged[0].weight, model[0].weight)
    assert torch.equal(averaged[1].running_mean, average.state_dict()["1.running_mean"])
    assert not torch.equal(averaged[1].running_mean, model[1].running_mean)
    assert averaged(torch.randn(5, 3)).shape == (5, 2)


def test_a_state_goes_and_comes_back() -> None:
    model = network()
    average = Average(model, sparsity.represent(model, "plain"), 0.5)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    average.update()
    state = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    average.update()
    assert not torch.equal(average.state_dict()["0.weight"], state["0.weight"])
    average.load_state_dict(state)
    assert torch.equal(average.state_dict()["0.weight"], state["0.weight"])
    with pytest.raises(KeyError):
        average.load_state_dict({"other": torch.zeros(1)})


def test_attention_is_averaged_by_parts() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x, x, x, need_weights=False)[0]

    torch.manual_seed(0)
    model = Attention()
    representation = sparsity.represent(model, "product")
    average = Average(model, representation, 0.5)
    optimizer = torch.optim.SGD(representation.param_groups(), lr=0.1)
    sparse = sparsity.attach("random", model, optimizer, sparsity=0.5, total_steps=1)
    model(torch.randn(2, 3, 8)).square().sum().backward()
    sparse.step()
    average.update()
    sparse.finalize()
    weight = average.network(model, sparse.masks).get_parameter("a.in_proj_weight")
    masks = torch.cat([sparse.masks[f"a.in_proj_weight.{part}"] for part in "qkv"])
    assert torch.equal(weight != 0, masks)
    assert torch.equal(average.network(model, sparse.masks).get_parameter("a.in_proj_weight"), weight)
