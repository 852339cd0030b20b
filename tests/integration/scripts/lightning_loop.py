"""HAM in Lightning: ``python lightning_loop.py FOLDER``; started again, it goes on from the last checkpoint."""

import sys
from pathlib import Path

from common import finish, images, network

# isort: split
# --- shown in docs/howto/frameworks.md
import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from ham import HAM


class Classifier(lightning.LightningModule):
    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        pictures, labels = batch
        return torch.nn.functional.cross_entropy(self.model(pictures), labels)

    def configure_optimizers(self) -> dict:
        optimizer = HAM(torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4), alpha=10.0)
        schedule = CosineAnnealingLR(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(model: torch.nn.Module, data: Dataset, folder: Path) -> lightning.Trainer:
    # Lightning saves no random state: the order has to follow from the epoch, which it tells the sampler
    loader = DataLoader(data, batch_size=64, sampler=DistributedSampler(data, num_replicas=1, rank=0, seed=0))
    trainer = lightning.Trainer(
        max_epochs=4,
        accelerator="cpu",
        gradient_clip_val=1.0,
        callbacks=[ModelCheckpoint(folder, filename="{epoch:03}", save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
    )
    saved = max(folder.glob("*.ckpt"), default=None)
    trainer.fit(Classifier(model), loader, ckpt_path=saved, weights_only=True)
    return trainer


# --- end

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    model = network()
    trainer = train(model, images(), folder)
    finish(folder, model, trainer.optimizers[0].state_dict())
