"""Models: sizes counted by hand, shapes, libraries behind names, refusals."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from experiments.errors import UserError
from experiments.models import networks, zoo

GREY: dict[str, Any] = {"num_classes": 10, "in_channels": 1, "image_size": 28}
CIFAR: dict[str, Any] = {"num_classes": 10, "in_channels": 3, "image_size": 32}
COLOUR: dict[str, Any] = {"num_classes": 1000, "in_channels": 3, "image_size": 224}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_resnet8_parameters():
    def conv(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + 2 * outputs  # with its batch normalisation

    stem = conv(1, 16, 3)
    first = 2 * conv(16, 16, 3)
    second = conv(16, 32, 3) + conv(32, 32, 3) + conv(16, 32, 1)
    third = conv(32, 64, 3) + conv(64, 64, 3) + conv(32, 64, 1)
    model = zoo.build("resnet8", **GREY)
    assert count(model) == stem + first + second + third + 64 * 10 + 10 == 77_754
    assert sum(p.numel() for p in model.parameters() if p.ndim > 1) == 77_072


def test_mlp_bn_parameters():
    model = zoo.build("mlp_bn", **GREY)
    assert count(model) == 784 * 300 + 2 * 300 + 300 * 100 + 2 * 100 + 100 * 10 + 10 == 267_010
    shapes = [list(p.shape) for p in model.parameters() if p.ndim > 1]
    assert shapes == [[300, 784], [100, 300], [10, 100]]


def test_resnet8_layers_see_the_stated_sizes():
    sizes = []
    model = zoo.build("resnet8", **GREY)
    for module in (model.get_submodule(name) for name in ("conv1", "layer1", "layer2", "layer3")):
        module.register_forward_hook(lambda _module, _inputs, output: sizes.append(list(output.shape[1:])))
    model(torch.zeros(2, 1, 28, 28))
    assert sizes == [[16, 14, 14], [16, 14, 14], [32, 7, 7], [64, 4, 4]]


def test_resnet8_pools_by_the_mean():
    model = zoo.build("resnet8", **GREY)
    seen = []
    model.get_submodule("layer3").register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    logits = model(torch.randn(2, 1, 28, 28))
    pooled = seen[0].flatten(2).sum(dim=2) / 16
    expected = pooled @ model.get_parameter("fc.weight").T + model.get_parameter("fc.bias")
    torch.testing.assert_close(logits, expected)


def test_block_adds_its_input():
    block = networks.BasicBlock(4, 4, stride=1)
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block(x), x.relu())
    wider = networks.BasicBlock(4, 8, stride=2).eval()
    nn.init.zeros_(wider.conv2.weight)
    nn.init.ones_(wider.shortcut.get_parameter("0.weight"))
    expected = x[:, :, ::2, ::2].sum(dim=1, keepdim=True).expand(-1, 8, -1, -1).relu()
    torch.testing.assert_close(wider(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", zoo.MODELS)
@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 28, 10), (3, 32, 7)])
def test_own_models_map_images_to_logits(name: str, channels: int, size: int, classes: int):
    model = zoo.build(name, num_classes=classes, in_channels=channels, image_size=size)
    assert model.training
    logits = model(torch.randn(4, channels, size, size))
    assert logits.shape == (4, classes)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", zoo.MODELS)
def test_own_models_learn(name: str):
    torch.manual_seed(0)
    size = 8 if "18" in name else 28  # the large one on small images
    model = zoo.build(name, **{**GREY, "image_size": size})
    images, labels = torch.randn(20, 1, size, size), torch.arange(20) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model(images).argmax(dim=1) == labels).all()


def test_initialisation_is_torchs_default_and_seeded():
    torch.manual_seed(3)
    first = zoo.build("resnet8", **GREY).state_dict()
    torch.manual_seed(3)
    again = zoo.build("resnet8", **GREY).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    weight = first["layer3.conv2.weight"]
    bound = (64 * 9) ** -0.5  # kaiming_uniform with a = sqrt(5) is uniform within 1 / sqrt(fan in)
    assert float(weight.abs().max()) == pytest.approx(bound, rel=1e-2)
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=2e-2)


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("resnet8", GREY, 77_754),
        ("resnet8_gn", GREY, 77_754),
        ("mlp_bn", GREY, 267_010),
        ("mlp_bn_small", GREY, 81_970),
        ("resnet20", CIFAR, 269_722),
        ("resnet18_cifar", {**CIFAR, "num_classes": 100}, 11_220_132),
        ("torchvision:resnet50", COLOUR, 25_557_032),
        ("timm:resnet50", COLOUR, 25_557_032),
    ],
)
def test_building_without_memory(name: str, shape: dict[str, int], parameters: int):
    with torch.device("meta"):
        model = zoo.build(name, **shape)
    assert count(model) == parameters
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.training


def test_timm_takes_grey_images():
    model = zoo.build("timm:resnet18", **GREY)
    assert model.get_submodule("conv1").weight.shape == (64, 1, 7, 7)
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_check_of_fit_leaves_no_trace():
    model = zoo.build("timm:resnet18", **GREY)
    buffers = dict(model.named_buffers())
    assert float(buffers["bn1.running_mean"].abs().sum()) == 0
    assert int(buffers["bn1.num_batches_tracked"]) == 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


def test_transformers_are_built_for_the_size_of_the_images():
    with torch.device("meta"):
        model = zoo.build("timm:vit_tiny_patch16_224", num_classes=10, in_channels=1, image_size=32)
        assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert model.get_parameter("pos_embed").shape[1] == 1 + 4


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        (
            "resnet9",
            GREY,
            [
                "'resnet9'",
                "resnet8, resnet8_gn, mlp_bn, mlp_bn_small, resnet20, resnet18_cifar, torchvision:NAME",
                "did you mean 'resnet8'",
            ],
        ),
        (":resnet8", GREY, ["is not a model"]),
        ("keras:resnet50", GREY, ["'keras:resnet50'", "torchvision:NAME"]),
        ("torchvision:resnet51", COLOUR, ["torchvision", "did you mean 'resnet50'"]),
        ("torchvision:ResNet50", COLOUR, ["did you mean 'resnet50'"]),
        ("torchvision:fasterrcnn_resnet50_fpn", COLOUR, ["classification"]),
        ("torchvision:", COLOUR, ["''"]),
        ("torchvision:resnet50", GREY, ["3 channels", "has 1", "timm:NAME"]),
        ("torchvision:vit_b_16", {**COLOUR, "image_size": 32}, ["3 x 32 x 32", "224"]),
        ("timm:resnet_50", GREY, ["timm", "did you mean 'resnet50'"]),
        ("timm:hf-hub:timm/resnet50", GREY, ["timm", "hf-hub"]),
        ("timm:xcit_tiny_12_p8_224", GREY, ["1 x 28 x 28", "patch_size"]),
        ("timm:densenet121", GREY, ["1 x 28 x 28", "too small"]),
    ],
)
def test_models_that_cannot_be_are_refused(name: str, shape: dict[str, int], words: list[str]):
    with torch.device("meta"), pytest.raises(UserError) as error:
        zoo.build(name, **shape)
    for word in ["model.name", *words]:
        assert word in f"{error.value.where}: {error.value}"


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_off(name: str):
    with torch.device("meta"):
        model = zoo.build(f"torchvision:{name}", num_classes=10, in_channels=3, image_size=299)
        assert model(torch.zeros(2, 3, 299, 299)).shape == (2, 10)


def test_own_models_import_no_library():
    code = (
        "import sys; from experiments.models import zoo;"
        "zoo.build('resnet8', num_classes=10, in_channels=1, image_size=28);"
        "print([name for name in ('torchvision', 'timm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- networks for CIFAR


def test_resnet20_is_that_of_he_et_al():
    model = zoo.build("resnet20", **CIFAR)
    weighted = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(weighted) == 20  # option A: shortcuts have no weights
    stages = 16 * 16 * 9 * 6, 16 * 32 * 9 + 32 * 32 * 9 * 5, 32 * 64 * 9 + 64 * 64 * 9 * 5
    assert sum(module.weight.numel() for module in weighted) == 3 * 16 * 9 + sum(stages) + 640 == 268_336
    assert count(model) == 268_336 + 2 * (16 * 7 + 32 * 6 + 64 * 6) + 10
    assert count(model) == pytest.approx(0.27e6, rel=1e-2)  # their table 6


def test_resnet18_for_cifar_is_torchvisions_with_another_stem():
    from torchvision.models import resnet18

    own, theirs = zoo.build("resnet18_cifar", **CIFAR), resnet18(num_classes=10)
    assert count(own) == count(theirs) - 64 * 3 * 49 + 64 * 3 * 9
    shapes = [[tuple(p.shape) for p in network.parameters()] for network in (own, theirs)]
    assert sorted(shapes[0][1:]) == sorted(shapes[1][1:])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20", [[16, 32, 32], [32, 16, 16], [64, 8, 8]]),
        ("resnet18_cifar", [[64, 32, 32], [128, 16, 16], [256, 8, 8], [512, 4, 4]]),
    ],
)
def test_stages_halve_the_image_and_the_stem_does_not(name: str, expected: list[list[int]]):
    model = zoo.build(name, **CIFAR)
    sizes = []
    for stage in model.get_submodule("layers"):  # pyright: ignore[reportGeneralTypeIssues]
        stage.register_forward_hook(lambda _module, _inputs, output: sizes.append(list(output.shape[1:])))
    model.get_submodule("conv1").register_forward_hook(lambda _m, _i, output: sizes.append(list(output.shape[1:])))
    model(torch.zeros(2, 3, 32, 32))
    assert sizes == [expected[0], *expected]


def test_the_padded_shortcut_by_hand():
    # every second pixel of each row and column; one new channel before the two old ones and one behind them
    x = torch.arange(32.0).view(1, 2, 4, 4)
    y = networks.PaddedShortcut(2, 4, 2)(x)
    assert y[0, 1].tolist() == [[0, 2], [8, 10]]
    assert y[0, 2].tolist() == [[16, 18], [24, 26]]
    assert not y[0, 0].any()
    assert not y[0, 3].any()


# --- group normalisation


def test_resnet8_gn_has_no_batch_statistics():
    model = zoo.build("resnet8_gn", **GREY)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert [module.num_groups for module in model.modules() if isinstance(module, nn.GroupNorm)] == [8] * 9
    assert dict(model.named_buffers()) == {}
    images = torch.randn(6, 1, 28, 28)
    torch.testing.assert_close(model(images)[:2], model(images[:2]))
    batched = zoo.build("resnet8", **GREY)
    assert not torch.allclose(batched(images)[:2], batched(images[:2]), atol=1e-2)


def test_resnet8_gn_starts_from_the_weights_of_resnet8():
    torch.manual_seed(5)
    one = zoo.build("resnet8", **GREY).state_dict()
    torch.manual_seed(5)
    other = zoo.build("resnet8_gn", **GREY).state_dict()
    assert {key for key in one if "running" not in key and "tracked" not in key} == set(other)
    assert all(torch.equal(one[key], other[key]) for key in other)


# --- options and initialisation


def test_options_reach_the_library():
    with torch.device("meta"):
        narrow = zoo.build("torchvision:resnet50", **COLOUR, options={"width_per_group": 32})
        assert narrow.get_parameter("layer1.0.conv2.weight").shape == (32, 32, 3, 3)
        stem = zoo.build("timm:resnet18", **GREY, options={"stem_width": 32, "stem_type": "deep"})
        assert stem.get_parameter("conv1.0.weight").shape == (32, 1, 3, 3)
    small = {**COLOUR, "image_size": 32}
    for zeroed in (False, True):
        model = zoo.build("torchvision:resnet50", **small, options={"zero_init_residual": zeroed})
        assert float(model.get_parameter("layer3.1.bn3.weight").detach().abs().sum()) == (0 if zeroed else 1024)
        assert float(model.get_parameter("layer3.1.bn2.weight").detach().sum()) == 256


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet8_gn", {"groups": 4}, ["model.options:", "'resnet8_gn' takes no options"]),
        (
            "torchvision:resnet50",
            {"zero_init": True},
            ["model.options.zero_init:", "'torchvision:resnet50' takes no such option", "'zero_init_residual'?"],
        ),
        ("torchvision:resnet50", {"layers": 3}, ["model.options.layers:", "takes no such option"]),
        ("torchvision:resnet50", {"weights": "DEFAULT"}, ["model.options.weights:", "is set by the suite"]),
        ("torchvision:resnet50", {"num_classes": 7}, ["model.options.num_classes:", "is set by the suite"]),
        ("torchvision:googlenet", {"aux_logits": True}, ["model.options.aux_logits:", "is set by the suite"]),
        ("timm:resnet18", {"pretrained": True}, ["model.options.pretrained:", "is set by the suite"]),
        ("timm:resnet18", {"in_chans": 3}, ["model.options.in_chans:", "is set by the suite"]),
        ("timm:resnet18", {"stem_with": 3}, ["model.options.stem_with:", "takes no such option", "'stem_width'?"]),
        ("torchvision:resnet50", {"norm_layer": "batch"}, ["model.name:", "{'norm_layer': 'batch'}", "not callable"]),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, Any], words: list[str]):
    shape = GREY if name.startswith("timm") else COLOUR
    with torch.device("meta"), pytest.raises(UserError) as error:
        zoo.build(name, **shape, options=options)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("init", "convolution", "linear"), [("kaiming_fan_in", 32 * 9, 64), ("kaiming_fan_out", 64 * 9, 10)]
)
def test_initialisation_by_fan(init: Any, convolution: int, linear: int):
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(zoo.build("resnet8", **GREY, init=init).state_dict())
    first, again = drawn
    assert all(torch.equal(first[key], again[key]) for key in first)
    weight, head = first["layer3.conv1.weight"], first["fc.weight"]
    assert float(weight.std()) == pytest.approx((2 / convolution) ** 0.5, rel=2e-2)
    assert float(weight.abs().max()) > 3 * float(weight.std())  # normal, not uniform
    assert float(head.std()) == pytest.approx((2 / linear) ** 0.5, rel=0.1)


def test_initialisation_leaves_the_rest_alone():
    torch.manual_seed(3)
    plain = zoo.build("resnet8", **GREY).state_dict()
    torch.manual_seed(3)
    drawn = zoo.build("resnet8", **GREY, init="kaiming_fan_in").state_dict()
    same = {key for key in plain if torch.equal(plain[key], drawn[key])}
    assert same == {key for key in plain if plain[key].ndim < 2}
    with torch.device("meta"):
        assert zoo.build("torchvision:resnet50", **COLOUR, init="kaiming_fan_in").get_parameter("fc.weight").is_meta
