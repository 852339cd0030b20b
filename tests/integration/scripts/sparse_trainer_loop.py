"""RiGL in the Trainer of transformers: ``python sparse_trainer_loop.py FOLDER``; started again, it goes on."""

import sys
from pathlib import Path

from common import Pictures, finish
from transformers import ResNetConfig, ResNetForImageClassification, set_seed

# isort: split
# --- shown in docs/howto/sparse_frameworks.md
import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

import sparsity


def train(model: PreTrainedModel, data: torch.utils.data.Dataset, folder: Path, epochs: int = 4) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=64,
        lr_scheduler_type="cosine",
        warmup_steps=10,
        max_grad_norm=0.0,  # attach clips: after masking
        save_steps=30,  # within an epoch of 20 steps: Trainer comes back to the very batch
        report_to="none",
        use_cpu=True,
    )
    model.to(arguments.device)  # masks are made where the weights are
    images_per_step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    steps_per_epoch = -(-len(data) // images_per_step)
    sparse = sparsity.attach(
        "rigl",
        model,
        torch.optim.AdamW(sparsity.represent(model).param_groups(weight_decay=0.05), lr=1e-2),
        sparsity=0.8,
        total_steps=epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        clip_grad_norm=1.0,
        update_every=5,
    )
    optimizer = sparsity.SparseOptimizer(sparse)
    trainer = Trainer(model, arguments, train_dataset=data, optimizers=(optimizer, None))  # makes the schedule itself
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    sparse.finalize()
    return trainer


# --- end

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    set_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    config = ResNetConfig(num_channels=1, num_labels=10, **sizes)
    trainer = train(ResNetForImageClassification(config), Pictures(), folder)
    state = trainer.optimizer.state_dict()
    finish(folder, trainer.model, state, {"sparse": state.pop("sparse"), "random": torch.get_rng_state()})
