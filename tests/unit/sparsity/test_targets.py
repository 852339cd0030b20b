"""What can be pruned is pruned and counted, or named; what a mask would miss is refused."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.layers import Conv2dSame, ScaledStdConv2d, StdConv2d
from torch import nn
from torch.nn.utils import prune

import sparsity
from sparsity import registry
from sparsity.engine.flops import layer_macs
from sparsity.masking.distributions import dense_layers
from sparsity.options import OptionError
from sparsity.targets import targets, uncounted


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))


def attached(model: nn.Module, topology: str = "random", **options) -> sparsity.SparseTraining:
    found = sparsity.representation.of(model)
    groups = found.param_groups() if found else [p for p in model.parameters() if p.requires_grad]
    settings = {"sparsity": 0.8, "total_steps": 20, **options}
    return sparsity.attach(topology, model, torch.optim.SGD(groups, lr=0.05, momentum=0.9), **settings)


# ---- attention ------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """One attention layer between an input layer and a head."""

    def __init__(self, **options):
        super().__init__()
        self.a = nn.MultiheadAttention(12, 3, batch_first=True, **options)
        self.h = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(-1, 4, 12)
        return self.h(self.a(x, x, x, need_weights=False)[0].mean(1))


PACKED = ["a.in_proj_weight.q", "a.in_proj_weight.k", "a.in_proj_weight.v", "a.out_proj.weight", "h.weight"]


def test_a_packed_projection_is_three_matrices():
    assert [target.name for target in targets(Attention())] == PACKED
    apart = ["a.q_proj_weight", "a.k_proj_weight", "a.v_proj_weight", "a.out_proj.weight", "h.weight"]
    assert [target.name for target in targets(Attention(kdim=12, vdim=12))] == PACKED
    assert [target.name for target in targets(nn.MultiheadAttention(12, 3, kdim=8))] == [
        name.removeprefix("a.") for name in apart[:-1]
    ]


@pytest.mark.parametrize(
    ("topology", "representation"),
    [
        (topology, representation)
        for topology in ["random", "rigl", "set", "acdc", "gmp", "lrr", "snip", "grasp"]
        for representation in registry.representations()
        if registry.refusal(topology, representation) is None
    ],
)
def test_attention_trains_like_three_layers(topology: str, representation: str):
    """The same weights in three linear layers take the same steps, with momentum, masks and moments."""
    torch.manual_seed(1)
    packed, apart = Attention().double(), Apart().double()
    apart.take(packed)
    runs = []
    for model in (packed, apart):
        rep = sparsity.represent(model, representation, **({"pruned_m": 1.0} if representation == "product" else {}))
        options = {"update_every": 3} if topology in ("rigl", "set", "gmp") else {}
        options |= {"prune_fraction": 0.5} if topology == "lrr" else {}
        options |= {"per_class": 2} if topology == "grasp" else {}
        needs = registry.topology(topology).needs_probe
        optimizer = torch.optim.SGD(rep.param_groups(weight_decay=1e-3), lr=0.05, momentum=0.9)
        runs.append(
            (
                model,
                sparsity.attach(
                    topology,
                    model,
                    optimizer,
                    sparsity=0.6,
                    total_steps=10,
                    steps_per_epoch=2,
                    seed=3,
                    probe=probe() if needs else None,
                    **options,
                ),
            )
        )
    for step in range(runs[0][1].total_steps):
        for model, sparse in runs:
            x, y = batch(step)
            sparse.optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            sparse.step(metrics=lambda: {"train_accuracy": 0.5})
            if sparse.level_ended:
                sparse.next_level()
    (packed, one), (apart, other) = runs
    renamed = dict(zip(PACKED, one.masks, strict=True))
    assert list(renamed) == PACKED
    for name, twin in zip(PACKED, other.masks, strict=True):
        if topology not in ("random", "rigl", "set"):  # whose draws go by the layer's name
            assert torch.equal(one.masks[name], other.masks[twin]), name
    if topology in ("random", "rigl", "set"):
        assert sum(one.finalize().values()) == sum(other.finalize().values())
        return
    if representation == "str":
        return  # one threshold for the packed parameter, three for three layers
    theirs = dict(other.representation.weights())
    for (_, weight), twin in zip(one.representation.weights(), theirs, strict=True):
        torch.testing.assert_close(weight, theirs[twin], rtol=1e-9, atol=1e-12)
    counts = one.finalize()
    assert sum(counts.values()) == sum(other.finalize().values())
    whole = packed.get_parameter("a.in_proj_weight")
    assert int((whole != 0).sum()) == sum(counts[name] for name in PACKED[:3])


class Apart(nn.Module):
    """Attention of three heads out of linear layers."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))
        self.h = nn.Linear(12, 5)

    def take(self, packed: Attention) -> None:
        state = packed.state_dict()
        weights, biases = state["a.in_proj_weight"].chunk(3), state["a.in_proj_bias"].chunk(3)
        with torch.no_grad():
            for layer, weight, bias in zip((self.q, self.k, self.v), weights, biases, strict=True):
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
            for layer, name in ((self.o, "a.out_proj"), (self.h, "h")):
                layer.weight.copy_(state[f"{name}.weight"])
                layer.bias.copy_(state[f"{name}.bias"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(-1, 4, 12)
        q, k, v = (layer(x).view(-1, 4, 3, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 4, 12)
        return self.h(self.o(mixed).mean(1))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(10, 48, generator=generator, dtype=torch.float64), torch.arange(10) % 5


def probe() -> sparsity.Probe:
    return sparsity.Probe(lambda: iter([batch(99)]), nn.functional.cross_entropy, (48,), num_classes=5)


def test_attention_with_other_keys_counts_the_part_that_each_length_takes():
    class Cross(Attention):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.view(-1, 4, 12)
            return self.h(self.a(x[:, :1], x, x, need_weights=False)[0].mean(1))

    assert list(layer_macs(Cross(), (48,)).values()) == [144, 4 * 144, 4 * 144, 144, 60]
    assert list(layer_macs(Attention(), (48,)).values()) == [4 * 144] * 4 + [60]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("vit_b_16", "vit_base_patch16_224"), ("swin_t", "swin_tiny_patch4_window7_224"), ("resnet50", "resnet50")],
)
def test_torchvision_counts_as_timm(ours: str, theirs: str):
    with torch.device("meta"):
        models = torchvision.models.get_model(ours, weights=None), timm.create_model(theirs)
        counts = [sum(target.weight.numel() for target in targets(model)) for model in models]
        macs = [sum(layer_macs(model, (3, 224, 224)).values()) for model in models]
    assert counts[0] == counts[1]
    assert macs[0] == macs[1]


# ---- what is left out is named --------------------------------------------------------------------------------------


def test_matrices_outside_the_count_are_named_once(caplog: pytest.LogCaptureFixture):
    class Tokens(Attention):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 4, 12))
            self.scale = nn.Parameter(torch.zeros(12, 1, 1))  # no matrix
            self.words = nn.Embedding(7, 12)
            self.frozen = nn.Linear(12, 12)
            self.frozen.weight.requires_grad_(False)

    model = Tokens()
    assert uncounted(model, targets(model)) == {"position": 48, "words.weight": 84, "frozen.weight (frozen)": 144}
    attached(model, sparsity=0.5)
    (said,) = [record.getMessage() for record in caplog.records]
    # 4 * 144 + 60 are counted
    assert said == (
        "not pruned and not counted: position (5.3 %), words.weight (9.2 %), frozen.weight (frozen) (16 %) of all "
        "matrices"
    )


