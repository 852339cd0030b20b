"""Pruning at initialisation by scores, against sums done by hand and a Hessian written out in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsity
from sparsity import registry
from sparsity.masking import scores
from sparsity.options import Infeasible
from sparsity.targets import targets

SCORED = [name for name, kind in registry.topologies().items() if kind.needs_probe]


def layer(*rows: list[float]) -> nn.Linear:
    made = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        made.weight.copy_(torch.tensor(rows))
    return made


def first_minus_second(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits[:, 0] - logits[:, 1]).mean()


def probe(images: Tensor, labels: Tensor | None = None, loss: Any = first_minus_second, **more: Any) -> sparsity.Probe:
    """Every image is a batch unless `size` says otherwise."""
    size = more.pop("size", 1)
    labels = torch.zeros(len(images), dtype=torch.long) if labels is None else labels
    batches = list(zip(images.split(size), labels.split(size), strict=True))
    return sparsity.Probe(lambda: iter(batches), loss, tuple(images.shape[1:]), more.pop("num_classes", 2), **more)


def attach(topology: str, model: nn.Module, share: float, given: sparsity.Probe | None, **options: Any):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = {"sparsity": share, "total_steps": 4, "steps_per_epoch": 2, "probe": given, **options}
    return sparsity.attach(topology, model, optimizer, **settings)


# ---- SNIP -----------------------------------------------------------------------------------------------------------


def test_snip_by_hand():
    # logits W x with x = (1, 2), loss logit0 - logit1
    # W   1  -2     g   1   2     |g w|   1  4     keep   .  x
    #     3  .5        -1  -2             3  1            x  .      |g| alone would keep the second column
    model = layer([1, -2], [3, 0.5])
    sparse = attach("snip", model, 0.5, probe(torch.tensor([[1.0, 2.0]])))
    assert sparse.masks["weight"].tolist() == [[False, True], [True, False]]
    assert model.weight.tolist() == [[0, -2], [3, 0]]
    assert [event["event"] for event in sparse.events] == ["initial"]


def test_snip_compares_all_layers():
    # x = (1, 1); h = W1 x = (1, 2); dL/dh = W2^T (1, -1) = (3, 2)
    # |g W1|   3*2  3*1      |g W2|   1*4  2*1     keep the 4 largest of 8
    #          2*1  2*1               1*1  2*1
    # W1 entries: 2, -1, 1, 1 times 3, 3, 2, 2
    network = nn.Sequential(layer([2, -1], [1, 1]), layer([4, 1], [1, -1]))
    found = scores.snip(network, first_minus_second, probe(torch.ones(1, 2)).micro_batches(1))
    assert found["0.weight"].tolist() == [[6, 3], [2, 2]]
    assert found["1.weight"].tolist() == [[4, 2], [1, 2]]
    sparse = attach("snip", network, 0.5, probe(torch.ones(1, 2)))
    # 6, 4, 3, and one of the four tied twos, which is drawn
    assert sparse.masks["0.weight"].tolist()[0] == [True, True]
    assert bool(sparse.masks["1.weight"][0, 0])
    assert sum(sparse.masks.num_active().values()) == 4
    assert sparse.events[-1]["drawn"] == 1


def test_snip_scores_the_mean_gradient_of_its_batches():
    # gradients of logit0 - logit1 for x = (1, 2) and (3, -2): their mean is (2, 0), of one sign a row
    images = torch.tensor([[1.0, 2.0], [3.0, -2.0]])
    for parts in (probe(images).micro_batches(2), probe(images, size=2, parts=2).micro_batches(1)):
        found = scores.snip(layer([1, -2], [3, 0.5]), first_minus_second, parts)
        assert found["weight"].tolist() == [[2, 0], [6, 0]]


def test_snip_weighs_parts_by_their_images():
    images = torch.tensor([[1.0, 2.0], [3.0, -2.0], [5.0, 3.0]])
    found = scores.snip(layer([1, 1], [1, 1]), first_minus_second, probe(images, size=2).micro_batches(2))
    assert found["weight"].tolist() == [[3, 1], [3, 1]]  # mean of all three: (3, 1)


# ---- SynFlow --------------------------------------------------------------------------------------------------------


def test_synflow_by_hand():
    # |W1|   1  2    |W1| 1 = 3     |W2| = 5 1     R = 5*3 + 1*7 = 22
    #        3  4             7
    # scores W1   5*1  5*2     W2   5*3  1*7        each layer adds up to R
    #             1*3  1*4
    network = scores.linearise(nn.Sequential(layer([1, -2], [3, 4]), nn.ReLU(), layer([-5, 1])))
    found = scores.synflow(network, (2,))
    assert found["0.weight"].tolist() == [[5, 10], [3, 4]]
    assert found["2.weight"].tolist() == [[15, 7]]


def funnel() -> nn.Sequential:
    """Four weights in, two, two out; all one."""
    return nn.Sequential(layer([1, 1, 1, 1]), layer([1], [1]), layer([1, 1]))


def test_synflow_in_one_shot_cuts_through_a_layer():
    # R = 8; scores 2 2 2 2 | 4 4 | 4 4: three of them are all in the small layers
    sparse = attach("synflow", funnel(), 1 - 3 / 8, probe(torch.ones(1, 4)), rounds=1)
    assert sparse.masks.num_active() == {"0.weight": 0, "1.weight": 2, "2.weight": 1}


def test_synflow_in_many_rounds_does_not():
    # 2 2 2 2 | 4 4 | 4 4     R = 8
    # 2 2 2 . | 3 3 | 3 3     R = 6
    # 2 2 . . | 2 2 | 2 2     R = 4, all are tied: the last goes
    # 1 1 . . | 2 0 | 2 .     R = 2, its partner has nothing and goes
    # 1 1 . . | 2 . | 2 .     one of the ones goes
    sparse = attach("synflow", funnel(), 1 - 3 / 8, probe(torch.ones(1, 4)))
    assert sparse.masks.num_active() == {"0.weight": 1, "1.weight": 1, "2.weight": 1}
    assert sparse.masks["1.weight"].flatten().tolist() == sparse.masks["2.weight"].flatten().tolist()


def test_synflow_keeps_powers_of_the_density(monkeypatch: pytest.MonkeyPatch):
    # 1/16 in four rounds: scored are 16, then 8, 4 and 2 weights, and one is left
    scored, synflow = [], scores.synflow

    def counted(network: nn.Module, input_shape: tuple[int, ...]) -> scores.Scores:
        scored.append(sum(int(weight.count_nonzero()) for weight in [target.weight for target in targets(network)]))
        return synflow(network, input_shape)

    monkeypatch.setattr(scores, "synflow", counted)
    sparse = attach("synflow", layer(*[[1.0] * 4] * 4), 15 / 16, probe(torch.ones(1, 4)), rounds=4)
    assert scored == [16, 8, 4, 2]
    assert sparse.masks.num_active() == {"weight": 1}


def test_synflow_survives_where_single_precision_would_not():
    # each layer multiplies by 100, 30 of them by 1e60
    network = nn.Sequential(*(layer(*[[10.0] * 10] * 10) for _ in range(30)))
    sparse = attach("synflow", network, 0.5, probe(torch.ones(1, 10)), rounds=3)
    assert sum(sparse.masks.num_active().values()) == 1500
    assert network[0].weight.dtype == torch.float32


def test_synflow_refuses_what_even_double_precision_does_not_hold():
    network = nn.Sequential(*(layer(*[[1e4] * 100] * 100) for _ in range(60)))
    with pytest.raises(Infeasible, match=r"the scores of 0\.weight are not finite"):
        attach("synflow", network, 0.5, probe(torch.ones(1, 100)))


def test_synflow_uses_stored_statistics_and_absolute_values_of_all_parameters():
    network = nn.Sequential(layer([2, -3]), nn.BatchNorm1d(1), layer([-1.0]))
    with torch.no_grad():
        network[1].weight.fill_(-2.0)
        network[1].running_var.fill_(4.0 - network[1].eps)
    found = scores.synflow(scores.linearise(network), (2,))
    # normalisation divides by sqrt(4) and multiplies by |-2|
    torch.testing.assert_close(found["0.weight"], torch.tensor([[2.0, 3.0]], dtype=torch.float64))
    torch.testing.assert_close(found["2.weight"], torch.tensor([[5.0]], dtype=torch.float64))


def test_synflow_refuses_a_network_with_a_closed_block():
    network = nn.Sequential(layer([1, 1], [1, 1]), nn.BatchNorm1d(2), layer([1, 1]))
    nn.init.zeros_(network[1].weight)
    with pytest.raises(Infeasible, match=r"nothing flows through 0\.weight"):
        attach("synflow", network, 0.5, probe(torch.ones(1, 2)))


# ---- GraSP ----------------------------------------------------------------------------------------------------------


def half_square(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits**2).mean() / 2


QUADRATIC = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
"""Images of half the mean square of w x: H = mean x x^T = (2.5 .5; .5 .5)."""


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_grasp_by_hand(temperature: float):
    # w = (-1, 5); g = H w = (0, 2); H g = (1, 1); w (H g) = (-1, 5)
    # dividing the logit by T divides H and g by T^2
    one_by_one, together = probe(QUADRATIC, loss=half_square), probe(QUADRATIC, loss=half_square, size=2)
    for given, batches in ((one_by_one, 2), (together, 1)):
        parts = partial(given.micro_batches, batches)
        found = scores.grasp(layer([-1, 5]), half_square, parts, temperature)
        torch.testing.assert_close(found["weight"], torch.tensor([[-1.0, 5.0]]) / temperature**4)
    # -w (H g) = (1, -5): the highest goes
    sparse = attach("grasp", layer([-1, 5]), 0.5, one_by_one, per_class=None, batches=2, temperature=temperature)
    assert sparse.masks["weight"].tolist() == [[False, True]]


def bent_net() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def test_grasp_equals_the_full_hessian():
    network = bent_net()
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    labels = torch.arange(12) % 3
    weights = {name: p.detach() for name, p in network.named_parameters() if name.endswith("weight")}
    flat = torch.cat([weight.flatten() for weight in weights.values()])

    def loss_of(vector: Tensor) -> Tensor:
        parts = vector.split([weight.numel() for weight in weights.values()])
        given = {name: part.view(weights[name].shape) for name, part in zip(weights, parts, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(network, given, images) / 200, labels)

    gradient = torch.func.grad(loss_of)(flat)
    hessian = torch.autograd.functional.hessian(loss_of, flat)
    expected = flat * (hessian @ gradient)
    given = probe(images, labels, nn.functional.cross_entropy, size=4, num_classes=3)
    found = scores.grasp(network, given.loss, lambda: given.micro_batches(3), 200.0)
    torch.testing.assert_close(torch.cat([found[name].flatten() for name in weights]), expected, rtol=1e-9, atol=0)
    # what goes has the highest -expected
    sparse = attach("grasp", bent_net(), 0.4, given, per_class=4)
    kept = torch.cat([sparse.masks[name].flatten() for name in weights])
    assert int(kept.sum()) == 21
    assert expected[kept].min() > expected[~kept].max()
    assert bool((expected[~kept].abs() > expected[kept].abs().min()).any())  # the sign matters


# ---- the probe ------------------------------------------------------------------------------------------------------


def counting(labels: list[int], size: int, **more: Any) -> sparsity.Probe:
    images = torch.arange(len(labels), dtype=torch.float32).view(-1, 1)
    return probe(images, torch.tensor(labels), size=size, **more)


def flat(batches: Iterator[tuple[Tensor, Tensor]]) -> list[list[float]]:
    return [images.flatten().tolist() for images, _ in batches]


def test_a_class_balanced_batch_takes_the_first_of_each_class():
    given = counting([0, 0, 0, 1, 2, 0, 1, 2, 2], 3, num_classes=3)
    assert flat(given.class_balanced(2)) == [[0, 1, 3], [4, 6, 7]]
    with pytest.raises(
        Infeasible, match="3 images of each class are asked for, but the batches of one epoch have 2 of"
    ):
        list(given.class_balanced(3))


def test_micro_batches_are_equal_parts_of_batches():
    given = counting([0] * 8, 4, parts=2)
    assert flat(given.micro_batches(1)) == [[0, 1], [2, 3]]
    assert flat(given.micro_batches(2)) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    with pytest.raises(Infeasible, match="3 batches are asked for, but the training data have 2"):
        list(given.micro_batches(3))


# ---- all of them ----------------------------------------------------------------------------------------------------


def small_net() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5)),
    )


def images_and_labels(touch: Callable[[], None] = lambda: None, dtype: torch.dtype = torch.float32) -> sparsity.Probe:
    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        touch()
        generator = torch.Generator().manual_seed(4)
        for _ in range(4):
            yield torch.randn(15, 1, 6, 6, generator=generator).to(dtype), torch.arange(15) % 5

    return sparsity.Probe(batches, nn.functional.cross_entropy, (1, 6, 6), 5, parts=3)


SMALL: dict[str, dict[str, Any]] = {"grasp": {"per_class": 6}, "synflow": {"rounds": 20}}


@pytest.mark.parametrize("topology", SCORED)
def test_scoring_leaves_no_trace_but_the_mask(topology: str):
    model = small_net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    sparse = attach(topology, model, 0.7, images_and_labels(), **SMALL.get(topology, {}))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name] * sparse.masks.get(name, torch.tensor(True))), name
    total = sum(mask.numel() for mask in sparse.masks.values())
    assert sum(sparse.masks.num_active().values()) == total - int(0.7 * total + 1e-6)
    # the same whatever the global random state was, dropout included
    torch.manual_seed(99)
    again = attach(topology, small_net_as(before), 0.7, images_and_labels(), **SMALL.get(topology, {}))
    assert again.masks.digest() == sparse.masks.digest()


def small_net_as(state: dict[str, Tensor]) -> nn.Sequential:
    model = small_net()
    model.load_state_dict(state)
    torch.rand(7)  # somewhere else in the stream
    return model


@pytest.mark.parametrize("representation", ["product", "sign_in", "str"])
@pytest.mark.parametrize("topology", SCORED)
def test_scores_act_on_theta_under_every_representation(topology: str, representation: str):
    # in double precision: the factors of a product make θ again only to rounding, which may turn a choice
    images = images_and_labels(dtype=torch.float64)
    reference = attach(topology, small_net().double(), 0.7, images, **SMALL.get(topology, {}))
    model = small_net().double()
    sparsity.represent(model, representation)
    sparse = attach(topology, model, 0.7, images, **SMALL.get(topology, {}))
    assert sparse.masks.digest() == reference.masks.digest()
    for name, theta in sparse.representation.weights():
        assert not theta[~sparse.masks[name]].any()


@pytest.mark.parametrize("topology", SCORED)
def test_scores_come_through_wrappers(topology: str):
    reference = attach(topology, small_net(), 0.7, images_and_labels(), **SMALL.get(topology, {}))
    wrapped = torch.compile(small_net(), backend="eager")
    assert attach(topology, wrapped, 0.7, images_and_labels(), **SMALL.get(topology, {})).masks == reference.masks


@pytest.mark.parametrize("topology", SCORED)
def test_layers_can_stay_dense(topology: str):
    options = {**SMALL.get(topology, {}), "dense": "first_last"}
    # 36 + 216 + 120 weights; 30 % of 372 is 112 (zeros 260): too few for 156 dense ones
    with pytest.raises(Infeasible, match=r"hold 41\.94% of the weights, more than the density 30\.00% allows"):
        attach(topology, small_net(), 0.7, images_and_labels(), **options)
    sparse = attach(topology, small_net(), 0.5, images_and_labels(), **options)
    assert list(sparse.masks.num_active().values()) == [36, 186 - 156, 120]
    sparse = attach(topology, small_net(), 0.7, images_and_labels(), **options, rebudget=False)
    assert list(sparse.masks.num_active().values()) == [36, 216 - 151, 120]
    assert sparse.topology.expected_active(sparse.shapes, 0.7) == 36 + 65 + 120


@pytest.mark.parametrize("topology", SCORED)
def test_without_a_probe_it_is_refused(topology: str):
    with pytest.raises(ValueError, match=f"topology '{topology}' scores weights before training: give probe="):
        attach(topology, small_net(), 0.7, None)
    assert attach(topology, small_net(), 0.0, None).masks.density == 1


@pytest.mark.parametrize("topology", SCORED)
def test_at_sparsity_zero_no_data_are_read(topology: str):
    def touched() -> None:
        raise AssertionError("data were read")

    assert attach(topology, small_net(), 0.0, images_and_labels(touched)).masks.density == 1


@pytest.mark.parametrize("topology", SCORED)
def test_normalisation_over_ranks_is_scored_in_one_process(topology: str):
    reference = attach(topology, small_net(), 0.7, images_and_labels(), **SMALL.get(topology, {}))
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(small_net())  # which computes on GPUs alone
    sparse = attach(topology, synchronised, 0.7, images_and_labels(), **SMALL.get(topology, {}))
    assert sparse.masks == reference.masks
    assert isinstance(synchronised[1], nn.SyncBatchNorm)


def test_scores_that_are_not_numbers_are_refused():
    model = layer([1.0, float("inf")], [1.0, 1.0])
    with pytest.raises(Infeasible, match="snip: the scores of weight are not finite"):
        attach("snip", model, 0.5, probe(torch.ones(1, 2)))


def test_a_copy_may_be_folded_without_harm_to_the_network():
    model = small_net()
    held = sparsity.represent(model, "product")
    before = {name: theta.clone() for name, theta in held.weights()}
    plain = held.plain_copy()
    assert {name for name, _ in plain.named_parameters()} == {name for name, _ in small_net().named_parameters()}
    for name, parameter in plain.named_parameters():
        if name in before:
            assert torch.equal(parameter, before[name])
            parameter.data.zero_()
    assert all(torch.equal(theta, before[name]) for name, theta in held.weights())
    held.fold()
    assert all(torch.equal(theta, before[name]) for name, theta in held.weights())


def normalised() -> nn.Sequential:
    """A network whose batch statistics are far from those that it has learnt to use in evaluation."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    model[1].running_mean.fill_(1.0)  # pyright: ignore
    model[1].running_var.copy_(torch.arange(1.0, 9.0) ** 3)  # pyright: ignore
    return model


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_scores_are_those_of_training_mode(name: str, training: bool):
    """Whatever mode the network is handed over in; the mode and the statistics stay as they are."""
    images, labels = torch.randn(24, 4), torch.arange(24) % 3
    given = probe(images, labels, nn.functional.cross_entropy, size=12, num_classes=3)

    def masks(network: nn.Module) -> dict[str, Tensor]:
        parts = list(zip(images[:12].split(12), labels[:12].split(12), strict=True))
        if name == "snip":
            found = scores.snip(network, given.loss, parts)
        else:
            found = scores.grasp(network, given.loss, lambda: parts, 200.0)
        return scores_kept(found, 0.5)

    options = {"per_class": None, "batches": 1} if name == "grasp" else {}
    model = normalised().train(training)
    before = model[1].running_mean.clone()  # pyright: ignore
    chosen = attach(name, model, 0.5, given, **options).masks
    trained, evaluated = masks(normalised().train()), masks(normalised().eval())
    assert all(torch.equal(chosen[layer], trained[layer]) for layer in chosen)
    assert any(not torch.equal(chosen[layer], evaluated[layer]) for layer in chosen)
    assert model.training is training
    assert torch.equal(model[1].running_mean, before)  # pyright: ignore


def scores_kept(found: scores.Scores, sparsity_: float) -> dict[str, Tensor]:
    """The highest scores of all layers together."""
    flat = torch.cat([score.flatten() for score in found.values()])
    threshold = flat.sort(descending=True).values[round((1 - sparsity_) * len(flat)) - 1]
    return {name: score >= threshold for name, score in found.items()}


def test_grasp_weighs_parts_by_their_images():
    """Parts of five, two and one image are one batch of eight."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    images, labels = torch.randn(8, 3).double(), torch.arange(8) % 2

    def parts(*sizes: int) -> list[tuple[Tensor, Tensor]]:
        return list(zip(images.split(list(sizes)), labels.split(list(sizes)), strict=True))

    found = [
        scores.grasp(network, nn.functional.cross_entropy, lambda sizes=sizes: parts(*sizes), 2.0)
        for sizes in ((8,), (5, 2, 1))
    ]
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name])
