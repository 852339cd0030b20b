"""HAM says when it is the base optimizer alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sparsity
from ham import HAM


def said(parameters, caplog: pytest.LogCaptureFixture, steps: int = 3, **options) -> list[str]:
    optimizer = HAM(torch.optim.SGD(parameters, lr=0.1), **options)
    for _ in range(steps):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return [record.getMessage() for record in caplog.records]


def test_a_flattened_network_is_told_once(caplog: pytest.LogCaptureFixture):
    flat = nn.Parameter(nn.utils.parameters_to_vector(nn.Linear(4, 3).parameters()).detach())
    (text,) = said([flat], caplog, alpha=20.0, beta=0.0)
    assert text.startswith("HAM multiplies nothing: no parameter with a gradient has two or more dimensions")


def test_a_group_without_ham_is_told(caplog: pytest.LogCaptureFixture):
    rep = sparsity.represent(nn.Sequential(nn.Linear(4, 3)), "product")
    assert said(rep.param_groups(), caplog, alpha=20.0)


@pytest.mark.parametrize("options", [{"alpha": 0.0, "beta": 0.0}, {"alpha": 1.0}, {"alpha": 0.0, "beta": 0.1}])
def test_a_network_is_told_nothing(options: dict[str, float], caplog: pytest.LogCaptureFixture):
    assert not said(nn.Linear(4, 3).parameters(), caplog, **options)


def test_neutral_strengths_are_told_nothing(caplog: pytest.LogCaptureFixture):
    assert not said([nn.Parameter(torch.ones(5))], caplog, alpha=0.0, beta=0.0)


def test_without_gradients_nothing_is_known(caplog: pytest.LogCaptureFixture):
    layer = nn.Linear(4, 3)
    optimizer = HAM(torch.optim.SGD(layer.parameters(), lr=0.1), alpha=1.0)
    optimizer.step()
    layer.bias.grad = None
    layer.weight.grad = torch.ones(3, 4)
    optimizer.step()
    assert not caplog.records
