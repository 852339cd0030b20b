"""The style of figures: colours, panels, and deterministic files (the same results give the same bytes)."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine

from results.runs.schema import SweepResults, variant_of

Share = bool | Literal["none", "all", "row", "col"]

INK, MUTED, RULE, PAPER = "#1b2430", "#5b6673", "#d5dae0", "#ffffff"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # shipped with matplotlib, so that figures are equal on every machine
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "axes.titlelocation": "left",
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlecolor": INK,
    "axes.unicode_minus": True,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3.0,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "svg.fonttype": "path",  # the viewer's fonts would change widths and clip labels
    "svg.hashsalt": "ham-suite",
    "path.simplify": False,
}
FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei"),
    *("Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Noto Sans", "Arial Unicode MS"),
)
"""Fonts for characters that DejaVu Sans does not have, where they are installed."""
WIDTH = 9.6
"""Width of a figure in inches."""


@dataclass(frozen=True)
class VariantStyle:
    """Colour and marker of a variant; the marker distinguishes variants in greyscale print too."""

    color: str
    marker: str


# Okabe and Ito's palette, readable with the common colour-vision deficiencies
_KNOWN = {
    "plain": VariantStyle("#4a5562", "o"),
    "+ HAM": VariantStyle("#d55e00", "D"),
    "+ Sign-In": VariantStyle("#0072b2", "s"),
}
_FURTHER = (
    VariantStyle("#009e73", "^"),
    VariantStyle("#cc79a7", "v"),
    VariantStyle("#b88700", "P"),
    VariantStyle("#56b4e9", "X"),
    VariantStyle("#7a5230", "p"),
    VariantStyle("#6a3d9a", "h"),
)


COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#b88700", "#56b4e9", "#7a5230", "#6a3d9a", "#e0457b", "#3d8b8b")
"""Colours of base methods where all stand in one panel."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
"""Line styles of a base method and its additions there."""


def looks(sweep: SweepResults) -> dict[str, VariantStyle]:
    """Return a style for each variant of a sweep ("plain", "+ HAM", ...), in the order in which they appear."""
    variants = dict.fromkeys(variant_of(sweep, row) for row in sweep.rows)
    others = [variant for variant in variants if variant not in _KNOWN]
    further = {variant: _FURTHER[place % len(_FURTHER)] for place, variant in enumerate(others)}
    return {variant: _KNOWN.get(variant) or further[variant] for variant in variants}


@contextmanager
def style() -> Iterator[None]:
    """Use the suite's style within the block, independent of the user's matplotlibrc."""
    with mpl.rc_context():
        mpl.rcdefaults()
        for key, value in STYLE.items():
            mpl.rcParams[key] = value
        installed = set(fontManager.get_font_names())
        mpl.rcParams["font.family"] = [STYLE["font.family"], *(name for name in FALLBACKS if name in installed)]
        yield


def panels(
    rows: int, columns: int, height: float, *, sharex: Share = False, sharey: Share = False, gap: float = 0.02
) -> tuple[Figure, list[list[Axes]]]:
    """Make a figure of rows × columns panels.

    Args:
        rows: Number of panel rows.
        columns: Number of panel columns.
        height: Height of the whole figure in inches.
        sharex: As in ``Figure.subplots``.
        sharey: As in ``Figure.subplots``.
        gap: Space between columns as a fraction of a panel's width.

    Returns:
        The figure, and the axes row by row.
    """
    figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=gap))
    FigureCanvasSVG(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).tolist()


def clean(axes: Axes, grid: Literal["x", "y"] = "x") -> None:
    """Reduce axes to grid lines along one axis, without frame and tick marks."""
    axes.grid(axis=grid)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(grid == "y")
    axes.tick_params(length=0)


_ON_PAGE = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAPER: "var(--page)",
    _KNOWN["plain"].color: "var(--plain)",
    _KNOWN["+ Sign-In"].color: "var(--sign-in)",
}
"""Colours that follow a page from light to dark; the others can be read on both."""


def svg(figure: Figure, name: str, label: str) -> str:
    """Return a figure as an ``svg`` element for an HTML page, which says what ``--ink`` and the like are.

    Args:
        figure: The figure; drawn within `style`.
        name: Prefix of all ids, so that several figures can share a page.
        label: Description of the figure for screen readers.
    """
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    for color, variable in _ON_PAGE.items():
        text = text.replace(color, variable)
    head = f'<svg role="img" aria-label="{html.escape(label)}" '
    return text.replace("<svg ", head, 1).strip()
