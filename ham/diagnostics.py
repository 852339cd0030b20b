"""Figures of HAM's step that show within a hundred steps whether alpha is too large or idle.

In a training loop::

    watch = Watch(optimizer, model.named_parameters())
    ...                                  # after optimizer.step(), while gradients and rate are still those of the step
    if step % 10 == 0:
        wandb.log(watch.look().metrics())   # plain numbers
    ...
    print(watch.verdict)                    # "too large", "idle" or "fine", by all looks so far

A look changes nothing. On a CPU it costs as much as three steps of HAM; it waits for the device once. Gradients are
largest at the start, and the damage that a too large alpha does there shows less later: look often in the first hundred
steps after the warm-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from .base import rate_of
from .compiled import EXPONENT_LIMIT as CLAMP
from .optimizer import HAM
from .scale_free import MEAN
from .wrapper import OptimizerWrapper

Verdict = Literal["too large", "idle", "fine"]

LARGE = 0.5  # an exponent that changes a weight by about half in one step
# thresholds of the verdict, set by hand to separate runs that HAM made worse: docs/howto/choose_alpha.md
TOO_LARGE = 0.2  # mean relative step of a layer
IDLE = 0.05  # speed


@dataclass(frozen=True)
class Figures:
    """Measures of HAM's last step in one layer, or in all layers: means over the nonzero weights.

    Attributes:
        relative_step: Mean of abs(expm1(e)) with the clamped exponent e: the fraction of a weight that HAM adds or
            removes.
        large: Fraction of exponents with a magnitude above `LARGE`.
        clamped: Fraction of exponents with a magnitude above the clamp at 5.
        speed: Mean of abs(alpha * w). By its flow, HAM moves a weight 1 + alpha * abs(w) times as fast as gradient
            descent; if the base has momentum m, the addition counts 1 - m times as much. Independent of the rate.
        flips: Fraction of weights whose sign changed since the last look, among those that were nonzero at both; 0 at
            the first look.
    """

    relative_step: float
    large: float
    clamped: float
    speed: float
    flips: float


@dataclass(frozen=True)
class Look:
    """Figures of one step of HAM.

    Attributes:
        overall: Figures of all weights together.
        layers: Figures of each layer, by parameter name.
    """

    overall: Figures
    layers: dict[str, Figures]

    @property
    def worst(self) -> str:
        """Name of the layer with the largest relative step."""
        return max(self.layers, key=lambda name: self.layers[name].relative_step)

    def metrics(self, *, layers: bool = False) -> dict[str, float]:
        """Return the figures as plain numbers to log.

        Args:
            layers: Add the figures of each layer, as ``ham/<figure>/<parameter>``.

        Returns:
            ``ham/<figure>`` for all weights, and ``ham/worst_relative_step``, the largest of any layer.
        """
        named = {"": self.overall, **({f"/{name}": one for name, one in self.layers.items()} if layers else {})}
        figures = {f"ham/{f.name}{name}": getattr(one, f.name) for name, one in named.items() for f in fields(one)}
        return {**figures, "ham/worst_relative_step": self.layers[self.worst].relative_step}


class Watch:
    """Measure HAM's steps and judge by them whether alpha suits the network.

    Call `look` after ``optimizer.step()``, every ten steps or so of the first hundred after the warm-up; `verdict` sums
    the looks up. A look changes nothing, costs as much as three steps of HAM on a CPU, and waits for the device once.

    Example:
        >>> import ham, torch
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = ham.HAM(torch.optim.SGD(model.parameters(), lr=0.1), alpha=200.0)
        >>> watch = ham.Watch(optimizer, model.named_parameters())
        >>> model(torch.ones(8, 4)).square().sum().backward()
        >>> optimizer.step()
        >>> watch.look().worst, watch.verdict
        ('weight', 'too large')

    Args:
        optimizer: A `HAM`, or a wrapper around one.
        named: Names and parameters, as from ``model.named_parameters()``. A parameter that is missing is named by its
            group and its place among the group's weights.

    Attributes:
        ham: The `HAM` that is watched.

    Raises:
        ValueError: if ``optimizer`` contains no HAM.

    Notes:
        `verdict` is None before the first look, then by all looks so far: "too large" if the mean relative step of some
        layer was above 0.2 in some look, "idle" if the speed of all weights never reached 0.05 (the base optimizer
        alone does the training), otherwise "fine".

        `look` returns a `Look`: ``overall`` and ``layers`` (means over the nonzero weights, by parameter name),
        ``worst`` (the layer with the largest relative step) and ``metrics()`` (plain numbers to log). `state_dict` and
        `load_state_dict` keep the verdict over a resume.
    """

    def __init__(self, optimizer: Optimizer, named: Iterable[tuple[str, Tensor]] = ()):
        inner = optimizer
        while isinstance(inner, OptimizerWrapper) and not isinstance(inner, HAM):
            inner = inner.base
        if not isinstance(inner, HAM):
            raise ValueError(f"optimizer: there is no HAM in {type(optimizer).__name__}, so nothing to watch")
        self.ham = inner
        self._names = {param: name for name, param in named}
        self._signs: dict[Tensor, Tensor] = {}
        self._largest, self._fastest, self._looks = 0.0, 0.0, 0

    @property
    def verdict(self) -> Verdict | None:
        """Whether alpha suits this network, by all looks so far; None before the first look.

        "too large": in some look, the mean relative step of some layer was above `TOO_LARGE`. "idle": the speed of all
        weights together never reached `IDLE`, so that but for the decay the base optimizer alone does the training.
        """
        if self._largest > TOO_LARGE:
            return "too large"
        return None if self._looks == 0 else "idle" if self._fastest < IDLE else "fine"

    @torch.no_grad()
    def look(self) -> Look | None:
        """Measure the step just taken; all ranks of a run get the same figures.

        If the base writes into gradients (Nesterov SGD in its foreach form), the figures use the gradients it wrote.

        Returns:
            The figures; None if HAM has moved nothing, as before the first step.
        """
        rows = list(self._rows())
        if not rows:
            return None
        sums = torch.stack([self._sums(row).to(rows[0].weight.device) for row in rows]).tolist()  # the host waits once
        layers = {row.name: _figures(values) for row, values in zip(rows, sums, strict=True)}
        seen = Look(_figures([sum(column) for column in zip(*sums, strict=True)]), layers)
        self._looks += 1
        self._largest = max(self._largest, layers[seen.worst].relative_step)
        self._fastest = max(self._fastest, seen.overall.speed)
        return seen

    def forget_signs(self) -> None:
        """Forget the signs of the last look, so that weights set from outside do not count as flips."""
        self._signs.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the state that verdict and flips depend on: one byte per weight, and three numbers."""
        signs = {place: self._signs[param] for place, param in enumerate(self._params()) if param in self._signs}
        return {"signs": signs, "largest": self._largest, "fastest": self._fastest, "looks": self._looks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state that `state_dict` returned."""
        params = list(self._params())
        self._signs = {params[place]: sign.to(params[place].device) for place, sign in state["signs"].items()}
        self._largest, self._fastest, self._looks = state["largest"], state["fastest"], state["looks"]

    def _params(self) -> Iterator[Tensor]:
        return (param for group in self.ham.param_groups for param in group["params"])

    def _rows(self) -> Iterator[_Row]:
        for place, group in enumerate(self.ham.param_groups):
            if not group.get("ham", True):
                continue
            moved = [p for p in group["params"] if p.grad is not None and self.ham.multiplies(p)]
            if group.get("scale_free"):
                moved = [p for p in moved if MEAN in self.ham.state[p]]
            alpha, beta = self.ham.strengths(group, moved)
            lr = rate_of(group)
            for index, weight in enumerate(moved):
                name = self._names.get(weight, f"{place}.{index}")
                yield _Row(name, weight, lr, alpha[index] if isinstance(alpha, list) else alpha, beta)

    def _sums(self, row: _Row) -> Tensor:
        """Sum each figure over the nonzero entries, in the order that `_figures` expects."""
        dtype = torch.promote_types(row.weight.dtype, torch.float32)
        weight, grad = row.weight.to(dtype), row.weight.grad.to(dtype)  # pyright: ignore[reportOptionalMemberAccess]
        sign = torch.sign(weight)
        exponent = (row.lr * (-row.alpha * sign * grad - row.beta)).nan_to_num(nan=0.0).mul_(sign.abs())
        size = exponent.abs()
        before = self._signs.get(row.weight)
        self._signs[row.weight] = now = sign.to(torch.int8)
        both = now * before if before is not None else torch.zeros_like(now)
        sums = (
            now.abs().sum(),
            torch.expm1(exponent.clamp(-CLAMP, CLAMP)).abs_().sum(),
            (size > LARGE).sum(),
            (size > CLAMP).sum(),
            (row.alpha * weight).abs().sum(),
            (both < 0).sum(),
            (both != 0).sum(),
        )
        return torch.stack([one.to(torch.float32) for one in sums])


class _Row(NamedTuple):
    """A tensor that HAM has multiplied, with the rate and constants of that step."""

    name: str
    weight: Tensor
    lr: Any
    alpha: Any
    beta: Any


def _figures(sums: Sequence[float]) -> Figures:
    count, *parts, flipped, compared = sums
    means = [part / max(count, 1.0) for part in parts]
    return Figures(*means, flips=flipped / max(compared, 1.0))
