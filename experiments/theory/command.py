"""The work of `ham theory`: from names and settings on the command line to measurements, files and a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config.files import THEORY, configs_folder
from experiments.config.keys import COMMAND_LINE, assign_text, unfold
from experiments.config.problems import complain, validate
from experiments.config.schema import Section
from experiments.config.yaml_text import Located, read_mapping
from experiments.errors import UserError, nearest
from experiments.rundir.environment import environment
from experiments.rundir.files import atomic, write_json

from . import NAMES, experiment
from .base import Check, Experiment, TheoryOutcome

Style = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Planned:
    """An experiment and the settings to run it with."""

    name: str
    experiment: Experiment
    settings: Section


def plan(words: Sequence[str]) -> list[Planned]:
    """Parse the words of the command line: names of experiments (none means all) and settings.

    A setting is ``KEY=VALUE`` if one experiment is named, otherwise ``NAME.KEY=VALUE``.

    Raises:
        UserError: for an unknown name or key, or a value that is not allowed.
    """
    named = list(dict.fromkeys(word for word in words if "=" not in word))
    for name in named:
        if name not in NAMES:
            raise UserError(f"no experiment {name!r}; allowed: {', '.join(NAMES)}{nearest(name, NAMES)}", COMMAND_LINE)
    names = [name for name in NAMES if name in named] or list(NAMES)
    overrides: dict[str, list[str]] = {name: [] for name in names}
    for word in (word for word in words if "=" in word):
        first, _, rest = word.partition(".")
        if first in overrides and rest:
            overrides[first].append(rest)
        elif len(named) == 1:
            overrides[named[0]].append(word)
        else:
            raise UserError(
                f"{word!r}: of which experiment? Name one, or write NAME.KEY=VALUE; allowed: {', '.join(names)}"
                f"{nearest(first, names)}",
                COMMAND_LINE,
            )
    return [Planned(name, experiment(name), settings(name, overrides[name])) for name in names]


def settings(name: str, overrides: Sequence[str] = ()) -> Section:
    """Return the settings of an experiment: those of its file, changed by ``KEY=VALUE`` overrides in order.

    Raises:
        UserError: if settings are not valid, with one line per problem.
    """
    tree: Located = unfold(read_mapping(configs_folder() / THEORY / f"{name}.yaml"))
    for text in overrides:
        tree = assign_text(tree, text)
    found, problems = validate(experiment(name).settings, tree)
    if found is None or problems:
        raise complain(problems, tree, name)
    return found


def measure(planned: Sequence[Planned], out: Path, style: Style) -> Iterator[tuple[Planned, TheoryOutcome]]:
    """Run experiments one after the other; each writes ``NAME.json``, ``NAME.svg`` and ``NAME.png``.

    Args:
        planned: The experiments.
        out: Folder for the files.
        style: Returns a context manager that sets the suite's style of figures.

    Yields:
        Each experiment with its outcome, once it is done.
    """
    out.mkdir(parents=True, exist_ok=True)
    for one in planned:
        with _one_thread():
            outcome = one.experiment.run(one.settings)
        found = to_json(one, outcome) | {"environment": environment(), "records": outcome.records}
        write_json(out / f"{one.name}.json", found)
        _draw(outcome, out / one.name, style)
        yield one, outcome


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread, so that numbers do not depend on the number of cores; more threads would not be faster here."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def to_json(one: Planned, outcome: TheoryOutcome) -> dict[str, Any]:
    """Return an experiment's checks and settings as a JSON object."""
    return {
        "experiment": one.name,
        "title": one.experiment.title,
        "source": one.experiment.source,
        "settings": one.settings.model_dump(),
        "bars": [_bar_json(bar) for bar in outcome.bars],
        "met": all(bar.met for bar in outcome.bars),
    }


def _bar_json(bar: Check) -> Mapping[str, Any]:
    bound = None if bar.bound is None else bar.bound.model_dump()
    return {"quantity": bar.quantity, "value": bar.value, "bound": bound, "met": bar.met}


def table(name: str, outcome: TheoryOutcome, *, head: bool) -> str:
    """Return the checks of an experiment as lines of a table: experiment, quantity, value, bar, met."""
    rows = [("experiment", "quantity", "value", "bar", "met")] if head else []
    for bar in outcome.bars:
        met = "" if bar.bound is None else "yes" if bar.met else "NO"
        rows.append((name, bar.quantity, f"{bar.value:.4g}", str(bar.bound or "reported"), met))
    return "\n".join(f"{a:<12}{b:<70}{c:>10}   {d:<16}{e}".rstrip() for a, b, c, d, e in rows)


def _draw(outcome: TheoryOutcome, path: Path, style: Style) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(9.6, 3.2), layout="constrained")
        FigureCanvasSVG(figure)
        outcome.draw(figure)
        for suffix, metadata in (("svg", {"Date": None}), ("png", {})):
            with atomic(path.with_suffix(f".{suffix}")) as file:
                figure.savefig(file, format=suffix, dpi=150, metadata=metadata)
