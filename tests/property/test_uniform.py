"""What every method owes, whoever wrote it: all registered topologies with all registered representations.

A new method is covered by being registered. Options that make short runs meaningful stand in `SHORT`; a method without
an entry runs with its defaults.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm.optim
import torch
import torch.distributed as dist
from torch import Tensor, nn

import sparsity
from ham import HAM, SAM
from sparsity import registry

STEPS, STEPS_PER_EPOCH, SPARSITY = 20, 5, 0.7

# method -> options for runs of 20 steps
SHORT: dict[str, dict[str, Any]] = {
    "rigl": {"update_every": 4},
    "set": {"update_every": 4},
    "granet": {"update_every": 3, "initial_sparsity": 0.2, "ramp_end": 0.5},
    "mest": {"update_every": 1, "mutation": 0.1},
    "imp": {"prune_fraction": 0.5},
    "wr": {"prune_fraction": 0.5},
    "lrr": {"prune_fraction": 0.5},
    "cyclic": {"cycles": 1},
    "gmp": {"update_every": 3},
    "one_shot": {"at": 0.5},
    "grasp": {"per_class": 4},
    "synflow": {"rounds": 10},
    "sign_in": {"reset_every": 2},
    "str": {"initial_threshold": -3.5},
    "pilot": {"penalty": 1e-3, "multiplier": 1.5},
    "spred": {"cut_at": 0.75},
    "bar": {"mu": 2.0},
}
ONCE = {"one_shot"}  # acts during training, and a single time

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


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5))


def linear_net() -> nn.Sequential:
    """Without batch statistics, which ranks do not share."""
    return nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 5))


def probe(network: nn.Module, dtype: torch.dtype) -> sparsity.Probe:
    """Data to score weights on: always the same images, labels 0 to 4 in turn."""
    shape = input_shape(network)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(77)
        for _ in range(4):
            yield torch.randn((8, *shape), generator=generator).to(dtype), torch.arange(8) % 5

    return sparsity.Probe(batches, nn.functional.cross_entropy, shape, num_classes=5)


def input_shape(network: Any) -> tuple[int, ...]:
    return (1, 6, 6) if network[0].weight.ndim == 4 else (12,)


class Run:
    """A model with everything attached, and its data."""

    def __init__(
        self,
        topology: str,
        representation: str,
        optimizer: str = "SGD",
        *,
        network: Callable[[], nn.Module] = small_net,
        wrap: Callable[[nn.Module], Any] = lambda model: model,
        dtype: torch.dtype = torch.float32,
    ):
        torch.manual_seed(3)
        self.network = network().to(dtype)
        self.dtype = dtype
        self.rep = sparsity.represent(self.network, representation, **SHORT.get(representation, {}))
        self.model = wrap(self.network)
        self.optimizer = (OPTIMIZERS | TIMM)[optimizer](self.rep.param_groups(weight_decay=1e-3))
        self.sparse = sparsity.attach(
            topology,
            self.model,
            self.optimizer,
            sparsity=SPARSITY,
            total_steps=STEPS,
            steps_per_epoch=STEPS_PER_EPOCH,
            seed=1,
            probe=probe(self.network, dtype) if registry.topology(topology).needs_probe else None,
            **SHORT.get(topology, {}),
        )

    def step(self, index: int, part: slice = slice(None)) -> None:
        generator = torch.Generator().manual_seed(index)
        shape = (8, *input_shape(self.network))
        x, y = torch.randn(shape, generator=generator).to(self.dtype), torch.randint(5, (8,), generator=generator)
        torch.manual_seed(index)  # for optimizers that draw, as Kron does

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(x[part]), y[part])
            loss.backward()
            return loss

        self.sparse.step(closure, metrics=lambda: {"train_accuracy": index / STEPS})
        if self.sparse.level_ended:
            self.sparse.next_level()

    def thetas(self) -> dict[str, Tensor]:
        return {name: theta.clone() for name, theta in self.sparse.representation.weights()}

    def save(self) -> bytes:
        buffer = io.BytesIO()
        torch.save([part.state_dict() for part in (self.network, self.optimizer, self.sparse)], buffer)
        return buffer.getvalue()

    def load(self, saved: bytes) -> None:
        states = torch.load(io.BytesIO(saved), weights_only=True)
        for part, state in zip((self.network, self.optimizer, self.sparse), states, strict=True):
            part.load_state_dict(state)


def check_run(topology: str, representation: str, optimizer: str) -> None:
    """One run; everything a method owes is asserted on the way."""
    run = Run(topology, representation, optimizer)
    start, saved = run.thetas(), b""
    for step in range(run.sparse.total_steps):
        if step == run.sparse.total_steps // 2 + 1:
            saved = run.save()
        run.step(step)
        for name, theta in run.sparse.representation.weights():
            assert not theta[~run.sparse.masks[name]].any(), f"{name} is not zero after step {step}"
            assert torch.isfinite(theta).all()
    end = run.thetas()
    assert all(not torch.equal(end[name], start[name]) for name in end)
    check_resumed(run, saved, (topology, representation, optimizer))
    check_events(run)
    check_end(run)


def check_resumed(run: Run, saved: bytes, names: tuple[str, str, str]) -> None:
    resumed = Run(*names)
    resumed.load(saved)
    for step in range(run.sparse.total_steps // 2 + 1, run.sparse.total_steps):
        resumed.step(step)
    for key, value in run.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[key], value), key
    assert resumed.sparse.masks.digest() == run.sparse.masks.digest()
    assert resumed.sparse.event_counts == run.sparse.event_counts
    macs = dict.fromkeys(run.sparse.shapes, 1)
    assert resumed.sparse.cost.fraction(macs) == run.sparse.cost.fraction(macs)


def check_events(run: Run) -> None:
    counts, expected = run.sparse.event_counts, run.sparse.expected_events()
    mask_events = [event for event in run.sparse.events if "dropped" in event]
    # what is announced happens; beyond it only observations, such as a threshold's first zeros, which change no mask
    announced = {kind: number for kind, number in counts.items() if kind in expected}
    assert announced == {kind: number for kind, number in expected.items() if number}
    assert {event["event"] for event in mask_events} <= set(expected)
    assert sum(counts.values()) == len(run.sparse.events)
    kind = type(run.sparse.topology)
    base = sparsity.Topology
    acts = [(kind.after_backward, base.after_backward), (kind.after_step, base.after_step)]
    if any(own is not default for own, default in [*acts, (kind.next_level, base.next_level)]):
        assert len(mask_events) >= (1 if kind.name in ONCE else 2)


def check_end(run: Run) -> None:
    shapes = dict(run.sparse.shapes)
    theta = run.thetas()
    stated = run.sparse.expected_active()
    masks = run.sparse.masks
    kept = run.sparse.finalize()
    parameters = dict(run.network.named_parameters())
    assert list(kept) == list(shapes)
    for name, number in kept.items():
        assert torch.equal(parameters[name], theta[name])
        assert number == int((parameters[name] != 0).sum()) <= masks.num_active()[name]
    if stated is not None:
        assert sum(masks.num_active().values()) == stated
        # zeros of a representation that makes them without a cut come on top of the mask's
        if not run.rep.uses_sparsity or run.rep.expected_active(shapes, SPARSITY) is not None:
            assert sum(kept.values()) == stated
    if run.sparse.topology.uses_sparsity or run.rep.uses_sparsity:
        assert sum(kept.values()) < sum(masks.sizes.values())


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
