"""The cost of HAM: its forms and guards, the published listing, and a lower bound for any such step.

Everything runs on random weights and gradients with a network's shapes, in one process, one after the other.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch
from torch.optim import SGD

from experiments.cores import usable_cores
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
    """The time of one contender; ratios are taken within each round, and their median over rounds is given.

    Attributes:
        part: ``step`` (a whole optimizer step) or ``rule`` (HAM's part of it alone).
        name: Name of the contender.
        ms: Median milliseconds.
        floor: Its time divided by that of the streaming pass just before it.
        quartiles: First and third quartile of that ratio.
        listing: Time of the published listing for the same part, divided by this one.
        base: Its time divided by that of a step of the base optimizer alone.
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
    """The results of a benchmark of HAM.

    Attributes:
        model: Network that the shapes are from.
        device: Device of the measurements.
        threads: Compute threads on the CPU.
        weights: Number of weights of all tensors together.
        rounds: Number of repetitions.
        streaming_ms: Median milliseconds of the streaming pass.
        timings: The time of each contender.
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
    """Time whole steps of SGD, the published listing and HAM, and HAM's multiplicative step in each form and guard.

    Args:
        names: Forms of HAM's step; empty for all.
        model: Network that the shapes are from, as in ``model.name``.
        device: ``cpu``, ``cuda`` or ``auto``.
        rounds: Number of repetitions, whose median is reported.
        threads: Compute threads on the CPU; None for one per core that the process may use.

    Raises:
        UserError: for an unknown form or a device that is not available.
    """
    forms: list[Form] = [form for form in FORMS if form != "auto"]
    for name in names:
        if name not in forms:
            raise UserError(f"{name!r} is not a form; allowed: {', '.join(forms)}{nearest(name, forms)}", "NAME")
    place = pick_device(device, where="--device")
    threads = threads or usable_cores()
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
    """A base optimizer that does nothing, so that the wrapper around it is timed alone."""

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Do nothing."""


class _Unknown(SGD):
    """A base optimizer that HAM does not know, and that might therefore write into gradients."""


class _Tensors:
    """One set of weights and gradients that all contenders share, and the contenders."""

    def __init__(self, model: str, device: torch.device):
        self.device = device
        self.params = list(build_network(model, device).parameters())
        generator = torch.Generator().manual_seed(0)
        for param in self.params:  # small, so that thousands of steps hardly change the weights
            param.grad = torch.randn(param.shape, generator=generator).mul_(1e-6).to(device)
        self._matrices = [param for param in self.params if param.ndim >= 2]
        self._vectors = [param for param in self.params if param.ndim < 2]

    def stream(self) -> None:
        """Read weights and gradients and write weights once: the lower bound for the time of any such step."""
        with torch.no_grad():
            torch._foreach_add_(self.params, [param.grad for param in self.params], alpha=1e-6)  # pyright: ignore

    def steps(self) -> Contenders:
        """Return the contenders that take whole optimizer steps."""

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
        """Return the contenders that take the multiplicative step alone, with neither, one or both guards."""

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
    """Return, per contender and round, the seconds of the streaming pass just before it and its own."""

    def clock() -> float:
        if tensors.device.type == "cuda":
            torch.cuda.synchronize(tensors.device)
        return time.perf_counter()

    def timed(work: Callable[[], object]) -> float:
        begun = clock()
        work()
        return clock() - begun

    samples: dict[Key, list[tuple[float, float]]] = {key: [] for key in contenders}
    for index in range(-1, rounds):  # the first round creates momenta and kernels, and does not count
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
