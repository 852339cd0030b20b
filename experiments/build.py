"""From a specification to the objects of a run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

import sparsity
from ham import HAM
from sparsity.engine import SparseTraining
from sparsity.flops import layer_macs

from . import data as datasets
from . import models
from .data.bundle import DataBundle
from .errors import UserError
from .seeding import derived_seed
from .spec import OptimizerSpec, Spec


@dataclass
class Run:
    """The objects of one run, freshly initialised.

    Attributes:
        model: The network on its device, with its weights represented.
        data: The data.
        optimizer: The optimizer, HAM included.
        sparse: The topology at work.
        macs: Multiply-adds a layer for one input.
        device: Where all of it lives.
    """

    model: nn.Module
    data: DataBundle
    optimizer: Optimizer
    sparse: SparseTraining
    macs: dict[str, int]
    device: torch.device

    @property
    def total_steps(self) -> int:
        """Length of training in steps."""
        return self.sparse.total_steps


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one.

    Raises:
        UserError: if a GPU is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("cuda is not available here; use auto or cpu", where="runtime.device")
    return torch.device(name)


def build(spec: Spec) -> Run:
    """Build all objects of a run.

    All runs of one seed share initial weights, the mask of pruning at initialisation and the order of batches: each
    has its own seed, derived from the run's, and is drawn before any method could consume randomness.

    Raises:
        UserError: if data, model or device are not to be had.
    """
    device = pick_device(spec.runtime.device)
    data = datasets.build(spec.data, spec.seed, device, spec.runtime.channels_last)
    model = build_model(spec, data)
    macs = layer_macs(model, (data.in_channels, data.image_size, data.image_size))
    layout = torch.channels_last if spec.runtime.channels_last else torch.preserve_format
    model = model.to(device=device, memory_format=layout)  # pyright: ignore[reportCallIssue]
    representation = sparsity.represent(model, spec.representation.name, **spec.representation.options)
    groups = representation.param_groups(spec.optimizer.weight_decay, decay=spec.optimizer.decay)
    optimizer = build_optimizer(spec.optimizer, groups)
    sparse = sparsity.attach(
        spec.topology.name,
        model,
        optimizer,
        sparsity=spec.topology.sparsity,
        total_steps=spec.schedule.epochs * data.steps_per_epoch,
        steps_per_epoch=data.steps_per_epoch,
        seed=derived_seed(spec.seed, "mask"),
        clip_grad_norm=spec.optimizer.clip_grad_norm,
        **spec.topology.options,
    )
    return Run(model, data, optimizer, sparse, macs, device)


def build_model(spec: Spec, data: DataBundle) -> nn.Module:
    """The network with the initial weights of this seed, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(spec.seed, "init"))
        return models.build(
            spec.model.name, num_classes=data.num_classes, in_channels=data.in_channels, image_size=data.image_size
        )


def build_optimizer(spec: OptimizerSpec, groups: list[dict]) -> Optimizer:
    """The base optimizer and HAM around it.

    `momentum` is the first moment's decay in all of them: SGD's and RMSprop's momentum, Adam's first beta.
    """
    lr, momentum = spec.lr, spec.momentum
    betas = (momentum, 0.999)
    base: Optimizer
    if spec.name == "sgd":
        base = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=spec.nesterov)
    elif spec.name == "rmsprop":
        base = torch.optim.RMSprop(groups, lr=lr, momentum=momentum)
    else:
        adams = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "nadam": torch.optim.NAdam}
        base = adams[spec.name](groups, lr=lr, betas=betas)
    if spec.ham is None:
        return base
    return HAM(base, **spec.ham.model_dump())
