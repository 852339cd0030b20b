"""`check_pair`: train one topology with one representation, and compare what they state with what happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sparsity.representation import Representation
from sparsity.topology import Topology

from .short_run import OPTIMIZERS, SHORT, SPARSITY, STEPS, MakeOptimizer, ShortRun


def require(holds: bool, message: str) -> None:
    """Raise an `AssertionError` with a message unless a condition holds, also under ``python -O``."""
    if not holds:
        raise AssertionError(message)


def check_pair(
    topology: str,
    representation: str,
    make_optimizer: MakeOptimizer = OPTIMIZERS["SGD"],
    options: Mapping[str, Mapping[str, Any]] = SHORT,
) -> None:
    """Train one topology with one representation and check everything that both state.

    Example:
        >>> from sparsity import testing
        >>> testing.check_pair("random", "plain")

    Args:
        topology: A registered topology.
        representation: A registered representation.
        make_optimizer: Function from parameter groups to an optimizer.
        options: Method to options, for methods whose options are not those of `SHORT`.

    Raises:
        AssertionError: for the first difference between what is stated and what happens.
    """
    try:
        run = ShortRun(topology, representation, make_optimizer, options=options)
        start, saved = run.thetas(), b""
        half = run.sparse.total_steps // 2 + 1
        for step in range(run.sparse.total_steps):
            if step == half:
                saved = run.save()
            run.step(step)
            _check_step(run, step)
        still = [name for name, theta in run.thetas().items() if torch.equal(theta, start[name])]
        require(
            not still, f"{', '.join(still)} did not change in {run.sparse.total_steps} steps: do gradients reach it?"
        )
        _check_resumed(run, saved, half)
        _check_events(run)
        _check_end(run)
    except AssertionError as error:
        used = {
            name: given for name, given in {**SHORT, **options}.items() if name in (topology, representation) and given
        }
        words = f"topology {topology!r} with representation {representation!r}{f' and options {used}' if used else ''}"
        raise AssertionError(f"{words}: {error}") from error


def _check_step(run: ShortRun, step: int) -> None:
    for name, theta in run.sparse.representation.weights():
        require(
            not bool(theta[~run.sparse.masks[name]].any()),
            f"pruned weights of {name} are not zero after step {step}: look at the representation's zero_pruned",
        )
        require(bool(torch.isfinite(theta).all()), f"{name} is not finite after step {step}")


def _check_resumed(run: ShortRun, saved: bytes, step: int) -> None:
    resumed = run.again()
    resumed.load(saved)
    for index in range(step, run.sparse.total_steps):
        resumed.step(index)
    other = resumed.network.state_dict()
    different = [key for key, value in run.network.state_dict().items() if not torch.equal(other[key], value)]
    if resumed.sparse.masks.digest() != run.sparse.masks.digest():
        different.append("masks")
    if resumed.sparse.event_counts != run.sparse.event_counts:
        different.append(f"events ({resumed.sparse.event_counts} instead of {run.sparse.event_counts})")
    macs = dict.fromkeys(run.sparse.shapes, 1)
    if resumed.sparse.cost.fraction(macs) != run.sparse.cost.fraction(macs):
        different.append("training FLOPs (steps at which `grad` is read)")
    if different:
        raise AssertionError(
            f"a run that was saved after {step} steps and resumed ends with other {', '.join(different)}: list in "
            f"`state` the attributes that hooks change{_unsaved(run)}"
        )


def _unsaved(run: ShortRun) -> str:
    """Name the attributes of the methods that training has changed and that are not saved."""
    first, found = run.again(), []
    for method, fresh in ((run.sparse.topology, first.sparse.topology), (run.rep, first.rep)):
        named = {*type(method).state_names(), "options", *vars(Representation(None)), "_model"}
        for key, value in vars(method).items():
            try:
                same = key in named or bool(value == vars(fresh).get(key))
            except RuntimeError:  # tensors and containers of tensors
                same = False
            if not same:
                found.append(f"{type(method).__name__}.{key}")
    return f" (changed and not saved: {', '.join(found)})" if found else ""


def _check_events(run: ShortRun) -> None:
    counts, expected = run.sparse.event_counts, run.sparse.expected_events()
    mask_events = [event for event in run.sparse.events if "dropped" in event]
    # events beyond the announced ones are observations, such as the first zeros of a threshold, which change no mask
    announced = {kind: number for kind, number in counts.items() if kind in expected}
    stated = {kind: number for kind, number in expected.items() if number}
    require(announced == stated, f"expected_events states {stated}, but these events happened: {counts}")
    unannounced = {event["event"] for event in mask_events} - set(expected)
    require(not unannounced, f"set_masks recorded {', '.join(unannounced)}, which expected_events does not name")
    require(sum(counts.values()) == len(run.sparse.events), f"{counts} do not match the list of events")
    topology = run.sparse.topology
    kind, base = type(topology), Topology
    acts = [(kind.after_backward, base.after_backward), (kind.after_step, base.after_step)]
    if any(own is not default for own, default in [*acts, (kind.next_level, base.next_level)]):
        during = [event for event in mask_events if event["event"] != "initial"]
        require(
            bool(during),
            f"{kind.__name__} has a hook that acts during training, but set no masks within {STEPS} steps: give "
            "options under which it does",
        )


def _check_end(run: ShortRun) -> None:
    shapes, theta, masks = dict(run.sparse.shapes), run.thetas(), run.sparse.masks
    stated = run.sparse.expected_active()
    try:
        nonzero = run.sparse.finalize()
    except RuntimeError as error:
        raise AssertionError(f"{error}: look at expected_active, or at the counts of the masks that are set") from error
    parameters = dict(run.network.named_parameters())
    require(list(nonzero) == list(shapes), "fold did not leave one plain weight per layer")
    for name, number in nonzero.items():
        require(torch.equal(parameters[name], theta[name]), f"fold changed θ of {name}")
        active = masks.num_active()[name]
        require(
            number == int((parameters[name] != 0).sum()) <= active,
            f"{name} has {number} non-zero weights and {active} active ones",
        )
    if stated is not None:
        active = sum(masks.num_active().values())
        require(active == stated, f"expected_active states {stated} active weights at the end, the masks have {active}")
        # zeros of a representation that makes them without masks come in addition to those of the masks
        if not run.rep.uses_sparsity or run.rep.expected_active(shapes, SPARSITY) is not None:
            total = sum(nonzero.values())
            require(
                total == stated, f"expected_active states {stated}, but {total} weights are not zero: some stay at 0"
            )
    if run.sparse.topology.uses_sparsity or run.rep.uses_sparsity:
        require(
            sum(nonzero.values()) < sum(masks.sizes.values()),
            f"uses_sparsity is true and the target {SPARSITY}, but no weight is zero at the end",
        )
