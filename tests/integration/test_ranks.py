"""Several ranks train what one rank trains, agree on when to stop, and notice when one of them is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import wait_for
from ranks import Ended, die_at, freeze_at, on_ranks, stop_at, train_on
from small_runs import assert_close, assert_same_run, events, records, result, tiny_spec, train, train_in_pieces
from torch import nn

from experiments.config.identity import identity_with_data
from experiments.data.sampler import Shard
from experiments.errors import Interrupted, LostRank, RunFailure, UserError
from experiments.ranks.distributed import World
from experiments.run.metrics import evaluate
from experiments.rundir.ledger import read
from ham import HAM

pytestmark = pytest.mark.timeout(300)

# group normalisation, so that a batch in two shares has the gradient of the whole; two mask events at least
METHODS = {
    "random": ["topology={name: random, sparsity: 0.9}", "optimizer.ham={alpha: 5.0}"],
    "acdc": ["topology={name: acdc, allocation: erk, sparsity: 0.9}", "representation.name=sign_in"],
    "rigl": ["topology={name: rigl, sparsity: 0.9, update_every: 4}", "optimizer.clip_grad_norm=1.0"],
    "wr": ["topology={name: wr, sparsity: 0.75, prune_fraction: 0.5, rewind: 0.3}", "schedule.epochs=1"],
}
ACTS = {"random": 1, "acdc": 6, "rigl": 2, "wr": 2}
SMALL = [
    "model.name=resnet8_gn",
    "data.batch_size=16",
    "data.train_limit=160",
    "schedule.epochs=2",
    "optimizer.lr=0.05",
]


def failed(ended: Ended, kind: type[Exception]) -> str:
    assert isinstance(ended.error, kind), ended
    return str(ended.error)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_of_half_the_batch_are_one_of_the_whole(tmp_path: Path, method: str) -> None:
    spec = tiny_spec(tmp_path, *SMALL, *METHODS[method])
    train(spec, tmp_path / "one")
    ended = train_on(spec, tmp_path / "two", 2)
    assert [one.error for one in ended] == [None, None]
    assert ended[0].result | {"seconds": 0} == ended[1].result | {"seconds": 0}
    two, one = result(tmp_path / "two"), result(tmp_path / "one")
    assert (two.pop("ranks"), one.pop("ranks")) == (2, 1)
    assert sum(two["events"].values()) >= ACTS[method]
    assert two["events"] == one["events"]
    assert two["layers"] == one["layers"]
    assert two["evaluated"] == 100
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)  # evaluated in float32
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-10)
    assert_close(tmp_path / "two", tmp_path / "one")


@pytest.mark.usefixtures("in_float64")
def test_micro_batches_are_one_batch(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, *SMALL, *METHODS["random"])
    train(spec, tmp_path / "one")
    four = tiny_spec(tmp_path, *SMALL, *METHODS["random"], "runtime.accumulate=4")
    train(four, tmp_path / "four")
    both = tiny_spec(tmp_path, *SMALL, *METHODS["random"], "runtime.accumulate=2")
    assert [one.error for one in train_on(both, tmp_path / "both", 2)] == [None, None]
    for folder in ("four", "both"):
        assert_close(tmp_path / folder, tmp_path / "one")
    assert result(tmp_path / "four")["train_loss"] == pytest.approx(result(tmp_path / "one")["train_loss"], rel=1e-10)


@pytest.mark.robust
@pytest.mark.usefixtures("in_float64")
def test_a_smaller_last_batch_counts_each_image_once(tmp_path: Path) -> None:
    """16 images of 160 in batches of 48: six and five to three ranks, or to three micro-batches."""
    options = [*SMALL, "data.batch_size=48", "data.drop_last=false", *METHODS["rigl"]]
    spec = tiny_spec(tmp_path, *options)
    assert train(spec, tmp_path / "one")["steps"] == 8
    train(tiny_spec(tmp_path, *options, "runtime.accumulate=3"), tmp_path / "parts")
    assert [one.error for one in train_on(spec, tmp_path / "ranks", 3)] == [None] * 3
    train_in_pieces(spec, tmp_path / "pieces", (3, 4))  # before and after the small batch
    assert_same_run(tmp_path / "pieces", tmp_path / "one")
    for folder in ("parts", "ranks"):
        assert_close(tmp_path / folder, tmp_path / "one")
        assert result(tmp_path / folder)["train_loss"] == pytest.approx(
            result(tmp_path / "one")["train_loss"], rel=1e-10
        )


def test_ranks_read_one_training_accuracy(tmp_path: Path) -> None:
    """PILoT's penalty follows the accuracy over all ranks; after the cut the masks of the ranks are compared."""
    representation = "representation={name: pilot, penalty: 0.001, multiplier: 2.0}"
    spec = tiny_spec(tmp_path, *SMALL, representation, "topology.sparsity=0.9", "schedule.epochs=4")
    assert [one.error for one in train_on(spec, tmp_path / "run", 2)] == [None, None]
    accuracies = [line["train_accuracy"] for line in records(tmp_path / "run") if line["kind"] == "epoch"]
    alpha, expected = 0.001, []
    for epoch, (before, now) in enumerate(zip([0.0, *accuracies], accuracies, strict=False), 1):
        alpha = alpha * 2 if now >= before and epoch <= 2 else alpha / 2
        expected.append(alpha)
    assert [event["alpha"] for event in events(tmp_path / "run", "penalty")] == expected
    assert result(tmp_path / "run")["events"] == {"penalty": 4, "cut": 1}


