"""A program of a user's, by which pyright checks that public names are typed as their docstrings say (make lint)."""

from collections.abc import Mapping
from typing import Any, Literal, assert_type

import torch

import ham
import sparsity

model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
rep = assert_type(sparsity.represent(model), sparsity.Representation)
optimizer = ham.HAM(torch.optim.SGD(rep.param_groups(weight_decay=1e-4), lr=0.1), alpha=20.0)
watch = ham.Watch(optimizer, model.named_parameters())
sparse = sparsity.attach("rigl", model, optimizer, sparsity=0.5, total_steps=4, update_every=2)
for _ in range(4):
    optimizer.zero_grad()
    model(torch.ones(4, 8)).square().mean().backward()
    assert_type(sparse.step(), torch.Tensor | None)
look = watch.look()
assert look is not None
assert_type(look.metrics(), dict[str, float])
assert_type(watch.verdict, Literal["too large", "idle", "fine"] | None)
assert_type(sparse.masks, sparsity.MaskSet)
assert_type(sparse.masks["0.weight"], torch.Tensor)
assert_type(sparse.densities(), dict[str, float])
assert_type(sparse.events, list[dict[str, Any]])
assert_type(sparse.event_counts, dict[str, int])
assert_type(sparse.shapes, Mapping[str, tuple[int, ...]])
assert_type([one.share for one in sparse.summary().layers], list[float])
assert_type(sparse.finalize(), dict[str, int])
