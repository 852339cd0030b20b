"""Holds a run at a step, or slows it down, so that a test can do something to it at that very moment.

A configuration names it under `imports`, as it would a module with methods of its own. In ``<sweep>/../gates/<run>`` a
file ``hold`` with a step stops a run before that step until the file is gone, ``idle`` until the run is asked to stop,
and ``crash`` ends its process there. ``brake`` stops it before that step and all later ones, until it is asked to stop
or has lost the run.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from experiments.run import training
from experiments.rundir import attempts

SECONDS_A_STEP = float(os.environ.get("HAM_TEST_PACE", "0"))
attempts.BEAT = float(os.environ.get("HAM_TEST_BEAT", attempts.BEAT))
_step = training.Training._train_step


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):  # ValueError: it is being written
        return None


def paced(self: training.Training, *batch: object) -> None:
    gate = self.folder.parent.parent / "gates" / self.folder.name
    if _number(gate / "crash") == self.progress.step:
        print("the library of this test has given up", file=sys.stderr, flush=True)
        os._exit(9)
    if _number(gate / "hold") == self.progress.step:
        (gate / f"reached-{self.progress.step}-{self.world.rank}").touch()
        until = time.monotonic() + 150
        while _number(gate / "hold") == self.progress.step and time.monotonic() < until:
            time.sleep(0.02)
    while _number(gate / "idle") == self.progress.step and not self._stop():
        time.sleep(0.02)
    while _number(gate / "brake") in range(self.progress.step + 1) and not self._stop() and not self._attempt.lost():
        time.sleep(0.02)
    time.sleep(SECONDS_A_STEP)
    _step(self, *batch)  # pyright: ignore[reportArgumentType]


training.Training._train_step = paced
