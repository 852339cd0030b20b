"""Equal scores do not decide by their index which weights stay or grow, in every registered method.

All weights of the network are equal, the loss is constant and the learning rate zero: whatever a method compares, there
are ties. Heads, residual branches and whole networks of one magnitude are initialised like that.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sparsity
from sparsity import registry
from sparsity.testing import SHORT, SPARSITY, STEPS, STEPS_PER_EPOCH

# a threshold that only strictly larger weights pass leaves none of those that are equal to it
STRICT = {"acdc": {"allocation": "uniform"}}
PAIRS = [(name, "plain") for name in registry.topologies() if name != "dense"]
PAIRS += [("dense", "spred"), ("dense", "pilot"), ("rigl", "product"), ("gmp", "powerprop")]


def constant(logits: Tensor, labels: Tensor) -> Tensor:
    return 0 * logits.sum()


def changes(topology: str, representation: str, seed: int) -> tuple[list[dict[str, Tensor]], list[dict[str, float]]]:
    """Train; return what every event changed in each layer, and the events."""
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.1)
    rep = sparsity.represent(model, representation, **SHORT.get(representation, {}))
    optimizer = torch.optim.SGD(rep.param_groups(), lr=0.0)
    data = [(torch.ones(8, 20), torch.arange(8) % 5)]
    probe = sparsity.Probe(lambda: iter(data), constant, (20,), num_classes=5)
    options = {
        **SHORT.get(topology, {}),
        **({"per_class": 1} if topology == "grasp" else {}),
        **STRICT.get(topology, {}),
    }
    steps = {"total_steps": STEPS, "steps_per_epoch": STEPS_PER_EPOCH, "seed": seed, "sparsity": SPARSITY}
    given = probe if registry.topology(topology).needs_probe else None
    sparse = sparsity.attach(topology, model, optimizer, probe=given, **steps, **options)
    before, found = {name: torch.ones_like(mask) for name, mask in sparse.masks.items()}, []
    for step in range(sparse.total_steps + 1):
        if any(not mask.equal(before[name]) for name, mask in sparse.masks.items()):
            found.append({name: mask ^ before[name] for name, mask in sparse.masks.items()})
            before = dict(sparse.masks)
        if step < sparse.total_steps:
            optimizer.zero_grad()
            constant(model(data[0][0]), data[0][1]).backward()
            sparse.step(metrics=lambda: {"train_accuracy": 0.5})
            if sparse.level_ended:
                sparse.next_level()
    return found, sparse.events


@pytest.mark.parametrize(("topology", "representation"), PAIRS, ids=map("-".join, PAIRS))
def test_what_changes_among_equals_is_spread_and_repeatable(topology: str, representation: str):
    found, events = changes(topology, representation, seed=1)
    assert found
    for changed in found:
        for name, where in changed.items():
            number = int(where.sum())
            if number < 100 or number > 0.9 * where.numel():
                continue
            early = float(where.flatten()[: where.numel() // 2].sum()) / number
            assert 0.35 < early < 0.65, f"{early:.0%} of what changed in {name} lies in the first half of it"
    again, same = changes(topology, representation, seed=1)
    assert events == same
    assert all(torch.equal(a[name], b[name]) for a, b in zip(found, again, strict=True) for name in a)
    other, _ = changes(topology, representation, seed=2)
    assert any(not torch.equal(a[name], b[name]) for a, b in zip(found, other, strict=False) for name in a)
    assert topology == "random" or any(event.get("drawn", 0) > 0 for event in events)
