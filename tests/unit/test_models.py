"""Models: sizes counted by hand, shapes, libraries behind names, refusals."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from experiments import models
from experiments.errors import UserError

GREY: dict[str, Any] = {"num_classes": 10, "in_channels": 1, "image_size": 28}
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
    model = models.build("resnet8", **GREY)
    assert count(model) == stem + first + second + third + 64 * 10 + 10 == 77_754
    assert sum(p.numel() for p in model.parameters() if p.ndim > 1) == 77_072


def test_mlp_bn_parameters():
    model = models.build("mlp_bn", **GREY)
    assert count(model) == 784 * 300 + 2 * 300 + 300 * 100 + 2 * 100 + 100 * 10 + 10 == 267_010
    shapes = [list(p.shape) for p in model.parameters() if p.ndim > 1]
    assert shapes == [[300, 784], [100, 300], [10, 100]]


def test_resnet8_layers_see_the_stated_sizes():
    sizes = []
    model = models.build("resnet8", **GREY)
    for module in (model.get_submodule(name) for name in ("conv1", "layer1", "layer2", "layer3")):
        module.register_forward_hook(lambda _module, _inputs, output: sizes.append(list(output.shape[1:])))
    model(torch.zeros(2, 1, 28, 28))
    assert sizes == [[16, 14, 14], [16, 14, 14], [32, 7, 7], [64, 4, 4]]


def test_resnet8_pools_by_the_mean():
    model = models.build("resnet8", **GREY)
    seen = []
    model.get_submodule("layer3").register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    logits = model(torch.randn(2, 1, 28, 28))
    pooled = seen[0].flatten(2).sum(dim=2) / 16
    expected = pooled @ model.get_parameter("fc.weight").T + model.get_parameter("fc.bias")
    torch.testing.assert_close(logits, expected)


def test_block_adds_its_input():
    block = models.BasicBlock(4, 4, stride=1)
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block(x), x.relu())
    wider = models.BasicBlock(4, 8, stride=2).eval()
    nn.init.zeros_(wider.conv2.weight)
    nn.init.ones_(wider.shortcut.get_parameter("0.weight"))
    expected = x[:, :, ::2, ::2].sum(dim=1, keepdim=True).expand(-1, 8, -1, -1).relu()
    torch.testing.assert_close(wider(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 28, 10), (3, 32, 7)])
def test_own_models_map_images_to_logits(name: str, channels: int, size: int, classes: int):
    model = models.build(name, num_classes=classes, in_channels=channels, image_size=size)
    assert model.training
    logits = model(torch.randn(4, channels, size, size))
    assert logits.shape == (4, classes)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", models.MODELS)
def test_own_models_learn(name: str):
    torch.manual_seed(0)
    model = models.build(name, **GREY)
    images, labels = torch.randn(20, 1, 28, 28), torch.arange(20) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model(images).argmax(dim=1) == labels).all()


def test_initialisation_is_torchs_default_and_seeded():
    torch.manual_seed(3)
    first = models.build("resnet8", **GREY).state_dict()
    torch.manual_seed(3)
    again = models.build("resnet8", **GREY).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    weight = first["layer3.conv2.weight"]
    bound = (64 * 9) ** -0.5  # kaiming_uniform with a = sqrt(5) is uniform within 1 / sqrt(fan in)
    assert float(weight.abs().max()) == pytest.approx(bound, rel=1e-2)
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=2e-2)


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("resnet8", GREY, 77_754),
        ("mlp_bn", GREY, 267_010),
        ("torchvision:resnet50", COLOUR, 25_557_032),
        ("timm:resnet50", COLOUR, 25_557_032),
    ],
)
def test_building_without_memory(name: str, shape: dict[str, int], parameters: int):
    with torch.device("meta"):
        model = models.build(name, **shape)
    assert count(model) == parameters
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.training


def test_timm_takes_grey_images():
    model = models.build("timm:resnet18", **GREY)
    assert model.get_submodule("conv1").weight.shape == (64, 1, 7, 7)
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_check_of_fit_leaves_no_trace():
    model = models.build("timm:resnet18", **GREY)
    buffers = dict(model.named_buffers())
    assert float(buffers["bn1.running_mean"].abs().sum()) == 0
    assert int(buffers["bn1.num_batches_tracked"]) == 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


def test_transformers_are_built_for_the_size_of_the_images():
    with torch.device("meta"):
        model = models.build("timm:vit_tiny_patch16_224", num_classes=10, in_channels=1, image_size=32)
        assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert model.get_parameter("pos_embed").shape[1] == 1 + 4


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("resnet9", GREY, ["'resnet9'", "resnet8, mlp_bn, torchvision:NAME, timm:NAME", "did you mean 'resnet8'"]),
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
        models.build(name, **shape)
    for word in ["model.name", *words]:
        assert word in f"{error.value.where}: {error.value}"


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_off(name: str):
    with torch.device("meta"):
        model = models.build(f"torchvision:{name}", num_classes=10, in_channels=3, image_size=299)
        assert model(torch.zeros(2, 3, 299, 299)).shape == (2, 10)


def test_own_models_import_no_library():
    code = (
        "import sys; from experiments import models;"
        "models.build('resnet8', num_classes=10, in_channels=1, image_size=28);"
        "print([name for name in ('torchvision', 'timm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
