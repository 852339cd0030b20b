"""Dynamic sparse training in which each layer replaces a fraction of its active weights: what RiGL and SET share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .dynamic import MaskUpdates, UpdateOptions, annealed_fraction, rounded
from .options import option


@dataclass(frozen=True)
class ReplaceOptions(UpdateOptions):
    """Options of a topology that replaces a fraction of each layer's active weights until training is partly done."""

    drop_fraction: float = option(
        0.3, "fraction of a layer's active weights replaced at the first update (a)", gt=0, le=1
    )
    final_drop_fraction: float = option(0.0, "that fraction at `end`", ge=0, le=1, neutral=0.0)
    rounding: str = option(
        "floor",
        "how the number of weights replaced in a layer is rounded",
        choices=("floor", "ceil"),
        neutral="floor",
    )
    end: float = option(0.75, "fraction of training after which the mask is fixed (T_end)", gt=0, le=1)


class Replacement(MaskUpdates):
    """Base class of topologies with `ReplaceOptions`, whose updates replace the weight step unless it is done too."""

    options: Any  # ReplaceOptions with also_step

    @property
    def in_place(self) -> bool:
        """By default an update replaces the weight step."""
        return not self.options.also_step

    def last_update(self, total_steps: int) -> int:
        """Return T_end."""
        return min(int(self.options.end * total_steps), total_steps - 1)

    def annealed(self, step: int, total_steps: int) -> float:
        """Return the fraction that is replaced at a step, which falls by a cosine until T_end."""
        end = int(self.options.end * total_steps)
        return annealed_fraction(self.options.drop_fraction, self.options.final_drop_fraction, step, end)

    def replaced(self, fraction: float, active: int) -> int:
        """Count the weights that are a fraction of the active ones."""
        return rounded(self.options.rounding)(fraction * active)

    def most_replaced(self, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> int:
        """Return how many weights the largest layer replaces at most."""
        most = max(self.options.num_active(shapes, sparsity).values())
        return self.replaced(max(self.options.drop_fraction, self.options.final_drop_fraction), most)
