"""CIFAR from generated folders in its formats: contents, augmentation, what pickles may not do."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from experiments import data
from experiments.data import cifar
from experiments.data.augment import CropFlip
from experiments.data.bundle import DataBundle
from experiments.data.plain_pickle import PickleError, read_plain_pickle
from experiments.data.sampler import Shard
from experiments.errors import UserError
from experiments.seeding import derived_seed


@dataclass(frozen=True)
class Spec:
    name: str = "cifar10"
    root: str | None = None
    image_size: int | None = None
    batch_size: int = 20
    drop_last: bool = True
    validation: int = 10
    train_limit: int | None = None
    evaluate_on: str = "test"
    workers: int = 0


def some(rows: int, classes: int, seed: int) -> tuple[NDArray[np.uint8], list[int]]:
    random = np.random.RandomState(seed)
    labels = [(3 * row) % classes for row in range(rows)]
    return random.randint(0, 256, size=(rows, 3072), dtype=np.uint8), labels


def old_style(batch: dict[str, Any]) -> bytes:
    """A pickle as Python 2 and its numpy wrote it: text opcodes of protocol 0 would do, the set has protocol 2."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value  # BINSTRING

    pixels, labels, key = batch["data"], batch["labels"], batch["key"]
    numbers = b"".join(b"M" + struct.pack("<H", label) for label in labels)
    state = b"K\x01" + b"M" + struct.pack("<H", len(pixels)) + b"M\x00\x0c" + b"\x86"  # version, shape
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(" + state + dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    return b"\x80\x02}(" + text(b"data") + array + text(key.encode()) + b"](" + numbers + b"eu."


def write(folder: Path, name: str, *, binary: bool = False, per_file: int = 20) -> Path:
    """A small set in one of its published forms; equal images in all of them."""
    hundred = name == "cifar100"
    layout = (cifar.LAYOUTS_100 if hundred else cifar.LAYOUTS_10)[binary]
    folder = folder / layout.folder
    folder.mkdir(parents=True)
    for seed, file in enumerate(layout.files):
        pixels, labels = some(100 if hundred else per_file, 100 if hundred else 10, seed)
        if binary:
            columns = np.array([[7, label] if hundred else [label] for label in labels], dtype=np.uint8)
            (folder / file).write_bytes(np.concatenate([columns, pixels], axis=1).tobytes())
        else:
            key = "fine_labels" if hundred else "labels"
            (folder / file).write_bytes(old_style({"data": pixels, "labels": labels, "key": key}))
    return folder


def build(spec: Spec, seed: int = 0, shard: Shard | None = None, channels_last: bool = False) -> DataBundle:
    built = data.build(spec, seed, "cpu", channels_last, shard)
    assert isinstance(built, DataBundle)
    return built


def refused(name: str, root: Path | str | None) -> str:
    data.content_hash.cache_clear()
    with pytest.raises(UserError) as error:
        data.content_hash(name, None if root is None else str(root))
    assert error.value.where == "data.root"
    assert "\n" not in str(error.value)
    return str(error.value)


# --- contents


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_contents(tmp_path: Path, name: str, binary: bool):
    folder = write(tmp_path, name, binary=binary)
    arrays = data.find(name).load(str(folder))  # pyright: ignore[reportAttributeAccessIssue]
    files, rows = (1, 100) if name == "cifar100" else (5, 20)
    assert arrays.train_images.shape == (files * rows, 3, 32, 32)
    for seed in range(files):
        pixels, labels = some(rows, 100 if name == "cifar100" else 10, seed)
        part = slice(seed * rows, (seed + 1) * rows)
        assert np.array_equal(arrays.train_images[part].reshape(rows, 3072), pixels)
        assert arrays.train_labels[part].tolist() == labels
    pixels, labels = some(rows, 100 if name == "cifar100" else 10, files)
    assert np.array_equal(arrays.test_images.reshape(rows, 3072), pixels)
    assert (arrays.test_labels.tolist(), arrays.test_labels.dtype) == (labels, np.int64)


def test_both_forms_have_one_hash_and_the_folder_above_will_do(tmp_path: Path):
    python, binary = write(tmp_path / "a", "cifar10"), write(tmp_path / "b", "cifar10", binary=True)
    hashes = {data.content_hash("cifar10", str(path)) for path in (python, python.parent, binary, binary.parent)}
    assert len(hashes) == 1
    first = binary / "data_batch_1.bin"
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    data.content_hash.cache_clear()
    assert data.content_hash("cifar10", str(binary)) not in hashes


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_of_python_3_are_read_too(tmp_path: Path, protocol: int):
    batch = {b"data": some(4, 10, 0)[0], b"labels": [1, 2, 3, 4], "filenames": ["a", b"b"], "n": (1.5, None, True)}
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(batch, protocol=protocol))
    found = read_plain_pickle(path)
    assert np.array_equal(found.pop(b"data"), batch.pop(b"data"))
    assert found == batch


