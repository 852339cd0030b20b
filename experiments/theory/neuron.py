"""One neuron, f(x) = a relu(w x) with scalars a and w, that learns from a teacher of the same form with a*, w* > 0.

If w > 0, student and teacher are active for the same inputs. With s the mean over all inputs of x² where x > 0 and 0
elsewhere, the loss is s (a w − a* w*)² / 2, and the flow with inverse metrics A and W is

    da/dt = −A(a) s w (a w − a* w*),   dw/dt = −W(w) s a (a w − a* w*).

So a da / A(a) = w dw / W(w). With the potentials R of both, K_w(w) − K_a(a) is an invariant, where K(θ) = θ R'(θ) −
R(θ) is the integral of θ / G(θ) from 0; it is even and grows with |θ|. It follows:

- a > 0, w > 0: both stay positive and the product converges to a* w*: solved.
- a < 0, w > 0: a grows and w shrinks until one of them is 0. If K_w(w) > K_a(a) at the start, that is a, which then
  becomes positive, provided that A(0) > 0 lets it pass zero. Otherwise it is w, and the neuron is dead.
- w < 0: the neuron is active where the teacher is 0, so w converges to 0 from below, where relu has no slope: never
  solved.

GD and HAM with the same α for both have A = W, so for a < 0 the condition is |w| > |a|, and balanced starts, |a| = |w|,
stay balanced and fail. For m ⊙ w with gaps γ, 4 K(θ) = √(4θ² + γ²) − γ: a balanced start is solved if γ of a is larger
than γ of w, which is Sign-In's condition; with a gap of 0 no sign ever changes. HAM does the same with a larger α for
a.

The balance is unstable: any difference of |a| and |w|, even one from rounding, grows like exp(s a* w* t). Here a
balanced start is balanced to the last bit, and so are both gradients.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from experiments.config.schema import Positive, Section
from ham import HAM
from ham.geometry import Euclidean, Geometry, Ham, Product
from sparsity.representations.product import split

Above0 = Annotated[float, Field(gt=0)]
AtLeast0 = Annotated[float, Field(ge=0)]
PairOfNumbers = Annotated[list[AtLeast0], Field(min_length=2, max_length=2)]
CASES = {"a > 0, w > 0": (1, 1), "a < 0, w > 0": (-1, 1), "a > 0, w < 0": (1, -1), "a < 0, w < 0": (-1, -1)}


class MethodSettings(Section):
    """Settings of a method: HAM with `alphas`, m ⊙ w with `gaps` (m² − w²), or gradient descent without either.

    `alphas` and `gaps` are pairs, for a and for w. Every `reset` steps the gaps are restored with θ unchanged; 0 means
    never.
    """

    alphas: PairOfNumbers | None = None
    gaps: PairOfNumbers | None = None
    reset: Annotated[int, Field(ge=0)] = 0

    def geometries(self) -> tuple[Geometry, Geometry]:
        """Return the geometries of a and of w."""
        if self.alphas is not None:
            return Ham(self.alphas[0]), Ham(self.alphas[1])
        if self.gaps is not None:
            return Product(self.gaps[0]), Product(self.gaps[1])
        return Euclidean(), Euclidean()


class NeuronSettings(Section):
    """Settings of neurons and their training.

    The initial |a| = |w| is drawn from the range `sizes`, and then multiplied by the pairs in `starts`; a* and w* are
    drawn from the range `teacher`. A start counts as solved if its loss, divided by that of f = 0, is at most `solved`.
    """

    seeds: Positive
    samples: Positive
    teacher: PairOfNumbers
    sizes: PairOfNumbers
    starts: dict[str, PairOfNumbers]
    methods: dict[str, MethodSettings]
    lr: Above0
    steps: Positive
    solved: Above0


class Neurons(NamedTuple):
    """Data, shape (seeds, samples), and starts, shape (seeds, starts · cases), in which cases vary fastest."""

    inputs: Tensor
    targets: Tensor
    a: Tensor
    w: Tensor


def make(settings: NeuronSettings) -> Neurons:
    """Draw normal inputs, a teacher and a size for each seed, and make all starts."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(settings.seeds)]
    inputs = torch.stack([torch.randn(settings.samples, dtype=torch.float64, generator=one) for one in generators])
    uniform = torch.stack([torch.rand(3, dtype=torch.float64, generator=one) for one in generators])
    low, high = torch.tensor([settings.teacher, settings.teacher, settings.sizes], dtype=torch.float64).T
    teacher_a, teacher_w, size = (low + (high - low) * uniform).T[..., None]
    pairs = torch.tensor(
        [
            (factor_a * sign_a, factor_w * sign_w)
            for factor_a, factor_w in settings.starts.values()
            for sign_a, sign_w in CASES.values()
        ],
        dtype=torch.float64,
    )
    return Neurons(inputs, teacher_a * (teacher_w * inputs).relu(), size * pairs[:, 0], size * pairs[:, 1])


