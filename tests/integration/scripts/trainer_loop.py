"""HAM in the Trainer of transformers: ``python trainer_loop.py FOLDER``; started again, it goes on."""

import sys
from pathlib import Path

from common import Pictures, finish
from transformers import ResNetConfig, ResNetForImageClassification, set_seed

# isort: split
# --- shown in docs/howto/frameworks.md
import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ham import HAM


def train(model: PreTrainedModel, data: torch.utils.data.Dataset, folder: Path) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=4,
        per_device_train_batch_size=64,
        lr_scheduler_type="cosine",
        warmup_steps=10,
        max_grad_norm=1.0,
        save_steps=30,  # within an epoch of 20 steps: Trainer comes back to the very batch
        report_to="none",
        use_cpu=True,
    )
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]  # biases and norms
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0, "ham": False}]
    optimizer = HAM(torch.optim.AdamW(groups, lr=5e-3, weight_decay=0.05), alpha=20.0, beta=1e-3)
    trainer = Trainer(model, arguments, train_dataset=data, optimizers=(optimizer, None))  # makes the schedule itself
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    return trainer


# --- end

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    set_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    config = ResNetConfig(num_channels=1, num_labels=10, **sizes)
    trainer = train(ResNetForImageClassification(config), Pictures(), folder)
    finish(folder, trainer.model, trainer.optimizer.state_dict())
