"""Layer densities against published figures and sums done by hand."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from sparsity.engine.flops import inference_fraction, layer_macs
from sparsity.masking import distributions
from sparsity.masking.budgets import Allocation
from sparsity.masking.distributions import balanced, counts, dense_layers, erk, layer_densities, uniform
from sparsity.options import Infeasible

NO_TIES: Any = None  # a run is asked for draws alone

SPARSITIES = (0.8, 0.9, 0.95)
EXACT = [name for name in distributions.NAMES if name != "balanced_sweep"]  # the sweep misses its target by design


@pytest.fixture(scope="module")
def resnet50() -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Shapes and multiply-adds of ResNet-50, without ever allocating a weight."""
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        model = models.resnet50()
    layers = (torch.nn.Conv2d, torch.nn.Linear)
    shapes = {
        f"{name}.weight": tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, layers)
    }
    return shapes, layer_macs(model, (3, 224, 224))


def overall(shapes: dict[str, tuple[int, ...]], densities: dict[str, float]) -> float:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return sum(densities[name] * size for name, size in sizes.items()) / sum(sizes.values())


# ---- ResNet-50 ------------------------------------------------------------------------------------------------------


def test_resnet50_has_the_published_size(resnet50):
    shapes, macs = resnet50
    assert len(shapes) == 54
    assert sum(math.prod(shape) for shape in shapes.values()) == 25_502_912
    assert sum(macs.values()) == pytest.approx(4.089184e9, rel=1e-6)
    assert list(macs) == list(shapes)


# forced dense; FLOPs (RigL's table: .42 .24 .12); conv1, layer1.0.conv3, fc, layer4.1.conv2
ERK = {
    0.8: (
        "layer1.0.conv1 layer1.0.conv3 layer1.0.downsample.0 layer1.1.conv1 layer1.1.conv3 layer1.2.conv1 "
        "layer1.2.conv3 layer2.0.conv1",
        0.4138,
        (0.8572, 1.0, 0.1482, 0.04347),
    ),
    0.9: ("layer1.0.conv1", 0.2418, (0.4200, 0.9588, 0.0726, 0.02130)),
    0.95: ("", 0.1217, (0.2098, 0.4790, 0.0363, 0.01064)),
}


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_erk_of_resnet50(resnet50, sparsity: float):
    shapes, macs = resnet50
    dense, flops, some = ERK[sparsity]
    densities = erk(shapes, 1 - sparsity)
    assert {name for name, density in densities.items() if density == 1} == {f"{n}.weight" for n in dense.split()}
    assert inference_fraction(macs, densities) == pytest.approx(flops, abs=5e-5)
    names = ("conv1", "layer1.0.conv3", "fc", "layer4.1.conv2")
    assert [densities[f"{name}.weight"] for name in names] == pytest.approx(some, abs=5e-5)
    assert overall(shapes, densities) == pytest.approx(1 - sparsity, rel=1e-12)


@pytest.mark.parametrize(
    ("sparsity", "density", "dense", "flops", "fc"),
    [(0.8, 0.1988, 19, 0.571, 0.061), (0.9, 0.0997, 12, 0.409, 0.027), (0.95, 0.0499, 8, 0.272, 0.012)],
)
def test_balanced_sweep_of_resnet50(resnet50, sparsity: float, density: float, dense: int, flops: float, fc: float):
    shapes, macs = resnet50
    densities = balanced(shapes, 1 - sparsity, resolve=False)
    assert sum(value == 1 for value in densities.values()) == dense
    assert inference_fraction(macs, densities) == pytest.approx(flops, abs=5e-4)
    assert densities["fc.weight"] == pytest.approx(fc, abs=5e-4)
    assert overall(shapes, densities) == pytest.approx(density, abs=5e-5)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_balanced_of_resnet50_meets_the_target(resnet50, sparsity: float):
    shapes, _ = resnet50
    densities = balanced(shapes, 1 - sparsity)
    assert overall(shapes, densities) == pytest.approx(1 - sparsity, rel=1e-12)
    kept = {name: densities[name] * math.prod(shape) for name, shape in shapes.items()}
    share = max(kept.values())
    assert all(densities[name] == 1 or kept[name] == pytest.approx(share) for name in shapes)
    assert all(math.prod(shapes[name]) <= share for name in shapes if densities[name] == 1)


