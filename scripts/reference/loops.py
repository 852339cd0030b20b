"""What a training loop must give each method, from what the registry declares."""

from __future__ import annotations

import re
from typing import Any

from sparsity import registry
from sparsity.options import build_options

from .markdown import table

PAGE = "tutorials/sparse_in_your_loop.md"
BEGIN, END = "<!-- from the registry: python -m scripts.reference -->", "<!-- end -->"
PLAIN = "the plain loop"
EPOCHS, METRICS, PROBE = "`steps_per_epoch=`", "`step(metrics=...)`", "`probe=sparsity.Probe(...)`"
LEVELS = "the loop of levels"


def needs_of_topology(cls: Any) -> str:
    """Say what `attach` must be given for a topology with its default options."""
    options = build_options(cls.Options, {})
    needs = [PROBE] * cls.needs_probe + [LEVELS] * cls.repeats
    needs += [EPOCHS] * (getattr(options, "unit", "step") == "epoch")
    return ", ".join(needs) or PLAIN


def needs_of_representation(cls: Any) -> str:
    """Say what `attach` and `step` must be given for a representation with its default options."""
    instance = cls(build_options(cls.Options, {}))
    return ", ".join([EPOCHS] * instance.needs_epochs + [METRICS] * bool(cls.needs_metrics)) or PLAIN


def partners(kind: str, name: str) -> str:
    """Say which methods of the other kind one is refused with."""
    others = registry.representations() if kind == "topology" else registry.topologies()
    refused = [other for other in others if _refusal(kind, name, other)]
    return f"Refused with {', '.join(refused)}: {_why(kind, name, refused[0])}." if refused else "It combines with all."


def needs_table() -> str:
    """Return the table of what a loop needs, and the pairs that are refused."""
    topologies = {name: needs_of_topology(cls) for name, cls in registry.topologies().items()}
    representations = {name: needs_of_representation(cls) for name, cls in registry.representations().items()}
    rows = []
    for needs in dict.fromkeys([PLAIN, *topologies.values(), *representations.values()]):
        found = [", ".join(n for n, own in named.items() if own == needs) for named in (topologies, representations)]
        rows.append((needs, *found))
    return table(("your loop needs", "topologies", "representations"), rows) + "\n\n" + _refused_table()


def renewed(text: str) -> str:
    """Return a page with the table between `BEGIN` and `END` written anew."""
    before, found, rest = text.partition(BEGIN)
    assert found, f"{PAGE} has no line {BEGIN}"
    return f"{before}{BEGIN}\n\n{needs_table()}\n\n{END}{rest.partition(END)[2]}"


def _refused_table() -> str:
    groups: dict[tuple[str, ...], list[str]] = {}
    for top in registry.topologies():
        refused = tuple(rep for rep in registry.representations() if registry.refusal(top, rep))
        if refused:
            groups.setdefault(refused, []).append(top)
    rows = [(", ".join(tops), ", ".join(reps), _why("topology", tops[0], reps[0])) for reps, tops in groups.items()]
    return table(("topologies", "refused with", "why"), rows)


def _refusal(kind: str, name: str, other: str) -> str | None:
    return registry.refusal(name, other) if kind == "topology" else registry.refusal(other, name)


def _why(kind: str, name: str, other: str) -> str:
    """Return the reason without the names of the two."""
    reason = (_refusal(kind, name, other) or "").partition(";")[0]
    return re.sub(r"(topology|representation) '\w+'", r"the \1", reason)