def test_nothing_is_said_of_an_ordinary_network(caplog: pytest.LogCaptureFixture):
    attached(mlp())
    assert not caplog.records


@pytest.mark.parametrize("topology", registry.topologies())
def test_a_frozen_layer_is_left_alone(topology: str):
    model = mlp()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    options = {"update_every": 5} if topology in ("rigl", "set", "granet", "snfs", "mest", "gmp") else {}
    options |= {"unit": "step"} if topology in ("snfs", "mest") else {}
    options |= {"per_class": 1} if topology == "grasp" else {}
    data = [(torch.randn(10, 20), torch.arange(10) % 5)]
    given = sparsity.Probe(lambda: iter(data), nn.functional.cross_entropy, (20,), num_classes=5)
    sparse = attached(
        model,
        topology,
        steps_per_epoch=5,
        sparsity=0.5,
        probe=given if registry.topology(topology).needs_probe else None,
        **options,
    )
    assert "0.weight" not in sparse.masks
    for _ in range(sparse.total_steps):
        sparse.optimizer.zero_grad()
        nn.functional.cross_entropy(model(data[0][0]), data[0][1]).backward()
        sparse.step()
        if sparse.level_ended:
            sparse.next_level()
    assert "0.weight" not in sparse.finalize()
    assert torch.equal(model[0].weight, before)


