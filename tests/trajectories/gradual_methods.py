"""Methods that go from dense to sparse, and those that train several times, beside the authors' code."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from follow import begin, follow, set_rate, sgd
from recordings import Masks, Recording, Tally, arrays, network
from torch.optim import SGD, Optimizer

import ham
import sparsity
from sparsity.engine.sparse_training import SparseTraining
from sparsity.masking import budgets
from sparsity.masking.distributions import layer_densities
from sparsity.masking.selection import top_k_of_all

CYCLE = 20  # steps of a cycle of cyclic training


def _manager(
    tally: Tally, topology: str, case: str, wrap: Callable[[Optimizer], Optimizer] = lambda base: base, **options: Any
) -> None:
    """Follow AC/DC's manager, which sets masks before the first step of an epoch; the rate halves every 40 epochs."""
    recording = Recording("acdc", case)
    target, steps_per_epoch, epochs = recording.value("set").tolist()
    values = ast.literal_eval(str(recording.value("opt")))
    model = network(recording.kind)
    optimizer = wrap(SGD(model.parameters(), **values))
    training = sparsity.attach(
        topology, model, optimizer, sparsity=target, total_steps=int(steps_per_epoch * epochs), **options
    )
    follow(
        tally,
        recording,
        training,
        before=lambda step: set_rate(optimizer, values["lr"] * 0.5 ** (step // int(40 * steps_per_epoch))),
        cut_first=True,
    )


def acdc(tally: Tally) -> None:
    """Follow the phases of 100 epochs."""
    for case in ("mlp", "cnn"):
        _manager(tally, "acdc", case)


def acdc_ham(tally: Tally) -> None:
    """Follow the phases with HAM's listing as the manager's optimizer."""
    for case in ("ham_mlp", "ham_cnn"):
        _manager(tally, "acdc", case, lambda base: ham.HAM(base, alpha=20.0, beta=0.01))


def gmp(tally: Tally) -> None:
    """Follow AC/DC's gradual pruner, with its numbers of weights."""
    recording = Recording("acdc", "gmp")
    cuts = iter(sorted({step for step in range(1, 200) if not _same(recording, step)}))

    def theirs(scores: Masks, number: int, draw: Any) -> Masks:
        kept = sum(int(mask.sum()) for mask in recording.masks(next(cuts)).values())
        return top_k_of_all(scores, kept, draw)

    with mock.patch.object(budgets, "top_k_of_all", theirs):
        _manager(tally, "gmp", "gmp", start=0.1, end=0.75, update_every=10)


def _same(recording: Recording, step: int) -> bool:
    before, after = recording.masks(step - 1), recording.masks(step)
    return all(torch.equal(before[name], after[name]) for name in after)


def _levels(tally: Tally, recording: Recording, training: SparseTraining, steps: int) -> None:
    """Train level after level; the rate falls linearly in each."""

    def before(_: int) -> None:
        if training.level_ended:
            training.next_level()
        set_rate(training.optimizer, 0.1 * (1 - training.step_in_level / steps))

    follow(tally, recording, training, before=before)


def iterative(tally: Tally) -> None:
    """Follow IMP, weight rewinding and learning-rate rewinding through four levels."""
    for topology in ("imp", "wr", "lrr"):
        for kind in ("mlp", "cnn"):
            recording = Recording("iterative", f"{topology}_{kind}")
            steps, rewind = recording.value("set").tolist()
            model = network(kind)
            options = {"rewind": rewind / steps} if topology == "wr" else {}
            training = sparsity.attach(
                topology, model, sgd(model, "sgd"), sparsity=1 - 0.8**3, total_steps=steps, **options
            )
            _levels(tally, recording, training, steps)


def cyclic(tally: Tally) -> None:
    """Follow two cycles, the pruning and a third, with the initial mask and the number of weights of theirs."""
    for kind in ("mlp", "cnn"):
        recording = Recording("iterative", f"cyclic_{kind}", kind)
        model = network(kind)
        training = sparsity.attach(
            "cyclic", model, sgd(model, "sgd"), sparsity=0.9, total_steps=CYCLE, cycles=2, retrain=1
        )
        begin(training, kind, recording.masks(-1))
        kept = sum(int(mask.sum()) for mask in recording.masks(2 * CYCLE).values())
        with mock.patch.object(budgets.Allocation, "inner_active", lambda *_, kept=kept: kept):
            _levels(tally, recording, training, CYCLE)


def balanced(tally: Tally) -> None:
    """Compare the densities of the distribution."""
    for key, theirs in arrays("iterative").items():
        if key.startswith("bal|"):
            _, kind, density = key.split("|")
            shapes = {name: tuple(p.shape) for name, p in network(kind).named_parameters() if p.ndim > 1}
            ours = layer_densities("balanced_sweep", shapes, float(density), ())
            tally.numbers(key, list(ours.values()), theirs.tolist())
