"""`ham bench`: what it reports, on a network small enough for a test; nothing here depends on a clock."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence

import pytest
import torch
from typer.testing import CliRunner

from experiments import bench
from experiments.bench.memory import LiveBytes, Peak, living
from experiments.bench.methods import EPOCHS, STEPS, STEPS_PER_EPOCH
from experiments.bench.optimizer import GUARDS, _Tensors, _timings
from experiments.bench.trial import Trial, build_network
from experiments.cli.main import app
from experiments.errors import UserError
from sparsity import registry

MEGA = 1 << 20


def tensor(megabytes: int) -> torch.Tensor:
    return torch.zeros(megabytes * MEGA, dtype=torch.uint8)


@pytest.fixture(scope="module")
def found() -> Mapping[str, bench.Cost]:
    """A method of each kind of calendar: none, phases, many updates, rare ones, several trainings, once an epoch."""
    names = ["dense", "acdc", "rigl", "granet", "imp", "sign_in", "spred", "product"]
    measured = bench.methods(names, model="resnet8", rounds=1)
    parameters = build_network("resnet8", torch.device("cpu")).parameters()
    assert measured.weights == sum(p.numel() for p in parameters if p.ndim > 1)
    assert measured.optimizer_ms > 0
    assert [cost.name for cost in measured.costs] == [*sorted(names[:5]), *sorted(names[5:])]
    return {cost.name: cost for cost in measured.costs}


@pytest.mark.robust
def test_events_are_found_and_counted(found: Mapping[str, bench.Cost]):
    def per_training(name: str) -> Mapping[str, int]:
        cost = found[name]
        assert set(cost.updates) >= set(cost.per_training)  # each kind was seen and timed
        assert cost.share is not None
        return cost.per_training

    assert per_training("dense") == {}
    assert per_training("acdc") == {"compress": 8, "decompress": 7}
    # every 100 steps from step 0 to 3/4 of training
    assert per_training("rigl") == {"update": 0.75 * STEPS // 100 + 1}
    assert per_training("imp") == {"prune": 11}
    assert per_training("sign_in")["reset"] in (EPOCHS, EPOCHS - 1)
    assert per_training("spred") == {"cut": 1}
    assert per_training("granet")["update"] <= STEPS // 4000


@pytest.mark.robust
def test_the_share_over_training_is_the_mean_of_steps_and_updates(found: Mapping[str, bench.Cost]):
    rigl = found["rigl"]
    assert rigl.step is not None
    rate = rigl.per_training["update"] / STEPS
    assert rigl.share == pytest.approx((1 - rate) * rigl.step + rate * rigl.updates["update"])
    imp = found["imp"]
    assert imp.step is not None
    rate = 11 / (12 * STEPS)
    assert imp.share == pytest.approx((1 - rate) * imp.step + rate * imp.updates["prune"])


@pytest.mark.robust
def test_memory_is_counted_in_copies_of_the_weights(found: Mapping[str, bench.Cost]):
    # a mask is a byte a weight, a quarter of a copy; of a sparse network there is its negation too
    assert found["dense"].memory == pytest.approx(0.25, abs=0.02)
    assert found["rigl"].memory >= 0.5
    # twice the weights, gradients and momenta make three copies more, θ itself may come on top
    assert 3.2 < found["product"].memory < 5
    # the weights to go back to
    assert found["imp"].memory > 1.4


def test_live_bytes_follow_what_is_made_and_what_ends():
    gc.collect()
    old = tensor(3)
    besides = living()
    own = tensor(2)  # made before it begins, but no part of what was there
    with LiveBytes(besides) as live:
        assert live.now == 2 * MEGA
        kept = tensor(4) + 1  # one of two stays
        assert live.now == 6 * MEGA
        assert live.peak == 10 * MEGA
        view = kept[: MEGA // 2].view(-1)
        assert live.now == 6 * MEGA
        del kept
        assert live.now == 6 * MEGA  # the view holds all of it
        del view
        assert live.now == 2 * MEGA
        old.add_(1)
        assert live.now == 2 * MEGA
        del own
        assert live.now == 0
        assert live.peak == 10 * MEGA


def test_peak_begins_anew_each_time():
    device = torch.device("cpu")
    before = Peak.before(device)
    held = tensor(1)
    with Peak(device, before) as peak:
        tensor(8)
        assert peak.bytes == 9 * MEGA
    with Peak(device, before) as peak:
        assert peak.bytes == held.nbytes


def test_a_jump_keeps_masks_and_lets_due_updates_happen():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.Flatten(), torch.nn.Linear(256, 10))
    trial = Trial("rigl", "plain", network, steps=STEPS, steps_per_epoch=STEPS_PER_EPOCH)
    digest = trial.sparse.masks.digest()
    assert trial.step()[1] == ["update"]
    assert trial.step()[1] == []
    trial.jump(1000)
    assert trial.sparse.steps_done == 1000
    assert trial.step()[1] == ["update"]
    assert trial.step()[1] == []
    assert trial.sparse.masks.digest() != digest
    trial.jump(STEPS - 10)
    assert trial.step()[1] == []


@pytest.mark.parametrize("representation", registry.representations())
def test_the_gradients_given_are_those_of_theta(representation: str):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.Flatten(), torch.nn.Linear(256, 10))
    trial = Trial("dense", representation, network, steps=10, steps_per_epoch=5)
    trial.backward()
    for name, slot in trial.rep.slots.items():
        gradient = trial.rep.grad(*slot.factors)
        assert gradient is not None
        reachable = slot.weight != 0  # elsewhere not every representation has one
        torch.testing.assert_close(gradient[reachable], trial._gradients[name][reachable], rtol=1e-3, atol=1e-7)
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_command_prints_a_table_and_json():
    arguments = ["bench", "methods", "random", "powerprop", "--model", "resnet8", "--rounds", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "90% sparse, cpu" in lines[0]
    rows: Sequence[str] = [line.split()[0] for line in lines[lines.index("") + 1 :]]
    assert list(rows) == ["method", "random", "powerprop"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    costs = json.loads(result.stdout)["costs"]
    assert [(cost["kind"], cost["name"]) for cost in costs] == [("topology", "random"), ("representation", "powerprop")]


def test_errors_are_one_message():
    for names, device, words in (
        (["rgl"], "cpu", "NAME: 'rgl' is not a method; allowed: acdc"),
        (["rigl"], "gpu", "--device: 'gpu' is not one of auto, cpu, cuda"),
    ):
        with pytest.raises(UserError) as error:
            bench.methods(names, model="resnet8", device=device)
        assert words in str(error.value)
    with pytest.raises(UserError, match="NAME: 'fused' is not a form; allowed: single, foreach, compiled"):
        bench.optimizer(["fused"], model="resnet8")
    with pytest.raises(UserError, match="--device: 'gpu' is not one of auto, cpu, cuda"):
        bench.optimizer([], model="resnet8", device="gpu")
    result = CliRunner().invoke(app, ["bench", "methods", "--threads", "1"])
    assert "--threads: belongs to ham bench optimizer" in str(result.exception)


@pytest.mark.parametrize("as_json", [False, True])
def test_the_optimizer_is_timed_by_part_form_and_guard(as_json: bool):
    arguments = ["bench", "optimizer", "foreach", "--model", "resnet8", "--rounds", "2", "--threads", "1"]
    result = CliRunner().invoke(app, [*arguments, *(["--json"] if as_json else [])])
    assert result.exit_code == 0, result.output
    guards = [f"foreach, {guard}" for guard in ("no guard", "NaN", "norm", "NaN and norm")]
    if not as_json:
        lines = result.stdout.splitlines()
        assert lines[0].endswith("cpu, 1 threads, 2 rounds")
        assert [line.partition("  ")[0] for line in lines if line.startswith("foreach")] == guards
        assert "Aims" not in result.stdout  # of the compiled form, which was not asked for
        return
    found = json.loads(result.stdout)
    timings = {(timing["part"], timing["name"]): timing for timing in found["timings"]}
    assert [name for part, name in timings if part == "rule"] == ["published listing", *guards]
    assert {name for part, name in timings if part == "step"} >= {"SGD", "SGD fused", "HAM(SGD)", "published listing"}
    assert timings["step", "SGD"]["base"] == timings["rule", "published listing"]["listing"] == 1.0
    first, third = timings["step", "SGD"]["quartiles"]
    assert first <= timings["step", "SGD"]["floor"] <= third


def test_the_ratios_are_medians_of_pairs():
    seconds = {
        ("step", "SGD"): [(1.0, 2.0), (2.0, 4.0), (4.0, 12.0)],
        ("step", "published listing"): [(1.0, 20.0), (1.0, 80.0), (1.0, 60.0)],
        ("rule", "published listing"): [(1.0, 8.0), (1.0, 8.0), (1.0, 8.0)],
        ("rule", "compiled, NaN and norm"): [(1.0, 2.0), (2.0, 8.0), (1.0, 4.0)],
    }
    sgd, listing, _, compiled = _timings(seconds)
    assert (sgd.ms, sgd.floor, sgd.quartiles, sgd.listing, sgd.base) == (4000.0, 2.0, (2.0, 2.5), 10.0, 1.0)
    assert listing.base == 10.0
    assert (compiled.floor, compiled.listing, compiled.base) == (4.0, 2.0, 1.0)


def test_the_contenders_do_what_they_are_named_after():
    """Every rule leaves the weights where the listing does, and every step of HAM where the listing's step does."""

    def after(part: str, name: str) -> list[torch.Tensor]:
        tensors = _Tensors("resnet8", torch.device("cpu"))
        for param in tensors.params:
            assert param.grad is not None
            param.grad.mul_(1e3)
        {**tensors.steps(), **tensors.rules(["single", "foreach"])}[part, name]()
        return [param.detach() for param in tensors.params]

    for part, names in {
        "step": ["HAM(SGD)", "HAM(SGD fused)", "HAM, gradients copied"],
        "rule": [f"{form}, {guard}" for form in ("single", "foreach") for guard in GUARDS],
    }.items():
        expected = after(part, "published listing")
        for name in names:
            torch.testing.assert_close(after(part, name), expected, rtol=1e-5, atol=1e-8)
    for name in ("SGD foreach", "SGD fused"):
        torch.testing.assert_close(after("step", name), after("step", "SGD"), rtol=1e-5, atol=1e-8)
