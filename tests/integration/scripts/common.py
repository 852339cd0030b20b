"""What the training scripts share: real images, a network, and what is left in the folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from experiments.data import fashion_mnist


def images(count: int = 1280) -> TensorDataset:
    """Training images of Fashion-MNIST, [N, 1, 28, 28], and their labels, classes in turn."""
    arrays = fashion_mnist.load(None)
    return _tensors(arrays.train_images, arrays.train_labels, count)


def held_out(count: int = 1000) -> TensorDataset:
    """Test images of Fashion-MNIST and their labels."""
    arrays = fashion_mnist.load(None)
    return _tensors(arrays.test_images, arrays.test_labels, count)


class Pictures(Dataset):
    """The images as a Trainer wants them."""

    def __init__(self):
        self.pictures, self.labels = images().tensors

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.pictures[index], "labels": self.labels[index]}


def network() -> nn.Module:
    """A small convolutional network, the same in every process."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(576, 10),
    )


@torch.no_grad()
def finish(
    folder: Path, model: nn.Module, optimizer_state: dict, more: dict | None = None, **others: nn.Module
) -> None:
    """Print the test accuracy in % and leave the state of models, optimizer and more as ``end.pt``."""
    model.eval()
    pictures, labels = held_out().tensors
    answers = model(pictures)
    logits: Tensor = getattr(answers, "logits", answers)
    print(f"accuracy {100 * (logits.argmax(1) == labels).double().mean():.2f}")
    states = {name: each.state_dict() for name, each in {"model": model, **others}.items()}
    torch.save({**states, "optimizer": optimizer_state, **(more or {})}, folder / "end.pt")


def _tensors(pictures: object, labels: object, count: int) -> TensorDataset:
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:count]  # pyright: ignore[reportArgumentType]
    scaled = torch.as_tensor(pictures)[order].unsqueeze(1).float() / 255
    return TensorDataset((scaled - fashion_mnist.MEAN) / fashion_mnist.STD, torch.as_tensor(labels)[order].long())
