"""Draw the pictures of docs/images that explain: axes, a step, masks over time, HAM's metric.

    python -m scripts.pictures

Each is one SVG without background, whose ink turns light where the reader's page is dark.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

import sparsity
from ham import geometry
from sparsity import registry

FOLDER = Path(__file__).resolve().parents[1] / "docs/images"
INK, PALE = "#1f2328", "#e6edf3"
GREY, BLUE, ORANGE, GREEN = "#8b949e", "#3b82c4", "#d9822b", "#3f9b58"
_DARK = f"""<style>@media (prefers-color-scheme: dark) {{
[style*="fill: {INK}"] {{ fill: {PALE} !important }} [style*="stroke: {INK}"] {{ stroke: {PALE} !important }}
}}</style>"""
_STYLE = {
    "svg.hashsalt": "ham-suite",
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def axes() -> Figure:
    """Three columns of what may be combined, from the registry."""
    columns = {
        "topology: which\nweights are active": (list(registry.topologies()), BLUE),
        "representation: how a\nweight is parametrised": (list(registry.representations()), GREEN),
        "optimizer:\nhow it moves": (["SGD, Adam, AdamW, ...", "HAM around it", "SAM around that"], ORANGE),
    }
    figure, panels = plt.subplots(1, 3, figsize=(7.2, 2.3), width_ratios=(1.3, 1, 1))
    for index, (panel, (title, (names, colour))) in enumerate(zip(panels, columns.items(), strict=True)):
        panel.axis("off")
        panel.set_title(title, fontsize=9, color=colour, fontweight="bold")
        rows = 9 if len(names) > 9 else len(names)
        for place, name in enumerate(names):
            panel.text(0.1 + 0.5 * (place // rows), 0.93 - (place % rows) / 9.5, name, va="top")
        if index < 2:
            panel.text(1.06, 0.5, "×", fontsize=16, ha="center", transform=panel.transAxes)
    return figure


def step() -> Figure:
    """The parts of one step in their order."""
    parts = [
        ("loss.backward()", GREY),
        ("topology reads\ndense gradient,\nmay set masks", BLUE),
        ("gradients of\npruned weights\nare zeroed; clip", BLUE),
        ("optimizer steps\n(HAM multiplies)", ORANGE),
        ("pruned weights\nare set to zero", BLUE),
        ("hooks of topology\nand representation", GREEN),
    ]
    figure, panel = plt.subplots(figsize=(6.2, 2.2))
    panel.set(xlim=(-0.5, 2.5), ylim=(-1.5, 0.5))
    panel.axis("off")
    for number, (words, colour) in enumerate(parts):
        row, column = divmod(number, 3)
        box = {"boxstyle": "round,pad=0.45", "facecolor": "none", "edgecolor": colour, "linewidth": 1.4}
        panel.text(column, -row, f"{number + 1}  {words}", ha="center", va="center", fontsize=8, bbox=box)
        if column:
            panel.annotate(
                "", (column - 0.41, -row), (column - 0.59, -row), arrowprops={"arrowstyle": "->", "color": INK}
            )
    return figure


def masks() -> Figure:
    """Which of some weights are active after each of 100 steps, under AC/DC and RiGL."""
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 2.6), sharey=True)
    for panel, (name, options) in zip(
        panels, (("acdc", {}), ("rigl", {"update_every": 5, "drop_fraction": 0.5})), strict=True
    ):
        _draw_mask(panel, _history(name, **options))
        panel.set_title(registry.topology(name).title, fontsize=9)
        panel.set_xlabel("step")
    panels[0].set_ylabel("weight")
    return figure


def _history(topology: str, **options: object) -> np.ndarray:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 5))
    optimizer = torch.optim.SGD(sparsity.represent(model).param_groups(), lr=0.2, momentum=0.9)
    sparse = sparsity.attach(topology, model, optimizer, sparsity=0.8, total_steps=100, allocation="uniform", **options)
    teacher = nn.Linear(20, 5)
    shown = []
    for _ in range(sparse.total_steps):
        optimizer.zero_grad()
        images = torch.randn(16, 20)
        nn.functional.cross_entropy(model(images), teacher(images).argmax(1)).backward()
        sparse.step()
        shown.append(sparse.masks["0.weight"].flatten()[::7].numpy().copy())
    return np.array(shown).T


def _draw_mask(panel: Axes, active: np.ndarray) -> None:
    for weight, row in enumerate(active):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        panel.broken_barh([(a, b - a) for a, b in edges.reshape(-1, 2)], (weight + 0.1, 0.8), color=BLUE, linewidth=0)
    panel.set(xlim=(0, active.shape[1]), ylim=(0, len(active)), yticks=[])


def metric() -> Figure:
    """How much faster than under gradient descent a weight moves, by its size."""
    weights = torch.linspace(-0.2, 0.2, 401, dtype=torch.float64)
    figure, panel = plt.subplots(figsize=(4.6, 2.6))
    for alpha, colour in ((0.0, GREY), (5.0, GREEN), (20.0, ORANGE)):
        label = "gradient descent" if alpha == 0 else f"HAM, α = {alpha:g}"
        moved = geometry.Ham(alpha) if alpha else geometry.Euclidean()
        panel.plot(weights, moved.inverse_metric(weights), color=colour, label=label)
    panel.set(xlabel="weight", ylabel="speed, relative to\ngradient descent", ylim=(0, None))
    panel.legend(frameon=False, labelcolor=INK)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {"axes": axes, "step": step, "masks": masks, "metric": metric}


def svg(draw: Callable[[], Figure]) -> str:
    """Return a picture as SVG text, the same at each call."""
    with plt.rc_context(_STYLE):
        figure, file = draw(), io.StringIO()
        figure.savefig(file, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
    head, found, rest = file.getvalue().partition("<defs>")
    return head + _DARK + "\n " + found + rest


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(svg(draw), encoding="utf-8")
