"""How a density is distributed over layers: pure functions from shapes and a density to densities.

Shapes are weight shapes, ``(out, in, kh, kw)`` or ``(out, in)``. A density is the fraction of active weights, in (0,
1].

Example:
    >>> from sparsity import distributions
    >>> shapes = {"first": (10, 10), "second": (100, 10)}
    >>> {name: round(one, 3) for name, one in distributions.erk(shapes, density=0.1).items()}
    {'first': 0.169, 'second': 0.093}
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial

from sparsity.options import Infeasible, OptionError, nearest

from .rounding import floor_count

Shapes = Mapping[str, tuple[int, ...]]

NAMES = ("uniform", "erk", "er", "balanced", "balanced_sweep")
DENSE = ("none", "first", "last", "first_last")


def _check(shapes: Shapes, density: float, dense: Collection[str]) -> None:
    if not 0 < density <= 1:
        raise ValueError(f"density must lie in (0, 1], not {density}")
    unknown = sorted(set(dense) - set(shapes))
    if unknown:
        raise ValueError(f"no such layer: {', '.join(unknown)}; layers: {', '.join(shapes)}")
    free = sum(math.prod(shape) for name, shape in shapes.items() if name not in dense)
    total = sum(math.prod(shape) for shape in shapes.values())
    if total - free > density * total:
        raise Infeasible(
            f"the layers kept dense hold {1 - free / total:.2%} of the weights, more than the density "
            f"{density:.2%} allows; a lower sparsity, fewer dense layers, or a budget of the other layers alone "
            "(rebudget: false) would fit"
        )


def uniform(shapes: Shapes, density: float, dense: Collection[str] = ()) -> dict[str, float]:
    """Give every layer the same density; the layers in `dense` keep all weights and the others make up for it."""
    _check(shapes, density, dense)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    free = sum(size for name, size in sizes.items() if name not in dense)
    budget = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
    return {name: 1.0 if name in dense else budget / free for name in shapes}


def erk(shapes: Shapes, density: float, dense: Collection[str] = (), *, kernel: bool = True) -> dict[str, float]:
    """Erdős–Rényi kernel: density of a layer ∝ sum(shape) / prod(shape), re-solved after clipping.

    Evci et al., "Rigging the Lottery" (ICML 2020, arXiv 1911.11134), section 3 (1); the kernel term extends Mocanu et
    al. (2018). A layer whose density would exceed 1 is made dense and the scale is solved again for the rest until none
    exceeds it, as in the authors' `get_sparsities_erdos_renyi`; clipping without the second solve would miss the target
    (ResNet-50 at density 0.2: 0.1959).

    Args:
        shapes: Weight shapes by name.
        density: Fraction of all weights that are active, in (0, 1].
        dense: Names forced to density 1.
        kernel: Whether the kernel's extent counts; without it, Erdős–Rényi: ∝ (in + out) / (in · out).

    Returns:
        Densities by name; their weighted mean is `density`.

    Raises:
        ValueError: for a density outside (0, 1], an unknown name, or dense layers beyond the budget.
    """
    _check(shapes, density, dense)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    scored = {name: shape if kernel else shape[:2] for name, shape in shapes.items()}
    raw = {name: sum(shape) / math.prod(shape) for name, shape in scored.items()}
    full = set(dense)
    while True:
        budget = density * sum(sizes.values()) - sum(sizes[name] for name in full)
        weight = sum(raw[name] * sizes[name] for name in shapes if name not in full)
        scale = budget / weight if weight else 0.0
        over = {name for name in shapes if name not in full and scale * raw[name] > 1}
        if not over:
            return {name: 1.0 if name in full else scale * raw[name] for name in shapes}
        full |= over


def balanced(shapes: Shapes, density: float, dense: Collection[str] = (), *, resolve: bool = True) -> dict[str, float]:
    """Give every layer the same *number* of active weights; a layer that is smaller becomes dense.

    From the TurboPrune harness of the HAM authors' group. Their code passes the surplus of full layers on in one
    forward sweep and so misses the target slightly; here the number is solved again until it fits. ``resolve=False`` is
    the sweep.

    Args:
        shapes: Weight shapes by name, in network order (the sweep depends on it).
        density: Fraction of all weights that are active, in (0, 1].
        dense: Names forced to density 1.
        resolve: Whether to solve exactly (default) or to do the authors' single sweep.
    """
    _check(shapes, density, dense)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    if not resolve and density < 1:
        return _balanced_sweep(sizes, density, dense)
    full = set(dense)
    while True:
        free = [name for name in shapes if name not in full]
        budget = density * sum(sizes.values()) - sum(sizes[name] for name in full)
        each = budget / len(free) if free else 0.0
        over = {name for name in free if sizes[name] < each}
        if not over:
            return {name: 1.0 if name in full else each / sizes[name] for name in shapes}
        full |= over


def _balanced_sweep(sizes: dict[str, int], density: float, dense: Collection[str]) -> dict[str, float]:
    free = [name for name in sizes if name not in dense]
    each = (density * sum(sizes.values()) - sum(sizes[name] for name in dense)) / max(1, len(free))
    result = {name: 1.0 for name in dense}
    for position, name in enumerate(free):
        if sizes[name] < each:
            result[name] = 1.0
            # the layer's surplus is divided by a number that includes itself, which is why the sweep misses the target
            each += (each - sizes[name]) / (len(free) - position)
        else:
            result[name] = each / sizes[name]
    return {name: result[name] for name in sizes}


def dense_layers(shapes: Shapes, which: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of the weights that stay dense, in network order.

    Args:
        shapes: Weight shapes by name, in network order.
        which: ``"none"``, ``"first"``, ``"last"`` or ``"first_last"``; or names of layers and of modules that hold
            layers, with ``*`` and ``?`` as in file names: ``["head", "*.conv_dw"]``.

    Raises:
        OptionError: if `which` is none of these, or a name matches nothing.
        Infeasible: if no other layer is left.
    """
    names = list(shapes)
    if isinstance(which, str):
        if which not in DENSE:
            raise OptionError("dense", f"{which!r} does not name dense layers; allowed: {', '.join(DENSE)}, or a list")
        ends = {"none": [], "first": names[:1], "last": names[-1:], "first_last": [names[0], names[-1]]}[which]
        chosen = [name for name in names if name in ends]
    else:
        chosen = [name for name in names if any(_matches(name, pattern) for pattern in which)]
        for pattern in which:
            if not any(_matches(name, pattern) for name in names):
                layers = [_layer(name) for name in names]
                raise OptionError("dense", f"{pattern!r} matches no layer{nearest(pattern, layers) or _some(layers)}")
    if chosen and len(chosen) == len(names):
        raise Infeasible(f"dense: {which} leaves no layer to prune in a network of {len(names)}")
    return tuple(chosen)


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern is the name of a weight, of its layer or of a module that holds the layer."""
    path = name.split(".")
    return any(fnmatchcase(".".join(path[:end]), pattern) for end in range(1, len(path) + 1))


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name


def _some(layers: Sequence[str]) -> str:
    return f"; layers: {', '.join(layers[:8])}{' …' if len(layers) > 8 else ''}"


def layer_densities(
    name: str, shapes: Shapes, density: float, dense: Collection[str] = (), *, rebudget: bool = True
) -> dict[str, float]:
    """Return the layers' densities under the distribution called `name`.

    Args:
        name: One of `NAMES`.
        shapes: Weight shapes by name, in network order.
        density: Fraction of all weights that are active, in (0, 1].
        dense: Names forced to density 1.
        rebudget: Whether the other layers make up for the dense ones, so that `density` holds over all weights. If not,
            it holds over the other layers alone, as in RigL's code, and the network as a whole is denser.

    Raises:
        ValueError: if there is no such distribution.
        Infeasible: if the dense layers are beyond the budget.
    """
    table = {
        "uniform": uniform,
        "erk": erk,
        "er": partial(erk, kernel=False),
        "balanced": balanced,
        "balanced_sweep": partial(balanced, resolve=False),
    }
    if name not in table:
        raise ValueError(f"{name!r} is not a distribution; allowed: {', '.join(table)}")
    if rebudget:
        return table[name](shapes, density, dense)
    others = {layer: shape for layer, shape in shapes.items() if layer not in dense}
    shared = table[name](others, density) if others else {}
    return {layer: shared.get(layer, 1.0) for layer in shapes}


def counts(shapes: Shapes, densities: Mapping[str, float]) -> dict[str, int]:
    """Count the active weights per layer: size − floor((1 − density) · size), as RigL's `get_n_zeros` does.

    So each layer keeps less than one weight more than density · size. RigL's ERK and ER also solve their scale for the
    sum of such rounded counts; here it is solved for density · size, so that a layer may have a few weights more or
    less than theirs.
    """
    active = {}
    for name, shape in shapes.items():
        size = math.prod(shape)
        active[name] = size - floor_count((1 - densities[name]) * size)
    return active