def train(method: MethodSettings, neurons: Neurons, settings: NeuronSettings) -> Tensor:
    """Train all neurons with full batches, without momentum or decay.

    Returns:
        The final loss divided by that of f = 0, shape (seeds, starts · cases).
    """
    factors, optimizer = _moving(method, neurons, settings.lr)
    inputs, targets = neurons.inputs[:, None], neurons.targets[:, None]

    def losses() -> Tensor:
        a, w = (torch.stack(list(each)).prod(0) for each in factors)
        # written so that both gradients are the same number times the other factor, to the last bit:
        # relu(w x) = w (x where w x > 0)
        seen = torch.where(w[..., None] * inputs > 0, inputs, 0.0)
        return ((a * w)[..., None] * seen - targets).square().mean(-1) / 2

    for step in range(1, settings.steps + 1):
        optimizer.zero_grad()
        losses().sum().backward()
        optimizer.step()
        if method.gaps is not None and method.reset and step % method.reset == 0:
            _reset(factors, method.gaps)
    return losses().detach() / (targets.square().mean(-1) / 2)


def predicted(method: MethodSettings, neurons: Neurons) -> Tensor:
    """Return which starts the flow solves by the derivation above, bool of shape (seeds, starts · cases)."""
    (of_a, of_w), (a, w) = method.geometries(), (neurons.a, neurons.w)
    passes = float(of_a.inverse_metric(torch.zeros((), dtype=torch.float64))) > 0
    crosses = passes and _invariant(of_w, w) > _invariant(of_a, a)
    return (w > 0) & ((a > 0) | crosses)


def _invariant(geometry: Geometry, theta: Tensor) -> Tensor:
    """Return K(θ) = θ R'(θ) − R(θ), the integral of θ / G(θ) from 0."""
    if isinstance(geometry, Product) and geometry.gap == 0:
        return theta.abs() / 2
    return theta * geometry.mirror_map(theta) - geometry.potential(theta)


def _moving(method: MethodSettings, neurons: Neurons, lr: float) -> tuple[list[list[nn.Parameter]], Optimizer]:
    """Return the factors of a and of w, one or two for each, and one optimizer for all of them."""
    if method.gaps is not None:
        pairs = [_pair(start, gap) for start, gap in zip((neurons.a, neurons.w), method.gaps, strict=True)]
        factors = [[nn.Parameter(m), nn.Parameter(w)] for m, w in pairs]
        return factors, SGD([factor for pair in factors for factor in pair], lr=lr)
    a, w = nn.Parameter(neurons.a.clone()), nn.Parameter(neurons.w.clone())
    if method.alphas is None:
        return [[a], [w]], SGD([a, w], lr=lr)
    groups = [{"params": [a], "alpha": method.alphas[0]}, {"params": [w], "alpha": method.alphas[1]}]
    return [[a], [w]], HAM(SGD(groups, lr=lr), beta=0.0, max_weight_norm=None)


@torch.no_grad()
def _reset(factors: list[list[nn.Parameter]], gaps: PairOfNumbers) -> None:
    for (m, w), gap in zip(factors, gaps, strict=True):
        for factor, new in zip((m, w), _pair(m * w, gap), strict=True):
            factor.copy_(new)


def _pair(theta: Tensor, gap: float) -> tuple[Tensor, Tensor]:
    """Return the suite's split of θ into m and w, at a gap of 0 balanced to the last bit."""
    m, w = split(theta, gap)
    return m, theta.sign() * m if gap == 0 else w
