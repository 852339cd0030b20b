"""Models by name: two small ones of our own, and those of torchvision and timm without pretrained weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.errors import UserError, nearest

_KEY = "model.name"
_Create = Callable[[int], nn.Module]  # number of classes -> model


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016, arXiv:1512.03385, figure 5, left).

    Where the shape changes, the shortcut is a 1x1 convolution with batch normalisation (their option B).

    Args:
        inputs: Input channels.
        outputs: Output channels.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


class ResNet8(nn.Module):
    """A residual network small enough for a CPU: 77,754 parameters for ten classes of grey images.

    A 3x3 stem of stride 2 (no pooling), one basic block each of 16, 32 and 64 channels, the latter two of stride 2,
    global average pooling, a linear layer. Convolutions keep torch's default initialisation.
    """

    def __init__(self, *, num_classes: int, in_channels: int, image_size: int):
        super().__init__()
        del image_size  # pooled away
        self.conv1 = nn.Conv2d(in_channels, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = BasicBlock(16, 16, stride=1)
        self.layer2 = BasicBlock(16, 32, stride=2)
        self.layer3 = BasicBlock(32, 64, stride=2)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to logits [N, num_classes]."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.layer3(self.layer2(self.layer1(y)))
        return self.fc(y.mean(dim=(2, 3)))


class MlpBn(nn.Sequential):
    """LeNet-300-100 with batch normalisation: 267,010 parameters for ten classes of 28x28 grey images.

    The layers before a normalisation have no bias, since it would cancel.
    """

    def __init__(self, *, num_classes: int, in_channels: int, image_size: int):
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(in_channels * image_size**2, 300, bias=False)
        self.bn1 = nn.BatchNorm1d(300)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(300, 100, bias=False)
        self.bn2 = nn.BatchNorm1d(100)
        self.relu2 = nn.ReLU()
        self.fc3 = nn.Linear(100, num_classes)


MODELS: dict[str, Callable[..., nn.Module]] = {"resnet8": ResNet8, "mlp_bn": MlpBn}


def build(name: str, *, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Build a freshly initialised classifier; also under ``torch.device("meta")``.

    Args:
        name: A key of `MODELS`, ``torchvision:NAME`` (its classification models) or ``timm:NAME``.
        num_classes: Number of logits.
        in_channels: Channels of an image; torchvision's models take 3 only.
        image_size: Height and width of an image in pixels.

    Returns:
        A module in training mode that maps [N, in_channels, image_size, image_size] to [N, num_classes].

    Raises:
        UserError: for an unknown name or a model that does not fit the images.
    """
    shape = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    if name in MODELS:
        return MODELS[name](**shape)
    library, _, inner = name.partition(":")
    if library not in _LIBRARIES:
        allowed = [*MODELS, *(f"{prefix}:NAME" for prefix in _LIBRARIES)]
        raise UserError(
            f"{name!r} is not a model; allowed: {', '.join(allowed)}{nearest(name.lower(), MODELS)}", where=_KEY
        )
    create = _LIBRARIES[library](inner, in_channels, image_size)
    try:
        model = create(num_classes)
        fault = _fault(model, **shape)
        if fault is None:
            return model
    except NotImplementedError:  # an operation that the meta device lacks says nothing about the model
        raise
    except _MISFITS as error:
        fault = f"{error}".strip().split("\n")[0] or type(error).__name__
    images = f"{in_channels} x {image_size} x {image_size}"
    raise UserError(f"{name!r} does not fit images of {images}: {fault}", where=_KEY)


# What libraries raise, in construction or in a first pass, where images are too small for a model or do not divide.
_MISFITS = (RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, IndexError)


def _fault(model: nn.Module, *, num_classes: int, in_channels: int, image_size: int) -> str | None:
    """Run one image through, for otherwise the mismatch shows as a traceback from deep inside a library."""
    parameter = next(model.parameters())
    image = torch.zeros(1, in_channels, image_size, image_size, device=parameter.device)
    model.eval()  # leaves batch statistics alone
    with torch.no_grad():
        logits = model(image)
    model.train()
    if isinstance(logits, Tensor) and logits.shape == (1, num_classes):
        return None
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    return f"it returns {shape} where logits of [1, {num_classes}] are expected"


def _torchvision(name: str, in_channels: int, image_size: int) -> _Create:
    from torchvision import models

    _check_name("torchvision", name, models.list_models(module=models))
    if in_channels != 3:
        raise UserError(
            f"'torchvision:{name}' takes images of 3 channels, but the data has {in_channels}; "
            f"use {', '.join(MODELS)} or timm:NAME",
            where=_KEY,
        )
    # These two return tuples in training unless told not to, and warn unless init_weights is said.
    extra = {"aux_logits": False, "init_weights": True} if name in {"googlenet", "inception_v3"} else {}
    return lambda num_classes: models.get_model(name, weights=None, num_classes=num_classes, **extra)


def _timm(name: str, in_channels: int, image_size: int) -> _Create:
    import timm

    _check_name("timm", name, timm.list_models())
    config = timm.models.get_pretrained_cfg(name)
    # Transformers and their kin are built for one size, 224 unless told; the others do not know the argument.
    sized: dict[str, Any] = {"img_size": image_size} if config and config.fixed_input_size else {}
    return lambda num_classes: timm.create_model(
        name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **sized
    )


_LIBRARIES: dict[str, Callable[[str, int, int], _Create]] = {"torchvision": _torchvision, "timm": _timm}


def _check_name(library: str, name: str, allowed: Sequence[str]) -> None:
    if name not in allowed:
        raise UserError(
            f"{name!r} is not one of the {len(allowed)} classification models of {library}"
            f"{nearest(name.lower(), allowed)}",
            where=_KEY,
        )
