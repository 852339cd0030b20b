"""The rules of dynamic sparse training in plain Python, sorting lists, against the topologies on random data.

Values are multiples of a quarter, so that ties are common and exact; among equals the highest number drawn wins.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import sparsity
from sparsity.dynamic import share_out

SIZES, STEPS = (30, 20), 24
Rows = list[list[float]]
Bits = list[list[int]]


def largest(scores: list[float], among: list[int], number: int, draw: list[float]) -> list[int]:
    return sorted(among, key=lambda i: (-scores[i], -draw[i]))[:number]


def random_scores(layer: int, step: int, purpose: str) -> list[float]:
    digest = hashlib.sha256(f"7/{purpose} {layer}.weight/{step}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand((1, SIZES[layer]), generator=generator)[0].tolist()


def on(bits: list[int]) -> list[int]:
    return [i for i, bit in enumerate(bits) if bit]


def off(bits: list[int]) -> list[int]:
    return [i for i, bit in enumerate(bits) if not bit]


def bits_of(size: int, *members: list[int]) -> list[int]:
    return [int(any(i in part for part in members)) for i in range(size)]


def drop_and_grow(
    theta: list[float], score: list[float], bits: list[int], drop: int, grow: int, layer: int, step: int
) -> list[int]:
    kept = largest([abs(t) for t in theta], on(bits), sum(bits) - drop, random_scores(layer, step, "kept"))
    outside = [i for i in range(len(bits)) if i not in kept]
    return bits_of(len(bits), kept, largest(score, outside, grow, random_scores(layer, step, "ties")))


class Twin:
    """What a method should do at a time, from weights, gradients and masks; `fresh` are the entries that start anew."""

    def __init__(self, masks: Bits):
        self.masks = masks
        self.fresh: Bits = [[0] * size for size in SIZES]

    def see(self, gradients: Rows) -> None:
        pass

    def update(self, now: int, theta: Rows, gradients: Rows) -> Bits:
        raise NotImplementedError


class RiglTwin(Twin):
    """ΔT 4, after the weight step, over the mean gradient of three passes; a = .6 to the end of training."""

    def __init__(self, masks: Bits):
        super().__init__(masks)
        self.seen: list[Rows] = []

    def see(self, gradients: Rows) -> None:
        self.seen.append(gradients)

    def update(self, now: int, theta: Rows, gradients: Rows) -> Bits:
        fraction = 0.3 * (1 + math.cos(math.pi * now / STEPS))
        new = []
        for layer, bits in enumerate(self.masks):
            mean = [abs(sum(values)) / 3 for values in zip(*(g[layer] for g in self.seen[-3:]), strict=True)]
            number = int(fraction * sum(bits))
            new.append(drop_and_grow(theta[layer], mean, bits, number, number, layer, now))
        return new


class SnfsTwin(Twin):
    """ΔT 4, a share of .5 falling to .1, momentum .5 (exact for quarters over a few steps)."""

    velocity: Rows | None = None

    def see(self, gradients: Rows) -> None:
        old = self.velocity or [[0.0] * size for size in SIZES]
        self.velocity = [[0.5 * a + b for a, b in zip(*pair, strict=True)] for pair in zip(old, gradients, strict=True)]

    def update(self, now: int, theta: Rows, gradients: Rows) -> Bits:
        assert self.velocity is not None
        fraction = 0.1 + 0.2 * (1 + math.cos(math.pi * now / STEPS))
        means = [
            sum(abs(v[i]) for i in on(bits)) / sum(bits) for v, bits in zip(self.velocity, self.masks, strict=True)
        ]
        shares = [mean / sum(means) for mean in means]
        dropped = []
        for size, bits, share in zip(SIZES, self.masks, shares, strict=True):
            zeros = 1 - sum(bits) / size
            rate = min(fraction, zeros) if zeros < 0.2 and share > 0.5 else fraction
            dropped.append(math.ceil(rate * sum(bits) - 1e-6))
        room = [size - sum(bits) + drop for size, bits, drop in zip(SIZES, self.masks, dropped, strict=True)]
        grown = share_out(sum(dropped), shares, room)
        absolute = [[abs(x) for x in v] for v in self.velocity]
        parts = zip(theta, absolute, self.masks, dropped, grown, strict=True)
        return [drop_and_grow(*args, layer, now) for layer, args in enumerate(parts)]


class GranetTwin(Twin):
    """ΔT 4, from density .8 to .4 by the update at 12, then regeneration of .5 falling to .1."""

    def update(self, now: int, theta: Rows, gradients: Rows) -> Bits:
        share = min(1.0, now / 12)
        budget = 20 + int(20 * (1 - share) ** 3 + 1e-6)
        draws = [random_scores(layer, now, "ties of all") for layer in range(len(SIZES))]
        flat = [
            (-abs(t[i]), -draws[layer][i], layer, i) for layer, t in enumerate(theta) for i in on(self.masks[layer])
        ]
        stay = {(layer, i) for *_, layer, i in sorted(flat)[:budget]}
        pruned = [[int((layer, i) in stay) for i in range(size)] for layer, size in enumerate(SIZES)]
        fraction = 0.1 + 0.2 * (1 + math.cos(math.pi * now / STEPS))
        new = []
        for layer, bits in enumerate(pruned):
            number = math.ceil(fraction * sum(bits) - 1e-6)
            new.append(
                drop_and_grow(theta[layer], [abs(g) for g in gradients[layer]], bits, number, number, layer, now)
            )
        self.fresh = [[int(n and not p) for n, p in zip(*pair, strict=True)] for pair in zip(new, pruned, strict=True)]
        return new


class MestTwin(Twin):
    """ΔT 4, a tenth of all mutates before 9 and half of that before 16, by |θ| + |g| / 2."""

    soft = False

    def update(self, now: int, theta: Rows, gradients: Rows) -> Bits:
        p = 0.0 if now >= 16 else 0.1 if now < 9 else 0.05
        new = []
        for layer, bits in enumerate(self.masks):
            bound = int(0.4 * SIZES[layer] + 1e-6)
            number = int(p / 0.4 * bound + 1e-6)
            score = [abs(t) + abs(g) / 2 for t, g in zip(theta[layer], gradients[layer], strict=True)]
            kept = largest(score, on(bits), bound if self.soft else bound - number, random_scores(layer, now, "kept"))
            outside = [i for i in range(SIZES[layer]) if i not in kept]
            grow = random_scores(layer, now, "grow")
            new.append(bits_of(SIZES[layer], kept, largest(grow, outside, number, grow)))
            self.fresh[layer] = [int(bit and i not in kept) for i, bit in enumerate(new[-1])]
        return new


class SoftTwin(MestTwin):
    """EM&S."""

    soft = True


MEST = {"unit": "step", "mutation": 0.1, "halve": 9 / STEPS, "end": 16 / STEPS, "gradient_weight": 0.5}
ANNEALED = {"drop_fraction": 0.5, "final_drop_fraction": 0.1}
CASES: dict[str, tuple[str, Callable[[Bits], Twin], dict[str, Any], list[int]]] = {
    "rigl": ("rigl", RiglTwin, {"drop_fraction": 0.6, "end": 1.0, "also_step": True, "average": 3}, [4, 8, 12, 16, 20]),
    "snfs": ("snfs", SnfsTwin, {**ANNEALED, "momentum": 0.5, "unit": "step"}, [4, 8, 12, 16, 20]),
    "granet": ("granet", GranetTwin, {**ANNEALED, "initial_sparsity": 0.2, "ramp_end": 0.5}, [4, 8, 12, 16, 20]),
    "mest": ("mest", MestTwin, MEST, [4, 8, 12]),
    "mest soft": ("mest", SoftTwin, {**MEST, "soft_bound": True}, [4, 8, 12, 16]),
}


def rows(model: nn.ModuleList) -> Rows:
    return [layer.weight[0].tolist() for layer in model]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("data", range(5))
def test_a_method_against_its_literal_twin(case: str, data: int):
    name, make, options, times = CASES[case]
    model = nn.ModuleList(nn.Linear(size, 1, bias=False) for size in SIZES)
    generator = torch.Generator().manual_seed(data)

    def quarters(size: int) -> torch.Tensor:
        return torch.randint(-6, 7, (1, size), generator=generator) / 4

    with torch.no_grad():
        for layer, size in zip(model, SIZES, strict=True):
            layer.weight.copy_(quarters(size))
    # a learning rate of 1/4 keeps weights of few bits
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    settings = {"sparsity": 0.6, "total_steps": STEPS, "seed": 7, "update_every": 4, "allocation": "uniform"}
    sparse = sparsity.attach(name, model, optimizer, **settings, **options)
    twin = make([mask[0].int().tolist() for mask in sparse.masks.values()])
    moved = 0
    for now in range(1, STEPS + 1):
        gradients = [quarters(size) for size in SIZES]
        before = rows(model)
        for layer, gradient in zip(model, gradients, strict=True):
            layer.weight.grad = gradient.clone()
        sparse.step()
        dense = [gradient[0].tolist() for gradient in gradients]
        twin.see(dense)
        theta = [
            [t - 0.25 * g if bit else 0.0 for t, g, bit in zip(*parts, strict=True)]
            for parts in zip(before, dense, twin.masks, strict=True)
        ]
        if now in times:
            new = twin.update(now, theta, dense)
            moved += new != twin.masks
            survives = [
                [bit and old and not fresh for bit, old, fresh in zip(*parts, strict=True)]
                for parts in zip(new, twin.masks, twin.fresh, strict=True)
            ]
            theta = [
                [t if s else 0.0 for t, s in zip(*pair, strict=True)] for pair in zip(theta, survives, strict=True)
            ]
            twin.masks = new
        assert [mask[0].int().tolist() for mask in sparse.masks.values()] == twin.masks
        assert rows(model) == theta
    assert [event["step"] for event in sparse.events if event["event"] == "update"] == times
    assert moved >= len(times) - 1
    sparse.finalize()
