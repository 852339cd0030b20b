"""Learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math

from experiments.config.schema import ScheduleSpec


def lr_multiplier(spec: ScheduleSpec, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of one step as a fraction of the peak rate.

    With ``per: epoch`` all steps of an epoch have the rate of its first, in warm-up that of its last: AC/DC's and STR's
    (e + 1) / 5 in epochs 0 to 4, then a cosine over the other epochs.

    Args:
        spec: The section ``schedule``.
        step: Index of the step, from 0.
        steps_per_epoch: Steps per epoch.

    Returns:
        A number in [0, 1]. ``cosine`` falls to 0, ``constant`` stays at 1, ``multistep`` is multiplied by `gamma` at
        each milestone, ``triangular`` is TurboPrune's: 0.2 at the first step, 1 at 20 % of training, 0 at its end,
        linear in between.
    """
    # time counts in the unit the rate changes in
    at, unit = (step // steps_per_epoch, 1) if spec.per == "epoch" else (step, steps_per_epoch)
    total = spec.epochs * unit
    if spec.name == "triangular":
        peak = 0.2 * total
        return 0.2 + 0.8 * at / peak if at < peak else (total - at) / (total - peak)
    warmup = round(spec.warmup_epochs * unit)
    if at < warmup:
        return (at + 1) / warmup
    if spec.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (at - warmup) / (total - warmup)))
    if spec.name == "multistep":
        return spec.gamma ** sum(at >= milestone * unit for milestone in spec.milestones)
    return 1.0
