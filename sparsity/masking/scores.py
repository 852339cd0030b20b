"""Scores of weights: one tensor per prunable weight, by name; larger scores are kept.

`magnitudes` scores the weights of a run. The other functions score a network at initialisation and may change it, so
they are called with a copy, `Context.plain_copy`: its leaves are θ whatever the representation is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sparsity.options import Infeasible
from sparsity.probe import Batch, Loss, own_randomness
from sparsity.targets import Target, targets
from sparsity.topology import Context

Scores = dict[str, Tensor]
Parts = Callable[[], Iterable[Batch]]


def magnitudes(ctx: Context) -> Scores:
    """Return |θ| of active weights and −1 of pruned ones, which are so never kept before an active weight of zero."""
    return {name: ctx.weight(name).abs().masked_fill_(~mask, -1.0) for name, mask in ctx.masks.items()}


class _OwnBatch(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of inputs with any number of dimensions."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def alone(network: nn.Module) -> nn.Module:
    """Replace batch normalisation over ranks by that of one process, which has second derivatives.

    All ranks compute scores on the same images, so their statistics agree.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.SyncBatchNorm):
                own = _OwnBatch(child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats)
                own.load_state_dict(child.state_dict())
                like = next(network.parameters())
                setattr(parent, name, own.to(device=like.device, dtype=like.dtype).train(child.training))
    return network


def _gradient(value: Tensor, weights: Sequence[Target], *, graph: bool = False) -> list[Tensor]:
    parameters = {id(target.parameter): target.parameter for target in weights}
    found = torch.autograd.grad(value, list(parameters.values()), create_graph=graph, materialize_grads=True)
    by_parameter = dict(zip(parameters, found, strict=True))
    return [target.part(by_parameter[id(target.parameter)]) for target in weights]


def mean_gradient(network: nn.Module, weights: Sequence[Target], loss: Loss, parts: Iterable[Batch]) -> list[Tensor]:
    """Compute the gradient of the mean loss over all images; each part is one forward pass."""
    total, images = [torch.zeros_like(target.weight) for target in weights], 0
    for inputs, labels in parts:
        gradient = _gradient(loss(network(inputs), labels), weights)
        for sum_of, part in zip(total, gradient, strict=True):
            sum_of.add_(part, alpha=len(labels))
        images += len(labels)
    return [sum_of / max(1, images) for sum_of in total]


def snip(network: nn.Module, loss: Loss, parts: Iterable[Batch], seed: int = 0) -> Scores:
    """Compute |g · θ|: the change of the loss, to first order, if a connection is removed (Lee et al. 2019)."""
    weights = targets(network)
    with own_randomness(network, seed):
        gradient = mean_gradient(network, weights, loss, parts)
    return {target.name: (g * target.weight).abs() for target, g in zip(weights, gradient, strict=True)}


def grasp(network: nn.Module, loss: Loss, parts: Parts, temperature: float, seed: int = 0) -> Scores:
    """Compute θ · (H g): it is largest where removing the weight reduces the gradient norm most (Wang et al. 2020).

    The paper removes the *highest* −θ · (H g). Logits are divided by the temperature, in g and in H. H g is the
    gradient of gᵀ ∇L with g held fixed.

    Args:
        network: A plain network.
        loss: Mean loss of (logits, labels).
        parts: Called twice; yields the same images both times.
        temperature: Divides the logits.
        seed: Seed of dropout and the like, the same in both passes.
    """
    tensors = targets(network)

    def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
        return loss(logits / temperature, labels)

    # the fused kernels of attention have no second derivative
    with own_randomness(network, seed), sdpa_kernel(SDPBackend.MATH):
        gradient = mean_gradient(network, tensors, smoothed, parts())
    product, images = [torch.zeros_like(target.weight) for target in tensors], 0
    with own_randomness(network, seed), sdpa_kernel(SDPBackend.MATH):
        for inputs, labels in parts():
            along = _gradient(smoothed(network(inputs), labels), tensors, graph=True)
            slope = torch.stack([(g * a).sum() for g, a in zip(gradient, along, strict=True)]).sum()
            for sum_of, part in zip(product, _gradient(slope, tensors), strict=True):
                sum_of.add_(part, alpha=len(labels))
            images += len(labels)
    return {target.name: target.weight * hg / max(1, images) for target, hg in zip(tensors, product, strict=True)}


def linearise(network: nn.Module) -> nn.Module:
    """Prepare a network for SynFlow: evaluation mode, double precision, absolute parameters and statistics."""
    network.double().eval()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.abs_()
    return network


def synflow(network: nn.Module, input_shape: tuple[int, ...]) -> Scores:
    """Compute |θ · ∂R/∂θ|, R the sum of a linearised network's outputs for an input of ones (Tanaka et al. 2020)."""
    weights = targets(network)
    ones = torch.ones((1, *input_shape), dtype=weights[0].weight.dtype, device=weights[0].weight.device)
    gradient = _gradient(network(ones).sum(), weights)
    return {target.name: (g * target.weight).abs() for target, g in zip(weights, gradient, strict=True)}


def finite(scores: Mapping[str, Tensor], method: str) -> None:
    """Refuse scores that are not finite.

    Raises:
        Infeasible: naming the first layer whose scores are not finite.
    """
    for name, score in scores.items():
        if not bool(torch.isfinite(score).all()):
            raise Infeasible(f"{method}: the scores of {name} are not finite, so its weights cannot be ordered")
