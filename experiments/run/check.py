"""Whether a run can be carried out, found out before anything starts: what is refused here never reaches a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

import sparsity
from experiments import data as datasets
from experiments.config.keys import dotted
from experiments.config.rules import CPU_ONLY, takes_gpu
from experiments.config.schema import Spec
from experiments.data import Outline
from experiments.data.bundle import check_divisible
from experiments.errors import UserError
from experiments.models import weights
from experiments.ranks.distributed import ALONE
from sparsity import Representation, Topology

from . import recalibrate
from .build import build_network, count_macs, refusals_named
from .probe import make_probe


def check(spec: Spec, data: Outline) -> None:
    """Construct network, representation and topology of a run on the meta device; no image and no weight is made.

    What depends on the machine that trains is left out: devices, ranks, memory.

    Args:
        spec: The resolved specification.
        data: Its data, `experiments.data.outline`.

    Raises:
        UserError: naming the key that has to change.
    """
    check_divisible(spec.data.batch_size, data.last_batch, 1, spec.runtime.accumulate)
    with torch.device("meta"):
        network = build_network(spec.model, data)
    if spec.model.weights is not None:
        weights.check(network.state_dict(), spec.model.weights)
    _check_recalibration(spec, network, data.steps_per_epoch)
    with torch.device("meta"):
        try:
            count_macs(network, (data.in_channels, data.image_size, data.image_size))
            representation = sparsity.represent(network, spec.representation.name, options=spec.representation.options)
        except ValueError as error:  # nothing to prune, tied weights
            raise UserError(str(error), where="model.name") from error
    with refusals_named():
        topology = sparsity.prepare(
            spec.topology.name,
            representation,
            sparsity=spec.topology.sparsity,
            total_steps=spec.schedule.epochs * data.steps_per_epoch,
            steps_per_epoch=data.steps_per_epoch,
            probe=make_probe(spec, data, torch.device("cpu"), ALONE),
            options=spec.topology.options,
        )
    _check_demands(spec, topology, representation, data.steps_per_epoch)


def _check_recalibration(spec: Spec, network: nn.Module, steps_per_epoch: int) -> None:
    """Refuse to compute batch statistics where there are none, or over more batches than an epoch has."""
    batches, key = spec.model.recalibrate, "model.recalibrate"
    if batches > steps_per_epoch:
        raise UserError(f"{batches:,} is out of range: 0 to {steps_per_epoch:,}, the batches of an epoch", where=key)
    if batches and not recalibrate.layers(network):
        raise UserError(f"{spec.model.name} has no batch statistics to compute anew; write 0", where=key)


def _check_demands(spec: Spec, topology: Topology, representation: Representation, steps_per_epoch: int) -> None:
    """Refuse a demand for more events than the methods of the run will record."""
    target = spec.topology.sparsity
    epochs = spec.schedule.epochs * topology.plan(target).levels
    left = 0.0 if topology.uses_sparsity else target
    expected = topology.expected_events(epochs * steps_per_epoch, target)
    expected |= representation.expected_events(epochs, left)
    for kind, demand in spec.checks.events.items():
        if kind not in representation.unstated_events and demand.at_least > expected.get(kind, 0):
            stated = ", ".join(f"{number} {name}" for name, number in expected.items()) or "none"
            raise UserError(
                f"{demand.at_least} are demanded, and {topology.name} with {representation.name} will record "
                f"{expected.get(kind, 0)} (all of its events: {stated}); lower at_least, or remove the demand",
                where=f"checks.events.{kind}",
            )


def check_here(specs: Iterable[tuple[str, Spec]]) -> None:
    """Refuse runs that take a GPU if this machine has none, or if their device is the CPU.

    Args:
        specs: What is checked, for messages, and the specification.

    Raises:
        UserError: with one line per fault, and how many kinds of run share it.
    """
    problems: dict[str, list[str]] = {}
    for context, spec in specs:
        problem = takes_gpu(spec)
        if problem is not None and (spec.runtime.device == "cpu" or not torch.cuda.is_available()):
            lacking = "runtime.device is cpu" if spec.runtime.device == "cpu" else "torch sees none here"
            text = f"{dotted(problem.path)}: {problem.text}, and {lacking}; {CPU_ONLY}"
            problems.setdefault(text, []).append(context)
    _refuse(problems)


def check_all(specs: Iterable[tuple[str, Spec]]) -> None:
    """Check specifications, each kind of run once: seeds and labels make no difference.

    Args:
        specs: What is checked, for messages, and the specification.

    Raises:
        UserError: with one line per fault, and how many kinds of run share it.
    """
    outlines: dict[str, Outline] = {}
    seen: set[str] = set()
    problems: dict[str, list[str]] = {}
    for context, spec in specs:
        kind = spec.model_copy(update={"seed": 0, "label": None}).model_dump_json()
        if kind in seen:
            continue
        seen.add(kind)
        section = spec.data.model_dump_json()
        try:
            if section not in outlines:
                outlines[section] = datasets.outline(spec.data)
            check(spec, outlines[section])
        except UserError as error:
            problems.setdefault(str(error), []).append(context)
    _refuse(problems)


def _refuse(problems: Mapping[str, Sequence[str]]) -> None:
    """Raise one error for all problems, each with what it is about; nothing if there are none."""
    lines = []
    for text, (first, *others) in problems.items():
        more = f" and {len(others)} more" if others else ""
        lines.append(f"{first}{more}: {text}")
    if lines:
        raise UserError("\n".join(lines))
