"""Data: contents, splits, order and the messages for what can be wrong with files and numbers."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import math
import struct
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments import data
from experiments.data import Arrays, fashion_mnist, synthetic
from experiments.data.bundle import DataBundle, check_divisible, split
from experiments.data.sampler import SeekableSampler, Shard
from experiments.errors import UserError
from experiments.seeding import derived_seed

SCRIPT = Path(__file__).parents[3] / "scripts" / "make_fashion_mnist.py"


@dataclass(frozen=True)
class Spec:
    name: str = "synthetic"
    root: str | None = None
    image_size: int | None = None
    batch_size: int = 32
    drop_last: bool = True
    validation: int = 100
    train_limit: int | None = None
    evaluate_on: str = "test"
    workers: int = 0


@pytest.fixture(scope="module")
def embedded() -> Arrays:
    return fashion_mnist.load(None)


def build(spec: Spec, seed: int = 0, channels_last: bool = False) -> DataBundle:
    built = data.build(spec, seed, "cpu", channels_last)
    assert isinstance(built, DataBundle)
    return built


def said(error: pytest.ExceptionInfo[UserError]) -> str:
    return f"{error.value.where}: {error.value}"


# --- the embedded part of Fashion-MNIST


def test_embedded_shapes_types_and_balance(embedded: Arrays):
    assert embedded.train_images.shape == (5000, 28, 28)
    assert embedded.test_images.shape == (10000, 28, 28)
    assert embedded.train_images.dtype == embedded.test_images.dtype == np.uint8
    assert embedded.train_labels.dtype == embedded.test_labels.dtype == np.int64
    assert Counter(embedded.train_labels.tolist()) == dict.fromkeys(range(10), 500)
    assert Counter(embedded.test_labels.tolist()) == dict.fromkeys(range(10), 1000)


def test_embedded_is_fashion_mnist_in_file_order(embedded: Arrays):
    # The labels that begin the published files, as printed in many a tutorial.
    assert embedded.train_labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert embedded.test_labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    # Trousers are two bright legs with a dark gap between.
    trouser = embedded.train_images[embedded.train_labels == 1].mean(axis=0)
    assert trouser[22, 10] > 1.5 * trouser[22, 14]
    assert embedded.train_images.mean() / 255 == pytest.approx(fashion_mnist.MEAN, abs=0.005)
    assert embedded.train_images.std() / 255 == pytest.approx(fashion_mnist.STD, abs=0.005)


def test_content_hash_depends_on_content_only(embedded: Arrays):
    assert fashion_mnist.load(None).content_hash == embedded.content_hash
    swapped = replace(embedded, train_labels=embedded.train_labels[::-1])
    assert swapped.content_hash != embedded.content_hash


def test_damaged_embedded_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    content = bytearray(fashion_mnist.EMBEDDED.read_bytes())
    content[3_000_000] ^= 1
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(content)
    monkeypatch.setattr(fashion_mnist, "EMBEDDED", damaged)
    with pytest.raises(UserError, match="damaged") as error:
        fashion_mnist.load(None)
    assert str(damaged) in said(error)


def test_lost_embedded_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fashion_mnist, "EMBEDDED", tmp_path / "none.npz")
    with pytest.raises(UserError, match="cannot be read"):
        fashion_mnist.load(None)


# --- idx files


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def small_set() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    train, test = (np.tile(np.arange(10, dtype=np.uint8), copies) for copies in (6, 2))
    return {
        "train-images-idx3-ubyte": random.integers(0, 256, (60, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": random.permutation(train),
        "t10k-images-idx3-ubyte": random.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": random.permutation(test),
    }


def write_set(folder: Path, gzipped: bool = False, changed: dict[str, bytes] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in small_set().items():
        content = (changed or {}).get(name.split("-idx")[0].replace("-", "_"), idx(array))
        path = folder / f"{name}.gz" if gzipped else folder / name
        path.write_bytes(gzip.compress(content) if gzipped else content)


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("inner", ["", "FashionMNIST/raw"])
def test_idx_round_trip(tmp_path: Path, gzipped: bool, inner: str):
    write_set(tmp_path / inner, gzipped)
    loaded = fashion_mnist.load(str(tmp_path))
    written = list(small_set().values())
    found = [loaded.train_images, loaded.train_labels, loaded.test_images, loaded.test_labels]
    assert all(np.array_equal(a, b) for a, b in zip(found, written, strict=True))
    assert loaded.train_labels.dtype == np.int64
    moved = tmp_path / "elsewhere"
    write_set(moved)
    assert fashion_mnist.load(moved).content_hash == loaded.content_hash


IMAGES, LABELS = small_set()["train-images-idx3-ubyte"], small_set()["train-labels-idx1-ubyte"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train_images": idx(IMAGES)[:-1]}, ["train-images-idx3-ubyte", "47,039", "47,040"]),
        ({"train_images": idx(IMAGES) + b"x"}, ["train-images-idx3-ubyte", "47,041"]),
        ({"train_images": idx(IMAGES)[:9]}, ["incomplete idx header"]),
        ({"t10k_labels": b"<html>not found</html>"}, ["t10k-labels-idx1-ubyte", "not an idx file"]),
        ({"t10k_labels": b""}, ["t10k-labels-idx1-ubyte", "not an idx file"]),
        ({"train_labels": idx(LABELS, kind=13)}, ["train-labels-idx1-ubyte", "0x0d", "0x08"]),
        ({"train_labels": idx(LABELS[:-1])}, ["[60, 28, 28]", "[59]"]),
        ({"train_images": idx(IMAGES[:, :, :27])}, ["[60, 28, 27]", "[N, 28, 28]"]),
        ({"train_labels": idx(LABELS + 1)}, ["train part", "10"]),
        ({"train_labels": idx(LABELS % 9)}, ["train part", "0 to 9"]),
    ],
)
def test_wrong_idx_files_are_refused(tmp_path: Path, changed: dict[str, bytes], words: list[str]):
    write_set(tmp_path, changed=changed)
    with pytest.raises(UserError) as error:
        fashion_mnist.load(tmp_path)
    for word in ["data.root", str(tmp_path), *words]:
        assert word in said(error)


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_truncated_gzip_is_refused(tmp_path: Path, keep: int):
    write_set(tmp_path, gzipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz"):
        fashion_mnist.load(tmp_path)


def test_corrupt_gzip_is_refused(tmp_path: Path):
    write_set(tmp_path, gzipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz cannot be read"):
        fashion_mnist.load(tmp_path)


def test_missing_folder_and_files_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="is not a folder") as error:
        fashion_mnist.load(tmp_path / "nowhere")
    assert "data.root" in said(error)
    with pytest.raises(UserError, match="holds no Fashion-MNIST") as error:
        fashion_mnist.load(tmp_path)
    assert "FashionMNIST/raw" in said(error)
    assert "t10k-labels-idx1-ubyte[.gz]" in said(error)
    write_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="lacks") as error:
        fashion_mnist.load(tmp_path)
    assert "t10k-labels-idx1-ubyte[.gz]" in said(error)
    assert "train-images" not in said(error)


def test_script_writes_equal_bytes_and_first_of_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module_spec = importlib.util.spec_from_file_location("make_fashion_mnist", SCRIPT)
    assert module_spec is not None
    assert module_spec.loader is not None
    script = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(script)
    write_set(tmp_path / "idx", gzipped=True)
    monkeypatch.setattr(script, "PER_CLASS", 2)
    written = []
    for name in ("a.npz", "b.npz"):
        monkeypatch.setattr(sys, "argv", ["x", "--source", str(tmp_path / "idx"), "--output", str(tmp_path / name)])
        script.main()
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    seen: Counter[int] = Counter()
    expected = []
    for position, label in enumerate(LABELS.tolist()):
        seen[label] += 1
        if seen[label] <= 2:
            expected.append(position)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert np.array_equal(archive["train_images"], IMAGES[expected])
        assert np.array_equal(archive["train_labels"], LABELS[expected])
        assert np.array_equal(archive["test_images"], small_set()["t10k-images-idx3-ubyte"])


# --- the synthetic set


def test_synthetic_is_fixed_and_learnable():
    arrays = synthetic.load(None)
    assert synthetic.load(None).content_hash == arrays.content_hash == "bf447e5e01befc4f"
    means = np.stack([arrays.train_images[arrays.train_labels == c].mean(axis=0) for c in range(10)])
    distance = ((arrays.test_images[:, None].astype(float) - means) ** 2).sum(axis=(2, 3))
    assert (distance.argmin(axis=1) == arrays.test_labels).mean() > 0.95
    assert len(np.unique(arrays.train_images, axis=0)) == 400


def test_synthetic_refuses_a_root(tmp_path: Path):
    with pytest.raises(UserError, match="has no files"):
        build(Spec(root=str(tmp_path)))


# --- splits


def test_validation_is_the_last_of_each_class(embedded: Arrays):
    train, held = split(embedded.train_labels, 10, 1000, None)
    assert sorted([*train, *held]) == list(range(5000))
    for label in range(10):
        positions = [i for i, found in enumerate(embedded.train_labels.tolist()) if found == label]
        assert [i for i in train.tolist() if embedded.train_labels[i] == label] == positions[:400]
        assert [i for i in held.tolist() if embedded.train_labels[i] == label] == positions[400:]


def test_train_limit_takes_the_first_of_what_is_left(embedded: Arrays):
    whole, held = split(embedded.train_labels, 10, 1000, None)
    few, same = split(embedded.train_labels, 10, 1000, 300)
    assert np.array_equal(held, same)
    labels = embedded.train_labels
    assert few.tolist() == sorted(i for c in range(10) for i in [j for j in whole if labels[j] == c][:30])


def test_split_does_not_depend_on_the_seed_but_order_does():
    first, second = build(Spec(), seed=0), build(Spec(), seed=1)
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.validation.images, second.validation.images)
    (_, labels), (_, others) = next(first.batches(0, 0)), next(second.batches(0, 0))
    assert not torch.equal(labels, others)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (Spec(validation=105), ["data.validation", "105", "multiple", "10"]),
        (Spec(validation=-10), ["data.validation", "-10"]),
        (Spec(validation=400), ["data.validation", "nothing to train on", "390"]),
        (Spec(validation=1000), ["data.validation", "nothing to train on"]),
        (Spec(train_limit=15), ["data.train_limit", "15", "multiple"]),
        (Spec(train_limit=0), ["data.train_limit", "0"]),
        (Spec(train_limit=310), ["data.train_limit", "310", "300"]),
        (Spec(batch_size=301), ["data.batch_size", "301", "300"]),
        (Spec(batch_size=101, train_limit=100), ["data.batch_size", "101", "100"]),
        (Spec(batch_size=0), ["data.batch_size"]),
        (Spec(validation=0, evaluate_on="validation"), ["data.evaluate_on", "data.validation"]),
        (Spec(name="fashion_mnst"), ["data.name", "did you mean 'fashion_mnist'", "synthetic"]),
        (Spec(name="cifar"), ["data.name", "cifar10, cifar100, fashion_mnist, imagenet, synthetic"]),
        (Spec(image_size=32), ["data.image_size", "32", "28 pixels", "null"]),
    ],
)
def test_impossible_data_is_refused(spec: Spec, words: list[str]):
    with pytest.raises(UserError) as error:
        build(spec)
    for word in words:
        assert word in said(error)


def test_a_last_batch_too_small_to_share_is_refused():
    check_divisible(48, 16, 2, 4)
    with pytest.raises(UserError, match="16 images, too few for 3 ranks × 3 micro-batches with two each") as error:
        check_divisible(48, 16, 3, 3)
    assert error.value.where == "data.drop_last"


def test_an_epoch_keeps_its_last_batch_by_option():
    bundle = build(Spec(batch_size=32, drop_last=False))
    assert [len(labels) for _, labels in bundle.batches(0)] == [32] * 9 + [12]
    outline = data.outline(Spec(batch_size=32, drop_last=False))
    assert (outline.steps_per_epoch, outline.last_batch, outline.rarest) == (10, 12, 30)
    outline = data.outline(Spec(batch_size=32))
    assert (outline.steps_per_epoch, outline.last_batch, outline.rarest) == (9, 32, 18)


# --- the bundle


def test_bundle_normalises_the_embedded_set(embedded: Arrays):
    bundle = build(Spec(name="fashion_mnist", validation=1000, batch_size=128))
    assert (bundle.num_classes, bundle.in_channels, bundle.image_size) == (10, 1, 28)
    assert (len(bundle.train), len(bundle.validation), len(bundle.test)) == (4000, 1000, 10000)
    assert bundle.steps_per_epoch == 31
    assert bundle.content_hash == embedded.content_hash == data.content_hash("fashion_mnist", None)
    assert bundle.test.images.shape == (10000, 1, 28, 28)
    assert bundle.test.images.dtype == torch.float32
    expected = (embedded.test_images[:50, None] / 255.0 - 0.2860) / 0.3530
    np.testing.assert_allclose(bundle.test.images[:50].numpy(), expected, atol=1e-6)
    assert bundle.test.labels.tolist() == embedded.test_labels.tolist()


def test_the_own_size_of_images_may_be_said():
    assert build(Spec(image_size=28)).image_size == 28


def test_synthetic_is_normalised():
    images = build(Spec()).train.images
    assert abs(float(images.mean())) < 0.05
    assert float(images.std()) == pytest.approx(1, abs=0.05)


def test_largest_batch_and_whole_training_part():
    bundle = build(Spec(validation=0, batch_size=400))
    assert bundle.steps_per_epoch == 1
    assert len(bundle.validation) == 0
    assert list(bundle.evaluate_batches("validation")) == []
    _, labels = next(bundle.batches(0))
    assert Counter(labels.tolist()) == dict.fromkeys(range(10), 40)


@pytest.mark.parametrize(("part", "size"), [("validation", 1500), ("test", 10000)])
def test_evaluation_sees_every_image_once(part, size: int):
    bundle = build(Spec(name="fashion_mnist", validation=1500))
    batches = list(bundle.evaluate_batches(part))
    assert [len(labels) for _, labels in batches] == [1000] * (size // 1000) + [500] * (size % 1000 > 0)
    held = getattr(bundle, part)
    assert torch.equal(torch.cat([images for images, _ in batches]), held.images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), held.labels)


def test_training_batches_keep_images_and_labels_together():
    bundle = build(Spec(batch_size=50))
    label_of = {
        bytes(image.numpy().data): int(label) for image, label in zip(*vars(bundle.train).values(), strict=True)
    }
    epoch = list(bundle.batches(3))
    pairs = [
        (bytes(image.numpy().data), int(label))
        for images, labels in epoch
        for image, label in zip(images, labels, strict=True)
    ]
    assert dict(pairs) == label_of
    assert len(pairs) == len(label_of) == 300


def test_channels_last_keeps_values_and_layout():
    plain, last = build(Spec()), build(Spec(), channels_last=True)
    (images, _), (moved, _) = next(plain.batches(0)), next(last.batches(0))
    assert torch.equal(images, moved)
    assert images.stride() == (784, 784, 28, 1)
    assert moved.stride() == (784, 1, 28, 1)


def test_hash_needs_no_torch():
    code = (
        "import sys; from experiments import data; print(data.content_hash('synthetic', None), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [synthetic.load(None).content_hash, "False"]


# --- the sampler


@given(
    size=st.integers(1, 300),
    batch_size=st.integers(1, 300),
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 10**6),
    where=st.floats(0, 1),
    drop_last=st.booleans(),
    ranks=st.integers(1, 4),
)
def test_seeking_equals_iterating(
    size: int, batch_size: int, seed: int, epoch: int, where: float, drop_last: bool, ranks: int
):
    sampler = SeekableSampler(size, min(batch_size, size), seed, drop_last=drop_last)
    whole = list(sampler.batches(epoch))
    full = size // sampler.batch_size
    assert len(whole) == sampler.steps_per_epoch == (full if drop_last else math.ceil(size / sampler.batch_size))
    drawn = torch.cat(whole).tolist()
    assert len(set(drawn)) == len(drawn) == (full * sampler.batch_size if drop_last else size)
    assert set(drawn) <= set(range(size))
    assert len(whole[-1]) == sampler.last_batch
    assert all(len(one) == sampler.batch_size for one in whole[:-1])
    start = round(where * len(whole))
    torch.rand(3)  # the global generator plays no part
    rest = list(SeekableSampler(size, sampler.batch_size, seed, drop_last=drop_last).batches(epoch, start))
    if sampler.batch_size % ranks == 0:
        shards = [Shard(rank, ranks) for rank in range(ranks)]
        shares = [list(SeekableSampler(size, sampler.batch_size, seed, s, drop_last).batches(epoch)) for s in shards]
        assert all(torch.equal(torch.cat(parts), one) for *parts, one in zip(*shares, whole, strict=True))
    assert len(rest) == len(whole) - start
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[start:], strict=True))


def test_orders_differ_between_epochs_and_seeds():
    orders = {
        tuple(SeekableSampler(50, 5, seed).permutation(epoch).tolist()) for seed in range(4) for epoch in range(5)
    }
    assert len(orders) == 20
    assert all(sorted(order) == list(range(50)) for order in orders)


@pytest.mark.parametrize(("epoch", "start"), [(-1, 0), (0, -1), (0, 6)])
def test_positions_out_of_range_are_refused(epoch: int, start: int):
    sampler = SeekableSampler(11, 2, 0)
    assert list(sampler.batches(0, 5)) == []
    with pytest.raises(ValueError, match="-1|6"):
        sampler.batches(epoch, start)


@pytest.mark.parametrize("batch_size", [0, 12])
def test_impossible_batch_size_is_refused(batch_size: int):
    with pytest.raises(ValueError, match="batch_size"):
        SeekableSampler(11, batch_size, 0)


# --- seeds


def test_derived_seed_is_the_head_of_sha256():
    digest = hashlib.sha256(b"7/order/3").hexdigest()
    assert derived_seed(7, "order", 3) == int(digest[:16], 16) // 2
    assert 0 <= derived_seed(-1, "init") < 2**63
    assert len({derived_seed(seed, purpose) for seed in range(50) for purpose in ("init", "mask", "order")}) == 150
