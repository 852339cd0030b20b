"""From a specification to the objects of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

import sparsity
from experiments import data as datasets
from experiments.config.schema import Device, ModelSpec, OptimizerSpec, Spec
from experiments.data import Data, Outline
from experiments.data.bundle import check_divisible
from experiments.data.sampler import Shard
from experiments.errors import UserError, nearest
from experiments.models import weights, zoo
from experiments.ranks.distributed import ALONE, World
from experiments.ranks.reduction import mean_in_rank_order, mean_over_ranks
from experiments.seeding import derived_seed
from ham import HAM, SAM
from sparsity.engine.flops import layer_macs
from sparsity.engine.sparse_training import SparseTraining
from sparsity.options import Infeasible, OptionError

from .average import Average
from .probe import make_probe

_DEVICES = get_args(Device)


@dataclass
class RunObjects:
    """The objects of one run, freshly initialised.

    Attributes:
        model: The network on its device, with its weights represented.
        forward: What a training step calls: the network itself, or around it what makes ranks agree on gradients.
        average: The exponential moving average of the network, or None.
        data: The data, this rank's part of it.
        optimizer: The optimizer, HAM and SAM included.
        scaler: The loss scaler of fp16, or None.
        sparse: The topology at work.
        macs: Multiply-adds per layer for one input.
        device: Where all of it lives.
        initial_weights: Hash of the file that the network started from, None without one.
    """

    model: nn.Module
    forward: nn.Module
    average: Average | None
    data: Data
    optimizer: Optimizer
    scaler: torch.amp.GradScaler | None
    sparse: SparseTraining
    macs: dict[str, int]
    device: torch.device
    initial_weights: str | None = None

    @property
    def total_steps(self) -> int:
        """Length of training in steps."""
        return self.sparse.total_steps


def pick_device(name: str, world: World = ALONE, where: str = "runtime.device") -> torch.device:
    """Choose the device: ``auto`` is the GPU where there is one; each rank of a node has its own.

    Raises:
        UserError: for another name, or if a GPU is asked for and there is none; ``where`` says what asked.
    """
    if name not in _DEVICES:
        raise UserError(f"{name!r} is not one of {', '.join(_DEVICES)}{nearest(name, _DEVICES)}", where=where)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("cuda is not available here; use auto or cpu", where=where)
    if name == "cuda" and world.size > 1:
        return torch.device(name, world.local_rank % torch.cuda.device_count())
    return torch.device(name)


def build(spec: Spec, world: World = ALONE, *, resumes: bool = False) -> RunObjects:
    """Build all objects of a run.

    All runs of one seed share initial weights, the mask of pruning at initialisation and the order of batches: each
    has its own seed, derived from the run's, and is drawn before any method could consume randomness.

    Args:
        spec: The resolved specification.
        world: The ranks; all of them must call this.
        resumes: Whether a checkpoint will be loaded, so that the file of initial weights need not be there any more.

    Raises:
        UserError: if data, model or device are not to be had, or ranks cannot share a batch evenly.
    """
    runtime = spec.runtime
    device = pick_device(runtime.device, world)
    check_divisible(spec.data.batch_size, spec.data.batch_size, world.size, runtime.accumulate)
    shard = Shard(world.rank, world.size)
    data = datasets.build(spec.data, spec.seed, device, runtime.channels_last, shard)
    check_divisible(spec.data.batch_size, data.last_batch, world.size, runtime.accumulate)
    model, initial_weights = build_model(spec, data, from_file=not resumes)
    macs = count_macs(model, (data.in_channels, data.image_size, data.image_size))
    if runtime.sync_batch_norm:
        model = _synchronised(model, device)
    layout = torch.channels_last if runtime.channels_last else torch.preserve_format
    model = model.to(device=device, memory_format=layout)  # pyright: ignore[reportCallIssue]
    representation = sparsity.represent(
        model, spec.representation.name, seed=derived_seed(spec.seed, "factors"), options=spec.representation.options
    )
    decay = spec.optimizer.ema_decay
    average = Average(model, representation, decay) if decay is not None else None
    forward = _forward(model, device, world, compiled=runtime.compile)
    groups = representation.param_groups(spec.optimizer.weight_decay, weight_decay_on=spec.optimizer.weight_decay_on)
    optimizer = build_optimizer(spec.optimizer, groups, model)
    local = world.size > 1 and spec.optimizer.sam is not None and spec.optimizer.sam.perturbation == "local"
    sparse = _attach(
        spec,
        model,
        optimizer,
        probe=make_probe(spec, data, device, world),
        sparsity=spec.topology.sparsity,
        total_steps=spec.schedule.epochs * data.steps_per_epoch,
        steps_per_epoch=data.steps_per_epoch,
        seed=derived_seed(spec.seed, "mask"),
        clip_grad_norm=spec.optimizer.clip_grad_norm,
        sparse_opt=spec.optimizer.sparse_opt,
        agree=partial(mean_over_ranks, world.size) if local else None,
    )
    scaler = torch.amp.GradScaler(device.type) if runtime.amp == "fp16" else None
    return RunObjects(model, forward, average, data, optimizer, scaler, sparse, macs, device, initial_weights)


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Count the multiply-adds of each prunable layer for one image.

    Raises:
        UserError: if the network leaves a prunable layer out of its forward pass.
    """
    try:
        return layer_macs(model, input_shape)
    except Infeasible as error:
        raise UserError(str(error), where="model.name") from error


