"""All comparisons with the authors' code, and the page that is made of them.

`python tests/trajectories/comparisons.py` writes docs/results/fidelity.md anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dynamic_methods as dynamic
import gradual_methods as gradual
import optimizers
import represented
import start_methods as start
from recordings import TOLERANCE, Tally

PAGE = Path(__file__).resolve().parents[2] / "docs/results/fidelity.md"
HEADER = Path(__file__).parent / "page.md"

SPARSELEARNING = "updates also after the last step if that is a multiple of ΔT"


@dataclass(frozen=True)
class Comparison:
    """A row of the page.

    Attributes:
        method: Method, with the options that make it the authors'.
        source: Repository and commit.
        compared: What was run.
        differs: What was handed in from the recording, and what the authors' code does otherwise.
        run: Does the comparison.
    """

    method: str
    source: str
    compared: str
    differs: str
    run: Callable[[Tally], None]

    def row(self, tally: Tally) -> str:
        """Return the row; figures are those of the tally."""
        number = len(tally.cases)
        besides = f"but the {tally.surplus} by which the number is one more" if tally.surplus else ""
        parts = [f"{number} case{'s' if number > 1 else ''}", f"{tally.steps:,} steps" if tally.steps else ""]
        parts += [f"{tally.bits:,} mask entries, none differs {besides}".rstrip() if tally.bits else ""]
        parts += [f"{tally.tensors:,} numbers, off by at most {TOLERANCE:g}" if tally.tensors else ""]
        figure = "; ".join(part for part in parts if part)
        return f"| {self.method} | {self.source} | {self.compared} | {figure} | {self.differs} |"


COMPARISONS = (
    Comparison(
        "HAM",
        "TomJacobs05/HAM 5128597",
        "the README's listing around SGD, Nesterov, AdamW and RMSprop, α from −5 to 200; our single and foreach forms",
        "its clip after the update, which changes nothing",
        optimizers.hams,
    ),
    Comparison(
        "SAM, adaptive SAM",
        "davda54/sam 3c3afdb",
        "its two steps around SGD, Nesterov and AdamW, batch statistics included",
        "adaptive: η = 0, as theirs has none",
        optimizers.sams,
    ),
    Comparison("snip", "mil-ad/snip 883c805", "one batch", "theirs rounds the number of kept weights down", start.snip),
    Comparison(
        "snip, batches: 3", "ganguli-lab/Synaptic-Flow 9dfa57a", "mean gradient of three batches", "", start.snip_mean
    ),
    Comparison(
        "grasp",
        "alecwangcq/GraSP f17d87a",
        "eight images of each class, in halves, the classifier not drawn anew",
        "theirs keeps the weight at the threshold too, one more than asked",
        start.grasp,
    ),
    Comparison(
        "grasp, per_class: null, batches: 3",
        "ganguli-lab/Synaptic-Flow 9dfa57a",
        "three batches in order",
        "",
        start.grasp_mean,
    ),
    Comparison("synflow", "ganguli-lab/Synaptic-Flow 9dfa57a", "1, 10 and 100 rounds", "", start.synflow),
    Comparison(
        "rigl, at_start: false",
        "nollied/rigl-torch 34d19e4; calgaryml/condensed-sparsity 3052bb8",
        "uniform with a dense first layer, ERK, growth by the mean of 1, 2 and 3 passes",
        "initial masks handed in",
        dynamic.rigl,
    ),
    Comparison(
        "rigl + HAM",
        "the two above",
        "HAM's listing as the optimizer of the port",
        "initial masks handed in",
        dynamic.rigl_ham,
    ),
    Comparison(
        "rigl, also_step, rounding: ceil, final_drop_fraction: 0.005, end: 1",
        "Shiweiliuiiiiiii/In-Time-Over-Parameterization 1b6a89e",
        "growth by gradient",
        f"initial masks handed in; theirs {SPARSELEARNING}",
        dynamic.liu,
    ),
    Comparison(
        "set, with the same options",
        "Shiweiliuiiiiiii/In-Time-Over-Parameterization 1b6a89e",
        "random growth, death by magnitude",
        f"initial masks and draws handed in, with their number, since theirs are Bernoulli; theirs {SPARSELEARNING}; "
        "its `--death SET` is another method and was not compared",
        dynamic.set_liu,
    ),
    Comparison(
        "set, drop: signs",
        "dcmocanu/sparse-evolutionary-artificial-neural-networks 62ac974",
        "`rewireMask` of the Keras version: how many weights of each sign it keeps",
        "one weight more or less of each sign, as theirs takes a threshold; which ones was not compared",
        dynamic.set_original,
    ),
    Comparison(
        "granet",
        "VITA-Group/GraNet f338a24",
        "sparse and dense start, a ramp that starts between two updates",
        "initial masks and numbers of weights on the ramp handed in: theirs ends one update short of the target; "
        f"theirs {SPARSELEARNING}",
        dynamic.granet,
    ),
    Comparison(
        "snfs",
        "TimDettmers/sparse_learning e19ff16",
        "momentum growth and redistribution, layers that become almost full",
        "initial masks and numbers of weights handed in: theirs drift by up to three and are corrected later; with "
        "weight decay its momentum contains the decay, ours does not, so that case was not compared",
        dynamic.snfs,
    ),
    Comparison(
        "snfs, grown_momentum: restart",
        "TimDettmers/sparse_learning e19ff16",
        "the same with momentum cleared where weights grow; with weight decay too",
        "initial masks and numbers of weights handed in",
        dynamic.snfs_restart,
    ),
    Comparison(
        "mest",
        "boone891214/MEST a428026",
        "EM and EM&S, plain SGD, and momentum cleared where a weight went",
        "initial masks, draws and numbers handed in (theirs are percentiles, ±1); the momentum of a weight that went "
        "runs on in theirs; EM up to its last stage, in which theirs removes weights that are exactly zero",
        dynamic.mest,
    ),
    Comparison(
        "acdc",
        "IST-DASLab/ACDC ac53210",
        "its manager over 100 epochs of the ImageNet phases",
        "gradients are set to zero, not to None: see acdc's page",
        gradual.acdc,
    ),
    Comparison(
        "acdc + HAM", "IST-DASLab/ACDC ac53210", "HAM's listing as the manager's optimizer", "", gradual.acdc_ham
    ),
    Comparison(
        "gmp",
        "IST-DASLab/ACDC ac53210",
        "its gradual pruner",
        "numbers of weights handed in: its strict threshold keeps one less, and its last cut is one interval early",
        gradual.gmp,
    ),
    Comparison(
        "imp, wr, lrr",
        "nelaturuharsha/TurboPrune 9db458e",
        "four levels of 24 steps, weight rewinding to step 8",
        "a target that is a power of 0.8, as theirs passes others",
        gradual.iterative,
    ),
    Comparison(
        "cyclic",
        "nelaturuharsha/TurboPrune 9db458e",
        "two cycles, pruning, one cycle",
        "initial mask and the number of weights handed in",
        gradual.cyclic,
    ),
    Comparison(
        "allocation: balanced_sweep",
        "nelaturuharsha/TurboPrune 9db458e",
        "densities of its `er_balanced` at 0.5, 0.2, 0.1",
        "`balanced` solves again until the target is met",
        gradual.balanced,
    ),
    Comparison(
        "str",
        "RAIVNLab/STR cc74d38",
        "weights and thresholds, s₀ from −2 to −3200, Nesterov",
        "",
        represented.soft_threshold,
    ),
    Comparison(
        "str + HAM",
        "RAIVNLab/STR cc74d38",
        "HAM's listing on everything (`scalars=True` on groups with `ham`), and on all but thresholds (our default)",
        "",
        represented.soft_threshold_ham,
    ),
    Comparison(
        "spred, allocation: uniform",
        "zihao-wang/spred 08cd9ee",
        "both factors, init sqrt and clone; the cut at 0.5, 0.9, 0.95",
        "",
        represented.spred,
    ),
)


def page(tallies: list[Tally]) -> str:
    """Return the page."""
    rows = [comparison.row(tally) for comparison, tally in zip(COMPARISONS, tallies, strict=True)]
    return HEADER.read_text(encoding="utf-8") + "\n".join(rows) + "\n"


def carried_out(comparison: Comparison) -> Tally:
    """Do a comparison and return what was compared."""
    tally = Tally()
    comparison.run(tally)
    return tally


if __name__ == "__main__":
    PAGE.write_text(page([carried_out(comparison) for comparison in COMPARISONS]), encoding="utf-8")
