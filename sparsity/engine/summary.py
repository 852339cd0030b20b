"""`NetworkSummary`: the tensors of a network as a table, with their densities, and why some are not pruned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sparsity.representation import Representation

HEAD = ("layer", "weights", "share, %", "density, %", "not pruned, since")
FROZEN = " (frozen)"


@dataclass(frozen=True)
class LayerSummary:
    """One line of a summary.

    Attributes:
        name: Name of the weight.
        size: Number of its entries.
        share: Fraction of all parameters of the network, in [0, 1].
        density: Fraction of active weights, in [0, 1].
        why: Why it is not pruned; empty if it may be.
    """

    name: str
    size: int
    share: float
    density: float
    why: str


@dataclass(frozen=True)
class NetworkSummary:
    """The layers of a network; `print` shows them as a table.

    Attributes:
        layers: One line per weight that is counted, in network order, then what is not.
        counted: Number of weights that sparsity is counted over.
    """

    layers: tuple[LayerSummary, ...]
    counted: int

    def __str__(self) -> str:
        rows = [
            (one.name, f"{one.size:,}", f"{100 * one.share:.2f}", f"{100 * one.density:.2f}", one.why)
            for one in self.layers
        ]
        first, *widths, _ = (max(map(len, column)) for column in zip(HEAD, *rows, strict=True))
        lines = [
            "  ".join([name.ljust(first), *map(str.rjust, numbers, widths), why]).rstrip()
            for name, *numbers, why in (HEAD, *rows)
        ]
        total = sum(one.size for one in self.layers)
        return "\n".join([*lines, f"sparsity is counted over {self.counted:,} of {total:,} parameters"])


def summarised(
    representation: Representation, densities: Mapping[str, float], dense: Mapping[str, str]
) -> NetworkSummary:
    """Make the summary of a represented network.

    Args:
        representation: The representation of the network.
        densities: Fraction of active weights by name, of the weights that are counted.
        dense: Why some of these are not pruned, by name.
    """
    sizes = {name: weight.numel() for name, weight in representation.weights()}
    rows = [(name, sizes[name], densities[name], dense.get(name, "")) for name in densities]
    rows += [(name, size, 1.0, why) for name, size, why in _uncounted(representation)]
    total = sum(size for _, size, _, _ in rows)
    layers = tuple(LayerSummary(name, size, size / total, density, why) for name, size, density, why in rows)
    return NetworkSummary(layers, sum(sizes.values()))


def _uncounted(representation: Representation) -> Iterator[tuple[str, int, str]]:
    """Yield name, size and reason of what sparsity is not counted over."""
    trained = {id(tensor) for slot in representation.slots.values() for tensor in slot.parameters}
    rest = sum(tensor.numel() for tensor in representation.model.parameters() if id(tensor) not in trained)
    for name, size in representation.uncounted.items():
        why = "frozen" if name.endswith(FROZEN) else "no convolution or linear layer"
        yield name.removesuffix(FROZEN), size, f"{why}: not counted"
        rest -= size
    if rest:
        yield "all others", rest, "biases, normalisation and the like: not counted"