BATCH_NORM = ["data.batch_size=48", "model.name=resnet8", "schedule.epochs=2"]


@pytest.mark.parametrize("size", [2, 3])
def test_in_pieces_is_in_one(tmp_path: Path, size: int) -> None:
    """Also with batch statistics and three ranks, where the order of sums could differ after a resume."""
    spec = tiny_spec(tmp_path, *BATCH_NORM, *METHODS["acdc"], "optimizer.ema_decay=0.9")
    train_on(spec, tmp_path / "whole", size)
    for which, at in ((size - 1, 3), (0, 8)):  # not only the leader may be asked
        for ended in train_on(spec, tmp_path / "run", size, partial(stop_at, which, at)):
            assert "stopped at step" in failed(ended, Interrupted)
    assert [ended.error for ended in train_on(spec, tmp_path / "run", size)] == [None] * size
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    starts = [record["step"] for record in read(tmp_path / "run") if record["event"] == "start"]
    # the vote is counted while the next step computes
    assert starts == [0, 4, 9]
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.robust
def test_a_dead_rank_stops_the_others_and_nothing_is_lost(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, *BATCH_NORM, *METHODS["rigl"], "checkpoint.every_steps=4")
    train_on(spec, tmp_path / "whole", 3)
    for which in (2, 0):
        # at once: without a sign of its death they would wait for ten minutes, longer than a test may take
        ended = train_on(spec, tmp_path / "run", 3, partial(die_at, which, 7))
        assert ended[which].killed
        for rank in {0, 1, 2} - {which}:
            text = failed(ended[rank], LostRank)
            assert f"rank {rank} of 3 lost another rank" in text
            assert "goes on from the last checkpoint" in text
    assert not (tmp_path / "run/failure.json").exists()
    train_on(spec, tmp_path / "run", 3)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    ledger = read(tmp_path / "run")
    assert [record["step"] for record in ledger if record["event"] == "start"] == [0, 6, 6]
    assert [record["reason"] for record in ledger if record["event"] == "end"] == ["crashed", "done"]
    assert [record["attempt"] for record in ledger if record["event"] == "lost"] == [2]


@pytest.mark.robust
def test_a_rank_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, *BATCH_NORM, "runtime.rank_timeout=0.1")
    ended = train_on(spec, tmp_path / "run", 2, partial(freeze_at, 1, 5), frozen=1)
    assert "lost another rank" in failed(ended[0], LostRank)


@pytest.mark.robust
@pytest.mark.usefixtures("in_float64")
def test_another_number_of_ranks_goes_on_and_says_so(tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path, *SMALL, *METHODS["acdc"])
    train(spec, tmp_path / "one")
    train_on(spec, tmp_path / "run", 2, partial(stop_at, 0, 6))
    train(spec, tmp_path / "run")
    assert "goes on with 1 ranks where it had 2" in (tmp_path / "run/log.txt").read_text()
    assert [record["ranks"] for record in read(tmp_path / "run") if record["event"] == "start"] == [2, 1]
    assert_close(tmp_path / "run", tmp_path / "one")
    # also the sums of the epoch it was stopped in
    epochs = [[r["loss"] for r in records(tmp_path / f) if r["kind"] == "epoch"] for f in ("run", "one")]
    assert epochs[0] == pytest.approx(epochs[1], rel=1e-10)
    spec = tiny_spec(tmp_path, *SMALL)
    for ended in train_on(spec, tmp_path / "three", 3):
        assert "16 images a step cannot be shared evenly by 3 ranks" in failed(ended, UserError)