def test_a_network_that_is_frozen_has_nothing_to_prune():
    with pytest.raises(ValueError, match="no linear layer that is not frozen"):
        targets(mlp().requires_grad_(False))


# ---- masks would act on another tensor ------------------------------------------------------------------------------

FOREIGN: dict[str, Callable[[nn.Module], object]] = {
    "weight_norm": nn.utils.weight_norm,
    "spectral_norm": nn.utils.spectral_norm,
    "parametrizations.weight_norm": nn.utils.parametrizations.weight_norm,
    "parametrizations.spectral_norm": nn.utils.parametrizations.spectral_norm,
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
}


@pytest.mark.parametrize("representation", ["plain", "product"])
@pytest.mark.parametrize("name", FOREIGN)
def test_weights_that_another_library_makes_are_refused_by_name(name: str, representation: str):
    model = mlp()
    FOREIGN[name](model[2])
    with pytest.raises(ValueError, match=r"2\.weight .*(remove|removed)"):
        sparsity.represent(model, representation)
    with pytest.raises(ValueError, match=r"2\.weight"):
        attached(model)


def test_attention_with_a_normalised_projection_is_refused():
    model = Attention()
    nn.utils.parametrizations.weight_norm(model.a, "in_proj_weight")
    with pytest.raises(ValueError, match="in_proj_weight"):
        attached(model)


@pytest.mark.parametrize("kind", [ScaledStdConv2d, StdConv2d])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_standardised_convolutions_are_refused(kind: type[nn.Module], device: str):
    with torch.device(device):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), kind(4, 8, 3))
    with pytest.raises(ValueError, match=rf"1\.weight: the forward pass of {kind.__name__} multiplies by another"):
        targets(model)


class Noisy(nn.Linear):
    """A subclass with a forward pass of its own that keeps zeros."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input, self.weight * 2, self.bias).clamp(max=6)


class Transposed(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input @ self.weight.t()


class Centred(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input, self.weight - self.weight.mean(), self.bias)


class Second(nn.Linear):
    def forward(self, input: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input + other, self.weight)


@pytest.mark.parametrize("layer", [Noisy(4, 4), Transposed(4, 4), Conv2dSame(3, 4, 3, stride=2), nn.Linear(4, 4)])
def test_harmless_subclasses_are_accepted(layer: nn.Module, caplog: pytest.LogCaptureFixture):
    before = copy.deepcopy(layer.state_dict())
    assert len(targets(nn.Sequential(layer))) == 1
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert not caplog.records


def test_a_forward_pass_of_ones_own_is_looked_at(caplog: pytest.LogCaptureFixture):
    with pytest.raises(ValueError, match=r"0\.weight: the forward pass of Centred"):
        targets(nn.Sequential(Centred(4, 4)))
    targets(nn.Sequential(Second(4, 4)))
    assert "0.weight: the forward pass of Second could not be tried alone" in caplog.text


def test_each_layer_of_a_class_is_looked_at_in_both_modes():
    class Flag(nn.Linear):
        def __init__(self, *sizes: int, when: str):
            super().__init__(*sizes)
            self.when = when

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            centred = self.when == "always" or (self.when == "training" and self.training)
            weight = self.weight - self.weight.mean(1, keepdim=True) if centred else self.weight
            return nn.functional.linear(input, weight, self.bias)

    targets(nn.Sequential(Flag(4, 4, when="never"), Flag(4, 4, when="never")))
    for when in ("always", "training"):
        with pytest.raises(ValueError, match=r"1\.weight: the forward pass of Flag"):
            targets(nn.Sequential(Flag(4, 4, when="never"), Flag(4, 4, when=when)))


def test_layers_made_on_the_meta_device_are_looked_at(caplog: pytest.LogCaptureFixture):
    with torch.device("meta"):
        targets(nn.Sequential(Conv2dSame(3, 4, 3)))
        with pytest.raises(ValueError, match="multiplies by another"):
            targets(nn.Sequential(ScaledStdConv2d(4, 8, 3)))
    assert not caplog.records


def test_a_layer_without_a_shape_is_refused():
    with pytest.raises(ValueError, match=r"0\.weight has no shape yet"):
        targets(nn.Sequential(nn.LazyLinear(3)))


# ---- names and roles ------------------------------------------------------------------------------------------------


class HeadFirst(nn.Module):
    """The head is registered first."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 5)
        self.body = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu())