@pytest.mark.parametrize(
    ("dense", "density", "flops"),
    [
        ((), (0.2, 0.1, 0.05), (0.2, 0.1, 0.05)),
        (("conv1",), (0.2003, 0.1003, 0.0504), (0.223, 0.126, 0.077)),
        (("conv1", "fc"), (0.2645, 0.1726, 0.1266), None),
    ],
)
def test_uniform_of_resnet50(resnet50, dense, density, flops):
    shapes, macs = resnet50
    names = [f"{name}.weight" for name in dense]
    for index, sparsity in enumerate(SPARSITIES):
        # the published figures leave the others' density as it is: this much over all layers
        densities = uniform(shapes, density[index], names)
        others = {value for name, value in densities.items() if name not in names}
        assert len(others) == 1
        assert others.pop() == pytest.approx(1 - sparsity, abs=6e-5)
        assert all(densities[name] == 1 for name in names)
        if flops is not None:
            assert inference_fraction(macs, densities) == pytest.approx(flops[index], abs=6e-4)


# ---- small networks, by hand ----------------------------------------------------------------------------------------


def test_erk_by_hand():
    # raw a: 8/16 = .5, b: 20/100 = .2; budget .3 * 116 = 34.8; scale 34.8 / (.5*16 + .2*100) = 34.8 / 28
    densities = erk({"a": (4, 4), "b": (10, 10)}, 0.3)
    assert densities == pytest.approx({"a": 34.8 / 56, "b": 34.8 / 140})


def test_erk_solves_again_after_clipping():
    # raw 1 and .2; scale 31.2 / 24 = 1.3 puts a at 1.3: dense, and b gets what is left, (31.2 - 4) / 100
    assert erk({"a": (2, 2), "b": (10, 10)}, 0.3) == pytest.approx({"a": 1.0, "b": 0.272})


def test_erk_counts_the_kernel():
    # raw: (8+4+3+3) / 288 = .0625 and (10+10)/100 = .2; scale = .1 * 388 / (18 + 20)
    scale = 38.8 / 38
    assert erk({"conv": (8, 4, 3, 3), "fc": (10, 10)}, 0.1) == pytest.approx(
        {"conv": 0.0625 * scale, "fc": 0.2 * scale}
    )


def test_erk_with_a_layer_forced_dense():
    # a takes 16 of the 34.8, b the rest
    assert erk({"a": (4, 4), "b": (10, 10)}, 0.3, dense=["a"]) == pytest.approx({"a": 1.0, "b": 0.188})


def test_uniform_with_a_layer_forced_dense():
    assert uniform({"a": (4, 4), "b": (10, 10)}, 0.3, dense=["a"]) == pytest.approx({"a": 1.0, "b": 0.188})


def test_balanced_by_hand():
    # 555 / 3 = 185 each; 10 and 100 are too small and become dense; the last gets 555 - 110 = 445
    shapes = {"a": (2, 5), "b": (10, 10), "c": (20, 50)}
    assert balanced(shapes, 0.5) == pytest.approx({"a": 1.0, "b": 1.0, "c": 0.445})


def test_balanced_gives_the_sparse_layers_equal_numbers():
    shapes = {"a": (30, 30), "b": (3, 4), "c": (20, 50), "d": (50, 40)}
    densities = balanced(shapes, 0.1)
    kept = {name: densities[name] * math.prod(shape) for name, shape in shapes.items()}
    assert densities["b"] == 1
    assert kept["a"] == pytest.approx(kept["c"])
    assert kept["a"] == pytest.approx(kept["d"])


@pytest.mark.parametrize("name", distributions.NAMES)
def test_density_one_keeps_everything(name: str):
    shapes = {"a": (7, 3), "b": (64, 3, 3, 3), "c": (10, 13)}
    assert counts(shapes, layer_densities(name, shapes, 1.0)) == {"a": 21, "b": 1728, "c": 130}


