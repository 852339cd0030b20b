"""Which wrong signs of a start a method can repair in one neuron, and how many signs change in a sparse network.

The neuron, its theory and what each method solves are described in `experiments.theory.neuron`. The published result
for gradient flow from a balanced start: GD solves only a > 0, w > 0; Sign-In, with a larger gap for a than for w, adds
a < 0, w > 0; no reparametrisation adds w < 0. The results for other starts and for HAM follow from the same invariant.

The gaps and the size of the start that the Sign-In paper uses in this example are not known here: *unverified*.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.config.schema import Section

from . import drawing, neuron, training_flips
from .base import Bound, Check, Experiment, TheoryOutcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class SignFlipSettings(Section):
    """Settings of the neuron and of the runs; `same` bounds the fraction of seeds that solve what is predicted."""

    neuron: neuron.NeuronSettings
    runs: training_flips.RunsSettings
    same: Bound


def run(settings: SignFlipSettings) -> TheoryOutcome:
    """Train neurons and networks, and compare the solved starts with the predicted ones."""
    solved = _neurons(settings.neuron)
    flips = [
        {"row": row, "seed": spec.seed, **training_flips.count(spec)}
        for row, spec in training_flips.specs(settings.runs)
    ]
    bars = [
        Check(
            f"{one['method']}, {one['start']}: seeds that solve {_signs(one['predicted'])}", one["share"], settings.same
        )
        for one in solved
    ]
    for row in settings.runs.rows:
        shares = [sum(one["flips"]) / len(one["flips"]) for one in flips if one["row"] == row]
        bars.append(Check(f"{row}: sign changes a weight and epoch", float(np.mean(shares))))
    return TheoryOutcome(tuple(bars), [*solved, *flips], partial(_draw, solved, flips))


def _neurons(settings: neuron.NeuronSettings) -> list[dict[str, Any]]:
    """Return, per method and start, which cases theory predicts as solved, and in which fraction of seeds they are."""
    neurons = neuron.make(settings)
    records = []
    for name, method in settings.methods.items():
        losses = neuron.train(method, neurons, settings).unflatten(1, (-1, len(neuron.CASES)))
        says = neuron.predicted(method, neurons).unflatten(1, (-1, len(neuron.CASES)))
        for index, start in enumerate(settings.starts):
            solved = losses[:, index] <= settings.solved
            predicted = says[0, index]
            records.append(
                {
                    "method": name,
                    "start": start,
                    "predicted": [case for case, yes in zip(neuron.CASES, predicted.tolist(), strict=True) if yes],
                    "share": float((solved == predicted).all(1).double().mean()),
                    "solved": dict(zip(neuron.CASES, solved.double().mean(0).tolist(), strict=True)),
                    "losses": losses[:, index].tolist(),
                }
            )
    return records


def _signs(cases: list[str]) -> str:
    """Write cases as signs of a and w."""
    signs = ("".join("+−"[sign < 0] for sign in neuron.CASES[case]) for case in cases)
    return " ".join(signs) or "none"


def _draw(solved: list[dict[str, Any]], flips: list[dict[str, Any]], figure: Figure) -> None:
    grid = figure.add_gridspec(1, 2, width_ratios=(3, 2))
    _draw_neurons(solved, figure.add_subplot(grid[0]))
    axes = figure.add_subplot(grid[1])
    axes.grid()
    looks = (drawing.GD, drawing.HAM)
    for index, row in enumerate(dict.fromkeys(one["row"] for one in flips)):
        look, line = looks[index % 2], "-" if index < 2 else "--"
        runs = [one["flips"] for one in flips if one["row"] == row]
        epochs = np.arange(1, len(runs[0]) + 1)
        for run in runs:
            axes.plot(epochs, run, line, color=look.color, lw=0.4, alpha=0.6)
        axes.plot(epochs, np.mean(runs, axis=0), line, label=row, lw=1.0, markersize=3, **look._asdict())
    axes.set_title("sign changes in an epoch, share of weights")
    axes.set_xlabel("epoch")
    drawing.legend(figure)


def _draw_neurons(solved: list[dict[str, Any]], axes: Axes) -> None:
    methods, starts = (list(dict.fromkeys(one[key] for one in solved)) for key in ("method", "start"))
    shares = np.array([list(one["solved"].values()) for one in solved]).reshape(len(methods), -1)
    axes.imshow(shares, cmap="Greens", vmin=0, vmax=1.6, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        axes.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=6.5)
    cases = len(neuron.CASES)
    for index, start in enumerate(starts):
        axes.axvline(index * cases - 0.5, color=drawing.GD.color, lw=0.8)
        axes.text((index + 0.5) * cases - 0.5, -0.6, start, ha="center", va="bottom")
    axes.set_yticks(range(len(methods)), methods)
    axes.set_xticks(range(len(starts) * cases), [_signs([case]) for case in neuron.CASES] * len(starts))
    axes.set_xlabel("signs of a and w at the start; share of seeds solved")


EXPERIMENT = Experiment(
    title="One neuron a relu(w x): which signs of the start are repaired; sign changes in sparse networks",
    source="Gadhikar et al., Sign-In (NeurIPS 2025), Theorems 5.1, 5.2, 5.4, of a summary; HAM: derived here",
    settings=SignFlipSettings,
    run=run,
)
