"""The suite's own small networks. To add one, add an entry to `MODELS`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

_Norm = Callable[[int], nn.Module]  # channels -> normalisation


class PaddedShortcut(nn.Module):
    """A shortcut without weights: every `stride`-th pixel, and zeros for new channels, half on each side.

    He et al. 2016 call it option A.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016, arXiv:1512.03385, figure 5, left).

    Where the shape changes, the shortcut is a 1x1 convolution with normalisation (their option B), or `PaddedShortcut`.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        stride: Stride of the first convolution and of the shortcut.
        norm: Function from the number of channels to a normalisation layer.
        padded: Whether the shortcut has no weights (their option A).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: _Norm = nn.BatchNorm2d, *, padded: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = norm(outputs)
        self.shortcut = nn.Sequential()
        if padded and (stride != 1 or inputs != outputs):
            self.shortcut = nn.Sequential(PaddedShortcut(inputs, outputs, stride))
        elif stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


class ResNet8(nn.Module):
    """A residual network small enough for a CPU: 77,754 parameters for ten classes of grey images.

    It consists of a 3x3 stem of stride 2 (no pooling), one basic block each of 16, 32 and 64 channels, the latter two
    of stride 2, global average pooling and a linear layer. Convolutions keep torch's default initialisation.

    ``resnet8_gn`` has group normalisation in place of batch normalisation (Wu & He 2018, arXiv:1803.08494), with the
    same number of parameters. The logits of an image then do not depend on its batch, and the gradients of a step do
    not depend on how many ranks or micro-batches share the batch.
    """

    def __init__(self, *, num_classes: int, in_channels: int, image_size: int, norm: _Norm = nn.BatchNorm2d):
        super().__init__()
        del image_size  # pooled away
        self.conv1 = nn.Conv2d(in_channels, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = norm(16)
        self.layer1 = BasicBlock(16, 16, stride=1, norm=norm)
        self.layer2 = BasicBlock(16, 32, stride=2, norm=norm)
        self.layer3 = BasicBlock(32, 64, stride=2, norm=norm)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to logits [N, num_classes]."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.layer3(self.layer2(self.layer1(y)))
        return self.fc(y.mean(dim=(2, 3)))


class CifarResNet(nn.Module):
    """Residual networks for images of 32x32 pixels: a 3x3 stem of stride 1, no pooling, stages that halve the image.

    ``resnet20`` is that of He et al. 2016, section 4.2: three stages of three blocks, 16, 32 and 64 channels, shortcuts
    without weights (option A); 269,722 parameters for ten classes of colour images.

    ``resnet18_cifar`` is ResNet-18 of their table 1 with the stem of their CIFAR networks in place of the 7x7
    convolution and the pooling, as is usual: four stages of two blocks, 64 to 512 channels, option B; 11,220,132
    parameters for a hundred classes of colour images.

    Both end in global average pooling and a linear layer. Convolutions keep torch's default initialisation; He et al.
    draw from a normal distribution (``model.init: kaiming_fan_in``).

    Args:
        num_classes: Number of logits.
        in_channels: Channels of an image.
        image_size: Not used, because of the global average pooling.
        widths: Channels of the stages; the stem has as many as the first.
        blocks: Number of blocks per stage.
        padded: Whether shortcuts have no weights.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        image_size: int,
        widths: tuple[int, ...],
        blocks: int,
        padded: bool,
    ):
        super().__init__()
        del image_size
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs = widths[0]
        stages = []
        for stage, width in enumerate(widths):
            strides = [1 if stage == 0 else 2, *[1] * (blocks - 1)]
            sizes = [inputs, *[width] * (blocks - 1)]
            pairs = zip(sizes, strides, strict=True)
            stages.append(nn.Sequential(*(BasicBlock(size, width, step, padded=padded) for size, step in pairs)))
            inputs = width
        self.layers = nn.Sequential(*stages)
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, in_channels, H, W] to logits [N, num_classes]."""
        y = self.layers(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return self.fc(y.mean(dim=(2, 3)))


class MlpBn(nn.Sequential):
    """LeNet-300-100 with batch normalisation: 267,010 parameters for ten classes of 28x28 grey images.

    Layers before a normalisation have no bias, since the normalisation would cancel it. ``mlp_bn_small`` has 100 and 30
    hidden units and 81,970 parameters.
    """

    def __init__(self, *, num_classes: int, in_channels: int, image_size: int, widths: tuple[int, int] = (300, 100)):
        super().__init__()
        first, second = widths
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(in_channels * image_size**2, first, bias=False)
        self.bn1 = nn.BatchNorm1d(first)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(first, second, bias=False)
        self.bn2 = nn.BatchNorm1d(second)
        self.relu2 = nn.ReLU()
        self.fc3 = nn.Linear(second, num_classes)


# eight groups are groups of two channels in the first layers and of eight in the last
MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet8": ResNet8,
    "resnet8_gn": partial(ResNet8, norm=partial(nn.GroupNorm, 8)),
    "mlp_bn": MlpBn,
    "mlp_bn_small": partial(MlpBn, widths=(100, 30)),
    "resnet20": partial(CifarResNet, widths=(16, 32, 64), blocks=3, padded=True),
    "resnet18_cifar": partial(CifarResNet, widths=(64, 128, 256, 512), blocks=2, padded=False),
}
