"""Small networks with losses, in float64, for the experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.data import fashion_mnist

OneStepProblem = tuple[nn.Module, Callable[[nn.Module], Tensor]]


def classification(seed: int, samples: int, width: int) -> OneStepProblem:
    """Return a network with one hidden layer and its mean cross-entropy on the first embedded Fashion-MNIST images."""
    data = fashion_mnist.load(None)
    images = torch.as_tensor(data.train_images[:samples]).double().flatten(1) / 255
    labels = torch.as_tensor(data.train_labels[:samples]).long()
    model = _network(seed, images.shape[1], width, 10)
    return model, lambda network: cross_entropy(network(images), labels)


def regression(seed: int, samples: int, width: int) -> OneStepProblem:
    """Return a network with one hidden layer and its mean squared error on normal inputs and targets."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, width, dtype=torch.float64, generator=generator)
    targets = torch.randn(samples, 1, dtype=torch.float64, generator=generator)
    return _network(seed, width, width, 1), lambda network: (network(inputs) - targets).square().mean()


def _network(seed: int, inputs: int, width: int, outputs: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
            parameter.div_(parameter.shape[-1] ** 0.5)
    return model


PROBLEMS: Mapping[str, Callable[[int, int, int], OneStepProblem]] = {
    "classification": classification,
    "regression": regression,
}