# ---- counts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "density", "kept"),
    [
        (1000, 0.1, 100),  # (1 - .1) * 1000 is exactly 900 zeros
        (1000, 0.9, 900),  # (1 - .9) * 1000 is 99.99999999999997 in binary, and still means 100 zeros
        (10, 0.25, 3),  # 7.5 zeros are 7
        (10, 0.3, 3),
        (7, 0.5, 4),  # 3.5 zeros are 3
        (3, 0.01, 1),  # 2.97 zeros are 2: no layer is ever emptied
        (5, 1.0, 5),
    ],
)
def test_counts_by_hand(size: int, density: float, kept: int):
    assert counts({"w": (size,)}, {"w": density}) == {"w": kept}


dimension = st.integers(1, 40)
shape = st.one_of(
    st.tuples(dimension, dimension),
    st.tuples(dimension, dimension, st.sampled_from([1, 3, 7]), st.sampled_from([1, 3])),
)
networks = st.lists(shape, min_size=1, max_size=8).map(lambda found: {f"layer{i}": s for i, s in enumerate(found)})


@given(shapes=networks, thousandths=st.integers(1, 1000))
def test_uniform_counts_equal_exact_arithmetic(shapes: dict[str, tuple[int, ...]], thousandths: int):
    sparsity = 1 - Fraction(thousandths, 1000)
    exact = {name: math.prod(s) - math.floor(sparsity * math.prod(s)) for name, s in shapes.items()}
    assert counts(shapes, uniform(shapes, thousandths / 1000)) == exact


@given(shapes=networks, density=st.floats(0.001, 1.0), name=st.sampled_from(EXACT))
def test_every_distribution_meets_its_target(shapes: dict[str, tuple[int, ...]], density: float, name: str):
    densities = layer_densities(name, shapes, density)
    sizes = {layer: math.prod(s) for layer, s in shapes.items()}
    total = sum(sizes.values())
    assert list(densities) == list(shapes)
    assert all(0 < value <= 1 for value in densities.values())
    assert sum(densities[layer] * sizes[layer] for layer in shapes) == pytest.approx(density * total, rel=1e-9)
    kept = counts(shapes, densities)
    # a layer keeps less than one weight more than its share, so the total is within one weight a layer
    assert all(-1e-6 < kept[layer] - densities[layer] * sizes[layer] < 1 for layer in shapes)
    assert -1e-6 < sum(kept.values()) - density * total < len(shapes)


@given(shapes=networks, density=st.floats(0.001, 1.0))
def test_erk_is_proportional_where_it_is_not_dense(shapes: dict[str, tuple[int, ...]], density: float):
    ratios = [
        value * math.prod(shapes[layer]) / sum(shapes[layer])
        for layer, value in erk(shapes, density).items()
        if value < 1
    ]
    assert ratios == pytest.approx(ratios[:1] * len(ratios), rel=1e-9)


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [uniform, erk, balanced])
@pytest.mark.parametrize("density", [0.0, -0.1, 1.1])
def test_refuses_a_density_out_of_range(rule, density: float):
    with pytest.raises(ValueError, match=r"density must lie in \(0, 1\]"):
        rule({"a": (2, 2)}, density)


@pytest.mark.parametrize("rule", [uniform, erk, balanced])
def test_refuses_unknown_layers(rule):
    with pytest.raises(ValueError, match="no such layer: c; layers: a, b"):
        rule({"a": (2, 2), "b": (2, 2)}, 0.9, dense=["c"])


@pytest.mark.parametrize("rule", [uniform, erk, balanced])
def test_refuses_dense_layers_beyond_the_budget(rule):
    with pytest.raises(ValueError, match=r"hold 80\.00% of the weights, more than the density 50\.00% allows"):
        rule({"a": (4, 4), "b": (2, 2)}, 0.5, dense=["a"])


def test_refuses_an_unknown_distribution():
    with pytest.raises(ValueError, match="'ekr' is not a distribution; allowed: uniform, erk, er, balanced"):
        layer_densities("ekr", {"a": (2, 2)}, 0.5)


# ---- Erdős–Rényi without the kernel ---------------------------------------------------------------------------------


