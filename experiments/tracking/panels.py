"""The panels of a dashboard by section; every name in them is one of `metrics`, or a key of W&B's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Panel:
    """A picture.

    Attributes:
        kind: Its kind at W&B.
        title: Its title.
        metrics: Of the history for lines, else of the summary; ``*`` stands for any names there.
        over: What lines and points are drawn over.
        log: Whether that axis is logarithmic.
        settings: Keys of W&B's configuration.
        text: Markdown.
    """

    kind: Literal["text", "bars", "points", "lines", "parallel", "comparer"]
    title: str = ""
    metrics: tuple[str, ...] = ()
    over: str = "epoch"
    log: bool = False
    settings: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class PanelGroup:
    """Panels below a heading."""

    name: str
    panels: tuple[Panel, ...]


def sections(accuracy: str, answer: str) -> tuple[PanelGroup, ...]:
    """Return what a view shows.

    Args:
        accuracy: The summary's name of what tables read.
        answer: A table in markdown.
    """
    return (
        PanelGroup(
            "Answer",
            (
                Panel("text", text=answer),
                Panel("bars", "accuracy: mean and standard deviation over seeds", (accuracy,)),
                Panel("points", "accuracy over sparsity", (accuracy,), over="sparsity/realised"),
                Panel("points", "accuracy over training FLOPs", (accuracy,), over="cost/training_flops", log=True),
            ),
        ),
        PanelGroup(
            "Training",
            (
                _line("validation accuracy", "val/accuracy"),
                _line("validation loss", "val/loss"),
                _line("training loss", "train/loss"),
                _line("training accuracy", "train/accuracy"),
                _line("learning rate", "train/lr"),
            ),
        ),
        PanelGroup(
            "Masks",
            (
                _line("density", "sparsity/density"),
                _line("overlap with the initial mask", "mask/overlap_initial", over="train/step"),
                _line("overlap with the last epoch's mask", "mask/overlap_previous", over="train/step"),
                _line("entries changed by an event", "mask/*/changed", over="train/step"),
                _line("density of each layer (choose a few runs)", "layers/*/density"),
            ),
        ),
        PanelGroup(
            "HAM",
            (
                _line("signs flipped since the start, every method", "flips/initial"),
                _line("signs flipped in an epoch, every method", "flips/previous"),
                _line("relative step (too large beyond 0.2)", "ham/relative_step", over="train/step"),
                _line("speed (idle below 0.05)", "ham/speed", over="train/step"),
                _line("signs flipped between two looks", "ham/flips", over="train/step"),
                _line("exponents clamped", "ham/clamped", over="train/step"),
            ),
        ),
        PanelGroup(
            "Cost",
            (
                Panel("bars", "training FLOPs, of dense training", ("cost/training_flops",)),
                Panel("bars", "inference FLOPs, of the dense network", ("cost/inference_flops",)),
                Panel("bars", "seconds", ("cost/seconds",)),
                _line("images per second", "cost/images_per_s"),
                _line("time of a step, ms", "cost/step_ms"),
                _line("peak memory, GiB", "cost/peak_memory_gib"),
                _line("GPU utilisation", "cost/gpu_utilisation"),
            ),
        ),
        PanelGroup(
            "Runs",
            (
                Panel("comparer"),
                Panel(
                    "parallel",
                    "settings and accuracy",
                    (accuracy,),
                    settings=tuple(f"spec.optimizer.{key}" for key in ("lr", "weight_decay", "ham.alpha")),
                ),
            ),
        ),
    )


def _line(title: str, metric: str, over: str = "epoch") -> Panel:
    return Panel("lines", title, (metric,), over)
