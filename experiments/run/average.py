"""An exponential moving average of the weights, evaluated beside them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sparsity.masks import MaskSet
from sparsity.representation import Representation


class Average:
    """Averages every trained tensor and every batch statistic: a ← d·a + (1 − d)·w after each step.

    The trained tensors are averaged, the factors of a product too, and θ is made of their averages at the end: a module
    with a parametrisation cannot be copied, since the copy shares the class that `fold` takes the parametrisation from.

    Args:
        model: The represented network.
        representation: Its representation.
        decay: d, in (0, 1).
    """

    def __init__(self, model: nn.Module, representation: Representation, decay: float):
        self._model = model
        self._representation = representation
        self._decay = decay
        self._tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        # of each weight, whole: the names of its trained tensors
        self._factors = {
            slot.target.path: [names[id(parameter)] for parameter in slot.parameters]
            for slot in representation.slots.values()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Average the weights in; called after each step."""
        now = self._model.state_dict()
        floats = [name for name, tensor in now.items() if tensor.is_floating_point()]
        for name in floats:
            self._tensors[name].lerp_(now[name], 1 - self._decay)
        for name in now.keys() - floats:  # counts of batches
            self._tensors[name].copy_(now[name])

    def restart(self) -> None:
        """Forget the average; called when another training begins."""
        for name, tensor in self._model.state_dict().items():
            self._tensors[name].copy_(tensor)

    @torch.no_grad()
    def network(self, folded: nn.Module, masks: MaskSet) -> nn.Module:
        """Return a plain network with the averaged weights, zero where the masks prune.

        Args:
            folded: The trained network after `SparseTraining.finalize`.
            masks: The final masks.
        """
        factors = {name for names in self._factors.values() for name in names}
        state = {name: tensor for name, tensor in self._tensors.items() if name not in factors}
        for path, names in self._factors.items():
            state[path] = self._representation.materialise(*(self._tensors[name] for name in names)).clone()
        for slot in self._representation.slots.values():
            slot.target.part(state[slot.target.path]).masked_fill_(~masks[slot.name], 0.0)
        network = copy.deepcopy(folded)
        network.load_state_dict(state)
        return network

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages."""
        return self._tensors

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`.

        Raises:
            KeyError: if the state is of another network.
        """
        for name, tensor in self._tensors.items():
            tensor.copy_(state[name])
