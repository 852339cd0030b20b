"""A training of ours that begins where a recorded one began, and follows it step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import torch.nn.functional as F
from recordings import Masks, Recording, Tally, batch, network
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

import sparsity
from sparsity.dynamic import grow_largest, keep_largest
from sparsity.engine.sparse_training import SparseTraining
from sparsity.masks import MaskSet

# settings of the optimizers that recordings name
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3},
    "nodecay": {"lr": 0.1, "momentum": 0.9},
    "plain": {"lr": 0.1, "weight_decay": 1e-3},
    "nesterov": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
}


def sgd(model: nn.Module, name: str) -> Optimizer:
    """Build an optimizer that a recording names, over all parameters."""
    return SGD(model.parameters(), **SETTINGS[name])


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def cosine(rate: float, step: int, total: int) -> float:
    """Return the rate of a cosine schedule without warm-up."""
    return rate / 2 * (1 + math.cos(math.pi * step / total))


def passes(optimizer: Optimizer, model: nn.Module, kind: str, index: int) -> Tensor:
    """Clear gradients and do the forward and backward pass of a batch."""
    optimizer.zero_grad()
    x, y = batch(kind, index)
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss


def attached(
    topology: str,
    recording: Recording,
    *,
    step: int = 0,
    wrap: Callable[[Optimizer], Optimizer] = lambda optimizer: optimizer,
    **settings: Any,
) -> SparseTraining:
    """Attach a method with the recording's network, optimizer, initial weights and masks.

    Args:
        topology: A registered topology.
        recording: The recorded training.
        step: Our index of its first step.
        wrap: Puts something around its optimizer.
        **settings: Further arguments of `sparsity.attach`.
    """
    model = network(recording.kind)
    optimizer = wrap(sgd(model, str(recording.value("opt"))))
    training = sparsity.attach(topology, model, optimizer, **settings)
    begin(training, recording.kind, recording.masks(-1), step)
    return training


def begin(training: SparseTraining, kind: str, masks: Masks, step: int = 0) -> None:
    """Put recorded masks and the initial weights into a training before its first step."""
    training.representation.model.load_state_dict(network(kind).state_dict())
    state = training.state_dict()
    state.update(masks=MaskSet(masks).state_dict(), step=step)
    training.load_state_dict(state)
    training.zero_pruned()


def momenta(optimizer: Optimizer, model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return SGD's momentum of every parameter, of weights where they exist."""
    while isinstance(base := getattr(optimizer, "base", None), Optimizer):
        optimizer = base
    held = {name: optimizer.state[p].get("momentum_buffer") for name, p in model.named_parameters()}
    return {f"m:{name}": m * masks[name] if name in masks else m for name, m in held.items() if m is not None}


def follow(
    tally: Tally,
    recording: Recording,
    training: SparseTraining,
    *,
    until: int | None = None,
    before: Callable[[int], None] = lambda step: None,
    cut_first: bool = False,
) -> None:
    """Train, and compare masks, weights and momenta after every step.

    Args:
        tally: What was compared.
        recording: The recorded training.
        training: Ours, before its first step.
        until: Last step to compare, by default the last one that was recorded.
        before: Called with the index of each step before it.
        cut_first: Theirs sets masks before the next step, ours after the present one: masks are compared with those
            that theirs trains with next, and other tensors at the steps between.
    """
    model = training.representation.model
    last = recording.steps[-1] if until is None else until
    for step in range(last + 1):
        before(step)
        passes(training.optimizer, model, recording.kind, step)
        training.step()
        masks = dict(training.masks)
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        tensors |= momenta(training.optimizer, model, masks)
        following = min(step + 1, last) if cut_first else step
        if any(not mask.equal(recording.mask(step, name)) for name, mask in masks.items()) and following != step:
            tally.compare(recording, following, {}, masks)
        else:
            tally.compare(recording, step, recording.select(tensors), masks)


@contextmanager
def handed_in(module: ModuleType, recording: Recording, kept: Iterable[int] | None = None) -> Iterator[None]:
    """Let a method grow, in a layer, what the recorded training grew: its draws, and how many.

    Args:
        module: The module of the method, whose helpers are replaced.
        recording: The recorded training.
        kept: Numbers of weights that survive, of one layer after another; by default the method's own.
    """
    survivors = None if kept is None else iter(kept)

    def scores(ctx: Any, name: str) -> Tensor:
        return recording.mask(ctx.steps_done - 1, name).double()

    def grown(theirs: Tensor, mask: Tensor, number: int, draw: Any = None) -> Tensor:
        return grow_largest(theirs, mask, int(theirs.sum() - mask.sum()))

    def left(score: Tensor, mask: Tensor, number: int, draw: Any = None) -> Tensor:
        return keep_largest(score, mask, number if survivors is None else next(survivors), draw)

    with ExitStack() as stack:
        for name, function in {"random_scores": scores, "grow_largest": grown, "keep_largest": left}.items():
            stack.enter_context(mock.patch.object(module, name, function))
        yield
