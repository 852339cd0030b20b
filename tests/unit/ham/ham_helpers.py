"""Small models, parameters and checks shared by the tests of `ham`."""

import io
import math

import torch
from torch.optim import SGD, AdamW
from torch.utils._python_dispatch import TorchDispatchMode

from ham import HAM, rule


class NoHostSync(TorchDispatchMode):
    """Raise at every operation that brings a value, or a size that depends on values, to the host.

    Within it, results on a CPU are taken to be as far away as those on an accelerator.
    """

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique")

    def __enter__(self):
        self._at_hand, rule.SYNCHRONOUS_DEVICES = rule.SYNCHRONOUS_DEVICES, ()
        return super().__enter__()

    def __exit__(self, *exception):
        rule.SYNCHRONOUS_DEVICES = self._at_hand
        return super().__exit__(*exception)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in self.FORBIDDEN or by_mask:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def parameter(*shape: int, fill: float = 1.0, grad: float | None = 1.0):
    """A constant parameter with a constant gradient, or none."""
    p = torch.nn.Parameter(torch.full(shape, fill))
    p.grad = None if grad is None else torch.full(shape, grad)
    return p


def factor(lr=0.1, alpha=2.0, beta=0.5, grad=1.0, sign=1.0):
    """What HAM multiplies a weight with."""
    return math.exp(lr * (-alpha * sign * grad - beta))


def make_model(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
    return model


def make_optimizer(model, base="sgd", **options):
    if base == "sgd":
        return HAM(SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3), alpha=3.0, beta=0.01, **options)
    return HAM(AdamW(model.parameters(), lr=0.02), alpha=3.0, beta=0.01, **options)


def train(model, optimizer, steps, start=0, scheduler=None):
    for step in range(start, start + steps):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step)).to(next(model.parameters()).dtype)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def saved_and_loaded(state_dict):
    """What comes back from a file, read without trust."""
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def make_params(dtype, seed=0):
    """Two groups: a convolution, a matrix with exact zeros, a bias; a large matrix, a large vector, one unused."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, scale):
        return torch.nn.Parameter((torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype))

    conv, matrix, bias = normal(4, 2, 3, 3, scale=0.05), normal(5, 4, scale=0.2), normal(5, scale=0.2)
    with torch.no_grad():
        matrix[1:3, ::2] = 0
    large, vector, unused = normal(3, 4, scale=285.0), normal(6, scale=900.0), normal(3, 3, scale=1.0)
    return [[conv, matrix, bias], [large, vector, unused]]


def fill_grads(groups, step, scale=0.3):
    """The same gradients for the same step: mostly small, one in ten a thousand times larger, zero at zero weights."""
    generator = torch.Generator().manual_seed(1000 + step)
    for p in [*groups[0], *groups[1][:-1]]:
        grad = torch.randn(p.shape, generator=generator, dtype=torch.float64) * scale
        grad = torch.where(torch.rand(p.shape, generator=generator) < 0.1, grad * 1e3, grad)
        p.grad = (grad * (p.detach() != 0)).to(p.dtype)
