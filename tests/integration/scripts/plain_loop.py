"""HAM in a loop of one's own: ``python plain_loop.py FOLDER``; started again, it goes on from the last checkpoint."""

import sys
from pathlib import Path

from common import finish, images, network

# isort: split
# --- shown in docs/howto/frameworks.md
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from ham import HAM


def train(model: torch.nn.Module, data: Dataset, folder: Path, epochs: int = 4) -> HAM:
    sampler = DistributedSampler(data, num_replicas=1, rank=0, seed=0)  # an order that follows from the epoch
    loader = DataLoader(data, batch_size=64, sampler=sampler)
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    optimizer = HAM(base, alpha=10.0, beta=1e-3)
    scheduler = CosineAnnealingLR(optimizer, epochs * len(loader))
    parts, start = {"model": model, "optimizer": optimizer, "scheduler": scheduler}, 0

    if saved := max(folder.glob("epoch-*.pt"), default=None):
        checkpoint = torch.load(saved, weights_only=True)
        start = checkpoint.pop("epochs")
        for name, state in checkpoint.items():
            parts[name].load_state_dict(state)

    for epoch in range(start, epochs):
        sampler.set_epoch(epoch)
        for pictures, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(pictures), labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # HAM sees the clipped gradient, as the base does
            optimizer.step()
            scheduler.step()
        states = {name: part.state_dict() for name, part in parts.items()}
        torch.save({"epochs": epoch + 1, **states}, folder / f"epoch-{epoch + 1:03}.pt")
    return optimizer


# --- end

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    model = network()
    optimizer = train(model, images(), folder)
    finish(folder, model, optimizer.state_dict())
