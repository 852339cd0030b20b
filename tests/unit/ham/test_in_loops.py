"""What a training loop does around the optimizer: micro-batches, a compiled model, averaged weights."""

from __future__ import annotations

import copy

import pytest
import torch
from ham_helpers import make_model, make_optimizer, train, weights
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ham import HAM


def batch(step: int, size: int = 8, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(size, 4, generator=torch.Generator().manual_seed(step), dtype=dtype)


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_micro_batches_are_one_batch(base: str):
    """HAM takes the gradient as it stands at the step: the sum over backward passes, not the last of them."""
    whole, pieces = make_model(dtype=torch.float64), make_model(dtype=torch.float64)
    one, four = make_optimizer(whole, base), make_optimizer(pieces, base)
    for step in range(6):
        one.zero_grad()
        whole(batch(step)).square().mean().backward()
        one.step()
        four.zero_grad()
        for part in batch(step).chunk(4):
            (pieces(part).square().mean() / 4).backward()
        four.step()
    torch.testing.assert_close(weights(pieces), weights(whole), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_model(backend: str):
    """One graph, no break; the optimizer is built from the compiled module's parameters, which are the model's own."""
    torch._dynamo.reset()
    eager, inner = make_model(dtype=torch.float64), make_model(dtype=torch.float64)
    compiled = torch.compile(inner, fullgraph=True, backend=backend)
    reference, optimizer = make_optimizer(eager), make_optimizer(compiled)
    for step in range(5):
        for model, each in ((eager, reference), (compiled, optimizer)):
            each.zero_grad()
            model(batch(step)).square().mean().backward()
            each.step()
    assert not torch.equal(weights(inner), weights(make_model(dtype=torch.float64)))
    torch.testing.assert_close(weights(inner), weights(eager), rtol=1e-10, atol=1e-12)
    # names in the model's checkpoint differ, those of the optimizer's do not
    fresh = make_optimizer(make_model(dtype=torch.float64))
    fresh.load_state_dict(optimizer.state_dict())
    assert len(fresh.state) == 4


@pytest.mark.parametrize("kind", ["torch", "timm"])
def test_averaged_weights_follow_what_ham_made(kind: str):
    """Updated after the step, the average is that of the multiplied weights, and zeros that HAM keeps stay zeros."""
    model = make_model()
    mask = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    with torch.no_grad():
        model[0].weight.mul_(mask)
    model[0].weight.register_hook(lambda grad: grad * mask)
    optimizer = make_optimizer(model)
    ema: nn.Module
    if kind == "torch":
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
        update = ema.update_parameters
    else:
        ema = ModelEmaV3(model, decay=0.8)
        update = ema.update
    # torch's average starts with the first update, timm's with the initial weights
    expected = None if kind == "torch" else weights(model).clone()
    for step in range(5):
        train(model, optimizer, 1, start=step)
        update(model)
        now = weights(model)
        expected = now.clone() if expected is None else 0.8 * expected + 0.2 * now
    torch.testing.assert_close(weights(ema.module), expected)
    assert not ema.module[0].weight[~mask].any()
    assert not model[0].weight[~mask].any()


def test_averaged_weights_stay_out_of_the_optimizer():
    """A copy that the optimizer does not know is neither moved nor bounded by it."""
    model = make_model()
    ema = copy.deepcopy(model)
    with torch.no_grad():
        ema[0].weight.mul_(1e6)
    before = weights(ema).clone()
    train(model, make_optimizer(model, max_weight_norm=1.0), 2)
    assert torch.equal(weights(ema), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_with_a_scaler_and_micro_batches(dtype: torch.dtype):
    """Scaled gradients of several backward passes, unscaled once and clipped, are what HAM is given."""
    model, twin = make_model(), make_model()
    optimizer, reference = (HAM(SGD(m.parameters(), lr=0.1, momentum=0.9), alpha=3.0, beta=0.01) for m in (model, twin))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    enabled = dtype == torch.bfloat16
    for step in range(4):
        optimizer.zero_grad()
        reference.zero_grad()
        for part in batch(step, dtype=torch.float32).chunk(2):
            for net, scale in ((model, scaler.scale), (twin, lambda loss: loss)):
                with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                    loss = net(part).float().square().mean() / 2
                scale(loss).backward()
        scaler.unscale_(optimizer)
        for net in (model, twin):
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        reference.step()
        assert torch.equal(weights(model), weights(twin))  # powers of two scale exactly
