"""RiGL under accelerate: ``python sparse_accelerate_loop.py FOLDER``; started again, it goes on."""

import sys
from pathlib import Path

from common import finish, images, network

# isort: split
# --- shown in docs/howto/sparse_frameworks.md
import torch
from accelerate import Accelerator
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

import sparsity


def train(
    model: torch.nn.Module, data: Dataset, folder: Path, epochs: int = 4
) -> tuple[sparsity.SparseTraining, torch.nn.Module]:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    representation = sparsity.represent(model)
    # onto the device, where the masks are made; and to the part of the loader that is this process's
    network, loader = accelerator.prepare(model, DataLoader(data, batch_size=32, shuffle=True))
    steps_per_epoch = -(-len(loader) // accelerator.gradient_accumulation_steps)
    sparse = sparsity.attach(
        "rigl",
        network,
        torch.optim.SGD(representation.param_groups(weight_decay=5e-4), lr=0.1, momentum=0.9),
        sparsity=0.8,
        total_steps=epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        clip_grad_norm=1.0,
        update_every=5,
    )
    optimizer = accelerator.prepare(sparsity.SparseOptimizer(sparse))
    scheduler = CosineAnnealingLR(sparse.optimizer, sparse.total_steps)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    accelerator.register_for_checkpointing(scheduler, averaged)  # the masks are in the optimizer's state

    start = 0
    if saved := max(folder.glob("epoch-*"), default=None):
        accelerator.load_state(saved)  # random states included
        start = int(saved.name.removeprefix("epoch-"))

    for epoch in range(start, epochs):
        loader.set_epoch(epoch)
        for pictures, labels in loader:
            with accelerator.accumulate(network):
                accelerator.backward(torch.nn.functional.cross_entropy(network(pictures), labels))
                optimizer.step()  # it and zero_grad act once in two batches
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                scheduler.step()
                averaged.update_parameters(model)
        accelerator.save_state(folder / f"epoch-{epoch + 1:03}")

    sparse.finalize()
    return sparse, sparsity.plain_copy(averaged, sparse.masks)


# --- end

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    model = network()
    sparse, average = train(model, images(), folder)
    more = {"sparse": sparse.state_dict(), "random": torch.get_rng_state()}
    finish(folder, model, sparse.optimizer.state_dict(), more, average=average)
