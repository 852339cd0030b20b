"""HAM beside the published listing, SAM beside the PyTorch code that is used most."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from follow import cosine, passes, set_rate
from recordings import Recording, Tally, network
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer, RMSprop

import ham

Build = Callable[[Iterable[Tensor]], Optimizer]

# base, alpha, beta
HAMS: dict[str, tuple[Build, float, float]] = {
    "sgd": (lambda p: SGD(p, lr=0.004, momentum=0.9, weight_decay=1e-4), 200.0, 1e-3),
    "adamw": (lambda p: AdamW(p, lr=0.002), 200.0, 1e-3),
    "nesterov_strong": (lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4), 50.0, 0.5),
    "negative": (lambda p: SGD(p, lr=0.02, momentum=0.9), -5.0, 0.0),
    "rmsprop": (lambda p: RMSprop(p, lr=0.001), 100.0, 0.1),
}
# base, radius; the adaptive form is the one without eta
SAMS: dict[str, tuple[Build, float]] = {
    "sgd": (lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4), 0.05),
    "nesterov_adaptive": (lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4), 2.0),
    "adamw": (lambda p: AdamW(p, lr=0.003), 0.1),
    "adamw_adaptive": (lambda p: AdamW(p, lr=0.003), 1.0),
}


def _follow(
    tally: Tally, file: str, name: str, build: Callable[[Any], Any], rate: Callable[[float, int], float]
) -> None:
    for kind in ("mlp", "cnn"):
        recording = Recording(file, f"{kind}_{name}", kind)
        model = network(kind)
        optimizer = build(model)
        first = optimizer.param_groups[0]["lr"]
        for step in recording.steps:
            set_rate(optimizer, rate(first, step))
            optimizer.step(partial(passes, optimizer, model, kind, step))
            tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            tally.compare(recording, step, recording.select(tensors))


def hams(tally: Tally) -> None:
    """Follow HAM at a cosine schedule of 50 steps, each form that computes on a CPU without a compiler."""
    for name, (base, alpha, beta) in HAMS.items():
        for form in ("single", "foreach"):
            _follow(
                tally,
                "ham",
                name,
                lambda m, base=base, a=alpha, b=beta, f=form: ham.HAM(base(m.parameters()), alpha=a, beta=b, form=f),
                lambda rate, step: cosine(rate, step, 50),
            )


def sams(tally: Tally) -> None:
    """Follow SAM, whose rate falls to a tenth after 20 steps, batch statistics included."""
    for name, (base, rho) in SAMS.items():
        adaptive = name.endswith("adaptive")
        _follow(
            tally,
            "sam",
            name,
            lambda m, base=base, r=rho, a=adaptive: ham.SAM(base(m.parameters()), rho=r, adaptive=a, eta=0.0, model=m),
            lambda rate, step: rate * 0.1 ** (step // 20),
        )
