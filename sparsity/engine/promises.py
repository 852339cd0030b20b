"""`Promises`: what a training promised, compared with what happens to it: its steps, its layers, its gradients."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer

from sparsity.options import TrainingError
from sparsity.representation import Representation

log = logging.getLogger(__name__)

SOON = 10  # steps after which every prunable weight should have had a gradient


class Promises:
    """Finds what a method could not find by itself, since nothing of it would fail.

    Args:
        representation: The represented network.
        optimizer: Its optimizer.
        total_steps: Steps of the whole run.
        soon: Step by which every prunable weight should have had a gradient: what has none is named.
        by: Step by which it must have had one.
    """

    def __init__(
        self,
        representation: Representation,
        optimizer: Optimizer,
        total_steps: int,
        *,
        soon: int,
        by: int,
    ):
        self._representation = representation
        self._optimizer = optimizer
        self._total = total_steps
        self._soon, self._by = soon, by
        self._own_step = False  # whether the optimizer steps because the training does
        self._others = 0
        self._hook = optimizer.register_step_pre_hook(self._note_step)
        self._unreached = set(representation.slots)
        self._begun = False

    def end(self) -> None:
        """Let go of the optimizer, which may step by itself after the training."""
        self._hook.remove()

    @contextmanager
    def own_step(self) -> Iterator[None]:
        """Within it, a step of the optimizer is that of the training."""
        self._own_step = True
        try:
            yield
        finally:
            self._own_step = False

    def _note_step(self, *_: Any) -> None:
        self._others += not self._own_step

    def before_step(self, step: int) -> None:
        """Refuse a step after the last one, and check the layers before the first one.

        Raises:
            TrainingError: with both numbers of steps, or the name of a layer; if the optimizer has stepped by itself.
        """
        if self._others:
            raise TrainingError(
                f"the optimizer has stepped by itself {self._others} times since attach() or the last step: step() of "
                "the sparse training replaces optimizer.step() and, as step(scaler=scaler), scaler.step(optimizer)"
            )
        if step >= self._total:
            raise TrainingError(
                f"step {step + 1} is one more than total_steps = {self._total}, after which every schedule has ended: "
                "call finalize(), or attach with the number of steps that you train"
            )
        if not self._begun:
            self._begun = True
            self.check_layers()

    def after_backward(self, step: int) -> None:
        """Check that gradients reach every prunable weight.

        Raises:
            TrainingError: naming weights that had none so far.
        """
        if not self._unreached:
            return
        slots = self._representation.slots
        for name in list(self._unreached):
            parameters = slots[name].parameters
            if any(p.grad is not None for p in parameters) or not any(p.requires_grad for p in parameters):
                self._unreached.discard(name)
        if not self._unreached or step + 1 not in (self._soon, self._by):
            return
        if len(self._unreached) == len(slots):
            log.warning(
                "no prunable weight has had a gradient in %d steps: is loss.backward() called, and on this network?",
                step + 1,
            )
            return
        text = f"no gradient has reached {_few(sorted(self._unreached))} in {step + 1} steps"
        if step + 1 < self._by:
            log.warning("%s: does the forward pass use it?", text)
            return
        raise TrainingError(
            f"{text}: the forward pass does not use it, so its masks would mean nothing; remove the layer, or freeze "
            "its weight (requires_grad = False) before attach"
        )

    def check_layers(self) -> None:
        """Check that the layers are still in the network and their tensors in the optimizer.

        Raises:
            TrainingError: naming a layer or tensor that was replaced.
        """
        present = {id(module) for module in self._representation.model.modules()}
        owned = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        for name, slot in self._representation.slots.items():
            if id(slot.module) not in present:
                raise TrainingError(
                    f"the layer of {name} is no longer in the network, so its masks act on nothing: replace layers "
                    "before represent() and attach()"
                )
            if any(p.requires_grad and id(p) not in owned for p in slot.parameters):
                raise TrainingError(
                    f"the optimizer does not own the tensor that {name} has now: it was replaced after the optimizer "
                    "was built"
                )


def _few(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
