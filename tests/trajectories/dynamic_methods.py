"""Methods that update their masks, beside the authors' code."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from follow import attached, follow, handed_in
from recordings import Recording, Tally, arrays

import ham
from sparsity.topologies import mest as mest_module
from sparsity.topologies import set as set_module
from sparsity.topologies import snfs as snfs_module

LIU = {"also_step": True, "drop_fraction": 0.5, "final_drop_fraction": 0.005, "rounding": "ceil", "end": 1.0}


def settings(recording: Recording) -> list[float]:
    """Return the settings of a case: density, interval and others."""
    return recording.value("set").tolist()


def _rigl(tally: Tally, cases: tuple[str, ...], **more: Any) -> None:
    for case in cases:
        recording = Recording("rigl", case)
        density, every, total, average = settings(recording)
        training = attached(
            "rigl",
            recording,
            step=1,  # theirs counts a step before it looks whether an update is due
            sparsity=1 - density,
            total_steps=int(total),
            update_every=int(every),
            average=int(average),
            allocation=str(recording.value("dist")),
            dense=str(recording.value("dense")),
            rebudget=False,
            at_start=False,
            **more,
        )
        follow(tally, recording, training)


def rigl(tally: Tally) -> None:
    """Follow the port, and the mean of several passes."""
    _rigl(tally, ("port_mlp", "port_cnn", "erk_mlp", "average_mlp", "average_cnn"))


def rigl_ham(tally: Tally) -> None:
    """Follow HAM's listing inside the port."""
    _rigl(tally, ("ham_mlp", "ham_cnn"), wrap=lambda optimizer: ham.HAM(optimizer, alpha=20.0, beta=0.01))


def _itop(recording: Recording, topology: str) -> Any:
    density, every, total = settings(recording)
    size = {"sparsity": 1 - density, "total_steps": int(total), "update_every": int(every)}
    return attached(topology, recording, **size, **LIU)


def liu(tally: Tally) -> None:
    """Follow Liu et al.'s growth by gradient."""
    for case in ("rigl_mlp", "rigl_cnn", "rigl_relu"):
        recording = Recording("itop", case)
        follow(tally, recording, _itop(recording, "rigl"), until=recording.steps[-2])


def set_liu(tally: Tally) -> None:
    """Follow Liu et al.'s random growth, with their draws."""
    for case in ("set_mlp", "set_cnn"):
        recording = Recording("itop", case)
        with handed_in(set_module, recording):
            follow(tally, recording, _itop(recording, "set"), until=recording.steps[-2])


def set_original(tally: Tally) -> None:
    """Count what SET's own rule keeps of each sign: the matrices themselves were not recorded."""
    for key, counts in arrays("set_original").items():
        if not key.endswith("counts"):
            continue
        _, matrix, fraction, _ = key.split("|")
        positive, negative, *theirs, _ = counts.tolist()
        theta = torch.cat([torch.arange(1.0, positive + 1), -torch.arange(1.0, negative + 1)])
        kept = set_module.keep_of_each_sign(theta, torch.ones_like(theta, dtype=torch.bool), float(fraction))
        ours = [int((kept & (theta > 0)).sum()), int((kept & (theta < 0)).sum())]
        off = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        assert off <= 1, f"matrix {matrix}, fraction {fraction}: {ours} kept of each sign, theirs {theirs}"
        tally.cases.append(key)


def granet(tally: Tally) -> None:
    """Follow GraNet from a sparse and a dense start, with its numbers of weights."""
    for case in ("mlp", "cnn", "dense_start", "offbeat"):
        recording = Recording("granet", case)
        first, density, every, start, end, total = settings(recording)
        training = attached(
            "granet",
            recording,
            sparsity=1 - density,
            total_steps=int(total),
            update_every=int(every),
            initial_sparsity=1 - first,
            ramp_start=start / total,
            ramp_end=end / total,
        )
        kept = dict(recording.value("kept").tolist())
        with mock.patch.object(training.topology, "budget", lambda *_, kept=kept, own=training: kept[own.steps_done]):
            follow(tally, recording, training, until=recording.steps[-2])


def _snfs(tally: Tally, cases: tuple[str, ...], **options: Any) -> None:
    for case in cases:
        recording = Recording("snfs", case)
        density, every, total = settings(recording)
        training = attached(
            "snfs",
            recording,
            sparsity=1 - density,
            total_steps=int(total),
            update_every=int(every),
            unit="step",
            **options,
        )
        removed, grown = iter(recording.value("removed").ravel().tolist()), iter(recording.value("grown").tolist())
        with (
            mock.patch.object(snfs_module, "ceil_count", lambda _, numbers=removed: next(numbers)),
            mock.patch.object(snfs_module, "share_out", lambda *_, numbers=grown: next(numbers)),
        ):
            follow(tally, recording, training)


def snfs(tally: Tally) -> None:
    """Follow sparse momentum, with its numbers of weights."""
    _snfs(tally, ("mlp", "cnn", "full"))


def snfs_restart(tally: Tally) -> None:
    """Follow sparse momentum in which a grown weight starts without momentum, with its numbers of weights."""
    _snfs(tally, ("mlp_restart", "cnn_restart", "full_restart", "decay_restart"), grown_momentum="restart")


def mest(tally: Tally) -> None:
    """Follow MEST with its draws and numbers of weights; plain SGD, and momentum that restarts where a weight goes."""
    for case in ("em_plain", "em_mlp_restart", "em_cnn_restart", "ems_mlp_restart", "ems_cnn_restart"):
        recording = Recording("mest", case)
        density = settings(recording)[0]
        soft = case.startswith("ems")
        other = 1 - float(recording.value("upper" if soft else "lower")[0])
        training = attached(
            "mest",
            recording,
            sparsity=1 - density,
            total_steps=recording.steps[-1] + 1,
            update_every=6,
            unit="step",
            mutation=abs(density - other),
            soft_bound=soft,
        )
        kept = recording.value("kept")[:, 1:].ravel().tolist()
        last = recording.steps[-1] if soft else 70  # where their last stage removes weights that are exactly zero
        with handed_in(mest_module, recording, kept):
            follow(tally, recording, training, until=last)
