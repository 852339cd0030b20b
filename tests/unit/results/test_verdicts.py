"""Which published figure a run is compared with, and verdicts at their edges."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_runs import sample
from scipy.stats import t as student

from results.numbers.paper import Figure, figures, of_sources
from results.numbers.reproduction import apart, matching, most_spread, verdict
from results.numbers.stats import Summary, summarise
from results.runs.discover import flatten

SOURCES = list(dict.fromkeys(figure.key for figure in figures()))
FIGURE = replace(of_sources(["ham"])[0], top1=75.0, spread=0.1)


def spec_of(figure: Figure, **changes: object) -> dict[str, object]:
    """The flattened configuration of a run that stands for a figure."""
    added = {key: {"x": 1} for key, name in (("ham", "HAM"), ("sam", "SAM")) if name in figure.addition.split(" + ")}
    sparse_opt = "layer" if "SparseOpt" in figure.addition else None
    spec = {
        "data": {"name": figure.dataset},
        "model": {"name": f"torchvision:{figure.model}"},
        "topology": {"name": figure.topology, "sparsity": figure.sparsity},
        "representation": {"name": figure.representation},
        "optimizer": {"ham": None, "sam": None, **added, "sparse_opt": sparse_opt, "lr": 0.1},
        "schedule": {"epochs": figure.epochs or 100},
    }
    return flatten(spec) | changes


def judged(values: list[float], margin: float = 0.3, figure: Figure = FIGURE) -> str:
    """The verdict on accuracies in per cent."""
    return verdict(summarise(value / 100 for value in values), figure, margin)


@pytest.mark.parametrize("source", SOURCES)
def test_every_figure_is_found_by_a_run_that_stands_for_it(source: str) -> None:
    """Of all sources; methods that the suite does not have are the only exception."""
    for figure in of_sources([source]):
        found = matching(spec_of(figure), of_sources([source]), figure.layers)
        assert (figure in found) == (figure.topology is not None and figure.representation is not None), figure
        for other in found:
            same = ("topology", "representation", "addition", "dataset", "model", "layers", "epochs", "sparsity")
            assert all(getattr(figure, key) == getattr(other, key) for key in same)


@pytest.mark.parametrize(
    "changes",
    [
        {"data.name": "cifar10"},
        {"model.name": "resnet18"},
        {"topology.name": "set"},
        {"representation.name": "sign_in"},
        {"topology.sparsity": 0.906},
        {"optimizer.ham.alpha": 20.0},
        {"optimizer.sam.rho": 0.05},
        {"optimizer.sparse_opt": "network"},
    ],
)
def test_another_network_is_not_compared(changes: dict[str, object]) -> None:
    (figure,) = [one for one in of_sources(["ham"]) if (one.row, one.sparsity) == ("RiGL", 0.9)]
    assert matching(spec_of(figure), of_sources(["ham"]), "ERK") == [figure]
    assert figure not in matching(spec_of(figure, **changes), of_sources(["ham"]), "ERK")


def test_a_dense_network_has_no_sparsity_whatever_its_column_says() -> None:
    dense = of_sources(["ham"])[0]
    assert matching(spec_of(dense, **{"topology.sparsity": 0.9}), of_sources(["ham"]), None) == [dense]


def test_of_several_figures_the_nearest_is_taken() -> None:
    """Layers before epochs before sparsity; what is equally near is shown, all of it."""
    acdc = of_sources(["acdc"])
    one = spec_of(next(figure for figure in acdc if figure.sparsity == 0.9))
    assert [figure.top1 for figure in matching(one, acdc, "global")] == [75.03]
    assert [figure.top1 for figure in matching(one, acdc, "uniform")] == [75.04]
    assert [figure.top1 for figure in matching(one | {"schedule.epochs": 180}, acdc, "uniform")] == [76.09]
    assert [figure.top1 for figure in matching(one | {"schedule.epochs": 180}, acdc, "global")] == [75.03]
    mest = of_sources(["mest"])
    assert [figure.note for figure in matching(spec_of(mest[0]), mest, "ERK")] == ["1x", "1.5x"]
    reached = of_sources(["str"])
    assert [
        figure.sparsity for figure in matching(spec_of(reached[1], **{"topology.sparsity": 0.9}), reached, None)
    ] == [0.9023]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([75.3] * 3, "reproduced"),  # an interval without width, on the end of the margin
        ([74.7] * 3, "reproduced"),
        ([75.3001] * 3, "above"),
        ([74.6999] * 3, "below"),
        ([75.0] * 2, "too few seeds"),
        ([80.0], "too few seeds"),
        ([], "not run"),
    ],
)
def test_verdicts_at_the_edges(values: list[float], said: str) -> None:
    assert judged(values) == said


@pytest.mark.parametrize("seeds", [3, 4, 5, 10])
@pytest.mark.parametrize("margin", [0.1, 0.3, 1.0])
def test_an_end_of_the_interval_at_the_margin(seeds: int, margin: float) -> None:
    """The interval's end is moved across each end of the margin."""
    std = 0.3 * margin
    half = float(student.ppf(0.95, seeds - 1)) * std / math.sqrt(seeds)
    spread = [value * 100 - 75 for value in sample(replace(FIGURE, spread=std), seeds)]
    assert half < margin

    def at(shift: float) -> str:
        return judged([75 + shift + value for value in spread], margin)

    tiny = 1e-6
    for side, beyond in ((1, "above"), (-1, "below")):
        assert at(side * (margin - half - tiny)) == "reproduced"
        assert at(side * (margin - half + tiny)) == "undecided"
        assert at(side * (margin + half - tiny)) == "undecided"
        assert at(side * (margin + half + tiny)) == beyond


def test_how_much_seeds_may_scatter() -> None:
    assert most_spread(3, 0.3) == pytest.approx(0.3 * math.sqrt(3) / student.ppf(0.95, 2))
    for seeds in (3, 5):
        for factor, said in ((0.999, "reproduced"), (1.001, "undecided")):
            figure = replace(FIGURE, spread=factor * most_spread(seeds, 0.3))
            assert judged([100 * value for value in sample(figure, seeds)]) == said


@given(st.lists(st.integers(7300, 7700), min_size=3, max_size=6), st.floats(0.01, 2))
def test_a_verdict_is_that_of_its_interval(values: list[int], margin: float) -> None:
    ours = summarise(value / 10_000 for value in values)
    assert ours is not None
    found = apart(ours, FIGURE)
    assert found is not None
    assert found.low <= found.mean <= found.high
    said = verdict(ours, FIGURE, margin)
    assert (said == "reproduced") == (max(-found.low, found.high) <= margin + 1e-9)
    assert (said in ("above", "below")) == (found.low > margin + 1e-9 or found.high < -margin - 1e-9)
    mirrored = summarise((15_000 - value) / 10_000 for value in values)
    assert verdict(mirrored, FIGURE, margin) == {"above": "below", "below": "above"}.get(said, said)


def test_a_published_spread_counts_only_where_its_kind_is_known() -> None:
    ours = Summary(3, 0.75, 0.001, 0.749, 0.751)
    alone = apart(ours, FIGURE)
    assert alone == apart(ours, replace(FIGURE, spread=None)) == apart(ours, replace(FIGURE, seeds=5))
    known = apart(ours, replace(FIGURE, spread=0.2, spread_of="std", seeds=5))
    assert known is not None
    part, other = 0.1**2 / 3, 0.2**2 / 5
    freedom = (part + other) ** 2 / (part**2 / 2 + other**2 / 4)  # Welch and Satterthwaite
    assert known.high == pytest.approx(student.ppf(0.95, freedom) * math.sqrt(part + other))
