"""`represent` and `attach`: the two calls that make a model's training sparse; `plain_copy` of a model under way."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import registry
from .engine import moments
from .engine.settings import RunSettings
from .engine.sparse_training import SparseTraining
from .options import build_options, check_options
from .probe import Probe
from .representation import Representation, of
from .roles import refuse_filled
from .targets import plain_name, targets, unwrapped
from .topology import Topology


def represent(
    model: nn.Module, name: str = "plain", *, seed: int = 0, options: Any = None, **values: Any
) -> Representation:
    """Parametrise every prunable weight of a model. Call it before DDP, `torch.compile` and the optimizer.

    Example:
        >>> import sparsity, torch
        >>> model = torch.nn.Linear(10, 10)
        >>> rep = sparsity.represent(model, "plain")
        >>> optimizer = torch.optim.SGD(rep.param_groups(weight_decay=1e-4), lr=0.1)

    Args:
        model: The network; its layers' weights are replaced in place, its initial θ stays (to rounding).
        name: A registered representation, see `ham methods`, or ``sparsity.registry.representations()``.
        seed: Seed of initial factors that are drawn, where an option asks for that.
        options: The representation's `Options` as one object; or
        **values: its options one by one.

    Returns:
        The representation; its `param_groups` are what the optimizer takes.

    Raises:
        UnknownMethodError: if no representation has that name.
        OptionError: for an unknown option or a value out of range.
        ValueError: if the model is represented already, has tied weights or nothing to prune.
    """
    if of(model) is not None:
        raise ValueError("the model is represented already; represent() is called once, on the plain network")
    cls = registry.representation(name)
    representation = cls(_options(cls, options, values))
    representation.install(model, seed)
    return representation


def attach(
    topology: str,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    sparsity: float,
    total_steps: int,
    steps_per_epoch: int | None = None,
    seed: int = 0,
    clip_grad_norm: float | None = None,
    sparse_opt: str | None = None,
    batch_size: int | None = None,
    probe: Probe | None = None,
    agree: Callable[[Tensor], Tensor] | None = None,
    options: Any = None,
    **values: Any,
) -> SparseTraining:
    """Make a model's training sparse. Call it last: after `represent`, DDP or compile, and the optimizer.

    Example:
        >>> import sparsity, torch
        >>> model = torch.nn.Linear(10, 10)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> sparse = sparsity.attach("rigl", model, optimizer, sparsity=0.9, total_steps=100, update_every=10)
        >>> for _ in range(100):
        ...     loss = model(torch.ones(4, 10)).square().mean(); optimizer.zero_grad(); loss.backward(); sparse.step()
        >>> sparse.finalize()
        {'weight': 10}

    Args:
        topology: A registered topology, see `ham methods`, or ``sparsity.registry.topologies()``.
        model: The network, represented or plain, also wrapped.
        optimizer: Any entry-wise optimizer over all its parameters, HAM included.
        sparsity: Fraction of zeros over all prunable weights, in [0, 1).
        total_steps: Length of training in steps; schedules are shares of it. A topology that trains several times takes
            as many steps each time, see `SparseTraining.total_steps` and `next_level`.
        steps_per_epoch: Steps per epoch. Methods that act once per epoch (MEST, SNFS, Sign-In, spred, PILoT) need it;
            for the others all of training is one epoch by default.
        seed: Seed of everything random in masks.
        clip_grad_norm: Bound on the norm of the masked gradient (under SAM of each pass), or None.
        sparse_opt: ``"layer"`` or ``"network"``: scale gradients of sparse neurons, see `sparsity.engine.sparse_opt`.
        batch_size: Images per step; only for options that are given at another batch size (``batch_reference``).
        probe: Data and loss, for topologies that score weights before training; needed by those alone.
        agree: Called with each gradient that a topology reads, returns its mean over ranks; only where ranks come to
            `step` with gradients of their own, as under SAM with a perturbation for each rank.
        options: The topology's `Options` as one object; or
        **values: its options one by one.

    Returns:
        The object whose `step()` replaces `optimizer.step()`.

    Raises:
        UnknownMethodError, OptionError: for a wrong name or option.
        Infeasible: if the network cannot have that sparsity.
        ValueError: for a sparsity out of range, an illegal combination, an optimizer that lacks a parameter, or a
            network to which a topology is attached already.
    """
    _refuse_valueless(model)
    settings = RunSettings(
        sparsity=sparsity,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch or total_steps,
        seed=seed,
        clip_grad_norm=clip_grad_norm,
        sparse_opt=sparse_opt,
        agree=agree,
    )
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in owned]
    if missing:
        raise ValueError(
            f"the optimizer does not own {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}: build it after "
            "represent(), from its param_groups()"
        )
    moments.check_supported(optimizer)
    found = of(model)
    if found is not None and found.model is not unwrapped(model):
        raise ValueError(
            f"only a part of the network is represented, a {type(found.model).__name__}: call represent() on the "
            "network that is attached, or attach to that part"
        )
    if found is not None and found.attached:
        raise ValueError("a topology is attached to this network already: call its finalize() first")
    reason = registry.refusal(topology, found.name if found else "plain")  # before the network is touched
    if reason is not None:
        raise ValueError(reason)
    representation = found or represent(unwrapped(model), "plain")
    if isinstance(sparsity, float) and sparsity > 0:  # `prepare` names what is no share
        refuse_filled(representation.model, [slot.target for slot in representation.slots.values()])
    chosen = prepare(
        topology,
        representation,
        sparsity=sparsity,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        probe=probe,
        options=options,
        **values,
    )
    return SparseTraining(chosen, representation, optimizer, settings, probe)


def plain_copy(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Return an independent copy of a network, or of an averaged copy of it, with plain weights θ.

    Example:
        >>> import sparsity, torch
        >>> model = torch.nn.Linear(10, 10)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> sparse = sparsity.attach("random", model, optimizer, sparsity=0.9, total_steps=100)
        >>> (sparsity.plain_copy(model).weight != 0).sum()
        tensor(10)

    Args:
        model: The network of a training under way, also wrapped, or a copy of it such as
            `torch.optim.swa_utils.AveragedModel`, whose factors are averages.
        masks: Masks of the training. Weights that they prune are zero in the copy, which matters for an average, where
            weights that were active once are not zero.

    Raises:
        ValueError: if the masks are those of another network.
    """
    found = of(model)
    copied = copy.deepcopy(unwrapped(model)) if found is None else found.plain_copy()
    if masks is not None:
        found_targets = targets(copied)
        _refuse_others(masks, {target.name: tuple(target.weight.shape) for target in found_targets})
        for target in found_targets:
            target.weight.masked_fill_(~masks[target.name].to(target.weight.device), 0.0)
    return copied


