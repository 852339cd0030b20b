"""HAM in timm's loop: ``python timm_loop.py FOLDER``; started again, it goes on from the last checkpoint."""

import sys
from pathlib import Path

from common import finish, images

# isort: split
# --- shown in docs/howto/frameworks.md
import timm
import torch
from timm.models import load_checkpoint, resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import CheckpointSaver, ModelEmaV3
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from ham import HAM


def train(model: torch.nn.Module, data: Dataset, folder: Path, epochs: int = 4) -> tuple[HAM, ModelEmaV3]:
    sampler = DistributedSampler(data, num_replicas=1, rank=0, seed=0)
    loader = DataLoader(data, batch_size=64, sampler=sampler)
    base = create_optimizer_v2(model, "adamw", lr=2e-3, weight_decay=0.05)
    for group in base.param_groups:  # timm puts biases, norms, cls_token and pos_embed into a group without decay
        group["ham"] = group["weight_decay"] > 0
    optimizer = HAM(base, alpha=50.0, beta=1e-3)
    scheduler, _ = create_scheduler_v2(optimizer, "cosine", num_epochs=epochs, warmup_epochs=1, warmup_lr=1e-4)
    ema = ModelEmaV3(model, decay=0.95)
    saver = CheckpointSaver(model, optimizer, model_ema=ema, checkpoint_dir=str(folder))

    start = 0
    if (last := folder / "last.pth.tar").exists():
        start = resume_checkpoint(model, str(last), optimizer)
        load_checkpoint(ema.module, str(last), use_ema=True)
    scheduler.step(start)  # timm's schedules are functions of the epoch and have nothing to load

    for epoch in range(start, epochs):
        sampler.set_epoch(epoch)
        for pictures, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(pictures), labels).backward()
            optimizer.step()
            ema.update(model)  # after the step: the average of what HAM made
        saver.save_checkpoint(epoch)
        scheduler.step(epoch + 1)
    return optimizer, ema


# --- end


def vit() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.models.VisionTransformer(
        img_size=28, patch_size=7, in_chans=1, num_classes=10, embed_dim=48, depth=2, num_heads=3
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    model = vit()
    optimizer, ema = train(model, images(), folder)
    finish(folder, model, optimizer.state_dict(), ema=ema.module)