def test_the_hash_needs_no_torch(tmp_path: Path):
    folder = write(tmp_path, "cifar10")
    code = (
        f"import sys; from experiments import data; data.content_hash('cifar10', {str(folder)!r});"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


# --- what a pickle may not do


class Calls:
    def __init__(self, function: Any, *arguments: Any):
        self.called = (function, arguments)

    def __reduce__(self):
        return self.called


class OwnArray(np.ndarray):
    pass


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (Calls(os.system, "touch {trace}"), "it names posix.system"),
        (Calls(eval, "open('{trace}', 'w')"), ".eval, and only"),
        (Calls(getattr, {}, "keys"), ".getattr, and only"),
        (np.random.RandomState(0), "it names numpy.random"),
        (np.zeros(3).view(OwnArray), "it names"),
        (np.zeros(3), "only unsigned bytes"),
        (np.array([print], dtype=object), "only unsigned bytes"),
        (np.array([None], dtype=object), "only unsigned bytes"),
    ],
    ids=["system", "eval", "getattr", "other numpy", "array class", "floats", "objects", "no objects"],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_runs_nothing(tmp_path: Path, content: Any, reason: str, protocol: int):
    folder, trace = write(tmp_path, "cifar10"), tmp_path / "trace"
    if isinstance(content, Calls) and content.called[0] in (os.system, eval):
        content = Calls(content.called[0], content.called[1][0].format(trace=trace))
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": content, b"labels": [0]}, protocol=protocol))
    text = refused("cifar10", folder)
    assert f"{folder / 'data_batch_3'} is not a batch of CIFAR's python version: " in text
    assert reason in text
    assert not trace.exists()


def test_the_calls_above_would_run(tmp_path: Path):
    """The files of the test before are dangerous to an ordinary reader."""
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(Calls(os.system, f"touch {trace}")))
    assert trace.exists()


def test_names_that_are_known_cannot_be_bent(tmp_path: Path):
    """The allowed functions called with what is not theirs, spelt out in the machine's own instructions."""
    path = tmp_path / "batch"
    for program in (
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",  # a codec of its own
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85U\x01b\x87R.",  # not ndarray
        b"\x80\x02cnumpy\nndarray\n)R.",  # ndarray called
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # ndarray made anew
        b"\x80\x02cnumpy\ndtype\nU\x01O\x85R.",  # objects
        b"\x80\x02P1\n.",  # a persistent reference
        b"\x80\x02\x82\x01.",  # an extension
    ):
        path.write_bytes(program)
        with pytest.raises(PickleError):
            read_plain_pickle(path)


# --- files that are wrong


