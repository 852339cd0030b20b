"""Elements that the figures of the experiments share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class CurveStyle(NamedTuple):
    """Colour and marker of a line; the marker distinguishes lines in greyscale print too."""

    color: str
    marker: str


# the colours of the figures of tables: the plain row, Sign-In (the product) and HAM
GD, PRODUCT, HAM = CurveStyle("#4a5562", "o"), CurveStyle("#0072b2", "s"), CurveStyle("#d55e00", "D")
FURTHER = (
    CurveStyle("#009e73", "^"),
    CurveStyle("#cc79a7", "v"),
    CurveStyle("#b88700", "P"),
    CurveStyle("#56b4e9", "X"),
    CurveStyle("#7a5230", "p"),
)

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def panels(figure: Figure, number: int) -> list[Axes]:
    """Return axes side by side, with a grid."""
    axes = list(figure.subplots(1, number, squeeze=False)[0])
    for one in axes:
        one.grid()
    return axes


def logarithmic(axes: Axes, which: str = "xy") -> None:
    """Make axes logarithmic, with labels that need no mathematical typesetting, which the suite's style lacks."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    for name in which:
        axes.set(**{f"{name}scale": "log"})
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_formatter(FuncFormatter(_power))
        axis.set_minor_locator(NullLocator())


def _power(value: float, position: int | None) -> str:
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    power = f"10{str(int(exponent)).translate(_RAISED)}"
    return power if mantissa == "1" else f"{mantissa}·{power}"


def legend(figure: Figure, columns: int = 4) -> None:
    """Add a legend above the panels, with each label once."""
    named = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    figure.legend(named.values(), named.keys(), loc="outside upper left", ncols=columns)
