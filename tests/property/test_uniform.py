"""What every method owes, whoever wrote it: all registered topologies with all registered representations.

A new method is covered by being registered. The checks are those of `sparsity.testing`; options that make short runs
meaningful are in its `SHORT`, and a method without an entry runs with its defaults.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm.optim
import torch
import torch.distributed as dist
from torch import nn

import sparsity
from ham import HAM, SAM
from sparsity import registry
from sparsity.testing import SHORT, ShortRun, check_pair

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
    "AdamW": lambda groups: torch.optim.AdamW(groups, lr=0.01),
    "HAM(SGD)": lambda groups: HAM(torch.optim.SGD(groups, lr=0.05, momentum=0.9), alpha=5.0, beta=1e-3),
    "SAM(HAM(SGD))": lambda groups: SAM(HAM(torch.optim.SGD(groups, lr=0.05, momentum=0.9), alpha=5.0), rho=0.1),
}


def one_name_a_class() -> list[str]:
    """Names of timm's optimizers: the first of each class, without those that need a GPU or a second derivative."""
    first: dict[type, str] = {}
    for name in timm.optim.list_optimizers():
        info = timm.optim.get_optimizer_info(name)
        if not (name.startswith(("fused", "bnb")) or info.second_order):
            first.setdefault(timm.optim.get_optimizer_class(name, bind_defaults=False), name)
    return [*first.values(), "lookahead_sgd"]


def timm_in_ham(name: str) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda groups: HAM(timm.optim.create_optimizer_v2(groups, name, lr=0.005), alpha=5.0, beta=1e-3)


TIMM = {f"HAM(timm {name})": timm_in_ham(name) for name in one_name_a_class()}

PAIRS = [(t, r) for t in registry.topologies() for r in registry.representations()]
LEGAL = [pair for pair in PAIRS if registry.refusal(*pair) is None]
ILLEGAL = [pair for pair in PAIRS if registry.refusal(*pair) is not None]


def one_legal_pair_a_member() -> list[tuple[str, str]]:
    """A short list of pairs in which every topology and every representation occurs."""
    chosen, times = [], dict.fromkeys(registry.representations(), 0)
    for topology in registry.topologies():
        # with the representation that has had the fewest topologies
        pair = min((pair for pair in LEGAL if pair[0] == topology), key=lambda pair: times[pair[1]])
        times[pair[1]] += 1
        chosen.append(pair)
    return chosen


MEMBERS = one_legal_pair_a_member()
# all pairs under one optimizer, all members under each
RUNS = [(*pair, "HAM(SGD)") for pair in LEGAL]
RUNS += [(*pair, optimizer) for optimizer in OPTIMIZERS if optimizer != "HAM(SGD)" for pair in MEMBERS]


def linear_net() -> nn.Sequential:
    """Without batch statistics, which ranks do not share."""
    return nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 5))


class Run(ShortRun):
    """A short run whose optimizer is named."""

    def __init__(self, topology: str, representation: str, optimizer: str = "SGD", **kwargs: Any):
        super().__init__(topology, representation, (OPTIMIZERS | TIMM)[optimizer], **kwargs)


def check_run(topology: str, representation: str, optimizer: str) -> None:
    check_pair(topology, representation, (OPTIMIZERS | TIMM)[optimizer])


@pytest.mark.parametrize(("topology", "representation", "optimizer"), RUNS, ids=map("-".join, RUNS))
def test_every_legal_combination(topology: str, representation: str, optimizer: str):
    check_run(topology, representation, optimizer)


@pytest.mark.parametrize("optimizer", TIMM)
@pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")
def test_masks_under_any_base(optimizer: str):
    with torch.compiler.set_stance("force_eager"):  # Kron compiles
        check_run("rigl", "plain", optimizer)


@pytest.mark.parametrize(("topology", "representation"), ILLEGAL, ids=map("-".join, ILLEGAL))
def test_every_illegal_combination_is_refused(topology: str, representation: str):
    reason = registry.refusal(topology, representation)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the message is compared in full)
        Run(topology, representation)
    assert str(caught.value) == reason


def test_the_table_names_registered_methods():
    assert set(SHORT) <= set(registry.topologies()) | set(registry.representations())
    assert {pair[0] for pair in MEMBERS} == set(registry.topologies())
    assert {pair[1] for pair in MEMBERS} == set(registry.representations())


# ---- a method from outside ------------------------------------------------------------------------------------------