@pytest.mark.parametrize("keep", [0, 1, 100, 3000, -1])
def test_cut_files_are_refused(tmp_path: Path, keep: int):
    for binary in (False, True):
        folder = write(tmp_path / str(binary), "cifar10", binary=binary)
        path = folder / ("data_batch_2.bin" if binary else "data_batch_2")
        path.write_bytes(path.read_bytes()[:keep])
        assert str(path) in refused("cifar10", folder)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({b"labels": [0]}, "has no 'data' of shape [N, 3072]"),
        ({b"data": np.zeros((2, 3071), np.uint8), b"labels": [0, 1]}, "has no 'data' of shape"),
        ({b"data": [1, 2], b"labels": [0, 1]}, "has no 'data' of shape"),
        ({b"data": np.zeros((2, 3072), np.uint8)}, "has no 'labels', a list of whole numbers"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [0, 1]}, "has no 'labels'"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1.5]}, "has no 'labels'"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "has 2 images and 1 labels"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}, "labels from 0 to 10; expected are 0 to 9"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, -1]}, "labels from -1 to 0"),
        ({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}, "has no images"),
        ([1, 2], "it holds no dictionary"),
    ],
)
def test_wrong_batches_are_refused(tmp_path: Path, batch: Any, words: str):
    folder = write(tmp_path, "cifar10")
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=4))
    text = refused("cifar10", folder)
    assert f"{folder / 'test_batch'} " in text
    assert words in text


def test_wrong_folders_are_refused(tmp_path: Path):
    assert "does not come with the package; give the folder that holds cifar-10-batches-py" in refused("cifar10", None)
    assert f"{tmp_path / 'nowhere'} is not a folder" in refused("cifar10", tmp_path / "nowhere")
    assert "holds no CIFAR-100; expected is cifar-100-python or cifar-100-binary" in refused("cifar100", tmp_path)
    folder = write(tmp_path, "cifar10")
    assert "holds no CIFAR-100" in refused("cifar100", folder)
    for name in ("data_batch_2", "test_batch"):
        (folder / name).unlink()
    assert f"{folder} lacks data_batch_2, test_batch" in refused("cifar10", folder)


def test_a_class_without_images_is_refused(tmp_path: Path):
    folder = write(tmp_path, "cifar10")
    pixels, _ = some(20, 10, 0)
    labels = [row % 9 for row in range(20)]
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": pixels, b"labels": labels}, protocol=2))
    assert "its test part has 9 of 10 classes" in refused("cifar10", folder)


# --- the bundle


def test_the_bundle_is_normalised_by_channel(tmp_path: Path):
    folder = write(tmp_path, "cifar10")
    bundle = build(Spec(root=str(folder)))
    assert (bundle.num_classes, bundle.in_channels, bundle.image_size) == (10, 3, 32)
    assert (len(bundle.train), len(bundle.validation), len(bundle.test)) == (90, 10, 20)
    pixels = some(20, 10, 5)[0].reshape(-1, 3, 32, 32)
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)))
    np.testing.assert_allclose(bundle.test.images.numpy(), (pixels / 255 - mean) / std, atol=1e-6)
    assert Counter(bundle.test.labels.tolist()) == dict.fromkeys(range(10), 2)


def literal(image: torch.Tensor, top: int, left: int, mirrored: int, fill: torch.Tensor) -> torch.Tensor:
    """Pad each channel with its own black, cut out, mirror; one image, in three words."""
    padded = torch.stack([F.pad(image[c], (4, 4, 4, 4), value=float(fill[c])) for c in range(len(image))])
    crop = padded[:, top : top + 32, left : left + 32]
    return crop.flip(2) if mirrored else crop


def test_training_images_are_cropped_and_mirrored_as_drawn(tmp_path: Path):
    bundle = build(Spec(root=str(write(tmp_path, "cifar10"))), seed=3)
    assert bundle.augment is not None
    draws = bundle.augment.draws(2)
    order = bundle.sampler.permutation(2)
    black = (0 - torch.tensor(cifar.MEAN_10)) / torch.tensor(cifar.STD_10)
    seen = 0
    for images, labels in bundle.batches(2):
        for image, label in zip(images, labels, strict=True):
            index = int(order[seen])
            place = int(bundle.positions[index])  # in the file: held-out images do not shift what is drawn
            top, left, mirrored = draws[place].tolist()
            torch.testing.assert_close(image, literal(bundle.train.images[index], top, left, mirrored, black))
            assert label == bundle.train.labels[index]
            seen += 1
    assert seen == 80


