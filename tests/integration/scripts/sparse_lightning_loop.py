"""RiGL in Lightning: ``python sparse_lightning_loop.py FOLDER``; started again, it goes on from the last checkpoint."""

import sys
from pathlib import Path

from common import finish, images, network

# isort: split
# --- shown in docs/howto/sparse_frameworks.md
import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import sparsity


class Classifier(lightning.LightningModule):
    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model
        self.representation = sparsity.represent(model)  # before Lightning loads a checkpoint

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        pictures, labels = batch
        return torch.nn.functional.cross_entropy(self.model(pictures), labels)

    def configure_optimizers(self) -> dict:
        steps = int(self.trainer.estimated_stepping_batches)
        sparse = sparsity.attach(
            "rigl",
            self.model,
            torch.optim.SGD(self.representation.param_groups(weight_decay=5e-4), lr=0.1, momentum=0.9),
            sparsity=0.8,
            total_steps=steps,
            steps_per_epoch=steps // self.trainer.max_epochs,
            clip_grad_norm=1.0,
            update_every=5,
        )
        optimizer = sparsity.SparseOptimizer(sparse)
        schedule = CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(model: torch.nn.Module, data: Dataset, folder: Path) -> lightning.Trainer:
    # Lightning saves no random state: the order has to follow from the epoch, which it tells the sampler
    loader = DataLoader(data, batch_size=64, sampler=DistributedSampler(data, num_replicas=1, rank=0, seed=0))
    trainer = lightning.Trainer(
        max_epochs=4,
        accelerator="cpu",
        callbacks=[ModelCheckpoint(folder, filename="{epoch:03}", save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
    )
    saved = max(folder.glob("*.ckpt"), default=None)
    trainer.fit(Classifier(model), loader, ckpt_path=saved, weights_only=True)
    trainer.optimizers[0].sparse.finalize()
    return trainer


# --- end

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    model = network()
    state = train(model, images(), folder).optimizers[0].state_dict()
    finish(folder, model, state, {"sparse": state.pop("sparse")})