OUTSIDE = '''
"""A topology of somebody else: cuts each layer to its smallest-index weights, in two stages."""

from dataclasses import dataclass

import torch

from sparsity import MaskSet, Topology, option, register_topology


def first(shapes, density):
    masks = {}
    for name, shape in shapes.items():
        size = torch.Size(shape).numel()
        masks[name] = (torch.arange(size) < round(density * size)).view(shape)
    return MaskSet(masks)


@register_topology("head_first")
class HeadFirst(Topology):
    """Half of the sparsity after 5 steps, all of it after 10."""

    title = "Head first"
    family = "DtS"
    regrows = REGROWS

    @dataclass(frozen=True)
    class Options:
        """Options."""

        at: int = option(5, "steps between cuts", ge=1)

    def after_step(self, ctx):
        stage = ctx.steps_done / self.options.at
        if stage in (1, 2):
            ctx.set_masks(first(ctx.shapes, 1 - ctx.sparsity * stage / 2), "cut")

    def expected_active(self, shapes, sparsity):
        return sum(round((1 - sparsity) * torch.Size(shape).numel()) for shape in shapes.values())

    def expected_events(self, total_steps, sparsity):
        return {"cut": 2}
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_registry) -> Iterator[Callable[[bool], None]]:
    """Imports, by its name, a module that registers a topology; all traces are gone afterwards."""
    monkeypatch.syspath_prepend(tmp_path)

    def bring(regrows: bool) -> None:
        (tmp_path / "methods_of_mine.py").write_text(OUTSIDE.replace("REGROWS", str(regrows)))
        importlib.import_module("methods_of_mine")

    yield bring
    sys.modules.pop("methods_of_mine", None)


def test_a_method_from_outside_is_held_to_the_same(outside: Callable[[bool], None]):
    assert "head_first" not in registry.topologies()
    outside(False)
    for representation in registry.representations():
        assert registry.refusal("head_first", representation) is None
        check_run("head_first", representation, "HAM(SGD)")


def test_a_method_from_outside_is_refused_where_its_weights_could_not_move(outside: Callable[[bool], None]):
    outside(True)
    for representation, kind in registry.representations().items():
        assert (registry.refusal("head_first", representation) is None) == kind.grad_at_zero


@pytest.mark.parametrize("fault", ["expected_active", "expected_events", "zeros"])
def test_the_checks_notice_a_method_that_breaks_its_word(
    outside: Callable[[bool], None], fault: str, monkeypatch: pytest.MonkeyPatch
):
    outside(False)
    method = registry.topology("head_first")
    if fault == "expected_active":
        monkeypatch.setattr(method, "expected_active", lambda *_: 1)
    elif fault == "expected_events":
        monkeypatch.setattr(method, "expected_events", lambda *_: {"cut": 3})
    else:
        monkeypatch.setattr(sparsity.SparseTraining, "zero_pruned", lambda _: None)
    with pytest.raises((AssertionError, RuntimeError)):
        check_run("head_first", "plain", "SGD")


# ---- two ranks ------------------------------------------------------------------------------------------------------


def rank_main(rank: int, folder: str, pairs: list[tuple[str, str]]) -> None:
    """One of two ranks: trains every pair on its half of each batch and leaves masks and weights in the folder."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for pair in pairs:
        run = Run(*pair, network=linear_net, wrap=nn.parallel.DistributedDataParallel, dtype=torch.float64)
        digests = [run.sparse.masks.digest()]
        for step in range(run.sparse.total_steps):
            run.step(step, slice(4 * rank, 4 * rank + 4))
            digests.append(run.sparse.masks.digest())
        results[pair] = {"digests": digests, "thetas": run.thetas()}
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[tuple[str, str], dict[str, Any]]]:
    folder = str(tmp_path_factory.mktemp("ranks"))
    torch.multiprocessing.spawn(rank_main, args=(folder, MEMBERS), nprocs=2)
    return [torch.load(f"{folder}/rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.robust
@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
@pytest.mark.parametrize("pair", MEMBERS, ids="-".join)
def test_two_ranks_agree_with_each_other_and_with_one_process(pair: tuple[str, str], ranks):
    first, second = (found[pair] for found in ranks)
    assert first["digests"] == second["digests"]
    alone = Run(*pair, network=linear_net, dtype=torch.float64)
    digests = [alone.sparse.masks.digest()]
    for step in range(alone.sparse.total_steps):
        alone.step(step)
        digests.append(alone.sparse.masks.digest())
    assert first["digests"] == digests
    for name, theta in alone.thetas().items():
        assert torch.equal(first["thetas"][name], second["thetas"][name])
        torch.testing.assert_close(first["thetas"][name], theta, rtol=1e-10, atol=1e-12)


# ---- compiled -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", MEMBERS, ids="-".join)
def test_compiled_equals_eager(pair: tuple[str, str]):
    # aot_eager traces forward and backward as inductor does, without the minutes of its code generation
    torch._dynamo.reset()
    options: dict[str, Any] = {"network": linear_net, "dtype": torch.float64}
    compiled = Run(*pair, wrap=lambda m: torch.compile(m, backend="aot_eager", fullgraph=True), **options)
    eager = Run(*pair, **options)
    for step in range(eager.sparse.total_steps):
        compiled.step(step)
        eager.step(step)
        assert compiled.sparse.masks.digest() == eager.sparse.masks.digest()
    assert compiled.sparse.event_counts == eager.sparse.event_counts
    for name, theta in eager.thetas().items():
        torch.testing.assert_close(compiled.thetas()[name], theta, rtol=1e-10, atol=1e-12)