def test_draws_cover_all_places_and_are_even():
    draws = CropFlip(9000, 4, torch.zeros(3), 1).draws(0)
    assert draws.shape == (9000, 3)
    for column, values in ((0, 9), (1, 9), (2, 2)):
        counts = torch.bincount(draws[:, column], minlength=values)
        assert len(counts) == values
        assert counts.min() > 0.85 * 9000 / values
    joint = torch.bincount(draws[:, 0] * 9 + draws[:, 1], minlength=81)
    assert joint.min() > 60  # of 111: rows and columns are drawn apart


def test_an_image_is_a_function_of_seed_epoch_and_image_alone(tmp_path: Path):
    folder = str(write(tmp_path, "cifar10"))

    def shown(bundle: DataBundle, epoch: int, start: int = 0) -> dict[int, torch.Tensor]:
        """What each image of the file looks like in an epoch."""
        order = bundle.sampler.permutation(epoch)[bundle.sampler.batch_size * start :]
        batches = list(bundle.batches(epoch, start))
        assert bundle.sampler.shard.size == 1
        images = torch.cat([images for images, _ in batches])
        return {int(bundle.positions[i]): image for i, image in zip(order[: len(images)], images, strict=True)}

    whole = shown(build(Spec(root=folder)), 1)
    torch.manual_seed(99)
    torch.rand(7)  # the global generator plays no part
    for other in (
        shown(build(Spec(root=folder)), 1, start=2),
        shown(build(Spec(root=folder, batch_size=7)), 1),
        shown(build(Spec(root=folder, validation=0, train_limit=50, batch_size=50)), 1),
    ):
        common = set(whole) & set(other)
        assert len(common) > 20
        assert all(torch.equal(whole[place], other[place]) for place in common)
    for other in (shown(build(Spec(root=folder)), 2), shown(build(Spec(root=folder), seed=1), 1)):
        assert sum(torch.equal(whole[place], other[place]) for place in set(whole) & set(other)) < 5
    assert derived_seed(0, "augment", 1) != derived_seed(0, "order", 1)


def test_ranks_see_their_parts_of_the_same_images(tmp_path: Path):
    folder = str(write(tmp_path, "cifar10"))
    whole = list(build(Spec(root=folder)).batches(0))
    parts = [list(build(Spec(root=folder), shard=Shard(rank, 2)).batches(0)) for rank in (0, 1)]
    for (images, labels), (first, _), (second, others) in zip(whole, *parts, strict=True):
        assert torch.equal(images, torch.cat([first, second]))
        assert torch.equal(labels[10:], others)


def test_evaluation_leaves_images_alone(tmp_path: Path):
    bundle = build(Spec(root=str(write(tmp_path, "cifar10"))))
    for part in ("validation", "test"):
        (images, _) = next(iter(bundle.evaluate_batches(part)))
        assert torch.equal(images, getattr(bundle, part).images)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_layout_in_memory_survives_augmentation(tmp_path: Path, channels_last: bool):
    spec = Spec(root=str(write(tmp_path, "cifar10")))
    images, _ = next(build(spec, channels_last=channels_last).batches(0))
    plain, _ = next(build(spec).batches(0))
    assert torch.equal(images, plain)
    assert images.stride() == ((3072, 1, 96, 3) if channels_last else (3072, 1024, 32, 1))


def test_other_sets_are_not_augmented():
    bundle = data.build(Spec(name="synthetic"), 0, "cpu", False)
    assert isinstance(bundle, DataBundle)
    assert bundle.augment is None
    with pytest.raises(UserError, match="have 28 pixels"):
        data.build(Spec(name="synthetic", image_size=32), 0, "cpu", False)