class Branching(HeadFirst):
    """Its forward pass cannot be traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def test_first_and_last_are_roles():
    sparse = attached(HeadFirst(), dense="first_last", sparsity=0.3, allocation="uniform")
    assert [name for name, density in sparse.masks.densities().items() if density == 1] == [
        "head.weight",
        "body.0.weight",
    ]


def test_the_classifier_of_str_is_the_layer_called_last():
    rep = sparsity.represent(HeadFirst(), "str", classifier=False)
    assert [slot.parameters[1].requires_grad for slot in rep.slots.values()] == [False, True, True]


def test_a_role_that_cannot_be_traced_is_refused():
    with pytest.raises(OptionError) as caught:
        attached(Branching(), dense="last", sparsity=0.2)
    assert str(caught.value) == (
        "dense: which layer is last cannot be told, since the forward pass cannot be followed without data "
        "(TraceError); name the layers that stay dense, such as dense: [head]"
    )
    sparse = attached(Branching(), dense=["head"], sparsity=0.3)
    assert sparse.masks.densities()["head.weight"] == 1
    with pytest.raises(OptionError, match="classifier: false, but which layer is last cannot be told"):
        sparsity.represent(Branching(), "str", classifier=False)


class Cosine(HeadFirst):
    """Reads the weight of its head, and normalises it."""

    def forward(self, x: torch.Tensor, scale: float | None = None) -> torch.Tensor:
        x = nn.functional.linear(self.body(x), nn.functional.normalize(self.head.weight))
        return x if scale is None else scale * x


class Tied(nn.Module):
    """Multiplies by the weight of its only encoder again at the end."""

    def __init__(self):
        super().__init__()
        self.inner, self.encoder = nn.Linear(20, 20), nn.Linear(20, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.inner(self.encoder(x).relu()), self.encoder.weight.t())


class Auxiliary(HeadFirst):
    """A side head is called after the classifier: its output is returned, or dropped, or it has one in training."""

    returned = "both"

    def __init__(self):
        super().__init__()
        self.side = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> Any:
        hidden = self.body(x)
        main, side = self.head(hidden), self.side(hidden)
        alone = self.returned == "main" or (self.returned == "in training" and not self.training)
        return main if alone else (main, side)


def roles(model: nn.Module, representation: str = "plain") -> list[str]:
    rep = sparsity.represent(model, representation)
    return [rep.called(role) for role in ("first", "last")]


@pytest.mark.parametrize("representation", ["plain", "product"])
def test_a_head_that_is_not_called_has_its_role(representation: str):
    assert roles(Cosine(), representation) == ["body.0.weight", "head.weight"]


def test_compiled_parts_have_their_roles():
    model = HeadFirst()
    model.body = torch.compile(model.body)  # pyright: ignore
    assert roles(model) == ["body.0.weight", "head.weight"]
    model = HeadFirst()
    model.head.compile()
    assert roles(model) == ["body.0.weight", "head.weight"]


def test_a_layer_that_is_first_and_last_is_refused_for_both_alone():
    assert roles(Tied()) == ["encoder.weight", "encoder.weight"]
    assert attached(Tied(), dense="first", sparsity=0.3).masks.densities()["encoder.weight"] == 1
    assert attached(Tied(), dense="last", sparsity=0.3).masks.densities()["encoder.weight"] == 1
    with pytest.raises(OptionError, match=r"encoder\.weight is the first layer and the last: name the layers"):
        attached(Tied(), dense="first_last", sparsity=0.3)


@pytest.mark.parametrize("returned", ["main", "in training"])
def test_a_side_head_is_not_the_last_layer(returned: str):
    model = Auxiliary()
    model.returned = returned
    assert roles(model) == ["body.0.weight", "head.weight"]


def test_two_heads_have_no_last_layer():
    words = r"^dense: .*last cannot be told: head\.weight, side\.weight are all last; name the layers"
    with pytest.raises(OptionError, match=words):
        attached(Auxiliary(), dense="last", sparsity=0.2)
    attached(Auxiliary(), dense="first", sparsity=0.2)
    attached(Auxiliary(), dense=["head"], sparsity=0.2)


def test_a_residual_around_the_last_layer_does_not_make_two():
    class Residual(HeadFirst):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.body(x)
            return hidden[:, :5] + self.head(hidden)

    assert roles(Residual()) == ["body.0.weight", "head.weight"]


class Changed(HeadFirst):
    """Multiplies by a copy of its head's weight."""

    change: Any

    def __init__(self):
        super().__init__()
        self.low, self.rank = nn.Parameter(torch.zeros(5, 2)), nn.Parameter(torch.ones(2, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.body(x), type(self).change(self.head.weight))


KEEPING = {
    "as it is": lambda w: w,
    "normalised": nn.functional.normalize,
    "scaled": lambda w: 2 * w / w.norm(dim=1, keepdim=True),
    "cast": lambda w: w.to(torch.float64).float(),
    "turned": lambda w: w.t().contiguous().t(),
    "rounded": lambda w: (w * 8).round() / 8,
}
FILLING = {
    "centred": lambda w: w - w.mean(dim=1, keepdim=True),
    "shifted": lambda w: w + 0.1,
    "softmax": lambda w: torch.softmax(w, dim=1),
    "cosine": lambda w: w.cos(),
}


@pytest.mark.parametrize("representation", ["plain", "product"])
@pytest.mark.parametrize("change", [*KEEPING, *FILLING])
def test_a_copy_of_a_weight_that_fills_its_zeros_is_refused(change: str, representation: str):
    model = type("Now", (Changed,), {"change": staticmethod({**KEEPING, **FILLING}[change])})()
    sparsity.represent(model, representation)
    if change in KEEPING:
        attached(model, sparsity=0.5)
        return
    with pytest.raises(
        ValueError, match=r"^head\.weight: the forward pass reads it and multiplies by a tensor computed"
    ):
        attached(model, sparsity=0.5)


def test_tracing_changes_nothing():
    class Counting(HeadFirst):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(x)

    model = Counting()
    seen: list[Any] = []
    model.head.register_forward_hook(lambda *call: seen.append(call))
    model.register_forward_pre_hook(lambda *call: seen.append(call))
    attached(model, dense="last", sparsity=0.3)
    assert model.calls == 0
    assert seen == []


def test_tracing_draws_nothing():
    class Drawing(HeadFirst):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * float(torch.rand(1)) * random.random()

    model = Drawing()
    sparsity.represent(model)
    before = torch.random.get_rng_state(), random.getstate()
    attached(model, dense="last", sparsity=0.3)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]