def _diverging_masks(world: World, folder: Path) -> None:
    from experiments.run import runner
    from sparsity.topologies import random as module

    draw = module.random_masks

    def drawn(ctx: Any, budgets: Any) -> Any:
        masks = draw(ctx, budgets)
        if world.rank == 1:  # one bit
            first = next(iter(masks))
            masks[first].view(-1)[0] ^= True
        return masks

    module.random_masks = drawn
    spec = tiny_spec(folder / f"config{world.rank}", *SMALL, *METHODS["random"])
    runner.run(spec, folder / "run", identity_with_data(spec), world=world)


def test_masks_that_differ_between_ranks_fail_the_run(tmp_path: Path) -> None:
    for ended in on_ranks(2, tmp_path, _diverging_masks, tmp_path):
        assert "the masks after step 0 of rank 0 and rank 1 differ" in failed(ended, RunFailure)
    assert "differ" in json.loads((tmp_path / "run/failure.json").read_text())["error"]


def _evaluated(world: World) -> list[tuple[float, float, int]]:
    torch.manual_seed(0)
    model, found = nn.Linear(7, 3).double(), []
    for count in (2001, 2000):  # the ranks' shares are equal, and are not
        images, labels = torch.randn(count, 7).double(), torch.randint(3, (count,))
        share = Shard(world.rank, world.size).of(count)
        batches = [(images[i : min(i + 100, share.stop)], labels[i : min(i + 100, share.stop)]) for i in share[::100]]
        found.append(evaluate(model, batches, world))
    return found


def test_three_ranks_evaluate_each_image_once(tmp_path: Path) -> None:
    alone = _evaluated(World())
    assert [images for _, _, images in alone] == [2001, 2000]
    for ended in on_ranks(3, tmp_path, _evaluated):
        assert [found[1:] for found in ended.result] == [expected[1:] for expected in alone]
        assert [found[0] for found in ended.result] == pytest.approx([expected[0] for expected in alone], rel=1e-6)


@pytest.mark.robust
@pytest.mark.slow
def test_torchrun_and_its_signals(tmp_path: Path) -> None:
    """The command a user types; torchrun hands SIGTERM on to its ranks, which save together."""
    overrides = ["data.batch_size=48", "schedule.epochs=20", *METHODS["rigl"]]
    tiny_spec(tmp_path, *overrides)
    for package in ("experiments", "results", "sparsity"):  # folders of the user's own, which ours come before
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('the wrong package')")
    ham = ["--no-python", str(Path(sys.executable).with_name("ham")), "run", "tiny.yaml", *overrides]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", *ham]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.glob("runs/*/checkpoints/*.pt")) or first.poll() is not None, "a checkpoint")
    first.send_signal(signal.SIGTERM)
    assert "stopped at step" in first.communicate(timeout=150)[1]
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "attempts/0001.json").read_text())["reason"] == "stopped"
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count("accuracy") == 1, "one rank speaks"
    assert result(folder)["ranks"] == 2
    assert len(events(folder, "update")) == result(folder)["events"]["update"]


def _with_ham(world: World, base: str) -> list[Any]:
    """Eight steps of HAM under DDP, the gradients of two micro-batches summed before each; the weights at the end."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, foreach=True)
    optimizer = HAM(inner if base == "SGD" else torch.optim.AdamW(model.parameters(), lr=0.02), alpha=3.0, beta=0.01)
    parallel: Any = nn.parallel.DistributedDataParallel(model) if world.size > 1 else model
    for step in range(8):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step)).double()
        share = x.chunk(world.size)[world.rank].chunk(2)
        optimizer.zero_grad()
        with parallel.no_sync() if world.size > 1 else nullcontext():
            (parallel(share[0]).square().mean() / 2).backward()
        (parallel(share[1]).square().mean() / 2).backward()
        optimizer.step()
    return [parameter.tolist() for parameter in model.parameters()]


@pytest.mark.parametrize("base", ["SGD", "AdamW"])
def test_ham_under_ddp_sees_the_mean_gradient(tmp_path: Path, base: str) -> None:
    """Two ranks hold equal bits, and what one process makes of the whole batch; each rank's own share differs."""
    first, second = (ended.result for ended in on_ranks(2, tmp_path, _with_ham, base))
    alone = _with_ham(World(), base)
    for one, other, whole in zip(first, second, alone, strict=True):
        assert one == other
        pairs = (torch.tensor(each, dtype=torch.float64) for each in (one, whole))
        torch.testing.assert_close(*pairs, rtol=1e-11, atol=1e-12)
