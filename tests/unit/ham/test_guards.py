"""HAM's guards, norm bound and NaN exponents, beside what the published listing really does with its own.

Also which of a vision transformer's parameters HAM moves.
"""

import math
from functools import partial

import pytest
import timm
import torch
from ham_helpers import fill_grads, make_params
from torch.optim import SGD

from experiments.bench.published import PublishedHAM
from ham import HAM, bound_norms_, rule
from ham.reference import HAMReference

INF, NAN = math.inf, math.nan


@pytest.fixture(params=["host", "device"])
def at_hand(request, monkeypatch):
    """Results that the host has at once, as on a CPU, and results that it would have to wait for."""
    monkeypatch.setattr(rule, "SYNCHRONOUS_DEVICES", ("cpu",) if request.param == "host" else ())


def test_norm_bound_scales_what_is_larger_and_leaves_the_rest_bit_equal(at_hand):
    generator = torch.Generator().manual_seed(0)
    small, vector = torch.randn(7, 5, generator=generator), torch.full((4,), -600.0)
    matrix, double = torch.full((2, 2), 3000.0), torch.full((3, 3), 1e6, dtype=torch.float64)
    at_bound, empty = torch.tensor([600.0, 800.0]), torch.empty(0, 3)
    infinite, missing = torch.tensor([INF, 1e9]), torch.tensor([NAN, 1e9])
    overflowing, zero = torch.tensor([1e30, 1e30]), torch.zeros(3)
    copy = small.clone()
    bound_norms_([small, vector, matrix, double, at_bound, empty, infinite, missing, overflowing, zero], 1000.0)
    assert torch.equal(small, copy)
    assert vector.tolist() == pytest.approx([-500.0] * 4)
    assert matrix.flatten().tolist() == pytest.approx([500.0] * 4)
    assert double.flatten().tolist() == pytest.approx([1000 / 3] * 9, rel=1e-14)
    assert at_bound.tolist() == [600.0, 800.0]
    assert infinite.tolist() == [INF, pytest.approx(1e9)]
    assert missing[1].item() == pytest.approx(1e9)
    assert overflowing.tolist() == pytest.approx([1e30, 1e30])  # the norm is not finite in float32
    assert zero.tolist() == [0.0] * 3


def test_norm_bound_in_half_precision(at_hand):
    # the sum of squares overflows float16, and 1/norm underflows it
    tensor = torch.full((100,), 300.0, dtype=torch.float16)
    bound_norms_([tensor], 1000.0)
    assert tensor.dtype == torch.float16
    assert tensor.tolist() == [100.0] * 100


def published(seed=0, dtype=torch.float64, **options):
    """Weights of two groups, and the published listing around SGD over them."""
    groups = make_params(dtype, seed)
    base = SGD([{"params": group} for group in groups], lr=0.05, momentum=0.9, weight_decay=5e-4)
    return groups, PublishedHAM(base, alpha=200.0, beta=1e-3, **options)


