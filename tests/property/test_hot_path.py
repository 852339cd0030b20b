"""What an ordinary training step may not do, for every registered method: wait for the device, or sort everything.

On a GPU an operation whose result the host needs stops the stream. Here its traces are looked for among the operations
of a step on the CPU; where there is a GPU, its own watch is set on top.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_uniform import Run
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sparsity import registry
from sparsity.testing import SHORT, STEPS, STEPS_PER_EPOCH, input_shape

SORTS = {"sort", "argsort", "msort", "unique_consecutive", "_unique2", "unique_dim"}
WAITS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "item"}
COPIES = ("tolist", "cpu", "numpy", "item", "__bool__", "__float__", "__int__")


class Watch(TorchDispatchMode):
    """Notes the operations that wait for the device, and those that sort."""

    def __init__(self) -> None:
        super().__init__()
        self.sorted: list[str] = []
        self.waited: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in SORTS:
            self.sorted.append(name)
        masks = [leaf for leaf in tree_leaves(args[1:]) if isinstance(leaf, Tensor) and leaf.dtype is torch.bool]
        if name in WAITS or (name in ("index", "index_put_", "index_put") and masks):
            self.waited.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A watch that also hears of copies to the host, which on the CPU are no operation at all."""
    watch = Watch()
    monkeypatch.setattr("ham.rule.SYNCHRONOUS_DEVICES", ())  # as on an accelerator: reading a result stalls the host
    for name in COPIES:
        original = getattr(Tensor, name)

        def heard(self: Tensor, *arguments: Any, _name: str = name, _original: Any = original) -> Any:
            watch.waited.append(_name)
            return _original(self, *arguments)

        monkeypatch.setattr(Tensor, name, heard)
    return watch


def pairs() -> list[tuple[str, str]]:
    """Every topology on plain weights and every representation without one."""
    return [(name, "plain") for name in registry.topologies()] + [
        ("dense", name) for name in registry.representations()
    ]


class WithGradients(Run):
    """A run whose gradients are set, so that all operations watched are those of the method and the optimizer."""

    def give_gradients(self, index: int) -> None:
        generator = torch.Generator().manual_seed(index)
        x = torch.randn((8, *input_shape(self.network)), generator=generator)
        y = torch.randint(5, (8,), generator=generator)
        self.optimizer.zero_grad()
        torch.nn.functional.cross_entropy(self.model(x), y).backward()

    def just_step(self, index: int) -> None:
        self.sparse.step(metrics=lambda: {"train_accuracy": index / STEPS})


@pytest.mark.parametrize("pair", pairs(), ids="-".join)
def test_an_ordinary_step_waits_for_nothing_and_no_step_sorts(pair: tuple[str, str], watch: Watch):
    with watch:
        run = WithGradients(*pair)
    del watch.waited[:]  # before training, once
    ordinary = 0
    for step in range(run.sparse.total_steps):
        run.give_gradients(step)
        happened, before = len(run.sparse.events), len(watch.waited)
        with watch:
            run.just_step(step)
        ends_epoch = run.sparse.steps_done % STEPS_PER_EPOCH == 0  # then densities are counted
        if len(run.sparse.events) == happened and not ends_epoch and step > 0:  # the first step looks at the weights
            assert watch.waited[before:] == [], f"step {step}"
            ordinary += 1
        if run.sparse.level_ended:
            with watch:
                run.sparse.next_level()
    assert watch.sorted == []
    # a method that changes its masks at every step has no ordinary one
    assert ordinary >= 2 or SHORT.get(pair[0], {}).get("update_every") == 1


@pytest.mark.parametrize("offence", ["item", "tolist", "bool", "nonzero", "mask", "sort"])
def test_the_watch_sees_what_it_is_for(offence: str, watch: Watch, monkeypatch: pytest.MonkeyPatch):
    """A topology that does one forbidden thing in an ordinary step is caught."""
    acts = {
        "item": lambda theta: theta.sum().item(),
        "tolist": lambda theta: theta.sum().tolist(),
        "bool": lambda theta: bool((theta == 0).any()),
        "nonzero": lambda theta: theta.nonzero(),
        "mask": lambda theta: theta[theta > 0],
        "sort": lambda theta: theta.flatten().sort(),
    }

    def offend(_: object, ctx: Any) -> None:
        acts[offence](ctx.weight(next(iter(ctx.shapes))))

    monkeypatch.setattr(registry.topology("random"), "after_step", offend)
    run = WithGradients("random", "plain")
    for step in range(2):
        run.give_gradients(step)
        del watch.waited[:]
        with watch:
            run.just_step(step)
    assert bool(watch.sorted) == (offence == "sort")
    assert bool(watch.waited) == (offence != "sort")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("pair", pairs(), ids="-".join)
def test_on_a_gpu_an_ordinary_step_synchronises_nothing(pair: tuple[str, str]):
    from experiments.bench.trial import Trial

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.Flatten(), torch.nn.Linear(256, 10))
    trial = Trial(*pair, network.cuda(), steps=100_000, steps_per_epoch=1000)
    for _ in range(3):  # an update at the very start
        trial.step()
    trial.backward()
    before = len(trial.sparse.events)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trial.sparse.step(metrics=lambda: {"train_accuracy": 0.5})
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(trial.sparse.events) == before