def _refuse_valueless(model: nn.Module) -> None:
    """Refuse networks whose tensors hold no values, or none that a training may change."""
    if torch.is_inference_mode_enabled():
        raise ValueError("attach() is called in torch.inference_mode, in which nothing can be trained: call it outside")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            continue  # `targets` names it
        if tensor.is_meta:
            raise ValueError(
                f"{plain_name(name)} is on the meta device, so it has no values: call model.to_empty(device=...) and "
                "initialise or load the network first"
            )
        if tensor.is_inference():
            raise ValueError(
                f"{plain_name(name)} was made in torch.inference_mode, so it cannot be trained: build or load the "
                "network outside"
            )


def _refuse_others(masks: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse masks of another network."""
    given = {name: tuple(mask.shape) for name, mask in masks.items()}
    for name in dict.fromkeys((*shapes, *given)):
        if given.get(name) != shapes.get(name):
            ours, theirs = shapes.get(name, "no such weight"), given.get(name, "no such mask")
            raise ValueError(f"these masks belong to another network: {name} is {ours} here, and {theirs} in the masks")


def prepare(
    topology: str,
    representation: Representation,
    *,
    sparsity: float,
    total_steps: int,
    steps_per_epoch: int | None = None,
    batch_size: int | None = None,
    probe: Probe | None = None,
    options: Any = None,
    **values: Any,
) -> Topology:
    """Build a topology for a represented network; refuse, before anything starts, what could not be carried out.

    The weights' shapes alone count, so the network may be on the meta device.

    Example:
        >>> import sparsity, torch
        >>> rep = sparsity.represent(torch.nn.Linear(10, 10, device="meta"))
        >>> topology = sparsity.prepare("rigl", rep, sparsity=0.9, total_steps=1000)
        >>> topology.expected_events(1000, 0.9)
        {'initial': 1, 'update': 8}

    Args:
        topology: A registered topology.
        representation: What `represent` returned.
        sparsity: Fraction of zeros over all prunable weights, in [0, 1).
        total_steps: Length of training in steps, at least 1.
        steps_per_epoch: Steps per epoch, at least 1; needed by methods that act once per epoch.
        batch_size: Images per step; only for options that are given at another batch size (``batch_reference``).
        probe: Data and loss, for topologies that score weights before training.
        options: The topology's `Options` as one object; or
        **values: its options one by one.

    Returns:
        The topology, with times in steps.

    Raises:
        UnknownMethodError, OptionError: for a wrong name or option.
        Infeasible: if the network cannot have that sparsity.
        ValueError: for a number out of range, or an illegal combination.
    """
    if isinstance(sparsity, str) or not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is the share of zeros, in [0, 1): got {sparsity!r}")
    for name, number in (
        ("total_steps", total_steps),
        ("steps_per_epoch", steps_per_epoch),
        ("batch_size", batch_size),
    ):
        if number is not None and (not isinstance(number, int) or number < 1):
            raise ValueError(f"{name} must be a whole number, at least 1: got {number!r}")
    cls = registry.topology(topology)
    reason = registry.refusal(topology, representation.name)
    if reason is not None:
        raise ValueError(reason)
    given = _options(cls, options, values)
    if sparsity > 0:
        cls.check(given, sparsity)
    if cls.needs_probe and probe is None and sparsity > 0:
        raise ValueError(f"topology {topology!r} scores weights before training: give probe=sparsity.Probe(...)")
    if representation.needs_epochs and steps_per_epoch is None:
        raise ValueError(f"representation {representation.name!r} acts once an epoch: give steps_per_epoch")
    chosen = cls(cls.in_steps(given, batch_size=batch_size, steps_per_epoch=steps_per_epoch))
    levels = chosen.plan(sparsity).levels
    if levels > 1 and total_steps % (steps_per_epoch or total_steps):
        raise ValueError(f"topology {topology!r} trains several times: total_steps must be whole epochs")
    chosen.check_run(representation.shapes(chosen.roles if sparsity > 0 else ()), sparsity, total_steps * levels)
    representation.check_run(
        math.ceil(total_steps * levels / (steps_per_epoch or total_steps)), 0.0 if cls.uses_sparsity else sparsity
    )
    if cls.needs_probe and probe is not None and sparsity > 0:
        chosen.check_probe(probe)
    return chosen


def _options(cls: Any, given: Any, values: Mapping[str, Any]) -> Any:
    """The options of a method: an object that was built before, or made of single values."""
    if given is None:
        return build_options(cls.Options, values)
    if values:
        raise TypeError(f"give options= or {', '.join(values)}, not both")
    if type(given) is not cls.Options:
        raise TypeError(f"options of {cls.name!r} are a {cls.Options.__qualname__}, not a {type(given).__qualname__}")
    check_options(given)
    return given
