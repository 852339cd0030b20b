"""Draws: pure functions of seed, purpose, step and layer, equal on all ranks and devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from sparsity.topology import Context


def random_scores(ctx: Context, name: str, purpose: str = "grow") -> Tensor:
    """Draw numbers in [0, 1) for the weights of a layer, for random growth or to decide among equal scores."""
    return torch.rand(ctx.shapes[name], generator=ctx.generator(f"{purpose} {name}")).to(ctx.masks[name].device)


def drawn(ctx: Context, name: str, purpose: str = "ties") -> Callable[[int], Tensor]:
    """Return the `draw` of `top_k` for a layer; the event holds how many weights it decided on.

    Args:
        ctx: The run.
        name: Name of the weight.
        purpose: What is drawn for: selections of one step that may tie at the same weights must not share a draw.
    """

    def draw(number: int) -> Tensor:
        ctx.note_drawn(number)
        return random_scores(ctx, name, purpose)

    return draw


def drawn_of_all(ctx: Context, names: Iterable[str], *, note: bool = True) -> Callable[[int], dict[str, Tensor]]:
    """Return the `draw` of `top_k_of_all` for several layers.

    Args:
        ctx: The run.
        names: Names of the weights that are selected among.
        note: Whether the event says how many weights it decided on: not where a later selection replaces this one.
    """

    def draw(number: int) -> dict[str, Tensor]:
        if note:
            ctx.note_drawn(number)
        return {name: random_scores(ctx, name, "ties of all") for name in names}

    return draw
