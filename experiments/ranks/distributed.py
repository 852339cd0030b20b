"""The ranks of a run: how they are started, how they connect, and how they agree."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from experiments.errors import LostRank, RunFailure
from experiments.rundir.files import read_json, write_json
from slurm.scheduler.environment import this_start


@dataclass(frozen=True)
class World:
    """The ranks of one run, from the view of one of them; by default there is only one.

    Attributes:
        rank: Number of this rank, 0 to `size` - 1. Rank 0 is the main rank, the only one that writes files.
        size: Number of ranks.
        local_rank: Number of this rank on its node, which determines its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the main rank, rank 0."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        if self.size == 1:
            return value
        box = [value]
        with lost_ranks_named(self):
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in the order of ranks, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with lost_ranks_named(self):
            dist.all_gather_object(values, value)
        return values

    def sum(self, values: Tensor) -> Tensor:
        """Return the elementwise sum over all ranks, as a new tensor on the CPU."""
        total = values.detach().cpu().clone()
        if self.size > 1:
            with lost_ranks_named(self):
                dist.all_reduce(total)
        return total

    def check_equal(self, what: str, value: str) -> None:
        """Check that all ranks hold the same value.

        Raises:
            RunFailure: on every rank if they do not; the error names the ranks that differ from rank 0.
        """
        values = self.gather(value)
        others = [str(rank) for rank, other in enumerate(values) if other != values[0]]
        if others:
            raise RunFailure(f"the {what} of rank 0 and rank {', '.join(others)} differ: the ranks have come apart")


ALONE = World()


class StepVote:
    """A vote of all ranks at every step, reduced while the next step computes, so that no rank waits for it.

    With one rank, `cast` returns its votes at once. With several, `cast` returns the result of the previous step's
    vote, which is the same on all ranks, so that all act on it at the same step.

    Args:
        world: The ranks.
        questions: Number of yes-or-no questions per vote.
    """

    def __init__(self, world: World, questions: int):
        self._world = world
        self._pending: tuple[Tensor, Any] | None = None
        self._none = [False] * questions

    def cast(self, *votes: bool) -> list[bool]:
        """Vote on all questions and return the last result: per question, whether any rank voted yes."""
        if self._world.size == 1:
            return list(votes)
        with lost_ranks_named(self._world):
            counted = self.settle()
            ballot = torch.tensor(votes, dtype=torch.int32)
            self._pending = ballot, dist.all_reduce(ballot, op=dist.ReduceOp.MAX, async_op=True)
        return counted

    def settle(self) -> list[bool]:
        """Wait for the vote that is still being reduced, if there is one, and return its result."""
        if self._pending is None:
            return self._none
        (ballot, work), self._pending = self._pending, None
        with lost_ranks_named(self._world):
            work.wait()
        return [bool(vote) for vote in ballot]


@torch.no_grad()
def share_buffers(model: nn.Module, world: World) -> None:
    """Copy rank 0's buffers, such as batch statistics, to all ranks, as DDP does before each training forward pass."""
    if world.size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


@contextmanager
def lost_ranks_named(world: World) -> Iterator[None]:
    """Convert the errors that collectives raise when a rank is gone into `LostRank`.

    torch has no error type for this case: gloo raises a bare RuntimeError from inside `backward`.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        text = str(error)
        if world.size == 1 or not (isinstance(error, dist.DistError) or _of_transport(text)):
            raise
        reason = text.splitlines()[0][:160]
        raise LostRank(
            f"rank {world.rank} of {world.size} lost another rank ({reason}); the same command goes on from the last "
            "checkpoint, and the log of the rank that died first says why"
        ) from error


def _of_transport(text: str) -> bool:
    signs = ("gloo", "NCCL", "closed by peer", "pair closure", "Connection reset", "Broken pipe", "recvValue failed")
    return any(sign in text for sign in signs)


@contextmanager
def joined(folder: Path, device: str, minutes: float) -> Generator[World]:
    """Connect to the other ranks of this run for the duration of a block, if there are any.

    Ranks are recognised by torchrun's environment variables or, without them, by those of a Slurm step with more than
    one task. Otherwise there is one rank.

    Args:
        folder: The run directory, on a file system that all ranks share; created if missing.
        device: ``cpu``, ``cuda`` or ``auto``; NCCL communicates tensors on GPUs, gloo all others.
        minutes: Time that a rank waits for another that does not answer.

    Raises:
        RunFailure: if the ranks do not connect in that time.
    """
    found = _started_as()
    if found is None:
        yield ALONE
        return
    world, by_slurm = found
    _join(folder, world, device, timedelta(minutes=minutes), by_slurm=by_slurm)
    try:
        yield world
    except LostRank:
        raise  # the process group cannot be shut down cleanly
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _join(folder: Path, world: World, device: str, timeout: timedelta, *, by_slurm: bool) -> None:
    on_gpu = device != "cpu" and torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    if on_gpu:
        torch.cuda.set_device(world.local_rank % torch.cuda.device_count())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if by_slurm:
            store = _slurm_store(folder, world, timeout)
            dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=timeout)
        else:
            dist.init_process_group(backend, timeout=timeout)
        world.gather(None)  # connects all pairs, so that a missing rank is noticed here
    except (RuntimeError, ValueError, LostRank) as error:
        text = str(error).splitlines()[0]
        raise RunFailure(f"rank {world.rank} of {world.size} did not find the others: {text}", str(folder)) from error
    if by_slurm and world.is_main:
        _rendezvous(folder).unlink(missing_ok=True)


def _started_as() -> tuple[World, bool] | None:
    """Return the ranks that the environment describes and whether Slurm started them; None for a single rank."""
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env and "MASTER_ADDR" in env:
        world = World(int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", 0)))
        return (world, False) if world.size > 1 else None
    task = this_start()
    return (World(task.rank, task.size, task.local_rank), True) if task.size > 1 else None


def _rendezvous(folder: Path) -> Path:
    """Return the path of the file with rank 0's address; each job, restart and step has its own."""
    start = this_start()
    return folder / f".rendezvous.{start.id or 0}.{start.restarts}.{start.step}.json"


def _slurm_store(folder: Path, world: World, timeout: timedelta) -> TCPStore:
    """Return the store through which the ranks connect; the system picks its port, so that jobs cannot collide."""
    path = _rendezvous(folder)
    if world.is_main:
        host = this_start().node or socket.gethostname()
        store = TCPStore(host, 0, world.size, is_master=True, timeout=timeout, wait_for_workers=False)
        write_json(path, {"host": host, "port": store.port})
        return store
    deadline = time.monotonic() + timeout.total_seconds()
    while (place := read_json(path)) is None:
        if time.monotonic() > deadline:
            raise RunFailure(f"rank 0 has not written {path.name}: is this file system shared by all nodes?")
        os.listdir(folder)  # makes network file systems refresh their cache
        time.sleep(0.05)
    return TCPStore(place["host"], place["port"], world.size, is_master=False, timeout=timeout)
