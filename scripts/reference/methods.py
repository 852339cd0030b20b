"""One page per method, and the page that lists them, from the registry and the published figures."""

from __future__ import annotations

from itertools import groupby

from experiments.cli.listing import FIGURES, KINDS, ListedMethod, figure_rows, methods
from results.numbers import paper

from . import loops
from .markdown import from_docstring, table

_INDEX = """# Methods

A row of a table is a topology, a representation and an optimizer; [three axes](../../explanation/axes.md) says how
they combine. `ham methods` lists the methods in the terminal, and `ham methods NAME` prints one of these pages. [A
method of your own](../../howto/add_a_method.md) joins them by one line of a configuration.

*Family*: PaI prunes at initialisation, DtS goes from dense to sparse during training, DST trains with a sparse mask
that changes ([glossary](../../glossary.md)). *Your loop needs*: what a loop of your own gives to `sparsity.attach`,
see [sparse training in your loop](../../tutorials/sparse_in_your_loop.md#what-your-loop-needs)."""

_FIGURES = """## Published figures

Top-1 accuracy in per cent, as the sources state it; none of these was computed here. "unconfirmed" figures are
recalled from the literature, "second-hand" ones come from notes or reviews and not from the source itself. Empty
cells are not stated there."""


def pages() -> dict[str, str]:
    """Return all pages by name."""
    known = methods()
    return {"index": _index(known), **{method.name: _page(method) for method in known}}


def _index(known: list[ListedMethod]) -> str:
    parts = [_INDEX]
    for kind, group in groupby(known, lambda method: method.kind):
        parts.append(f"## {KINDS[kind].capitalize()}")
        if kind == "topology":
            head = ("name", "family", "in one sentence", "your loop needs", "paper")
            rows = [
                (_link(one), one.head[1], _sentence(one), loops.needs_of_topology(one.cls), one.cls.paper)
                for one in group
            ]
        else:
            head = ("name", "in one sentence", "your loop needs", "paper")
            rows = [
                (_link(one), _sentence(one), loops.needs_of_representation(one.cls), one.cls.paper) for one in group
            ]
        parts.append(table(head, rows))
    return "\n\n".join(parts)


def _page(method: ListedMethod) -> str:
    first, _, rest = from_docstring(method.text).partition("\n\n")
    parts = [f"# {method.name}: {method.cls.title}", first, f"*{'; '.join([method.kind, *method.facts])}*"]
    needs = loops.needs_of_topology if method.kind == "topology" else loops.needs_of_representation
    where = "../../tutorials/sparse_in_your_loop.md#what-your-loop-needs"
    parts.append(f"[Your loop]({where}) needs: {needs(method.cls)}. {loops.partners(method.kind, method.name)}")
    options = method.options()
    parts.append("## Options" if options else "It has no options.")
    if options:
        section = f"Set them beside the name, `{method.kind}.OPTION=VALUE`, or as arguments of `sparsity."
        parts.append(section + ("attach" if method.kind == "topology" else "represent") + "`.")
        parts.append(table(("option", "type", "default", "allowed", "meaning"), options))
    if rest:
        parts += ["## Rule, source, deviations", rest]
    if figures := paper.of_method(method.name):
        parts += [_FIGURES, table(FIGURES, figure_rows(figures))]
    parts.append("[All methods](index.md)")
    return "\n\n".join(parts)


def _link(method: ListedMethod) -> str:
    return f"[{method.name}]({method.name}.md)"


def _sentence(method: ListedMethod) -> str:
    return " ".join(method.text.partition("\n\n")[0].split())
