"""SAM, sharpness-aware minimization, around any torch optimizer."""

# pyright: reportPrivateImportUsage=false
# torch does not list its foreach kernels as exported; its own optimizers and many others use them
from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from .lists import batches, working_dtype
from .optimizer import HAM
from .wrapper import OptimizerWrapper

_log = logging.getLogger(__name__)

_GRADIENTS = ("perturbed", "first")
_TINY = 1e-12  # added to the norm, so that a gradient of zero perturbs nothing


class _Ascent(NamedTuple):
    """Parameters of one group, device and type, with their directions of ascent T g, and T if it is not 1."""

    params: list[Tensor]
    directions: list[Tensor]
    reach: list[Tensor] | None
    rho: float


class SAM(OptimizerWrapper):
    """Let a base optimizer, `HAM` included, step with the gradient at the worst weights nearby.

    A step evaluates the batch twice, by a closure that it calls itself::

        g = gradient at w
        e = rho * T (T g) / |T g|          T = 1; adaptive: T = |w| + eta, entry by entry; one norm over all weights
        h = gradient at w + e
        the base takes its step at w with h

    Example:
        >>> import torch
        >>> from ham import SAM
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.05, model=model)
        >>> def closure():
        ...     optimizer.zero_grad()
        ...     (loss := model(torch.ones(8, 4)).square().mean()).backward(); return loss
        >>> loss = optimizer.step(closure)

    Args:
        base: The optimizer that takes the step. Its gradients are dense.
        rho: Radius of the perturbation, at least 0. 0.05 is what the first paper's code shows for CIFAR-10; the
            adaptive form needs about ten times as much.
        adaptive: Measure the perturbation of each weight relative to its magnitude.
        eta: Number that the adaptive form adds to each magnitude, at least 0.
        gradient: Gradient that HAM sees if it is the base: "perturbed", the one at w + e that its base optimizer gets,
            or "first", the one at w (which costs a copy of the gradients).
        model: The network, possibly wrapped, whose buffers are kept.

    Raises:
        TypeError: if the base is no optimizer, or an option has the wrong type.
        ValueError: if an option is out of range, the base contains SAM already or calls closures itself (L-BFGS),
            ``gradient="first"`` is given without HAM, or (in ``step``) the closure is missing.
        RuntimeError: in ``step``, if a gradient is sparse.

    Notes:
        `step` needs the closure and calls it twice. Both calls draw the same random numbers (dropout) from torch's
        default generators. If the network is given as ``model``, its buffers, such as batch statistics, keep the values
        of the first pass; without it they count every batch twice. Weights are restored from a copy, also after an
        error in the closure. A closure that masks or clips gradients does so in both passes; a weight whose gradient is
        zero is not perturbed.

        ``rho`` and ``adaptive`` live in the parameter groups and are saved with them, as HAM's alpha is (``sam_rho``,
        ``sam_adaptive`` where the base has an option ``rho``, as Adadelta has). A group with rho 0 is not perturbed and
        not part of the norm. If no group is perturbed, there is no second pass: rho = 0 is the base, bit for bit.

        Main deviations and open questions; docs/howto/sam.md has all of them:

        - Weight decay is the base's and not part of the perturbation, where the authors' code has it in the loss.
        - A zero gradient perturbs nothing, where the authors' code divides 0 by 0: 1e-12 is added to the norm.
        - How SAM and HAM go together is not published: ``gradient`` says which gradient HAM sees, *unverified*.

        A `GradScaler` cannot be used: its ``step`` takes no closure, and a closure that slips through as a positional
        argument leaves the second gradient scaled. Use bfloat16, whose range needs no scaling.

        Sources: Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving
        Generalization", ICLR 2021 (arXiv 2010.01412), and the authors' code (google-research/sam). Adaptive form: Kwon,
        Kim, Park, Choi, "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
        Networks", ICML 2021 (arXiv 2102.11600), and theirs (SamsungLabs/ASAM).
    """

    _options = ("eta", "gradient")

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.05,
        *,
        adaptive: bool = False,
        eta: float = 0.01,
        gradient: Literal["perturbed", "first"] = "perturbed",
        model: nn.Module | None = None,
    ):
        _check_radius("eta", eta)
        if gradient not in _GRADIENTS:
            raise ValueError(f"gradient: {gradient!r} is not allowed; use {' or '.join(map(repr, _GRADIENTS))}")
        if gradient == "first" and not isinstance(base, HAM):
            raise ValueError("gradient: 'first' says what HAM sees, so the base must be HAM")
        inner = base
        while isinstance(inner, OptimizerWrapper):
            if isinstance(inner, SAM):
                raise ValueError("base: contains SAM already; a second one would perturb perturbed weights")
            inner = inner.base
        if isinstance(inner, LBFGS):
            raise ValueError("base: L-BFGS evaluates the closure as often as it likes, at weights of its own")
        self.eta = eta
        self.gradient = gradient
        self.model = model
        self._left: dict[int, tuple[int, int]] | None = {}
        self._told = False
        taken = getattr(base, "defaults", {})
        self._rho, self._adaptive = (f"sam_{key}" if "rho" in taken else key for key in ("rho", "adaptive"))
        super().__init__(base, {self._rho: rho, self._adaptive: adaptive})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "model": self.model}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._left, self._told = None, False  # gradients are not part of the state
        self._rho, self._adaptive = self.group_defaults

    @property
    def needs_closure(self) -> bool:
        """True, since each step evaluates the batch twice."""
        return True

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Check rho and adaptive."""
        _check_radius(self._rho, group[self._rho])
        if not isinstance(group[self._adaptive], bool):
            raise TypeError(f"{self._adaptive}: {group[self._adaptive]!r} is not True or False")

    def step(self, closure: Callable[[], float] | None = None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Evaluate the batch at the weights and at the perturbed weights, then let the base step from the weights.

        Args:
            closure: Runs forward and backward for one batch, all its micro-batches included, and returns the loss.
                It is called twice with gradients enabled; gradients are cleared in between.

        Returns:
            The loss of the first call, at the unperturbed weights.

        Raises:
            ValueError: if there is no closure.
            RuntimeError: if a gradient is sparse.
        """
        if closure is None:
            raise ValueError(
                "closure: SAM evaluates each batch twice, so step(closure) needs a function that clears gradients, "
                "runs forward and backward and returns the loss"
            )
        if not getattr(closure, "first_pass_done", False):
            self._look_for_other_gradients()
        evaluate = torch.enable_grad()(closure)
        draws = _Draws(self._parameters())
        loss = evaluate()
        ascents = self._ascents()
        if not ascents:
            self.base.step()
            self._left = self._versions()
            return loss
        seen = self._gradients() if self.gradient == "first" else None
        buffers = () if self.model is None else self.model.buffers()
        with _kept(param for ascent in ascents for param in ascent.params), _kept(buffers):
            _climb(ascents)
            del ascents
            self.zero_grad()
            draws.again()
            # autocast caches the cast of a weight and does not notice that the weight has changed since
            torch.clear_autocast_cache()
            evaluate()
        if isinstance(self.base, HAM) and seen is not None:
            self.base.step(grads=seen)
        else:
            self.base.step()
        self._left = self._versions()
        return loss

    def _versions(self) -> dict[int, tuple[int, int]]:
        """Return which gradients there are, and how often each was written to."""
        found = ((id(p), p.grad) for p in self._parameters())
        return {key: (id(grad), grad._version) for key, grad in found if grad is not None}

    def _look_for_other_gradients(self) -> None:
        """Say once if gradients were computed outside the closure, which clears them or counts them in one pass."""
        if self._left is None or self._told:
            return
        if self._versions().items() - self._left.items():
            changed = [p.grad for p in self._parameters() if p.grad is not None]
            self._told = bool(torch.stack([grad.any() for grad in changed]).any())
            if self._told:
                _log.warning(
                    "gradients were computed outside the closure since SAM's last step: its second pass knows nothing "
                    "of them. Let the closure run all micro-batches of a step (Lightning's accumulate_grad_batches "
                    "calls it for the last one alone)"
                )

    def _parameters(self) -> Iterator[Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    def _gradients(self) -> dict[Tensor, Tensor]:
        # copies, since the second pass would write into gradients that are views of DDP's buckets
        return {param: param.grad.clone() for param in self._parameters() if param.grad is not None}

    @torch.no_grad()
    def _ascents(self) -> list[_Ascent]:
        ascents = []
        for index, group in enumerate(self.param_groups):
            rho = group.get(self._rho, self.defaults[self._rho])
            if rho == 0:
                continue
            rows = [(param, param.grad) for param in group["params"] if param.grad is not None]
            if any(grad.layout != torch.strided for _, grad in rows):
                raise RuntimeError(f"a parameter in group {index} has a sparse gradient; SAM needs dense ones")
            for batch in batches(rows):
                params, dtype = [param for param, _ in batch], working_dtype(batch[0][0].dtype)
                directions, reach = [grad.to(dtype) for _, grad in batch], None
                if group.get(self._adaptive, self.defaults[self._adaptive]):
                    reach = list(torch._foreach_abs([param.to(dtype) for param in params]))
                    torch._foreach_add_(reach, self.eta)
                    directions = list(torch._foreach_mul(directions, reach))
                ascents.append(_Ascent(params, directions, reach, -rho if group.get("maximize") else rho))
        return ascents


@torch.no_grad()
def _climb(ascents: list[_Ascent]) -> None:
    """Add the perturbation e to the parameters."""
    norms = [norm for ascent in ascents for norm in torch._foreach_norm(ascent.directions)]
    norm = torch.linalg.vector_norm(torch.stack([norm.to(norms[0]) for norm in norms]))
    for ascent in ascents:
        scale = (ascent.rho / (norm + _TINY)).to(ascent.directions[0])
        moves = list(torch._foreach_mul(ascent.directions, scale))
        if ascent.reach is not None:
            torch._foreach_mul_(moves, ascent.reach)
        torch._foreach_add_(ascent.params, moves)


@contextmanager
def _kept(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Restore tensors to their present values at the end of a block, also after an error."""
    kept = batches((tensor, tensor.detach().clone()) for tensor in tensors)
    try:
        yield
    finally:
        with torch.no_grad():
            for batch in kept:
                torch._foreach_copy_([tensor for tensor, _ in batch], [copy for _, copy in batch])


class _Draws:
    """Remembers torch's random state at its creation, so that the same numbers can be drawn again."""

    def __init__(self, tensors: Iterable[Tensor]):
        self._host = torch.get_rng_state()
        devices = {tensor.device for tensor in tensors if tensor.device.type in ("cuda", "xpu")}
        self._devices = {device: torch.get_device_module(device).get_rng_state(device) for device in devices}

    def again(self) -> None:
        torch.set_rng_state(self._host)
        for device, state in self._devices.items():
            torch.get_device_module(device).set_rng_state(state, device)


def _check_radius(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: {value!r} is not a number")
    if not (math.isfinite(value) and float(value) >= 0):
        raise ValueError(f"{name}: {value!r} is out of range; it must be finite and at least 0")