def test_the_listing_agrees_with_the_reference():
    groups, listing = published()
    others = make_params(torch.float64)
    base = SGD([{"params": group} for group in others], lr=0.05, momentum=0.9, weight_decay=5e-4)
    reference = HAMReference(base, [200.0] * 2, [1e-3] * 2)
    for step in range(10):
        fill_grads(groups, step)
        fill_grads(others, step)
        listing.step()
        reference.step()
    for group, other in zip(groups, others, strict=True):
        for p, q in zip(group, other, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
    assert listing.events["bound"] > 0


@pytest.mark.parametrize("accumulate", [False, True])
def test_the_listings_gradient_clip_does_nothing_to_a_step(accumulate):
    """It comes after the update. Only gradients kept from one step to the next would feel it."""
    results = []
    for max_grad_norm in (20.0, INF):
        groups, listing = published(max_grad_norm=max_grad_norm)
        params = [p for group in groups for p in group if p is not groups[1][-1]]
        for step in range(5):
            kept = [p.grad for p in params]
            fill_grads(groups, step)
            if accumulate and step:
                for p, grad in zip(params, kept, strict=True):
                    p.grad = p.grad + grad
            listing.step()
        norms = [torch.nn.utils.get_total_norm([p.grad for p in group if p.grad is not None]) for group in groups]
        assert all(norm <= 20.001 for norm in norms) == (max_grad_norm == 20.0)  # it has clipped, but too late
        results.append(torch.cat([p.detach().flatten() for p in params]))
    assert torch.equal(*results) != accumulate


def stepped(make, gradient, weight=(1.0, -2.0, 0.0, 3.0)):
    """A tensor after a step with that gradient, and an innocent one beside it."""
    bad, good = (torch.nn.Parameter(torch.tensor([values], dtype=torch.float64)) for values in (weight, (1.0, 1.0)))
    bad.grad, good.grad = torch.tensor([gradient], dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    optimizer = make(SGD([bad, good], lr=0.1))
    optimizer.step()
    assert good.flatten().tolist() == pytest.approx([0.9 * math.exp(0.1 * -2.5)] * 2)
    return bad.flatten().tolist(), optimizer


def test_what_the_listings_nan_tests_skip():
    """A whole tensor loses its multiplicative step, and its norm bound; the NaN is in the weights already."""
    make = partial(PublishedHAM, alpha=2.0, beta=0.5)
    weights, listing = stepped(make, [NAN, 1.0, 1.0, 1.0])
    assert math.isnan(weights[0])
    assert weights[1:] == pytest.approx([-2.1, -0.1, 2.9])  # the base's step alone
    assert listing.events == {"weight": 1}
    # the base leaves -inf, which is no NaN: all tests pass, and the bound multiplies the tensor by 1000 / inf
    weights, listing = stepped(make, [INF, 1.0, 1.0, 1.0])
    assert math.isnan(weights[0])
    assert weights[1:] == [0.0, 0.0, 0.0]
    assert listing.events == {"bound": 1}
    # a frozen zero with an infinite gradient makes an exponent of 0 * inf
    weights, listing = stepped(lambda base: make(Still(base)), [1.0, 1.0, INF, 1.0])
    assert weights == [1.0, -2.0, 0.0, 3.0]
    assert listing.events == {"exponent": 1}


class Still(SGD):
    """A base that moves nothing but the second tensor, as a mask of zeros would."""

    def __init__(self, base):
        super().__init__(base.param_groups[0]["params"], lr=0.1)

    def step(self, closure=None):
        with torch.no_grad():
            self.param_groups[0]["params"][1].sub_(0.1)


@pytest.mark.parametrize("form", ["single", "foreach"])
def test_ham_skips_the_entry_alone(form):
    make = partial(HAM, alpha=2.0, beta=0.5, form=form)
    weights, _ = stepped(make, [NAN, 1.0, 1.0, 1.0])
    assert math.isnan(weights[0])
    up, down = math.exp(0.1 * (2 - 0.5)), math.exp(-0.25)
    assert weights[1:] == pytest.approx([-2.1 * up, -0.1 * up, 2.9 * down])
    weights, _ = stepped(make, [INF, 1.0, 1.0, 1.0])
    assert weights == pytest.approx([-INF, -2.1 * up, -0.1 * up, 2.9 * down])
    weights, _ = stepped(lambda base: make(Still(base)), [1.0, 1.0, INF, 1.0])
    assert weights == pytest.approx([down, -2 * up, 0.0, 3 * down])


def test_which_parameters_of_a_vision_transformer_are_moved():
    """Class token and position embedding have three dimensions: HAM moves them, as the published rule says."""
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=10)
    shapes = {name: p.ndim for name, p in model.named_parameters()}
    assert (shapes["cls_token"], shapes["pos_embed"]) == (3, 3)

    def moved(groups):
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(1.0)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        HAM(SGD(groups, lr=0.0001), alpha=200.0, beta=1000.0).step()
        return {name for name, p in model.named_parameters() if p.detach().flatten()[0] != 1}

    matrices = {name for name, ndim in shapes.items() if ndim >= 2}
    assert moved(model.parameters()) == matrices
    assert matrices >= {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "head.weight"}
    # the way out: what timm itself keeps from weight decay
    apart = model.no_weight_decay()
    assert apart >= {"cls_token", "pos_embed"}
    embeddings = [p for name, p in model.named_parameters() if name in apart]
    rest = [p for name, p in model.named_parameters() if name not in apart]
    assert moved([{"params": rest}, {"params": embeddings, "ham": False}]) == matrices - apart
