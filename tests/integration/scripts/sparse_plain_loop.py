"""RiGL in a loop of one's own: ``python sparse_plain_loop.py FOLDER``; started again, it goes on."""

import sys
from pathlib import Path

from common import finish, images, network

# isort: split
# --- shown in docs/tutorials/sparse_in_your_loop.md
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import sparsity


def train(model: torch.nn.Module, data: Dataset, folder: Path, epochs: int = 4) -> tuple[dict, torch.nn.Module]:
    sampler = DistributedSampler(data, num_replicas=1, rank=0, seed=0)  # an order that follows from the epoch
    loader = DataLoader(data, batch_size=64, sampler=sampler)
    groups = sparsity.represent(model).param_groups(weight_decay=5e-4)
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    sparse = sparsity.attach(
        "rigl",
        model,
        optimizer,
        sparsity=0.8,
        total_steps=epochs * len(loader),
        steps_per_epoch=len(loader),
        clip_grad_norm=1.0,
        update_every=5,
    )
    scheduler = CosineAnnealingLR(optimizer, sparse.total_steps)
    scaler = torch.amp.GradScaler("cpu")  # your device; only mixed precision with float16 needs one
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    parts = {  # in the order of loading: masks after the network and the optimizer
        "model": model,
        "optimizer": optimizer,
        "sparse": sparse,  # masks, the state of topology and representation, steps done
        "scheduler": scheduler,
        "scaler": scaler,
        "averaged": averaged,
    }

    start = 0
    if saved := max(folder.glob("epoch-*.pt"), default=None):
        checkpoint = torch.load(saved, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])
        torch.set_rng_state(checkpoint["random"])  # on a GPU torch.cuda.get_rng_state_all(), too
        start = checkpoint["epochs"]

    for epoch in range(start, epochs):
        sampler.set_epoch(epoch)
        for pictures, labels in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(pictures), labels)
            scaler.scale(loss).backward()
            sparse.step(scaler=scaler)  # unscales, updates masks, masks, clips, steps, and updates the scaler
            scheduler.step()
            averaged.update_parameters(model)
        states = {name: part.state_dict() for name, part in parts.items()}
        checkpoint = {"epochs": epoch + 1, "random": torch.get_rng_state(), **states}
        torch.save(checkpoint, folder / f"epoch-{epoch + 1:03}.pt")

    sparse.finalize()  # the network is plain now, with explicit zeros
    return checkpoint, sparsity.plain_copy(averaged, sparse.masks)  # without weights that have been pruned since


# --- end

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    model = network()
    last, average = train(model, images(), folder)
    finish(folder, model, last["optimizer"], {name: last[name] for name in ("sparse", "random")}, average=average)