def _attach(spec: Spec, model: nn.Module, optimizer: Optimizer, **settings: Any) -> SparseTraining:
    with refusals_named():
        return sparsity.attach(spec.topology.name, model, optimizer, **settings, options=spec.topology.options)


@contextmanager
def refusals_named() -> Iterator[None]:
    """Turn what a topology refuses into a `UserError` with the key of the configuration."""
    try:
        yield
    except OptionError as error:
        raise UserError(error.reason, where=f"{error.section}.{error.key}") from error
    except Infeasible as error:
        raise UserError(str(error), where="topology") from error


def _synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    if device.type != "cuda":
        raise UserError(
            "batch statistics over all ranks need GPUs (torch has no other implementation); write false, or use a "
            "network without batch normalisation such as resnet8_gn",
            where="runtime.sync_batch_norm",
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def _forward(model: nn.Module, device: torch.device, world: World, *, compiled: bool) -> nn.Module:
    """Wrap the network as a training step calls it; the model itself keeps its parameter names."""
    if compiled:
        model.compile()
    if world.size == 1:
        return model
    if device.type == "cuda":
        return DistributedDataParallel(model, device_ids=[device.index])
    parallel = DistributedDataParallel(model)
    parallel.register_comm_hook(world.size, mean_in_rank_order)
    return parallel


def build_network(spec: ModelSpec, data: Data | Outline) -> nn.Module:
    """Build the network for images and classes of this form, freshly initialised; also on the meta device."""
    return zoo.build(
        spec.name,
        options=spec.options,
        init=spec.init,
        num_classes=data.num_classes,
        in_channels=data.in_channels,
        image_size=data.image_size,
    )


def build_model(spec: Spec, data: Data, *, from_file: bool = True) -> tuple[nn.Module, str | None]:
    """Build the network on the CPU, with the initial weights of this seed or of a file, and that file's hash."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(spec.seed, "init"))
        model = build_network(spec.model, data)
    if spec.model.weights is None or not from_file:
        return model, None
    return model, weights.load(model, spec.model.weights)


def build_optimizer(spec: OptimizerSpec, groups: list[dict], model: nn.Module) -> Optimizer:
    """Build the base optimizer, HAM around it, and SAM around that.

    `momentum` is the first moment's decay in all of them: SGD's and RMSprop's momentum, Adam's first beta.
    """
    if spec.sam is not None and spec.sam.adaptive:
        groups = _apart(groups, model)
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
    if spec.ham is not None:
        base = HAM(base, **spec.ham.model_dump())
    if spec.sam is not None:
        base = SAM(base, **spec.sam.model_dump(exclude={"perturbation"}), model=model)
    return base


def _apart(groups: list[dict], model: nn.Module) -> list[dict]:
    """Put biases into groups of their own, which adaptive SAM does not scale: all that has no "weight" in its name."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    parts = []
    for group in groups:
        for adaptive in (True, False):
            params = [parameter for parameter in group["params"] if ("weight" in names[parameter]) == adaptive]
            parts += [{**group, "params": params, "adaptive": adaptive}] if params else []
    return parts