def test_er_does_not_count_the_kernel():
    # raw: (8+4)/32 = .375 over 288 weights and (10+10)/100 = .2 over 100; scale = 38.8 / (108 + 20)
    scale = 38.8 / 128
    found = layer_densities("er", {"conv": (8, 4, 3, 3), "fc": (10, 10)}, 0.1)
    assert found == pytest.approx({"conv": 0.375 * scale, "fc": 0.2 * scale})


def test_er_equals_erk_without_convolutions():
    shapes = {"a": (30, 7), "b": (7, 30), "c": (50, 40)}
    assert layer_densities("er", shapes, 0.2) == layer_densities("erk", shapes, 0.2)


# ---- layers left dense ----------------------------------------------------------------------------------------------

THREE = {"a": (4, 4), "b": (10, 8), "c": (2, 2)}


@pytest.mark.parametrize(
    ("which", "names"), [("none", ()), ("first", ("a",)), ("last", ("c",)), ("first_last", ("a", "c"))]
)
def test_dense_layers(which: str, names: tuple[str, ...]):
    assert dense_layers(THREE, which) == names


def test_dense_layers_must_leave_one():
    with pytest.raises(Infeasible, match="dense: first_last leaves no layer to prune in a network of 2"):
        dense_layers({"a": (4, 4), "b": (10, 8)}, "first_last")
    with pytest.raises(Infeasible, match="dense: last leaves no layer to prune in a network of 1"):
        dense_layers({"a": (4, 4)}, "last")
    with pytest.raises(ValueError, match="'frist' does not name dense layers; allowed: none, first, last, first_last"):
        dense_layers(THREE, "frist")


@pytest.mark.parametrize("name", EXACT)
def test_others_pay_for_dense_layers_or_do_not(name: str):
    # 16 + 80 + 4 weights; 40 % are 40, of which 20 are dense and 20 of 80 are left
    assert layer_densities(name, THREE, 0.4, ("a", "c")) == pytest.approx({"a": 1, "b": 0.25, "c": 1})
    alone = layer_densities(name, THREE, 0.4, ("a", "c"), rebudget=False)
    assert alone == pytest.approx({"a": 1, "b": 0.4, "c": 1})


@pytest.mark.parametrize(
    ("which", "density", "flops"),
    [("first", (0.2003, 0.1003, 0.0504), (0.223, 0.126, 0.077)), ("first_last", (0.2645, 0.1726, 0.1266), None)],
)
def test_resnet50_without_a_new_budget(resnet50, which: str, density, flops):
    shapes, macs = resnet50
    for index, sparsity in enumerate(SPARSITIES):
        densities = layer_densities("uniform", shapes, 1 - sparsity, dense_layers(shapes, which), rebudget=False)
        assert overall(shapes, densities) == pytest.approx(density[index], abs=5e-5)
        if flops is not None:
            assert inference_fraction(macs, densities) == pytest.approx(flops[index], abs=6e-4)


# ---- the options that topologies share ------------------------------------------------------------------------------


@given(
    shapes=networks,
    sparsity=st.floats(0.0, 0.99),
    which=st.sampled_from(distributions.DENSE),
    rebudget=st.booleans(),
    allocation=st.sampled_from(("global", *EXACT)),
    share=st.floats(0, 1),
)
def test_an_allocation_selects_as_many_as_it_states(shapes, sparsity, which, rebudget, allocation, share):
    options = Allocation(dense=which, rebudget=rebudget, allocation=allocation)
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    try:
        stated = options.total(shapes, sparsity)
    except Infeasible:
        assume(False)
        raise
    final, early = (options.select(NO_TIES, scores, sparsity, part) for part in (1.0, share))
    assert sum(final.num_active().values()) == stated
    for name, mask in final.items():
        assert not bool((mask & ~early[name]).any())  # what is gone early is gone in the end
        if name in dense_layers(shapes, which):
            assert bool(mask.all())
    total = sum(math.prod(shape) for shape in shapes.values())
    if rebudget:
        assert -1e-6 <= stated - (1 - sparsity) * total < len(shapes)