NAMES = {
    "stem.weight": (4, 3),
    "blocks.0.conv_dw.weight": (4, 4),
    "blocks.1.conv_dw.weight": (4, 4),
    "head.weight": (5, 4),
}


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (["head"], ["head.weight"]),
        (["head.weight"], ["head.weight"]),
        (["*.conv_dw"], ["blocks.0.conv_dw.weight", "blocks.1.conv_dw.weight"]),
        (["blocks.0", "stem"], ["stem.weight", "blocks.0.conv_dw.weight"]),
        (["blocks"], ["blocks.0.conv_dw.weight", "blocks.1.conv_dw.weight"]),
    ],
)
def test_layers_by_name_or_pattern(which: list[str], expected: list[str]):
    assert list(dense_layers(NAMES, which)) == expected


def test_a_pattern_that_matches_nothing_is_an_error_with_near_names():
    with pytest.raises(sparsity.OptionError, match=r"dense: 'haed' matches no layer; did you mean 'head'\?"):
        dense_layers(NAMES, ["head", "haed"])
    with pytest.raises(sparsity.OptionError, match="'q\\*' matches no layer; layers: stem, blocks.0.conv_dw, "):
        dense_layers(NAMES, ["q*"])
    with pytest.raises(sparsity.Infeasible, match="leaves no layer to prune"):
        dense_layers(NAMES, ["*"])


@pytest.mark.parametrize("value", [[], [""], [3], "head", {"a": 1}])
def test_what_dense_may_be(value: object):
    with pytest.raises(sparsity.OptionError, match=re.compile("dense: .*(is not|not of type)")):
        attached(mlp(), dense=value)


def test_a_child_called_module_hides_no_sibling():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Sequential(nn.Linear(20, 20))
            self.add_module("0", nn.Linear(20, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return getattr(self, "0")(self.module(x))

    assert list(attached(Two()).masks) == ["module.0.weight", "0.weight"]
    assert list(attached(nn.DataParallel(Two())).masks) == ["module.0.weight", "0.weight"]
