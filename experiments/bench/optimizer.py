"""The cost of HAM: its forms and guards, the published listing, and the least that such a step can cost.

All of it runs on random weights and gradients of a network's shapes, in one process, one after the other.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch
from torch.optim import SGD

from experiments.errors import UserError, nearest
from experiments.run.build import pick_device
from ham import HAM, bound_norms_, hyperbolic_step_
from ham.rule import FORMS, Form

from .published import PublishedHAM
from .trial import build_network

LR, ALPHA, BETA, BOUND = 0.1, 200.0, 1e-3, 1000.0
SGD_OPTIONS: Mapping[str, Any] = {"lr": LR, "momentum": 0.9, "weight_decay": 1e-4}
LISTING, BASE = "published listing", "SGD"
GUARDS = {"no guard": (False, False), "NaN": (True, False), "norm": (False, True), "NaN and norm": (True, True)}
Key = tuple[str, str]  # part and name of a contender
Contenders = dict[Key, Callable[[], object]]


@dataclass(frozen=True)
class Timing:
    """What one contender costs; ratios are medians over rounds, each within its round.

    Attributes:
        part: ``step`` (a whole optimizer step) or ``rule`` (HAM's part of it alone).
        name: Contender.
        ms: Median milliseconds.
        floor: Its time in streaming passes, by the one that ran just before it.
        quartiles: First and third quartile of that ratio.
        listing: How many times as long the listing takes for the same part.
        base: Its time in steps of the base alone.
    """

    part: str
    name: str
    ms: float
    floor: float
    quartiles: tuple[float, float]
    listing: float
    base: float


@dataclass(frozen=True)
class FoundOptimizer:
    """All that was measured.

    Attributes:
        model: Network whose shapes were taken.
        device: Where.
        threads: Compute threads on the CPU.
        weights: Number of weights, all tensors together.
        rounds: Repetitions.
        streaming_ms: Median milliseconds of the streaming pass.
        timings: One a contender.
    """

    model: str
    device: str
    threads: int
    weights: int
    rounds: int
    streaming_ms: float
    timings: Sequence[Timing]


def optimizer(
    names: Sequence[str] = (), *, model: str, device: str = "cpu", rounds: int = 9, threads: int | None = None
) -> FoundOptimizer:
    """Time whole steps of SGD, the listing and HAM, and the multiplicative step alone in each form and guard.

    Args:
        names: Forms of HAM's step; empty for all.
        model: Network whose shapes are taken, as in ``model.name``.
        device: ``cpu``, ``cuda`` or ``auto``.
        rounds: Repetitions, of which the median counts.
        threads: Compute threads on the CPU; None for one a core that the process may use.

    Raises:
        UserError: for a name that is no form or a device that is not there.
    """
    forms: list[Form] = [form for form in FORMS if form != "auto"]
    for name in names:
        if name not in forms:
            raise UserError(f"{name!r} is not a form; allowed: {', '.join(forms)}{nearest(name, forms)}", "NAME")
    place = pick_device(device, where="--device")
    threads = threads or len(os.sched_getaffinity(0))
    with _threads(threads):
        tensors = _Tensors(model, place)
        rules = tensors.rules([form for form in forms if not names or form in names])
        samples = _sample(tensors, {**tensors.steps(), **rules}, rounds)
    weights = sum(param.numel() for param in tensors.params)
    streaming = 1e3 * median(floor for pairs in samples.values() for floor, _ in pairs)
    return FoundOptimizer(model, str(place), threads, weights, rounds, streaming, _timings(samples))


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Still(SGD):
    """A base that does nothing, so that what is around it is timed alone."""

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Do nothing."""


class _Unknown(SGD):
    """A base of another package, which might write into gradients for all that HAM knows."""


class _Tensors:
    """One set of weights and gradients, which all contenders share, and what they do to it."""

    def __init__(self, model: str, device: torch.device):
        self.device = device
        self.params = list(build_network(model, device).parameters())
        generator = torch.Generator().manual_seed(0)
        for param in self.params:  # small, so that thousands of steps leave the weights what they are
            param.grad = torch.randn(param.shape, generator=generator).mul_(1e-6).to(device)
        self._matrices = [param for param in self.params if param.ndim >= 2]
        self._vectors = [param for param in self.params if param.ndim < 2]

    def stream(self) -> None:
        """Read weight and gradient, write the weight: what no step of the kind can undercut."""
        with torch.no_grad():
            torch._foreach_add_(self.params, [param.grad for param in self.params], alpha=1e-6)  # pyright: ignore

    def steps(self) -> Contenders:
        """Whole optimizer steps."""

        def sgd(**form: bool) -> SGD:
            return SGD(self.params, **SGD_OPTIONS, **form)

        return {
            ("step", BASE): sgd().step,
            ("step", f"{BASE} foreach"): sgd(foreach=True).step,
            ("step", f"{BASE} fused"): sgd(fused=True).step,
            ("step", LISTING): PublishedHAM(sgd(), ALPHA, BETA).step,
            ("step", f"HAM({BASE})"): HAM(sgd(), ALPHA, BETA).step,
            ("step", f"HAM({BASE} fused)"): HAM(sgd(fused=True), ALPHA, BETA).step,
            ("step", "HAM, gradients copied"): HAM(_Unknown(self.params, **SGD_OPTIONS), ALPHA, BETA).step,
        }

    def rules(self, forms: Sequence[Form]) -> Contenders:
        """The multiplicative step alone, without guards, with one, and with both."""

        def rule(form: Form, nan_guard: bool, bound: bool) -> None:
            grads: Any = [param.grad for param in self._matrices]
            limit = BOUND if bound else None
            hyperbolic_step_(
                self._matrices, grads, lr=LR, alpha=ALPHA, beta=BETA, max_norm=limit, form=form, nan_guard=nan_guard
            )
            if bound:
                bound_norms_(self._vectors, BOUND)

        found: Contenders = {("rule", LISTING): PublishedHAM(_Still(self.params, lr=LR), ALPHA, BETA).step}
        for form in forms:
            for name, switches in GUARDS.items():
                found["rule", f"{form}, {name}"] = lambda form=form, switches=switches: rule(form, *switches)
        return found


def _sample(
    tensors: _Tensors, contenders: Mapping[Key, Callable[[], object]], rounds: int
) -> dict[Key, list[tuple[float, float]]]:
    """Seconds of each contender in each round, with those of the streaming pass just before it."""

    def clock() -> float:
        if tensors.device.type == "cuda":
            torch.cuda.synchronize(tensors.device)
        return time.perf_counter()

    def timed(work: Callable[[], object]) -> float:
        begun = clock()
        work()
        return clock() - begun

    samples: dict[Key, list[tuple[float, float]]] = {key: [] for key in contenders}
    for index in range(-1, rounds):  # the first round makes momenta and kernels and does not count
        print(f"round {index + 1} of {rounds}" if index >= 0 else "warming up", file=sys.stderr, flush=True)
        for key, work in contenders.items():
            timed(tensors.stream)
            pair = timed(tensors.stream), timed(work)
            if index >= 0:
                samples[key].append(pair)
    return samples


def _timings(samples: Mapping[Key, Sequence[tuple[float, float]]]) -> list[Timing]:
    listing = {part: [own for _, own in samples[part, LISTING]] for part in ("step", "rule")}
    base = [own for _, own in samples["step", BASE]]
    found = []
    for (part, name), pairs in samples.items():
        seconds = [own for _, own in pairs]
        floors = [own / floor for floor, own in pairs]
        found.append(
            Timing(
                part,
                name,
                1e3 * median(seconds),
                median(floors),
                _quartiles(floors),
                median(_ratios(listing[part], seconds)),
                median(_ratios(seconds, base)),
            )
        )
    return found


def _ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    return [above / below for above, below in zip(numerators, denominators, strict=True)]


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = quantiles(values, n=4, method="inclusive")
    return first, third
