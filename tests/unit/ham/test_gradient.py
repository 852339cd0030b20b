"""Which gradient HAM uses: the raw one that the base was given, whatever the base does with it."""

from typing import Any

import pytest
import torch
from ham_helpers import factor, parameter
from torch.optim import LBFGS, SGD, SparseAdam

from ham import HAM, OptimizerWrapper, hyperbolic_step_


def bases():
    for foreach in (None, False, True):
        for momentum, nesterov in ((0.0, False), (0.9, False), (0.9, True)):
            for decay in (0.0, 0.1):
                for maximize in (False, True):
                    kept = dict(momentum=momentum, nesterov=nesterov, weight_decay=decay, maximize=maximize)
                    yield SGD, {"lr": 0.1, "foreach": foreach, **kept}
    yield SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "fused": True}
    names = ["Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop"]
    for name in names:
        for foreach in (False, True):
            yield getattr(torch.optim, name), {"lr": 0.01, "foreach": foreach, "maximize": foreach}
            if name != "Rprop":
                yield getattr(torch.optim, name), {"lr": 0.01, "foreach": foreach, "weight_decay": 0.1}
    yield torch.optim.Adafactor, {"lr": 0.01}
    yield torch.optim.Muon, {"lr": 0.01, "nesterov": True}


@pytest.mark.parametrize(("cls", "options"), list(bases()))
def test_the_gradient_is_the_raw_one_whatever_the_base_writes_into_it(cls, options):
    start = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    weight, twin = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    base = cls([weight], **options)
    optimizer, plain = HAM(base, alpha=2.0, beta=0.5, max_weight_norm=None), cls([twin], **options)
    alpha = -2.0 if options.get("maximize") else 2.0
    for step in range(4):
        raw = torch.randn(6, 5, generator=torch.Generator().manual_seed(10 + step))
        weight.grad, twin.grad = raw.clone(), raw.clone()
        optimizer.step()
        plain.step()
        hyperbolic_step_([twin], [raw], lr=plain.param_groups[0]["lr"], alpha=alpha, beta=0.5)
        assert torch.equal(weight, twin)


class Rewriting(SGD):
    """A base of another package that writes into the gradient, past its version counter."""

    def step(self, closure=None):
        loss = closure() if closure else None
        for p in self.param_groups[0]["params"]:
            p.grad.data.mul_(100.0)
        super().step()
        return loss


@pytest.mark.parametrize("base", [Rewriting, lambda ps, lr: OptimizerWrapper(Rewriting(ps, lr=lr))])
@pytest.mark.parametrize("with_closure", [False, True])
def test_the_gradient_stays_raw_under_unknown_bases(base, with_closure):
    weight = parameter(2, 2, fill=50.0)
    HAM(base([weight], lr=0.1), alpha=2.0, beta=0.5).step(*([lambda: 0.0] if with_closure else []))
    assert weight[0, 0].item() == pytest.approx(40 * factor())


def test_a_closure_is_called_by_the_base_and_its_loss_returned():
    weight = parameter(2, 2, grad=None)
    losses = []

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (2 * weight).sum()
        loss.backward()
        losses.append(loss.item())
        return loss

    for options in ({}, {"momentum": 0.9, "nesterov": True, "foreach": True}):
        with torch.no_grad():
            weight.fill_(1.0)
        optimizer = HAM(SGD([weight], lr=0.1, **options), alpha=2.0, beta=0.5)
        result: Any = optimizer.step(closure)
        assert result.item() == 8.0
        moved = 1 - 0.1 * 2 * (1.9 if options else 1)
        assert weight[0, 0].item() == pytest.approx(moved * factor(grad=2.0))
    assert losses == [8.0, 8.0]


def test_a_closure_called_several_times_gives_its_last_gradient():
    weight = parameter(2, 2, grad=None)
    calls = []

    def closure() -> Any:
        calls.append(weight.detach().clone())
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    optimizer = HAM(LBFGS([weight], lr=0.1, max_iter=3), alpha=2.0, beta=0.5, max_weight_norm=None)
    optimizer.step(closure)
    assert len(calls) == 3
    last = 2 * calls[-1][0, 0].item()
    plain = parameter(2, 2, grad=None)

    def plain_closure() -> Any:
        plain.grad = 2 * plain.detach()
        return plain.detach().square().sum()

    LBFGS([plain], lr=0.1, max_iter=3).step(plain_closure)
    assert weight[0, 0].item() == pytest.approx(plain[0, 0].item() * factor(grad=last))


def test_a_nan_in_a_gradient_reaches_no_other_weight():
    weight, other = parameter(2, 2), parameter(2, 2)
    weight.grad[0, 1] = float("nan")  # pyright: ignore[reportOptionalSubscript]
    HAM(SGD([weight, other], lr=0.1), alpha=2.0, beta=0.5).step()
    assert weight.isnan().flatten().tolist() == [False, True, False, False]
    expected = [0.9 * factor()] * 3
    assert weight.flatten()[[0, 2, 3]].tolist() == pytest.approx(expected)
    assert other.flatten()[:3].tolist() == pytest.approx(expected)


def test_complex_and_sparse_tensors_are_refused_before_anything_moves():
    matrix, table = parameter(2, 2), torch.nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1, 3])).sum().backward()
    before = table.weight.detach().clone()
    with pytest.raises(RuntimeError, match=r"a parameter of shape \(5, 2\) in group 0 has a sparse gradient"):
        HAM(SGD([matrix, table.weight], lr=0.1)).step()
    assert torch.equal(matrix, torch.ones(2, 2))
    assert torch.equal(table.weight, before)
    HAM(SparseAdam([{"params": [table.weight], "ham": False}], lr=0.1)).step()
    assert not torch.equal(table.weight, before)
    waves = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))
    waves.grad = torch.ones_like(waves)
    with pytest.raises(TypeError, match=r"a parameter of shape \(2, 2\) in group 0 is complex"):
        HAM(SGD([waves], lr=0.1)).step()
    assert torch.equal(waves, torch.ones(2, 2, dtype=torch.complex64))
